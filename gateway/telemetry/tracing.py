"""Spans for OpenTelemetry: the request, its admission with the stores that were asked, and each try at the upstream.

`Tracing` decides what is traced; the making and sending of spans is `Spans`, which gateway.telemetry.otel gives. Who
comes with a trace is traced as it says; of the others, a share. Must not know: HTTP, OpenTelemetry.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from prometheus_client import Counter

from gateway.telemetry import trace_context
from gateway.telemetry.stages import Stage
from gateway.telemetry.trace_context import TraceContext

MOST_PER_SECOND: Final = 200  # traces begun: a client that says of all its requests that they are sampled costs no more

Attributes = Mapping[str, str | int]


class OpenSpan(Protocol):
    """A span that has begun."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        ...

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits."""
        ...

    def child(self, name: str, began: float, *, is_call: bool = False) -> "OpenSpan":
        """Begin a span below it; `is_call`: of a request to somebody else."""
        ...

    def end(self, ended: float, attributes: Attributes, *, is_failed: bool = False, name: str = "") -> None:
        """End it, and have it exported some time; `name` is what it turned out to be, where that was not known."""
        ...


class Spans(Protocol):
    """What makes spans. Times are monotonic seconds."""

    def begin(self, parent: TraceContext | None, began: float) -> OpenSpan:
        """A span of a request, below the caller's or the first of a new trace."""
        ...


class Span:
    """The spans of one request."""

    def __init__(self, root: OpenSpan, state: str, began: float, monotonic: Callable[[], float]) -> None:
        self.stages: list[Stage] = []  # filled in by whoever asks the stores
        self._root = root
        self._state = state
        self._began = began
        self._monotonic = monotonic
        self._admitted_at: float | None = None
        self._try: OpenSpan | None = None
        self._upstream = ""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return self._root.trace_id

    def admitted(self) -> None:
        """A lookup is over, however it ended."""
        self._admitted_at = self._monotonic()

    def carried_by(self, head: bytes, upstream: str) -> bytes:
        """The head of the request to the upstream, which becomes the child of a span of its own; one for each try."""
        now = self._monotonic()
        self._end_try(now, is_failed=True)
        self._upstream = upstream
        if self._admitted_at is None:
            self._admitted_at = now
        self._try = self._root.child(f"upstream {upstream}", now, is_call=True)
        return trace_context.replaced(head, self._try.trace_id, self._try.span_id, self._state)

    def end(self, name: str, attributes: Attributes, *, is_failed: bool) -> None:
        """The request has ended."""
        now = self._monotonic()
        self._end_try(now, is_failed=is_failed)
        admission = self._root.child("admission", self._began)
        for stage in self.stages:
            admission.child(f"admission {stage.name}", stage.began).end(stage.ended, {"ostiary.tier": stage.name})
        tier = self.stages[-1].name if self.stages else "local"
        admission.end(self._admitted_at or now, {"ostiary.tier": tier})
        self._root.end(now, attributes, is_failed=is_failed, name=name)

    def _end_try(self, now: float, *, is_failed: bool) -> None:
        if self._try is not None:
            self._try.end(now, {"ostiary.upstream": self._upstream}, is_failed=is_failed)
            self._try = None


class Tracing:
    """Decides which requests are traced. `chance` gives a random number from 0 to 1."""

    def __init__(
        self,
        spans: Spans,
        *,
        share: float,
        chance: Callable[[], float],
        monotonic: Callable[[], float],
        dropped: Counter,
    ) -> None:
        self._spans = spans
        self._share = share
        self._chance = chance
        self._monotonic = monotonic
        self._dropped = dropped.labels("rate")
        self._second = 0
        self._begun = 0  # in this second

    def begin(self, lines: bytes, began: float) -> Span | None:
        """The spans of a request with these header lines, which began so (monotonic); None where it is not traced."""
        parent = trace_context.read(lines)
        if not parent.is_sampled if parent is not None else self._chance() >= self._share:
            return None
        second = int(began)
        if second != self._second:
            self._second, self._begun = second, 0
        self._begun += 1
        if self._begun > MOST_PER_SECOND:
            self._dropped.inc()
            return None
        return Span(self._spans.begin(parent, began), "" if parent is None else parent.state, began, self._monotonic)
