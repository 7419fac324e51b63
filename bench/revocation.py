"""How quickly a revocation is true everywhere, and what it costs to listen.

A revocation is measured from the outside: one connection to each node repeats a request with the key, without a pause,
from before the call until that node has refused it.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from statistics import median, quantiles

import asyncpg

from bench import report
from bench.gateway_peer import Node, admin_token, seed, start_node, start_stores
from bench.measure import start_upstream
from bench.processes import BenchError, Cores, Workshop, cpu_seconds_of
from bench.workload import Request
from gateway.clock import SystemClock
from gateway.consistency.feed import Feed
from gateway.consistency.view import View
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.revisions import RevisionLog
from gateway.telemetry.metrics import Metrics

FLEETS = (1, 4, 16)
REVOCATIONS = {True: 100, False: 30}  # with a Redis, and without, where each waits for polls
LISTENERS = 100
LISTENING_SECONDS = 10.0
CHANGES_PER_SECOND = 100
_BOUND_SECONDS = 2.0


@dataclass(frozen=True)
class Revocations:
    """Seconds of each revocation: from the call to its answer, and from the change to the last node's refusal."""

    nodes: int
    has_redis: bool
    answers: list[float]
    refusals: list[float]
    late: int  # requests that were sent after the answer and admitted: the promise is that there is none

    def cells(self) -> list[str]:
        """Return a row of the table."""
        return [
            str(self.nodes),
            "yes" if self.has_redis else "no",
            *_milliseconds(self.answers),
            *_milliseconds(self.refusals),
            str(self.late),
        ]


@dataclass(frozen=True)
class Listening:
    """What `LISTENERS` nodes cost Postgres, in seconds of CPU per second."""

    changes_per_second: int
    postgres_cpu: float

    def cells(self) -> list[str]:
        """Return a row of the table."""
        share = self.postgres_cpu
        return [str(self.changes_per_second), f"{share:.1%}", f"{share / LISTENERS * 1e6 / (4 / _BOUND_SECONDS):,.0f}"]


def _milliseconds(seconds: Sequence[float]) -> list[str]:
    high = quantiles(seconds, n=100, method="inclusive")[98]
    return [f"{value * 1000:.1f}" for value in (median(seconds), high, max(seconds))]


# -- revocations


class Prober:
    """Repeats a request with one key on a kept connection, until it is refused."""

    def __init__(self, node: Node, head: bytes) -> None:
        self._node = node
        self._head = head
        self.is_warm = asyncio.Event()
        self.last_admitted_at = 0.0  # when the last request that was admitted had been sent; `time.time`
        self.refused_at = 0.0

    async def run(self) -> None:
        """Go on until the first 401."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._node.port)
        while not self.refused_at:
            sent_at = time.time()
            writer.write(self._head)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            status = int(head[9:12])
            if status == 401:
                self.refused_at = time.time()
            elif status == 200:
                self.last_admitted_at = sent_at
                self.is_warm.set()
            else:
                raise BenchError(f"a key on its way to be revoked brought {status}")
        writer.close()


async def revoke(port: int, token: str, key_id: str) -> tuple[float, float, float]:
    """Revoke a key; answers when the call was sent, when it was answered, and when the change was made."""
    body = b'{"reason": "bench"}'
    head = (
        f"POST /v1/keys/{key_id}/revoke HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent_at = time.time()
    writer.write(head + body)
    reply = await reader.read()
    answered_at = time.time()
    writer.close()
    answer = json.loads(reply.partition(b"\r\n\r\n")[2])
    if not reply.startswith(b"HTTP/1.1 200") or answer["propagation"]["state"] != "confirmed":
        raise BenchError(f"a revocation was not confirmed: {reply[:200]!r}")
    return sent_at, answered_at, datetime.fromisoformat(answer["revoked_at"]).timestamp()


async def _one(nodes: Sequence[Node], token: str, number: int, head: bytes) -> tuple[float, float, int]:
    probers = [Prober(node, head) for node in nodes]
    async with asyncio.TaskGroup() as group:
        for prober in probers:
            group.create_task(prober.run())
        for prober in probers:
            await prober.is_warm.wait()
        sent_at, answered_at, changed_at = await revoke(nodes[0].admin_port, token, f"key_{number}")
    late = sum(prober.last_admitted_at > answered_at for prober in probers)
    return answered_at - sent_at, max(prober.refused_at for prober in probers) - changed_at, late


def revocations(nodes_count: int, cores: Cores, *, has_redis: bool) -> Revocations:
    """Revoke key after key in a fleet of so many nodes."""
    count = REVOCATIONS[has_redis]
    with Workshop() as workshop:
        upstream_port = start_upstream(workshop, cores.load)
        addresses = start_stores(workshop)
        assert addresses.postgres_dsn is not None
        secrets = seed(addresses.postgres_dsn, count)
        if not has_redis:
            addresses = replace(addresses, redis_url=None)
        nodes = [start_node(workshop, addresses, upstream_port, cores.proxy) for _ in range(nodes_count)]
        heads = [Request(secret, upstream_port).head() for secret in secrets]

        async def all_of_them() -> list[tuple[float, float, int]]:
            token = await admin_token(addresses.postgres_dsn or "")
            return [await _one(nodes, token, number, head) for number, head in enumerate(heads)]

        measured = asyncio.run(all_of_them())
    return Revocations(
        nodes_count,
        has_redis,
        [answer for answer, _, _ in measured],
        [refusal for _, refusal, _ in measured],
        sum(late for _, _, late in measured),
    )


# -- listening


@asynccontextmanager
async def _listeners(dsn: str) -> AsyncIterator[None]:
    """`LISTENERS` nodes' views and feeds, with the gateway's own polls and reports, and nothing else of a node."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        for number in range(LISTENERS):
            metrics = Metrics()
            postgres = Postgres(dsn, pool_size=1, metrics=metrics)
            await postgres.open()
            stack.push_async_callback(postgres.close)
            view = View(clock, bound_seconds=_BOUND_SECONDS, retention_seconds=120.0)
            feed = Feed(
                view,
                RevisionLog(postgres),
                node_id=f"listener-{number}",
                environment="bench",
                version="bench",
                clock=clock,
                metrics=metrics,
            )
            await feed.start()
            stack.push_async_callback(feed.close)
        yield


async def change(dsn: str, per_second: int, seconds: float) -> None:
    """Change a key so many times a second, in steps of a tenth of one."""
    ends_at = time.monotonic() + seconds
    connection = await asyncpg.connect(dsn)
    try:
        while time.monotonic() < ends_at:
            began = time.monotonic()
            for number in range(per_second // 10):
                scopes = [f"at:{time.monotonic_ns()}"]
                await connection.execute("UPDATE api_keys SET scopes = $2 WHERE id = $1", f"key_{number}", scopes)
            await asyncio.sleep(max(0.0, 0.1 - (time.monotonic() - began)))
    finally:
        await connection.close()


def listening(cores: Cores) -> list[Listening]:
    """Let many nodes listen, first to nothing, then to many changes a second."""
    with Workshop() as workshop:
        addresses = start_stores(workshop)
        dsn, postgres_pid = addresses.postgres_dsn, addresses.postgres_pid
        assert dsn is not None
        assert postgres_pid is not None
        seed(dsn, 100)

        async def listen() -> list[Listening]:
            async with _listeners(dsn):
                await asyncio.sleep(2.0)
                found = []
                for per_second in (0, CHANGES_PER_SECOND):
                    before = cpu_seconds_of(postgres_pid)
                    await change(dsn, per_second, LISTENING_SECONDS)
                    used = cpu_seconds_of(postgres_pid) - before
                    found.append(Listening(per_second, used / LISTENING_SECONDS))
                return found

        return asyncio.run(listen())


# -- all of it


def run(cores: Cores) -> str:
    """Measure everything, write `results/revocation.*`, and return the tables."""
    fleets = [revocations(count, cores, has_redis=has_redis) for has_redis in (True, False) for count in FLEETS]
    listened = listening(cores)
    text = "\n\n".join(
        (
            report.markdown(
                [
                    ["nodes", "Redis", *_three("answer"), *_three("last refusal"), "admitted after the answer"],
                    ["---:", "---", *["---:"] * 7],
                    *(fleet.cells() for fleet in fleets),
                ]
            ),
            report.markdown(
                [
                    ["changes/s", f"Postgres, {LISTENERS} nodes listening: share of a core", "µs a poll"],
                    ["---:"] * 3,
                    *(found.cells() for found in listened),
                ]
            ),
            f"{REVOCATIONS[True]} revocations a row ({REVOCATIONS[False]} without Redis). {report.machine_sentence()}",
        )
    )
    document: dict[str, object] = {
        "revocations": [asdict(fleet) for fleet in fleets],
        "listening": [asdict(found) for found in listened],
    }
    report.write("revocation", text, document)
    return text


def _three(what: str) -> list[str]:
    return [f"{what} ms, p50", "p99", "max"]
