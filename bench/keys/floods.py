"""Good traffic at a fixed rate beside as many bad requests: what the good one feels, and what a refusal costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.gateway_peer import Node
from bench.keys.offered import Offering, Order
from bench.keys.stage import FORMAT, Stage, cpu_seconds, decided, requests_of

GOOD_RATE = 500
FLOOD_RATE = 500
SECONDS = 8.0
GOOD_KEYS = 20
REPEATED = 100
_MARGIN_SECONDS = 4.0  # the flood begins before the good traffic, and ends behind it


@dataclass(frozen=True)
class Flood:
    """The good traffic's milliseconds, and what each request of the flood cost the gateway and asked of Postgres."""

    title: str
    p50_ms: float
    p99_ms: float
    p999_ms: float
    late_ms: float
    cpu_us: float | None = None
    lookups: float | None = None

    HEADER = (
        f"{GOOD_RATE} good requests/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "times alone: p50",
        "p99",
        "p99.9",
        "CPU µs a refusal",
        "lookups in Postgres a refusal",
        "generator late by, p99 ms",
    )

    def cells(self, alone: "Flood") -> list[str]:
        """Return a row of the table."""
        mine = (self.p50_ms, self.p99_ms, self.p999_ms)
        ratios = (value / other for value, other in zip(mine, (alone.p50_ms, alone.p99_ms, alone.p999_ms), strict=True))
        cost = ["-", "-"]
        if self.cpu_us is not None and self.lookups is not None:
            cost = [f"{self.cpu_us:.0f}", f"{self.lookups:.3f}"]
        return [
            self.title,
            *(f"{value:.2f}" for value in mine),
            *(f"{value:.1f}" for value in ratios),
            *cost,
            f"{self.late_ms:.2f}",
        ]


def mistyped(secret: str) -> str:
    """The secret with another last character: the shape of a key, and a wrong checksum."""
    return secret[:-1] + ("A" if secret[-1] != "A" else "B")


def measure(stage: Stage) -> list[Flood]:
    """The good traffic alone, then beside each flood."""
    node, core = stage.node(), stage.cores.load
    count = round(FLOOD_RATE * (SECONDS + _MARGIN_SECONDS))
    unknown = [FORMAT.generate() for _ in range(count)]
    floods = {
        f"and {FLOOD_RATE}/s with mistyped keys": [mistyped(secret) for secret in unknown],
        f"and {FLOOD_RATE}/s with {REPEATED} unknown keys, again and again": unknown[:REPEATED],
        f"and {FLOOD_RATE}/s with ever new unknown keys": unknown[REPEATED:] + unknown[:REPEATED],
    }
    good = Order(node.port, requests_of(node, stage.secrets[:GOOD_KEYS]), GOOD_RATE, SECONDS)
    Offering(Order(good.port, good.requests, GOOD_RATE, 1.0), core).result()
    used = cpu_seconds(node)
    offered = Offering(good, core).result()
    used = cpu_seconds(node) - used
    shares = (0.5, 0.99, 0.999)
    found = [Flood("alone", *map(offered.percentile_ms, shares), offered.late_seconds * 1000)]
    for title, keys in floods.items():
        found.append(_beside(node, good, title, requests_of(node, keys), core, used))
    node.process.stop()
    return found


def _beside(node: Node, good: Order, title: str, requests: Sequence[bytes], core: int, alone_seconds: float) -> Flood:
    flood = Offering(Order(node.port, requests, FLOOD_RATE, SECONDS + _MARGIN_SECONDS, status=401), core)
    traffic = Offering(good, core)
    used, lookups, refused = cpu_seconds(node), decided(node, "postgres"), decided(node, "local", "redis", "postgres")
    offered = traffic.result()
    used = cpu_seconds(node) - used - alone_seconds
    lookups = decided(node, "postgres") - lookups
    refused = decided(node, "local", "redis", "postgres") - refused - GOOD_RATE * SECONDS
    flood.result()
    percentiles = (offered.percentile_ms(share) for share in (0.5, 0.99, 0.999))
    return Flood(title, *percentiles, offered.late_seconds * 1000, used / refused * 1e6, lookups / refused)
