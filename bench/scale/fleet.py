"""Sixteen nodes on one database and one Redis: what they cost when nobody comes, and how soon a revocation is true."""

import asyncio
import time
from dataclasses import dataclass

import psutil

from bench.gateway_peer import Node, admin_token
from bench.measure import ask
from bench.processes import BenchError
from bench.revocation import revoke
from bench.scale.population import connected
from bench.scale.stage import Stage
from bench.scale.tiers import Times
from bench.workload import Request

FLEETS = (1, 4, 16)
REVOCATIONS = 100
IDLE_SECONDS = 60.0
_QUERIES = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


@dataclass(frozen=True)
class Fleet:
    """Nodes that nobody uses but to revoke. Shares are of one core; of a node's they are the mean."""

    nodes: int
    answer: Times
    queries_per_second: float
    postgres_share: float
    redis_share: float
    node_share: float
    postgres_connections: int
    redis_connections: int
    node_rss: int

    HEADER = (
        "nodes",
        "revocation confirmed, p50 ms",
        "p99",
        "PostgreSQL, queries/s",
        "share of a core",
        "connections",
        "Redis, share of a core",
        "connections",
        "each node, share of a core",
        "MiB",
    )

    def cells(self) -> list[str]:
        """Return a row of the table."""
        return [
            str(self.nodes),
            *self.answer.cells(),
            f"{self.queries_per_second:.1f}",
            f"{self.postgres_share:.2%}",
            str(self.postgres_connections),
            f"{self.redis_share:.2%}",
            str(self.redis_connections),
            f"{self.node_share:.2%}",
            f"{self.node_rss / 2**20:.0f}",
        ]


def measure(stage: Stage) -> list[Fleet]:
    """Let fleets be idle, and then revoke keys that every node of them holds."""
    fleets = []
    for count in FLEETS:
        numbers = stage.population.take(REVOCATIONS)
        secrets = asyncio.run(stage.population.adopt(numbers))
        nodes = [stage.node() for _ in range(count)]
        idle = asyncio.run(_idle(stage, nodes))
        answers = asyncio.run(_revoked(stage, nodes, numbers, secrets))
        rss = sum(node.process.rss_bytes() for node in nodes) // count
        postgres, redis = stage.connections()
        fleets.append(Fleet(count, Times.of(answers), *idle, postgres, redis, rss))
        for node in nodes:
            node.process.stop()
    return fleets


async def _idle(stage: Stage, nodes: list[Node]) -> tuple[float, float, float, float]:
    async with connected(stage.dsn) as connection:
        await asyncio.sleep(5)
        queries, used = await connection.fetchval(_QUERIES), stage.used()
        own, began = _node_cpu(nodes), time.monotonic()
        await asyncio.sleep(IDLE_SECONDS)
        seconds = time.monotonic() - began
        own, used = _node_cpu(nodes) - own, stage.used().since(used)
        queries = await connection.fetchval(_QUERIES) - queries
    return queries / seconds, used.postgres / seconds, used.redis / seconds, own / seconds / len(nodes)


def _node_cpu(nodes: list[Node]) -> float:
    return sum(node.process.cpu_seconds() for node in nodes)


async def _revoked(stage: Stage, nodes: list[Node], numbers: range, secrets: list[str]) -> list[float]:
    """Revoke one key after the other; every node has just admitted it, and none does afterwards."""
    token = await admin_token(stage.dsn)
    answers = []
    for number, secret in zip(numbers, secrets, strict=True):
        heads = [(node.port, Request(secret, node.port).head()) for node in nodes]
        if {ask(port, head)[0] for port, head in heads} != {200}:
            raise BenchError("a good key was refused")
        sent_at, answered_at, _ = await revoke(nodes[0].admin_port, token, f"key_{number}")
        answers.append(answered_at - sent_at)
        if {ask(port, head)[0] for port, head in heads} != {401}:
            raise BenchError("a revoked key was admitted after the answer")
    return answers


def process_cpu() -> float:
    """What this process has used so far."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)
