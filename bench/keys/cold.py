"""Keys that a node does not hold: what each costs it, all at once, and how long one takes by itself."""

from dataclasses import dataclass

from bench.gateway_peer import Node
from bench.generator import Offering, OwnGenerator
from bench.keys.stage import cpu_seconds, decided, even, requests_of
from bench.processes import BenchError

RATE = 200
AT_RATE = 1_000  # keys that are asked for at that rate
AT_ONCE = 10_000  # and as fast as it goes
_CONNECTIONS = 32
_LEAST_SHARE = 0.5


def fill(node: Node, keys: list[str], core: int) -> None:
    """Have the node hold all these keys. A lookup that comes too late on a busy machine is done again."""
    load = OwnGenerator(core)
    for start in range(0, len(keys), AT_ONCE):
        requests = requests_of(node, keys[start : start + AT_ONCE])
        try:
            load.run_once_each(node.port, requests, connections=_CONNECTIONS)
        except BenchError:
            load.run_once_each(node.port, requests, connections=_CONNECTIONS)


@dataclass(frozen=True)
class Cold:
    """Requests for keys that the node did not hold."""

    source: str
    share: float  # of the keys that were found there: a Redis that is slow for a moment is left alone for a second
    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float

    HEADER = (
        "cold keys from",
        "found there",
        "CPU µs",
        "as many as it can, per second",
        f"at {RATE}/s: p50 ms",
        "p99 ms",
        "p99.9 ms",
    )

    def cells(self) -> list[str]:
        """Return a row of the table."""
        latencies = [f"{value:.2f}" for value in (self.p50_ms, self.p99_ms, self.p999_ms)]
        return [self.source, f"{self.share:.1%}", f"{self.cpu_us:.0f}", f"{self.per_second:,.0f}", *latencies]


def measure(node: Node, source: str, keys: list[str], core: int) -> Cold:
    """Ask for keys that the node has not met, each once: some slowly, then others as fast as it goes."""
    tier = source.lower()
    before = decided(node, tier), decided(node, "redis", "postgres")
    slowly = Offering(even(node.port, requests_of(node, keys[:AT_RATE]), RATE, AT_RATE / RATE), core).result()
    fast, used = keys[AT_RATE : AT_RATE + AT_ONCE], cpu_seconds(node)
    figures = OwnGenerator(core).run_once_each(node.port, requests_of(node, fast), connections=_CONNECTIONS)
    used = cpu_seconds(node) - used
    share = (decided(node, tier) - before[0]) / (decided(node, "redis", "postgres") - before[1])
    if share < _LEAST_SHARE:
        raise BenchError(f"only {share:.0%} of the cold keys were found in {source}")
    return Cold(
        source,
        share,
        used / figures.requests * 1e6,
        figures.requests / figures.seconds,
        *slowly.latencies_ms,
    )
