"""Who looks on, put together: the access log and traces, as far as they are configured."""

import contextlib
import random

from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.proxy.watch import Watch
from gateway.settings import Settings
from gateway.telemetry.access import AccessLog
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tracing import Tracing


class TracingUnavailable(GatewayError):
    """Traces are configured, and what makes them is not installed."""


def open_watch(
    settings: Settings, node_id: str, clock: Clock, metrics: Metrics, stack: contextlib.AsyncExitStack
) -> Watch:
    """What exchanges tell how they ended; what closes its parts goes onto `stack`. Raises TracingUnavailable."""
    log, access = settings.log, None
    if log.access != "off":
        share = None if log.access == "full" else log.access_share
        access = AccessLog(share, chance=random.random, now=clock.monotonic)
    return Watch(metrics, access=access, tracing=_tracing(settings, node_id, clock, metrics, stack))


def _tracing(
    settings: Settings, node_id: str, clock: Clock, metrics: Metrics, stack: contextlib.AsyncExitStack
) -> Tracing | None:
    configured = settings.tracing
    if configured is None:
        return None
    try:
        from gateway.telemetry.otel import OtelSpans
    except ImportError as error:
        raise TracingUnavailable(
            f"tracing is configured, and OpenTelemetry is not installed ({error}): pip install 'ostiary[otel]'"
        ) from error
    spans = OtelSpans(
        configured.endpoint,
        environment=settings.environment,
        node_id=node_id,
        monotonic=clock.monotonic,
        dropped=metrics.spans_dropped,
    )
    stack.callback(spans.close)
    return Tracing(
        spans,
        share=configured.share,
        chance=random.random,
        monotonic=clock.monotonic,
        dropped=metrics.spans_dropped,
    )
