"""Redis is emptied, or starts anew, under load: nobody notices but Postgres, and that one only so much.

Hundreds of keys here for the ten thousands of a large installation: what bounds the herd is per key and per node.
"""

import asyncio
import time
from collections.abc import Sequence

import pytest

from gateway.store_parts import FEED_CONNECTIONS, LOOKUP_CONNECTIONS
from tests.fixtures import processes
from tests.fixtures.connections import connected
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.stand import Key, Stand
from tests.integration.threats.raw import ask_in_a_row, get, reply
from tests.integration.threats.watching import watched

pytestmark = pytest.mark.asyncio(loop_scope="session")

WHOAMI = "/.ostiary/whoami"  # answered by the gateway itself: the callers' crowd is not to be the upstream's trouble
KEYS = 300
NODES = 2
TTL_SECONDS = 1.0
CALLERS = 8  # per node, without pause
MOST_CONNECTIONS = NODES * (LOOKUP_CONNECTIONS + FEED_CONNECTIONS)


class Callers:
    """Callers who ask one node for all keys in turn, without pause, while the block runs. `counts` is by status."""

    def __init__(self, node: GatewayProcess, keys: Sequence[Key]) -> None:
        self.counts: dict[int, int] = {}
        self._node = node
        self._keys = keys
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Callers":
        share = len(self._keys) // CALLERS
        self._tasks = [asyncio.create_task(self._call(number * share)) for number in range(CALLERS)]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def _call(self, first: int) -> None:
        keys = (*self._keys[first:], *self._keys[:first])
        async with connected(self._node.proxy_port) as (reader, writer):
            while True:
                for key in keys:
                    writer.write(get(key.secret, WHOAMI))
                    status, body = await reply(reader)
                    self.counts[status] = self.counts.get(status, 0) + 1
                    assert status != 200 or key.id.encode() in body
                    if self._is_over:
                        return


@pytest.mark.threat("herd after a cache restart")
async def test_an_emptied_cache_costs_nobody_a_request(stand: Stand) -> None:
    """FLUSHALL again and again, and a Redis that is killed and starts empty: every request is a 200. R048 R057.

    Postgres is asked at most once for each key, node and lifetime, by a bounded number of connections.
    """
    nodes = await asyncio.gather(*(stand.start_node({"cache": {"ttl_seconds": TTL_SECONDS}}) for _ in range(NODES)))
    keys = await stand.new_keys(KEYS)
    began, mark = time.monotonic(), stand.mark()
    async with watched(stand) as load, Callers(nodes[0], keys) as one, Callers(nodes[1], keys) as other:
        for _ in range(3):
            await asyncio.sleep(0.7 * TTL_SECONDS)  # not a wait for anything: how long the herd runs
            async with stand.redis_client() as client:
                await client.flushall()
        processes.kill(stand.redis.pid)
        await asyncio.sleep(TTL_SECONDS)
        await stand.repair()
        await asyncio.sleep(TTL_SECONDS)
    lifetimes = (time.monotonic() - began) / TTL_SECONDS + 1
    for callers in (one, other):
        assert set(callers.counts) == {200}, callers.counts
        assert callers.counts[200] > KEYS
    current, retired = stand.lookups(mark)
    assert KEYS <= current <= KEYS * NODES * lifetimes
    assert retired == 0
    assert load.connections <= MOST_CONNECTIONS


@pytest.mark.threat("herd after a cache restart")
async def test_all_keys_at_once_in_an_empty_cache_are_one_lookup_each(stand: Stand) -> None:
    """The whole herd in one moment, when all that the nodes remember is due: a lookup per key and node. R048 R059.

    Each key twice on each node. Who is known does not wait for a Postgres that is busy with the others.
    """
    nodes = await asyncio.gather(*(stand.start_node({"cache": {"ttl_seconds": TTL_SECONDS}}) for _ in range(NODES)))
    keys = await stand.new_keys(KEYS)
    for node in nodes:
        assert set(await ask_in_a_row(node.proxy_port, [get(key.secret, WHOAMI) for key in keys])) == {200}
    await asyncio.sleep(TTL_SECONDS)  # until all of it is due
    async with stand.redis_client() as client:
        await client.flushall()
    mark = stand.mark()

    async def ask(node: GatewayProcess, key: Key) -> int:
        async with connected(node.proxy_port) as (reader, writer):
            writer.write(get(key.secret, WHOAMI))
            status, body = await reply(reader)
        assert status != 200 or key.id.encode() in body
        return status

    async with watched(stand) as load:
        statuses = await asyncio.gather(*(ask(node, key) for key in keys for node in nodes for _ in range(2)))
    assert set(statuses) == {200}
    current, retired = stand.lookups(mark)
    assert 0 < current <= KEYS * NODES
    assert retired == 0
    assert load.connections <= MOST_CONNECTIONS
