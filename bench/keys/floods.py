"""Good traffic at a fixed rate beside as many bad requests: what the good one feels, and what a refusal costs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from bench.gateway_peer import Node
from bench.generator import Offering, Order
from bench.keys.stage import FORMAT, Stage, cpu_seconds, decided, even, requests_of

GOOD_RATE = 500
FLOOD_RATE = 500
SECONDS = 4.0
ROUNDS = 5
GOOD_KEYS = 20
REPEATED = 100
_MARGIN_SECONDS = 3.0  # the flood begins before the good traffic, and ends behind it


@dataclass(frozen=True)
class Flood:
    """The good traffic's milliseconds, and what each request of the flood cost the gateway and asked of Postgres."""

    title: str
    p50_ms: float
    p99_ms: float
    p999_ms: float
    late_ms: float
    cpu_seconds: float
    """Of the gateway, in a round."""
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
    """The good traffic alone and beside each flood, in turns; the medians of the rounds."""
    node, core = stage.node(), stage.cores.load
    good = even(node.port, requests_of(node, stage.secrets[:GOOD_KEYS]), GOOD_RATE, SECONDS)
    Offering(even(good.port, good.requests, GOOD_RATE, 1.0), core).result()
    count = round(FLOOD_RATE * (SECONDS + _MARGIN_SECONDS))
    repeated = [FORMAT.generate() for _ in range(REPEATED)]
    rounds: dict[str, list[Flood]] = {}
    for _ in range(ROUNDS):
        alone = _alone(node, good, core)
        rounds.setdefault(alone.title, []).append(alone)
        new = [FORMAT.generate() for _ in range(count)]
        floods = {
            f"and {FLOOD_RATE}/s with mistyped keys": [mistyped(secret) for secret in new],
            f"and {FLOOD_RATE}/s with {REPEATED} unknown keys, again and again": repeated,
            f"and {FLOOD_RATE}/s with ever new unknown keys": new,
        }
        for title, keys in floods.items():
            beside = _beside(node, good, title, requests_of(node, keys), core, alone.cpu_seconds)
            rounds.setdefault(title, []).append(beside)
    node.process.stop()
    return [_median(of_one) for of_one in rounds.values()]


def _alone(node: Node, good: Order, core: int) -> Flood:
    used = cpu_seconds(node)
    offered = Offering(good, core).result()
    used = cpu_seconds(node) - used
    return Flood("alone", *offered.latencies_ms, offered.late_ms, cpu_seconds=used)


def _beside(node: Node, good: Order, title: str, requests: Sequence[bytes], core: int, alone_seconds: float) -> Flood:
    flood = Offering(even(node.port, requests, FLOOD_RATE, SECONDS + _MARGIN_SECONDS, status=401), core)
    traffic = Offering(good, core)
    used, lookups, refused = cpu_seconds(node), decided(node, "postgres"), decided(node, "local", "redis", "postgres")
    offered = traffic.result()
    used = cpu_seconds(node) - used
    lookups = decided(node, "postgres") - lookups
    refused = decided(node, "local", "redis", "postgres") - refused - GOOD_RATE * SECONDS
    flood.result()
    cost = (used - alone_seconds) / refused * 1e6
    return Flood(title, *offered.latencies_ms, offered.late_ms, used, cost, lookups / refused)


def _median(rounds: list[Flood]) -> Flood:
    def of(name: str) -> float:
        return median(getattr(one, name) for one in rounds)

    middle = Flood(rounds[0].title, *map(of, ("p50_ms", "p99_ms", "p999_ms", "late_ms", "cpu_seconds")))
    return middle if rounds[0].cpu_us is None else replace(middle, cpu_us=of("cpu_us"), lookups=of("lookups"))
