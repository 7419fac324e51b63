"""What can be done to stores, nodes and wires."""

import asyncio
import contextlib
import random
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import redis.asyncio
from redis.exceptions import RedisError

from tests.chaos.stage import Node, Stage
from tests.fixtures import processes
from tests.fixtures.stores import OwnServer
from tests.fixtures.wire import Wire

T_contra = TypeVar("T_contra", contravariant=True)


class Strike(Protocol[T_contra]):
    """Hurts `what`, and has healed it, some `seconds` later, when it returns."""

    def __call__(self, what: T_contra, seconds: float, /) -> Awaitable[None]:
        """Do it."""
        ...


@dataclass(frozen=True)
class Fault:
    """One thing to do, for so many seconds. `touches` names what no other fault may touch meanwhile."""

    name: str
    touches: frozenset[str]
    nodes: Sequence[Node]
    is_postgres_felt: bool
    strike: Callable[[float], Awaitable[None]]


class Kinds:
    """Every way to hurt the stage."""

    def __init__(self, stage: Stage, chance: random.Random) -> None:
        self._stage = stage
        self._random = chance

    def all(self) -> list[Callable[[], Fault]]:
        """One of each; which node, and which wires, is decided when it is called."""
        kinds: list[Callable[[], Fault]] = [
            partial(self._at_redis, "killed", self._kill_store),
            partial(self._at_redis, "restarted", self._stop_store),
            partial(self._at_redis, "paused", self._pause_store),
            partial(self._at_redis, "killed, back empty", self._empty_redis),
            partial(self._at_redis, "killed, back with old contents", self._age_redis),
            partial(self._at_postgres, "killed", self._kill_store),
            partial(self._at_postgres, "restarted", self._stop_store),
            partial(self._at_postgres, "paused", self._pause_store),
            partial(self._at_node, "killed", self._kill_node),
            partial(self._at_node, "restarted", self._stop_node),
            partial(self._at_node, "paused", self._pause_node),
        ]
        for stores in (("Redis",), ("Postgres",), ("Redis", "Postgres")):
            kinds += [
                partial(self._at_wires, stores, "broken and refused", _cut),
                partial(self._at_wires, stores, "silent", _silence),
                partial(self._at_wires, stores, "silent one way", _silence_one_way),
            ]
        return kinds

    def _at_redis(self, name: str, way: Strike[OwnServer]) -> Fault:
        redis_server = self._stage.redis
        return Fault(f"Redis {name}", frozenset({"Redis"}), self._stage.nodes, False, partial(way, redis_server))

    def _at_postgres(self, name: str, way: Strike[OwnServer]) -> Fault:
        postgres = self._stage.postgres
        return Fault(f"Postgres {name}", frozenset({"Postgres"}), self._stage.nodes, True, partial(way, postgres))

    def _at_node(self, name: str, way: Strike[Node]) -> Fault:
        node = self._random.choice(self._stage.nodes)
        return Fault(f"a node {name}", frozenset({f"node {node.number}"}), [node], True, partial(way, node))

    def _at_wires(self, stores: tuple[str, ...], name: str, way: Callable[[random.Random, Wire], None]) -> Fault:
        nodes = self._random.sample(self._stage.nodes, self._random.choice([1, 1, 2, len(self._stage.nodes)]))
        wires = [node.to_redis for node in nodes if "Redis" in stores]
        wires += [node.to_postgres for node in nodes if "Postgres" in stores]
        touches = frozenset(f"wire {store} {node.number}" for node in nodes for store in stores)
        words = f"wires to {' and '.join(stores)} {name}"
        return Fault(words, touches, nodes, "Postgres" in stores, partial(self._part, wires, way))

    # -- stores

    async def _kill_store(self, server: OwnServer, seconds: float) -> None:
        await asyncio.to_thread(processes.kill, server.pid)
        await asyncio.sleep(seconds)
        await self._start(server)

    async def _stop_store(self, server: OwnServer, seconds: float) -> None:
        await server.stop()
        await asyncio.sleep(seconds / 2)
        await server.start()

    async def _pause_store(self, server: OwnServer, seconds: float) -> None:
        await asyncio.to_thread(processes.freeze, server.pid)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(processes.thaw, server.pid)

    async def _empty_redis(self, server: OwnServer, seconds: float) -> None:
        await asyncio.to_thread(processes.kill, server.pid)
        await asyncio.sleep(seconds / 2)
        await server.stop()
        self._stage.redis_dump.unlink(missing_ok=True)
        await server.start()

    async def _age_redis(self, server: OwnServer, seconds: float) -> None:
        dump = self._stage.redis_dump
        async with redis.asyncio.Redis.from_url(self._stage.redis.url) as client:
            with contextlib.suppress(RedisError):  # a save of its own is under way: that will do
                await client.save()
        old = dump.with_suffix(".old")
        shutil.copy(dump, old)
        await asyncio.sleep(2 * seconds)
        await asyncio.to_thread(processes.kill, server.pid)
        await server.stop()
        shutil.move(old, dump)
        await server.start()

    async def _start(self, server: OwnServer) -> None:
        await server.stop()
        await server.start()

    # -- nodes

    async def _kill_node(self, node: Node, seconds: float) -> None:
        await asyncio.to_thread(node.process.kill)
        await asyncio.sleep(seconds)
        await node.process.start(is_ready_awaited=False)

    async def _stop_node(self, node: Node, seconds: float) -> None:
        await node.process.stop()
        await asyncio.sleep(seconds / 4)
        await node.process.start(is_ready_awaited=False)

    async def _pause_node(self, node: Node, seconds: float) -> None:
        node.process.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        node.process.signal(signal.SIGCONT)

    # -- wires

    async def _part(self, wires: Sequence[Wire], way: Callable[[random.Random, Wire], None], seconds: float) -> None:
        for wire in wires:
            way(self._random, wire)
        await asyncio.sleep(seconds)
        is_late = self._random.random() < 0.5
        for wire in wires:
            if not is_late:
                wire.break_links()
            await wire.mend()


def _cut(_: random.Random, wire: Wire) -> None:
    wire.cut()


def _silence(_: random.Random, wire: Wire) -> None:
    wire.silence(requests=True, replies=True)


def _silence_one_way(chance: random.Random, wire: Wire) -> None:
    is_up = chance.random() < 0.5
    wire.silence(requests=is_up, replies=not is_up)
