"""What a request costs that no store is asked for, and what does not make it dearer: keys, tenants, routes.

CPU is measured at full load, as in the other tables; latency at a fixed rate, far below that. The rows take turns.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.figures import Figures
from bench.gateway_peer import Node
from bench.generator import Offering, OwnGenerator
from bench.keys.stage import LONG_TTL_SECONDS, Stage, cpu_seconds, decided, even, requests_of, token_of
from bench.processes import BenchError
from bench.workload import Request

ROUNDS = 3
REQUESTS = 10_000  # of a row in a round
RATE = 1_000
RATE_SECONDS = 4.0
MANY = 1_000  # routes, tenants, paths
ZIPF_DRAWS = 30_000
_CONNECTIONS = 32
_MOST_COLD = 0.01


@dataclass(frozen=True)
class Case:
    """What is asked of which node."""

    title: str
    node: Node
    requests: Sequence[bytes]


@dataclass
class Warm:
    """Microseconds of CPU for a request in each round, and latencies in milliseconds."""

    title: str
    cpu_us: list[float] = field(default_factory=list)
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    p999_ms: float = 0.0
    late_ms: float = 0.0

    HEADER = ("warm request", "CPU µs", "spread", "p50 ms", "p99 ms", "p99.9 ms")

    def cells(self) -> list[str]:
        """Return a row of the table."""
        spread = f"{min(self.cpu_us):.1f} - {max(self.cpu_us):.1f}"
        latencies = [f"{value:.2f}" for value in (self.p50_ms, self.p99_ms, self.p999_ms)]
        return [self.title, f"{median(self.cpu_us):.1f}", spread, *latencies]

    def take(self, offered: Figures) -> None:
        """Note the latencies."""
        self.p50_ms, self.p99_ms, self.p999_ms = offered.latencies_ms
        self.late_ms = offered.late_ms


def zipf(requests: Sequence[bytes], count: int) -> list[bytes]:
    """So many draws, the n-th request with a weight of 1/n: a few are most of the traffic, and most are rare."""
    weights = [1 / number for number in range(1, len(requests) + 1)]
    return random.Random(1).choices(requests, weights, k=count)


def of_few(stage: Stage) -> list[Case]:
    """One key, a token, many routes, many tenants; before a database of few keys."""
    plain = stage.node(ttl_seconds=LONG_TTL_SECONDS)
    with_tokens = stage.node(ttl_seconds=LONG_TTL_SECONDS, has_tokens=True)
    routed = stage.node(ttl_seconds=LONG_TTL_SECONDS, routes=MANY)
    secret = stage.secrets[0]
    token = token_of(with_tokens, secret)
    tenants = stage.with_tenants(MANY)
    return [
        Case("one key, the same request each time", plain, requests_of(plain, [secret])),
        Case("one key, another path each time", plain, _paths(plain, secret)),
        Case("the same beside 1,000 routes", routed, _paths(routed, secret)),
        Case("the same where tokens are accepted", with_tokens, _paths(with_tokens, secret)),
        Case("an access token, another path each time", with_tokens, _paths(with_tokens, token)),
        Case("1,000 keys of one tenant in turn", plain, requests_of(plain, stage.secrets[-MANY:])),
        Case("1,000 keys of 1,000 tenants in turn", plain, requests_of(plain, tenants)),
    ]


def of_many(node: Node, keys: list[str]) -> list[Case]:
    """The same request before all these keys, which the node holds already."""
    return [
        Case(f"one key of {len(keys):,}, another path each time", node, _paths(node, keys[0])),
        Case(f"{len(keys):,} keys, as by Zipf's law", node, zipf(requests_of(node, keys), ZIPF_DRAWS)),
    ]


def _paths(node: Node, secret: str) -> list[bytes]:
    return [Request(secret, node.port, f"/orders/{number}?expand=items").head() for number in range(MANY)]


def measure(cases: Sequence[Case], core: int) -> list[Warm]:
    """Let the cases take turns. Raises BenchError where a row was not warm."""
    load = OwnGenerator(core)
    found = [Warm(case.title) for case in cases]
    for case in cases:
        load.run_once_each(case.node.port, list(dict.fromkeys(case.requests)), connections=_CONNECTIONS)
    for _ in range(ROUNDS):
        for case, row in zip(cases, found, strict=True):
            requests = (list(case.requests) * (REQUESTS // len(case.requests) + 1))[:REQUESTS]
            used, cold = cpu_seconds(case.node), decided(case.node, "redis", "postgres")
            load.run_once_each(case.node.port, requests, connections=_CONNECTIONS)
            row.cpu_us.append((cpu_seconds(case.node) - used) / REQUESTS * 1e6)
            if decided(case.node, "redis", "postgres") - cold > _MOST_COLD * REQUESTS:
                raise BenchError(f"{row.title}: it was not warm")
    for case, row in zip(cases, found, strict=True):
        row.take(Offering(even(case.node.port, case.requests, RATE, RATE_SECONDS), core).result())
    return found
