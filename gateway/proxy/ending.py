"""How an exchange ends otherwise than with an upstream's reply: replies of our own, deadlines, who left, what failed.

Until a reply has begun, an error is a reply; after that it can only cut the connection.
"""

import asyncio
from collections.abc import Sequence
from math import inf
from typing import Final

import structlog

from gateway.auth.credentials import Credential
from gateway.auth.refusal import Refusal
from gateway.errors import Fault, GatewayError, Outage
from gateway.proxy.errors import BadRequest, RateLimited, RequestTimeout, UpstreamError, UpstreamTimeout
from gateway.proxy.recorded import DECIDING, DONE, FORWARDED, RELAYING, UNANSWERED, WAITING, Recorded, Stage
from gateway.proxy.stream_permit import StreamPermit
from gateway.proxy.tally import Outcome
from gateway.proxy.tunnel import GOING_AWAY, POLICY_VIOLATION
from gateway.proxy.upstream_connection import UpstreamConnection

log = structlog.get_logger()

HALF_CLOSED_SECONDS: Final = 1.0  # how long a client that closed its side may wait for the next byte of its reply
CLIENT_CLOSED_REQUEST: Final = 499
UNSENT: Final = "unsent"  # what the meter says of a request whose client left before the upstream had it


class Ending(Recorded):
    """One request and its reply, as they can end at any moment."""

    _connection: UpstreamConnection | None = None
    _task: asyncio.Task[None] | None = None
    _permit: StreamPermit | None = None
    _pending_head = b""  # of the reply, until the first bytes of its body are there
    _limit_lines = b""  # what the reply tells of the caller's limits
    _cors_lines = b""  # what the reply to a page of another origin says
    _is_upstream_blocked = False  # it takes no more of the body
    _client_left_at = inf

    def client_left(self) -> None:
        """The client's connection is gone: nobody is owed a reply, and the upstream must not get a whole request."""
        if self._stage is Stage.TUNNEL:
            self._take_tunnel_bytes()
            self._finish(self._status, FORWARDED)
        elif self._stage is not DONE:
            self._drop_upstream()
            began = UNANSWERED if self._sent_at else UNSENT
            self._finish(CLIENT_CLOSED_REQUEST, Outcome.CLIENT_GONE, code=self._status or began)

    def end_soon(self, *, is_told: bool) -> None:
        """The gateway stops: let the connection end with this exchange. With `is_told`, tell a socket to go.

        Where the reply's head is out, the client may have been promised one more exchange.
        """
        if self._stage is not RELAYING:
            self._request.keeps_alive = False
        if is_told and self._tunnel is not None:
            self._tunnel.end(GOING_AWAY)

    def client_half_closed(self) -> bool:
        """The client will send no more. True if the exchange can still end well."""
        if not self._request.body.is_complete:
            return False
        self._client_left_at = self._services.monotonic() + HALF_CLOSED_SECONDS
        return True

    @property
    def next_deadline(self) -> float:
        """When a sweep will have something to do here, unless something happens before (monotonic)."""
        return min(self.deadline, self._client_left_at)

    def sweep(self, now: float) -> None:
        """Act on deadlines that have passed, and on a key that has been revoked meanwhile."""
        if self._stage in (RELAYING, Stage.TUNNEL) or (self._stage is WAITING and not self._request.body.is_complete):
            self._check_permit(now)  # an upload may last as long as any stream
        if now >= self._meters_at and self._stage is not DONE:
            self._meter_so_far(now)
        if self._tunnel is not None:
            self._tunnel.sweep(now)
            return
        if self._stage is DONE or (now < self.deadline and now < self._client_left_at):
            return
        if now >= self._client_left_at:
            self.client_left()
            self._client.cut()
        elif self._stage is RELAYING:
            self.fail(UpstreamError("the reply stood still for too long"))
        elif not self._request.body.is_complete and not self._is_upstream_blocked:
            self.fail(RequestTimeout("the body stood still for too long"))
        else:
            error = UpstreamTimeout("no reply in time")
            assert self._upstream is not None
            assert self._target is not None
            self._upstream.failed(self._target, error)
            self.fail(error)

    def _check_permit(self, now: float) -> None:
        if self._permit is None:
            match, credential = self._match, self._request.credential
            assert match is not None
            route = match.route
            if not route.closes_revoked or not isinstance(credential, Credential) or route.access.mode == "none":
                return
            self._permit = StreamPermit(self._services.admission, credential, route.access, self._revoked)
        self._permit.check(now)

    def _revoked(self, refusal: Refusal) -> None:
        """The caller's key is no longer admitted: a socket or an upload is told so, a reply is cut (R197)."""
        if self._stage is DONE:
            return
        self._services.tally.stream_closed(refusal.reason)
        if self._tunnel is not None:
            self._tunnel.end(POLICY_VIOLATION)
        elif self._stage is WAITING:
            self._drop_upstream()
            self._answer_refusal(refusal)
        else:
            self._drop_upstream()
            self._finish(self._status, Outcome.CUT)
            self._client.cut()

    def fail(self, error: GatewayError) -> None:
        """End the exchange with an error: a reply if none has begun, else a cut."""
        self._drop_upstream()
        if self._stage is RELAYING and not self._pending_head:
            self._finish(self._status, Outcome.CUT)
            self._client.cut()
        elif self._stage is not DONE:
            self._pending_head = b""
            self._answer_error(error)

    def _drop_upstream(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()
        if self._task is not None and self._task is not asyncio.current_task() and self._stage is DECIDING:
            self._task.cancel()

    # -- replies of our own

    def _answer_refusal(self, refusal: Refusal) -> None:
        closes = self._closes()
        is_head = self.method == b"HEAD"
        status, reply = self._services.replies.refusal(
            refusal, self._request_id, closes=closes, is_head=is_head, cors_lines=self._cors_lines
        )
        self._refused = refusal.owner
        self._answer(status, reply, Outcome.REFUSED, closes, refusal.reason)

    def _answer_error(self, error: GatewayError) -> None:
        if self._stage is DONE:
            return
        closes = self._closes() or isinstance(error, BadRequest)
        outcome = Outcome.OUTAGE if isinstance(error, Outage) else _OUTCOMES[error.fault]
        if isinstance(error, RateLimited):
            outcome, self._limit_lines = Outcome.LIMITED, error.lines
        allowed: Sequence[bytes] = self._match.allowed if self._match is not None else ()
        status, reply = self._services.replies.error(
            error,
            self._request_id,
            closes=closes,
            is_head=self.method == b"HEAD",
            allowed=allowed,
            cors_lines=self._cors_lines + self._limit_lines,
        )
        self._answer(status, reply, outcome, closes, error.code)

    def _answer_unforeseen(self) -> None:
        """An exception that nobody foresaw is a 500, never a pass (R075)."""
        log.exception("unforeseen error in an exchange", request_id=self._request_id.decode())
        self.fail(GatewayError("unforeseen"))

    def _closes(self) -> bool:
        """A body that was not read to its end is never taken for the next request: the connection ends."""
        return not self._request.keeps_alive or not self._request.body.is_complete

    def _answer(self, status: int, reply: bytes, outcome: Outcome, closes: bool, code: int | str) -> None:
        self._client.write(reply)
        self._finish(status, outcome, code=code)
        self._client.finished(not closes)


_OUTCOMES: Final = {
    Fault.CLIENT: Outcome.CLIENT_ERROR,
    Fault.GATEWAY: Outcome.GATEWAY_ERROR,
    Fault.UPSTREAM: Outcome.UPSTREAM_ERROR,
}
