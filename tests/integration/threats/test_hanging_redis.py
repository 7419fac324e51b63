"""A Redis that stands still with its connections open: how often a node waits for it, by its count of dropped calls."""

import asyncio
import contextlib
import time
from collections.abc import Sequence

import pytest

from gateway.stores.redis.connection import DEADLINE_SECONDS, PROBE_SECONDS
from tests.fixtures.connections import connected
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.stand import Key, Stand
from tests.fixtures.waiting import until
from tests.integration.threats.raw import ask_in_a_row, get, reply

pytestmark = pytest.mark.asyncio(loop_scope="session")

KNOWN = 20
COLD = 40
SLACK_SECONDS = 0.45  # for a lookup in Postgres, on a machine that is busy with other things


@pytest.mark.threat("herd after a cache restart")
async def test_a_redis_that_hangs_is_waited_for_once(stand: Stand) -> None:
    """Warm keys do not meet it; the first cold one waits 50 ms for it, the others ask Postgres at once. R042 R056 R057.

    After that one call the breaker is open: until Redis answers again only the probe asks it, once a second.
    """
    node = await stand.start_node()
    known, cold = await stand.new_keys(KNOWN), await stand.new_keys(COLD)
    requests = [get(key.secret) for key in known]
    assert set(await ask_in_a_row(node.proxy_port, requests)) == {200}
    await until_quiet(stand, node)
    dropped = await dropped_calls(stand, node)
    stand.redis.pause()
    assert set(await ask_in_a_row(node.proxy_port, requests * 10)) == {200}
    assert await dropped_calls(stand, node) == dropped, "a warm key has waited for Redis"
    mark, began = stand.mark(), time.monotonic()
    async with connected(node.proxy_port) as (reader, writer):
        for key in cold:
            asked_at = time.monotonic()
            writer.write(get(key.secret))
            assert (await reply(reader))[0] == 200
            assert time.monotonic() - asked_at < DEADLINE_SECONDS + SLACK_SECONDS
    probes = int((time.monotonic() - began) / PROBE_SECONDS)
    assert dropped + 1 <= await dropped_calls(stand, node) <= dropped + 1 + probes
    assert stand.lookups(mark) == (COLD, 0)
    stand.redis.resume()
    await until(lambda: is_redis_up(stand, node), seconds=4, what="Redis to be used again")


@pytest.mark.threat("herd after a cache restart")
async def test_a_crowd_that_meets_a_redis_that_hangs_waits_once_together(stand: Stand) -> None:
    """Forty cold keys in the moment of the hang: all wait the same 50 ms, none the sum; then nobody does. R056."""
    node = await stand.start_node()
    first, second = await stand.new_keys(COLD), await stand.new_keys(COLD)
    async with contextlib.AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(connected(node.proxy_port)) for _ in range(COLD)]
        assert await statuses_of(lines, await stand.new_keys(COLD)) == {200}  # so that Postgres is connected
        await until_quiet(stand, node)
        dropped = await dropped_calls(stand, node)
        stand.redis.pause()
        began = time.monotonic()
        assert await statuses_of(lines, first) == {200}
        assert time.monotonic() - began < COLD * DEADLINE_SECONDS
        now_dropped, began = await dropped_calls(stand, node), time.monotonic()
        assert dropped + 1 <= now_dropped <= dropped + COLD
        assert await statuses_of(lines, second) == {200}
        probes = int((time.monotonic() - began) / PROBE_SECONDS) + 1
        assert await dropped_calls(stand, node) <= now_dropped + probes
        stand.redis.resume()
        await until(lambda: is_redis_up(stand, node), seconds=4, what="Redis to be used again")


Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def statuses_of(lines: Sequence[Line], keys: Sequence[Key]) -> set[int]:
    """What these keys bring, all asked for at once, each on a connection of its own."""
    for (_, writer), key in zip(lines, keys, strict=True):
        writer.write(get(key.secret))
    return {status for status, _ in await asyncio.gather(*(reply(reader) for reader, _ in lines))}


async def dropped_calls(stand: Stand, node: GatewayProcess) -> float:
    """How many calls of the node's to Redis have been given up."""
    return await stand.sample(node, "ostiary_dropped_calls_total", dependency="redis")


async def is_redis_up(stand: Stand, node: GatewayProcess) -> bool:
    """Whether the node uses Redis."""
    return await stand.sample(node, "ostiary_dependency_up", dependency="redis") == 1


async def until_quiet(stand: Stand, node: GatewayProcess) -> None:
    """Wait until none of the node's writes to Redis is under way any more, and it is used."""
    await asyncio.sleep(2 * DEADLINE_SECONDS)  # not a wait for anything: by then each has been done or given up
    await until(lambda: is_redis_up(stand, node), seconds=4, what="Redis to be used")
