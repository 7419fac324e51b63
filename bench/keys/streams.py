"""A thousand streams of server-sent events: what an event costs the gateway, and what a stream takes of its memory."""

import json
import sys
from dataclasses import dataclass

from bench.keys.event_upstream import FAST, SLOW
from bench.keys.stage import Stage, cpu_seconds
from bench.orders import BEGUN
from bench.processes import BenchError, Beside, Workshop
from bench.workload import Request

STREAMS = 1_000
SECONDS = 6.0
_GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class Streams:
    """What `STREAMS` streams cost."""

    title: str
    events_per_second: float
    cpu_us: float
    bytes_each: float

    HEADER = (f"{STREAMS:,} streams", "events/s", "CPU µs an event", "bytes a stream")

    def cells(self) -> list[str]:
        """Return a row of the table."""
        return [self.title, f"{self.events_per_second:,.0f}", f"{self.cpu_us:.1f}", f"{self.bytes_each:,.0f}"]


def measure(workshop: Workshop, stage: Stage) -> list[Streams]:
    """An event a second for each stream; then as many as the gateway, and all around it, can carry."""
    command = [sys.executable, "-m", "bench.keys.event_upstream", str(STREAMS)]
    port = workshop.start("events", command, core=stage.cores.load).printed_port()
    return [
        _listened(stage, port, "an event a second each", SLOW),
        _listened(stage, port, "as fast as it goes", FAST),
    ]


def _listened(stage: Stage, upstream_port: int, title: str, path: str) -> Streams:
    node = stage.node(upstream_port=upstream_port)
    first, request = (Request(stage.secrets[0], node.port, name).head() for name in (SLOW, path))
    _listen(node.port, first, 1, 0.1, stage.cores.load).finish(_GRACE_SECONDS)  # the key is warm
    memory = node.process.rss_bytes()
    listeners = _listen(node.port, request, STREAMS, SECONDS, stage.cores.load)
    began = listeners.line()
    used = cpu_seconds(node)
    counted = listeners.line()
    used = cpu_seconds(node) - used
    memory = node.process.rss_bytes() - memory
    finished = listeners.finish(_GRACE_SECONDS)
    if began != BEGUN or finished.code:
        raise BenchError(f"the listeners ended with {finished.code}: {finished.errors[-2000:]}")
    figures = json.loads(counted)
    node.process.stop()
    return Streams(title, figures["events"] / figures["seconds"], used / figures["events"] * 1e6, memory / STREAMS)


def _listen(port: int, request: bytes, streams: int, seconds: float, core: int) -> Beside:
    order = {"port": port, "request": request.decode(), "streams": streams, "seconds": seconds}
    return Beside(core, [sys.executable, "-m", "bench.keys.event_listeners"], json.dumps(order))
