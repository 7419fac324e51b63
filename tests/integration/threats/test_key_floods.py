"""Well-formed keys that nobody has, in masses: scaled down to what takes seconds.

In life it would be tens of thousands a second for as long as somebody pays for it; what is bounded here is bounded
there, since nothing below depends on how long the flood lasts but the count of refused requests.
"""

import asyncio

import pytest

from gateway.app import FEED_CONNECTIONS, LOOKUP_CONNECTIONS
from gateway.auth.admission import LONGEST_QUEUE
from tests.fixtures.stand import Stand, unknown_secret
from tests.fixtures.waiting import until
from tests.integration.threats.raw import ask_all, ask_in_a_row, connection, get, reply
from tests.integration.threats.watching import resident_bytes, watched

pytestmark = pytest.mark.asyncio(loop_scope="session")

ONE_KEY_REQUESTS = 10_000
FLOOD_KEYS = 2_500
FLOOD_CONNECTIONS = 100
FLOOD_BYTES = 40_000_000
TTL_SECONDS = 0.5


@pytest.mark.threat("flood of unknown keys")
async def test_one_unknown_key_ten_thousand_times_is_one_lookup(stand: Stand) -> None:
    """However often one key that nobody has is tried, Postgres is asked once. R046 R048."""
    node = await stand.start_node({"cache": {"negative_ttl_seconds": 60}})
    mark = stand.mark()
    statuses = await ask_all(node.proxy_port, [get(unknown_secret())] * ONE_KEY_REQUESTS, connections=20)
    assert statuses == [401] * ONE_KEY_REQUESTS
    assert stand.lookups(mark) == (1, 1)
    assert stand.upstream.requests == []


@pytest.mark.threat("flood of unknown keys")
async def test_a_flood_of_different_keys_is_borne(stand: Stand) -> None:
    """Good keys are served, warm and cold; Postgres works on few lookups at a time; memory stays in bounds. R049 R060.

    Thousands of keys, a hundred at a time: ten times as many as Postgres is asked for at once.
    """
    node = await stand.start_node({"cache": {"ttl_seconds": TTL_SECONDS}})
    good, cold = await stand.new_keys(20), await stand.new_keys(80)
    assert set(await ask_in_a_row(node.proxy_port, [get(key.secret) for key in good])) == {200}
    flood = [get(unknown_secret()) for _ in range(FLOOD_KEYS)]
    before, mark = resident_bytes(node.pid), stand.mark()
    async with watched(stand) as load:
        flooding = asyncio.create_task(ask_all(node.proxy_port, flood, connections=FLOOD_CONNECTIONS))
        served: list[int] = []
        while not flooding.done():
            newcomers = [cold.pop()] if cold else []
            served += await ask_in_a_row(node.proxy_port, [get(key.secret) for key in good + newcomers])
        refused = await flooding
    assert refused == [401] * FLOOD_KEYS
    assert set(served) == {200}
    assert len(served) > 2 * len(good)
    assert load.looks > 10
    assert load.connections <= LOOKUP_CONNECTIONS + FEED_CONNECTIONS
    current, retired = stand.lookups(mark)
    assert retired == FLOOD_KEYS
    assert FLOOD_KEYS <= current <= FLOOD_KEYS + len(served)
    assert resident_bytes(node.pid) - before < FLOOD_BYTES
    assert {key.id for key in good} <= {request.header("X-Key-Id") for request in stand.upstream.requests}
    assert len(stand.upstream.requests) == len(good) + len(served)


@pytest.mark.threat("flood of unknown keys")
async def test_a_queue_full_of_unknown_keys_locks_nobody_out(stand: Stand) -> None:
    """While more keys wait for Postgres than may wait, who is known is served, and the others are told to come back.

    Postgres stands still; so each lookup of the flood waits, and there are more than the queue takes. R052 R059.
    """
    node = await stand.start_node({"cache": {"ttl_seconds": TTL_SECONDS}})
    known = await stand.new_keys(30)
    requests = [get(key.secret) for key in known]
    assert set(await ask_in_a_row(node.proxy_port, requests)) == {200}
    lines = [connection(node.proxy_port) for _ in range(LONGEST_QUEUE + 50)]
    opened = await asyncio.gather(*(line.__aenter__() for line in lines))
    async with stand.connection() as lock, stand.redis_client() as client:
        await client.flushall()
        transaction = lock.transaction()
        await transaction.start()
        await lock.execute("LOCK TABLE api_keys, retired_secrets IN ACCESS EXCLUSIVE MODE")
        for _, writer in opened:
            writer.write(get(unknown_secret()))
        waiting = [asyncio.ensure_future(reply(reader)) for reader, _ in opened]
        await until(lambda: sum(answer.done() for answer in waiting) >= 50, what="those who find the queue full")
        statuses = await ask_in_a_row(node.proxy_port, requests)
        assert statuses == [200] * len(known), "a known key is locked out"
        assert not all(answer.done() for answer in waiting), "the queue was not full any more"
        told = {(await answer)[0] for answer in waiting}
        assert told == {503}
        await transaction.rollback()
    for line in lines:
        await line.__aexit__(None, None, None)
    await until(lambda: _is_served(stand, requests), what="lookups to be done again")


async def _is_served(stand: Stand, requests: list[bytes]) -> bool:
    unknown = await ask_in_a_row(stand.nodes[0].proxy_port, [get(unknown_secret())])
    return {*await ask_in_a_row(stand.nodes[0].proxy_port, requests), *unknown} == {200, 401}
