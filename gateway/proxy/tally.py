"""Counting exchanges. Label values come from closed sets; cells are looked up once and kept."""

from enum import StrEnum
from typing import Final

from gateway.auth.refusal import Reason
from gateway.telemetry.hot import Observations
from gateway.telemetry.metrics import Metrics

METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})


class Outcome(StrEnum):
    """Who decided how an exchange ended."""

    __hash__ = str.__hash__  # Enum's own is a Python call, paid per request

    FORWARDED = "forwarded"
    REFUSED = "refused"
    LIMITED = "limited"
    PREFLIGHT = "preflight"
    OUTAGE = "outage"
    CLIENT_ERROR = "client_error"
    CLIENT_GONE = "client_gone"
    GATEWAY_ERROR = "gateway_error"
    UPSTREAM_ERROR = "upstream_error"
    CUT = "cut"


class Tally:
    """Counts what the proxy does."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._requests: dict[tuple[str, bytes, int, str], tuple[list[float], Observations]] = {}

    def finished(self, route: str, method: bytes, status: int, outcome: Outcome, seconds: float) -> None:
        """An exchange has ended. `route` is a configured name, or `none`. Hot."""
        found = self._requests.get((route, method, status, outcome))
        if found is None:
            found = self._bind(route, method, status, outcome)
        cell, observations = found
        cell[0] += 1
        observations.observe(seconds)

    def _bind(self, route: str, method: bytes, status: int, outcome: Outcome) -> tuple[list[float], Observations]:
        known = method in METHODS
        label = method.decode() if known else "other"
        found = (
            self._metrics.requests.cell(route, label, str(status), outcome.value),
            self._metrics.request_seconds.of(route),
        )
        if known:  # anybody can invent methods; a table of them would grow without end
            self._requests[route, method, status, outcome] = found
        return found

    def stream_closed(self, reason: Reason) -> None:
        """A stream or socket was ended because its key is no longer admitted (R197)."""
        self._metrics.streams_closed.labels(reason.value).inc()

    def spoofed(self, count: int) -> None:
        """A client sent headers that only the gateway may set (R020)."""
        self._metrics.spoofed_headers.inc(count)
