"""Who looks on: what is told of a request once it has ended, in the access log, in a trace, and as an exemplar.

The warm path pays one comparison for it: `Services.watched_from_seconds` says from which duration on a request is asked
about. That is none where requests are logged or may be traced, and otherwise where a request was slow. Whether anybody
wants to know is decided before anything is put together.
"""

import re
import time
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from gateway.limits.metering import Owner
from gateway.proxy.request_head import RequestHead
from gateway.proxy.tally import METHODS, Outcome
from gateway.telemetry import trace_context
from gateway.telemetry.access import LONGEST_PATH, AccessLog
from gateway.telemetry.logs import SECRET, Level
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tracing import Span, Tracing

SLOW_SECONDS: Final = 0.1  # worth an exemplar, where no request is watched for another reason
SHORTEST_SECRET: Final = 34  # characters that `SECRET` matches at least; `SAYS_KEY` takes more
SAYS_KEY: Final = re.compile(r"[0-9A-Za-z_\-.~]{40,}")  # as long as a key: no part of a path that anybody reads

_LEVELS: Final[dict[Outcome, Level]] = {
    Outcome.FORWARDED: "info",
    Outcome.PREFLIGHT: "info",
    Outcome.REFUSED: "info",
    Outcome.LIMITED: "info",
    Outcome.CLIENT_ERROR: "info",
    Outcome.CLIENT_GONE: "info",
    Outcome.OUTAGE: "warning",
    Outcome.UPSTREAM_ERROR: "warning",
    Outcome.CUT: "warning",
    Outcome.GATEWAY_ERROR: "error",
}
assert _LEVELS.keys() == set(Outcome)


@dataclass(slots=True)
class Ended:
    """A request that has ended. `request` is None where its head could not be read; `span` where it is not traced.

    `upstream_seconds` is None where no reply had begun; `auth` is the kind of credential that admitted it, or empty.
    """

    request: RequestHead | None
    request_id: bytes
    client: str
    route: str
    status: int
    outcome: Outcome
    code: str
    seconds: float
    upstream: str = ""
    upstream_seconds: float | None = None
    received_bytes: int = 0
    sent_bytes: int = 0
    auth: str = ""
    owner: Owner | None = None
    span: Span | None = None

    @property
    def level(self) -> Level:
        """What went well, and what the client did, is no reason to wake anybody; what we or the upstream did, is."""
        return _LEVELS[self.outcome]

    @property
    def name(self) -> str:
        """The request id, fit to be written down: a caller may have sent a key as one."""
        name = self.request_id.decode("latin-1")
        return name if len(name) < SHORTEST_SECRET else SECRET.sub(r"\1***", name)

    @property
    def path(self) -> str:
        """The path, fit to be written down: no query, and nothing that is as long as a key."""
        if self.request is None:
            return ""
        path = self.request.target.partition(b"?")[0].decode("latin-1")
        if len(path) < SHORTEST_SECRET:
            return path
        return SAYS_KEY.sub(lambda found: found[0][:8] + "***", path)[:LONGEST_PATH]


class Watch:
    """Tells of requests. `access` and `tracing` are None where they are off."""

    def __init__(self, metrics: Metrics, *, access: AccessLog | None = None, tracing: Tracing | None = None) -> None:
        self.tracing = tracing
        self._metrics = metrics
        self._access = access

    @property
    def from_seconds(self) -> float:
        """From which duration on a request is told."""
        return SLOW_SECONDS if self._access is None and self.tracing is None else -inf

    def is_logged(self, outcome: Outcome) -> bool:
        """Whether the access log wants a request that ended so. To be asked once of each: a sample is drawn."""
        return self._access is not None and self._access.is_wanted(_LEVELS[outcome])

    def ended(self, ended: Ended, *, is_logged: bool) -> None:
        """A request has ended of which somebody wants to know: the log, or its trace; or it was slow."""
        trace_id = self._exemplified(ended)
        if is_logged and self._access is not None:
            self._access.write(ended.level, _fields(ended, trace_id))
        if ended.span is not None:
            name = f"{_method(ended.request)} {ended.route}"
            ended.span.end(name, _attributes(ended), is_failed=ended.level != "info")

    def _exemplified(self, ended: Ended) -> str:
        """The trace id of a request that somebody keeps a trace of, which its duration is an example of."""
        if ended.span is not None:
            trace_id = ended.span.trace_id
        elif self.tracing is not None and self._access is None:
            return ""  # decided already, and nobody wants to know its trace
        else:
            context = None if ended.request is None else trace_context.read(ended.request.kept)
            if context is None:
                return ""
            if not context.is_sampled or self.tracing is not None:
                return context.trace_id
            trace_id = context.trace_id
        metrics, now = self._metrics, time.time()
        metrics.request_seconds.of(ended.route).exemplify(ended.seconds, trace_id, now)
        if ended.upstream_seconds is not None:
            metrics.upstream_seconds.of(ended.upstream).exemplify(ended.upstream_seconds, trace_id, now)
        return trace_id


def _fields(ended: Ended, trace_id: str) -> dict[str, Any]:
    """A line's fields; what there is nothing to say about is left out."""
    fields: dict[str, Any] = {
        "request_id": ended.name,
        "method": _method(ended.request),
        "path": ended.path,
        "route": ended.route,
        "status": ended.status,
        "outcome": ended.outcome.value,
        "seconds": round(ended.seconds, 6),
        "received_bytes": ended.received_bytes,
        "sent_bytes": ended.sent_bytes,
        "client": ended.client,
    }
    if trace_id:
        fields["trace_id"] = trace_id
    if ended.code:
        fields["code"] = ended.code
    if ended.upstream:
        fields["upstream"] = ended.upstream
    if ended.auth:
        fields["auth"] = ended.auth
    if ended.upstream_seconds is not None:
        fields["upstream_seconds"] = round(ended.upstream_seconds, 6)
    owner = ended.owner
    if owner is not None:
        fields["key_id"], fields["user_id"], fields["tenant_id"] = owner.key_id, owner.user_id, owner.tenant_id
    return fields


def _method(request: RequestHead | None) -> str:
    """As in metrics: what a client invents is its own text."""
    return request.method.decode() if request is not None and request.method in METHODS else "other"


def _attributes(ended: Ended) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "http.request.method": _method(ended.request),
        "http.response.status_code": ended.status,
        "url.path": ended.path,
        "ostiary.route": ended.route,
        "ostiary.outcome": ended.outcome.value,
        "ostiary.request_id": ended.name,
    }
    if ended.code:
        attributes["ostiary.code"] = ended.code
    if ended.owner is not None:
        attributes["ostiary.key_id"] = ended.owner.key_id
    return attributes
