"""OpenTelemetry's part of tracing: the library's spans, made by the clock of the gateway, and sent from a thread.

Imported only where tracing is configured: the packages are those of the extra `otel`. A collector that is away, slow or
broken costs spans, which are counted, and nothing else: the queue is bounded, and nobody waits for it but its thread.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Span as LibrarySpan
from opentelemetry.trace.span import TraceState
from prometheus_client import Counter

from gateway import __version__
from gateway.telemetry.trace_context import TraceContext
from gateway.telemetry.tracing import Attributes

log = structlog.get_logger(__name__)

QUEUE_SPANS: Final = 8_192
BATCH_SPANS: Final = 512
PAUSE_MILLISECONDS: Final = 1_000  # between two batches
EXPORT_SECONDS: Final = 5.0  # for a batch, second tries included
CLOSE_SECONDS: Final = 2.0


class Exporter(SpanExporter):
    """Another exporter, whose failures are counted and told once, not once a batch."""

    def __init__(self, inner: SpanExporter, dropped: Counter) -> None:
        self._inner = inner
        self._dropped = dropped.labels("export")
        self._is_failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """As SpanExporter."""
        try:
            result = self._inner.export(spans)
        except Exception as error:  # whatever a collector's answer does to the library
            result, why = SpanExportResult.FAILURE, type(error).__name__
        else:
            why = "refused, or no answer"
        is_failing = result is not SpanExportResult.SUCCESS
        if is_failing:
            self._dropped.inc(len(spans))
        if is_failing != self._is_failing:
            self._is_failing = is_failing
            log.warning("traces_not_exported", reason=why) if is_failing else log.info("traces_exported_again")
        return result

    def shutdown(self) -> None:
        """As SpanExporter."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """As SpanExporter."""
        return self._inner.force_flush(timeout_millis)


class OtelSpan:
    """As OpenSpan."""

    def __init__(self, tracer: "OtelSpans", span: LibrarySpan) -> None:
        self._tracer = tracer
        self._span = span
        context = span.get_span_context()
        self.trace_id = f"{context.trace_id:032x}"
        self.span_id = f"{context.span_id:016x}"

    def child(self, name: str, began: float, *, is_call: bool = False) -> "OtelSpan":
        """As OpenSpan."""
        kind = SpanKind.CLIENT if is_call else SpanKind.INTERNAL
        return self._tracer.started(name, self._span, kind, began)

    def end(self, ended: float, attributes: Attributes, *, is_failed: bool = False, name: str = "") -> None:
        """As OpenSpan."""
        if name:
            self._span.update_name(name)
        self._span.set_attributes(dict(attributes))
        if is_failed:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end(self._tracer.nanoseconds(ended))


class OtelSpans:
    """As Spans. Spans go to `endpoint`; `node_id` says which node they are from."""

    def __init__(
        self, endpoint: str, *, environment: str, node_id: str, monotonic: Callable[[], float], dropped: Counter
    ) -> None:
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())  # what it says is told by `Exporter`
        logging.getLogger("opentelemetry").propagate = False
        self._monotonic = monotonic
        exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces", timeout=EXPORT_SECONDS)
        resource = Resource.create(
            {
                "service.name": "ostiary",
                "service.version": __version__,
                "service.instance.id": node_id,
                "deployment.environment.name": environment,
            }
        )
        self._provider = TracerProvider(resource=resource, sampler=ALWAYS_ON, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                Exporter(exporter, dropped),
                max_queue_size=QUEUE_SPANS,
                schedule_delay_millis=PAUSE_MILLISECONDS,
                max_export_batch_size=BATCH_SPANS,
            )
        )
        self._tracer = self._provider.get_tracer("ostiary", __version__)

    def begin(self, parent: TraceContext | None, began: float) -> OtelSpan:
        """As Spans."""
        if parent is None:
            return self.started("request", None, SpanKind.SERVER, began)
        context = SpanContext(
            int(parent.trace_id, 16),
            int(parent.parent_id, 16),
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
            trace_state=TraceState.from_header([parent.state]),
        )
        return self.started("request", NonRecordingSpan(context), SpanKind.SERVER, began)

    def started(self, name: str, parent: LibrarySpan | None, kind: SpanKind, began: float) -> OtelSpan:
        """A span of the library."""
        context = None if parent is None else set_span_in_context(parent)
        return OtelSpan(self, self._tracer.start_span(name, context, kind=kind, start_time=self.nanoseconds(began)))

    def nanoseconds(self, moment: float) -> int:
        """A moment of the monotonic clock, since the epoch."""
        return time.time_ns() - int((self._monotonic() - moment) * 1e9)

    def close(self) -> None:
        """Send what waits, if that takes no longer than a moment. A thread of its own does: the library may hang."""
        thread = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        thread.start()
        thread.join(CLOSE_SECONDS)
