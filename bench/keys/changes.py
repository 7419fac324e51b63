"""Good traffic at a fixed rate while other keys are edited: a change reaches every node, and voids what it names."""

import asyncio
from dataclasses import dataclass

from bench.generator import Offering
from bench.keys.stage import Stage, cpu_seconds, even, requests_of
from bench.revocation import change

RATE = 500
SECONDS = 6.0
PER_SECOND = (0, 10, 100)
EDITED = max(PER_SECOND) // 10  # the first keys of the stage: `change` edits these
GOOD_KEYS = 20


@dataclass(frozen=True)
class Changes:
    """The good traffic's figures while so many keys are edited every second."""

    per_second: int
    cpu_us: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    late_ms: float

    HEADER = ("other keys edited/s", "CPU µs a good request, changes included", "p50 ms", "p99 ms", "p99.9 ms")

    def cells(self) -> list[str]:
        """Return a row of the table."""
        latencies = [f"{value:.2f}" for value in (self.p50_ms, self.p99_ms, self.p999_ms)]
        return [str(self.per_second), f"{self.cpu_us:.1f}", *latencies]


def measure(stage: Stage) -> list[Changes]:
    """One row after the other, on one node."""
    node, core = stage.node(), stage.cores.load
    requests = requests_of(node, stage.secrets[EDITED : EDITED + GOOD_KEYS])
    Offering(even(node.port, requests, RATE, 1.0), core).result()
    found = []
    for per_second in PER_SECOND:
        traffic = Offering(even(node.port, requests, RATE, SECONDS), core)
        used = cpu_seconds(node)
        asyncio.run(change(stage.dsn, per_second, SECONDS))
        offered = traffic.result()
        cpu_us = (cpu_seconds(node) - used) / offered.requests * 1e6
        found.append(Changes(per_second, cpu_us, *offered.latencies_ms, offered.late_ms))
    node.process.stop()
    return found
