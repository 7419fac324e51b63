"""What a request's tries come to beyond the first: at which target, and how often."""

from typing import Final

from gateway.proxy.errors import UpstreamError, UpstreamHungUp
from gateway.proxy.framing import NO_BODY
from gateway.proxy.request_head import RequestHead
from gateway.proxy.target import Target
from gateway.proxy.upstream import Upstream
from gateway.proxy.upstream_connection import UpstreamConnection

SAFE_TO_REPEAT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})  # RFC 9110 9.2.1; a repeat changes nothing


def is_repeatable(request: RequestHead) -> bool:
    """Whether a second try can do no harm (RFC 9110 9.2.2): an idempotent method, and no body that has begun."""
    return request.method in SAFE_TO_REPEAT and request.body is NO_BODY


class Tries:
    """The tries of one request. `user` is whom consistent hashing goes by."""

    def __init__(self, upstream: Upstream, user: str) -> None:
        self._upstream = upstream
        self._user = user
        self._tried: tuple[Target, ...] = ()
        self._has_forgiven = False

    def after_failure(self, target: Target) -> Target | None:
        """Where to try again now that `target` has failed; None where it is enough. Raises UpstreamUnavailable."""
        self._tried = (*self._tried, target)
        if not self._upstream.may_retry(len(self._tried)):
            return None
        return self._upstream.pick_other(self._user, self._tried)

    def after_loss(self, target: Target, connection: UpstreamConnection, error: UpstreamError) -> Target | None:
        """The same after a connection was lost under a request that may be repeated, and no reply had begun."""
        if connection.is_reused and not self._has_forgiven and isinstance(error, UpstreamHungUp):
            # A kept connection that dies under a request was most likely closing already: that is free, once, and no
            # fault of the target.
            self._has_forgiven = True
            return target
        self._upstream.failed(target, error)
        return self.after_failure(target)
