"""What is known of a request on its way, and who is told of it: the tally, the meter, the access log, its trace.

Must not know: how a request gets from one stage to the next (`Exchange`).
"""

from enum import Enum
from math import inf
from typing import Final

from gateway.auth.admission import Admitted
from gateway.limits.metering import NOBODY, Owner
from gateway.proxy.limiting import Slots, leave
from gateway.proxy.replies import CRLF
from gateway.proxy.request_head import RequestHead
from gateway.proxy.router import Match
from gateway.proxy.services import Client, Services
from gateway.proxy.tally import Outcome
from gateway.proxy.target import Target
from gateway.proxy.tunnel import Tunnel
from gateway.proxy.upstream import Upstream
from gateway.proxy.watch import SLOW_SECONDS, Ended
from gateway.telemetry.stages import WANTED
from gateway.telemetry.tracing import Span

UNANSWERED: Final = "unanswered"  # what the meter says of a request whose client left before a reply had begun
METERED_SECONDS: Final = 5.0  # between two looks at the bytes of a stream or a socket


class Stage(Enum):
    """Where an exchange stands; it moves down this list, but for a second try, which connects again."""

    DECIDING = 1  # a lookup is under way
    CONNECTING = 2
    WAITING = 3  # sent; no byte of the reply yet
    RELAYING = 4
    TUNNEL = 5
    DONE = 6


# By name: to read an enum's member costs as much as to call a small function.
DECIDING: Final = Stage.DECIDING
CONNECTING: Final = Stage.CONNECTING
WAITING: Final = Stage.WAITING
RELAYING: Final = Stage.RELAYING
DONE: Final = Stage.DONE
FORWARDED: Final = Outcome.FORWARDED


class Recorded:
    """One request and its reply, as they are recorded."""

    # Defaults on the class: most exchanges never touch most of these, and setting them costs the warm path.
    deadline = inf  # monotonic; looked at by the sweep
    _stage = DECIDING
    _match: Match | None = None
    _admitted: Admitted | None = None
    _upstream: Upstream | None = None
    _target: Target | None = None
    _status = 0  # of the upstream's reply, once it has begun
    _tunnel: Tunnel | None = None
    _slots: Slots = ()  # what is counted in until it ends
    _body_bytes = 0
    _body_bytes_metered = 0  # those of them that the meter knows already
    _reply_bytes = 0  # those that the meter does not know yet; of the reply's body, or to a tunnel's client
    _reply_bytes_metered = 0
    _meters_at = 0.0  # when the bytes of a long exchange are counted next (monotonic)
    _refused: Owner | None = None  # who was refused, where that is known
    _sent_at = 0.0
    _replied_at = 0.0  # when the reply began, where it did not come whole
    _span: Span | None = None  # where it is traced
    _is_trace_begun = False

    def __init__(self, client: Client, request: RequestHead, services: Services) -> None:
        self._client = client
        self._request = request
        self._services = services
        self.method = request.method
        self._request_id = request_id = request.request_id or services.new_request_id()
        self._request_id_line = services.replies.request_id_start + request_id + CRLF
        self._started_at = services.monotonic()

    def _finish(self, status: int, outcome: Outcome, now: float | None = None, code: int | str = "") -> None:
        """Record, exactly once (R320). `code`: what the meter calls it, where that is not the status."""
        if self._slots:
            leave(self._slots)
        if self._target is not None and self._target.is_on_trial:
            self._target.trial_ended()
        self._stage = DONE
        self.deadline = inf
        route = "none" if self._match is None else self._match.route.name
        if now is None:
            now = self._services.monotonic()
        services = self._services
        seconds = now - self._started_at
        services.tally.finished(route, self.method, status, outcome, seconds)
        if seconds >= services.watched_from_seconds:
            self._tell(status, outcome, str(code), now)
        admitted = self._admitted
        owner: Owner | None = self._refused if admitted is None else admitted.principal
        services.meter.ended(
            NOBODY if owner is None else owner,
            route,
            outcome,
            code or status,
            self._body_bytes - self._body_bytes_metered,
            self._reply_bytes,
        )

    def _tell(self, status: int, outcome: Outcome, code: str, now: float) -> None:
        """Tell whoever looks on how it ended, where anybody wants to know."""
        seconds, watch = now - self._started_at, self._services.watch
        if self._services.tracing is not None:
            self._begin_trace()
        is_logged = watch.is_logged(outcome)
        if not is_logged and self._span is None and seconds < SLOW_SECONDS:
            return
        match, upstream, admitted = self._match, self._upstream, self._admitted
        principal = None if admitted is None else admitted.principal
        watch.ended(
            Ended(
                self._request,
                self._request_id,
                self._client.edge.client_name(self._request.fields.forwarded),
                "none" if match is None else match.route.name,
                status,
                outcome,
                code,
                seconds,
                upstream="" if upstream is None else upstream.name,
                upstream_seconds=(self._replied_at or now) - self._sent_at if self._status else None,
                received_bytes=self._body_bytes,
                sent_bytes=self._reply_bytes + self._reply_bytes_metered,
                auth="" if principal is None else principal.kind.value,
                owner=self._refused if principal is None else principal,
                span=self._span,
            ),
            is_logged=is_logged,
        )

    def _begin_trace(self) -> None:
        """Decide once whether it is traced; what a lookup learns from here on is noted for the trace."""
        tracing = self._services.tracing
        if tracing is None or self._is_trace_begun:
            return
        self._is_trace_begun = True
        self._span = tracing.begin(self._request.kept, self._started_at)
        if self._span is not None:
            WANTED.set(self._span.stages)

    def _traced(self, head: bytes, upstream: Upstream) -> bytes:
        """The head with the trace that it belongs to; as it was where it is not traced."""
        self._begin_trace()
        return head if self._span is None else self._span.carried_by(head, upstream.name)

    def _meter_so_far(self, now: float) -> None:
        """Count the bytes that have passed, so that a stream is seen while it lasts, and not lost with a node."""
        self._meters_at = now + METERED_SECONDS
        self._take_tunnel_bytes()
        received_bytes = self._body_bytes - self._body_bytes_metered
        admitted, match = self._admitted, self._match
        if admitted is not None and match is not None and (received_bytes or self._reply_bytes):
            owner, code = admitted.principal or NOBODY, self._status or UNANSWERED
            self._services.meter.passed(owner, match.route.name, FORWARDED, code, received_bytes, self._reply_bytes)
            self._body_bytes_metered = self._body_bytes
            self._reply_bytes_metered += self._reply_bytes
            self._reply_bytes = 0

    def _take_tunnel_bytes(self) -> None:
        if self._tunnel is not None:
            received_bytes, sent_bytes = self._tunnel.take_bytes()
            self._body_bytes += received_bytes
            self._reply_bytes += sent_bytes
