"""The whole system: stores, a wire from each node to each store, upstreams, two nodes, more where one is needed."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import redis.asyncio

from tests.faults.steadiness import Steadiness
from tests.faults.upstreams import Live, Upstream
from tests.fixtures.exposition import scraped
from tests.fixtures.gateway import GatewayProcess, merged, operator_token
from tests.fixtures.signed import AUDIENCE, ISSUER, SEALING_KEY
from tests.fixtures.stand import Stand
from tests.fixtures.wire import Wire

BOUND_SECONDS: Final = 2.0
RESPONSE_SECONDS: Final = 2.0  # for which the gateway waits for an upstream
METERING_SECONDS: Final = 0.5
HEAD_SECONDS: Final = 2.0  # for which it waits for a client's head
WORKERS: Final = 2  # of the second node
OPERATORS_USER: Final = "ann"

SETTINGS: Final[Mapping[str, Any]] = {
    "metering": {"interval_seconds": METERING_SECONDS},
    "tokens": {"issuer": ISSUER, "audience": AUDIENCE, "sealing_key": SEALING_KEY},
    "keys": {"max_per_user": 5_000},
    "client": {"head_timeout_seconds": HEAD_SECONDS, "body_timeout_seconds": 2},
    "drain": {"finish_seconds": 2},
    "log": {"access": "full"},
    "routes": [
        {"name": "orders", "paths": ["/orders"], "upstream": "orders", "tokens": True},
        {"name": "feed", "paths": ["/feed"], "upstream": "feed", "tokens": True},
        {"name": "sockets", "paths": ["/sockets"], "upstream": "sockets", "tokens": True},
    ],
}


@dataclass(eq=False)
class Node:
    """A node, its wires, and how callers reach it."""

    number: int
    process: GatewayProcess
    to_postgres: Wire
    to_redis: Wire
    workers: int = 1
    tls: ssl.SSLContext | None = None


@dataclass(eq=False)
class Stage:
    """Everything. `idle` is how many idle connections there are to be."""

    folder: Path
    idle: int
    stand: Stand
    orders: Upstream = field(default_factory=Upstream)
    live: Live = field(default_factory=Live)
    nodes: list[Node] = field(default_factory=list)
    token: str = field(default="", repr=False)
    is_ruined: bool = False  # not to be used for another fault
    notes: list[str] = field(default_factory=list)  # what a fault has to say of its size
    wrongs: list[str] = field(default_factory=list)  # what a fault has seen that must not be
    lost_requests: int = 0  # that may be missing from the books: a process was killed
    cleanups: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    books_dsn: str = field(default="", repr=False)  # where usage is read

    def __post_init__(self) -> None:
        self.steadiness = Steadiness(self._pids, bound_seconds=BOUND_SECONDS)

    def _pids(self) -> list[int]:
        return [self.stand.redis.pid, *(node.process.pid for node in self.nodes if node.process.is_running())]

    async def add_node(
        self,
        changes: Mapping[str, Any] | None = None,
        *,
        workers: int = 1,
        tls: ssl.SSLContext | None = None,
        environment: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
    ) -> Node:
        """One more node, with wires of its own; returns when it is ready."""
        to_postgres, to_redis = Wire(self.stand.postgres.dsn), Wire(self.stand.redis.url)
        await asyncio.gather(to_postgres.start(), to_redis.start())
        upstreams = {
            "orders": {"targets": [self.orders.url], "timeouts": {"response": RESPONSE_SECONDS, "idle": 2}},
            "feed": {"targets": [self.live.streams.url]},
            "sockets": {"targets": [self.live.sockets_url]},
        }
        own = {"postgres": {"dsn": to_postgres.url}, "redis": {"url": to_redis.url}, "upstreams": upstreams}
        process = await self.stand.start_node(
            merged_all(SETTINGS, own, changes or {}), workers=workers, environment=environment, launcher=launcher
        )
        node = Node(len(self.nodes), process, to_postgres, to_redis, workers, tls)
        self.nodes.append(node)
        return node

    async def remove_node(self, node: Node) -> None:
        """Stop one that was added."""
        self.nodes.remove(node)
        await node.process.stop()
        await asyncio.gather(node.to_postgres.stop(), node.to_redis.stop())

    async def unused(self) -> set[tuple[str, str]]:
        """The nodes that say of a store that it does not answer, or do not all hear of changes through Redis."""
        async with self.redis() as client:
            heard = dict(await client.pubsub_numsub(*await client.pubsub_channels()))
        wanted = sum(node.workers for node in self.nodes)
        found = {("some node", "subscription")} if sum(heard.values()) < wanted else set()
        for node in self.nodes:
            samples = await scraped(node.process)
            for store in ("redis", "postgres"):
                if samples.sum("ostiary_dependency_up", dependency=store) != 1:
                    found.add((f"node {node.number}", store))
        return found

    async def execute(self, statement: str, *arguments: object) -> None:
        """One statement in Postgres, past all wires."""
        await self.stand.execute(statement, *arguments)

    @contextlib.asynccontextmanager
    async def redis(self) -> AsyncIterator[redis.asyncio.Redis]:
        """A client of Redis, past all wires."""
        async with redis.asyncio.Redis.from_url(self.stand.redis.url) as client:
            yield client


def merged_all(*documents: Mapping[str, Any]) -> dict[str, Any]:
    """The documents, each laid over those before it."""
    result: dict[str, Any] = {}
    for document in documents:
        result = merged(result, document)
    return result


@contextlib.asynccontextmanager
async def stage_in(folder: Path, *, idle: int) -> AsyncIterator[Stage]:
    """Build it, and take it down whatever state it is in."""
    folder.mkdir(parents=True)
    stand = Stand(folder, cache={"ttl_seconds": 2.0, "negative_ttl_seconds": 1.0, "bound_seconds": BOUND_SECONDS})
    stage = Stage(folder, idle, stand)
    try:
        await stand.start()
        await stand.execute("ALTER SYSTEM RESET log_statement")
        await stand.execute("SELECT pg_reload_conf()")
        stage.books_dsn = stand.postgres.dsn
        stage.token = await operator_token(stand.postgres.dsn)
        await stage.orders.start()
        await stage.live.start()
        await stage.add_node()
        await stage.add_node(workers=WORKERS)
        watching = asyncio.create_task(stage.steadiness.watch())
        try:
            yield stage
        finally:
            watching.cancel()
    finally:
        for node in stage.nodes:
            await asyncio.gather(node.to_postgres.mend(), node.to_redis.mend())
        await stand.stop()
        for clean_up in stage.cleanups:
            await clean_up()
        await asyncio.gather(stage.orders.stop(), stage.live.stop())
        await asyncio.gather(*(wire.stop() for node in stage.nodes for wire in (node.to_postgres, node.to_redis)))
