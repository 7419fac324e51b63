"""Keys that nobody has, in masses, and what is no key at all: scaled down to what takes seconds.

In life it would be tens of thousands a second for as long as somebody pays for it; what is bounded here is bounded
there, since nothing below depends on how long the flood lasts but the count of refused requests.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence

import asyncpg
import pytest

from gateway.auth.flights import LONGEST_QUEUE
from gateway.auth.secrets import LONGEST_RANDOM_CHARACTERS, RANDOM_CHARACTERS, SecretFormat, checksum, random_base62
from gateway.store_parts import FEED_CONNECTIONS, LOOKUP_CONNECTIONS
from tests.fixtures.connections import connected
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.stand import ENVIRONMENT, FORMAT, Key, Stand, unknown_secret
from tests.fixtures.waiting import until
from tests.integration.threats.raw import ask_all, ask_in_a_row, get, reply
from tests.integration.threats.watching import connections_to, resident_bytes, watched

pytestmark = pytest.mark.asyncio(loop_scope="session")

ONE_KEY_REQUESTS = 10_000
FLOOD_KEYS = 2_500
FLOOD_CONNECTIONS = 100
FLOOD_BYTES = 40_000_000
TTL_SECONDS = 0.5
AT_ONCE = 50
MALFORMED_EACH = 100
HANGING_SECONDS = 4.0  # of a Postgres that stands still: lookups are given up, and others take their place
HANGING_CALLERS = 60
SLOWEST_SECONDS = 0.5  # of a key that needs nobody; some 50 ms are a machine's own on a bad day


def of_length(count: int) -> str:
    """A secret of so many random characters, with the right checksum."""
    body = f"{FORMAT.prefix}_{ENVIRONMENT}_{random_base62(count)}"
    return body + checksum(body)


def mistyped() -> str:
    """A secret with another last character."""
    secret = unknown_secret()
    return secret[:-1] + ("0" if secret[-1] != "0" else "1")


# Ways not to be a key. Where it makes sense the checksum is right, so that it is the way itself that is refused.
MALFORMED: dict[str, Callable[[], str]] = {
    "wrong checksum": mistyped,
    "one character too few": lambda: of_length(RANDOM_CHARACTERS - 1),
    "one character too many": lambda: of_length(LONGEST_RANDOM_CHARACTERS + 1),
    "far too long": lambda: of_length(6_000),
    "another prefix": SecretFormat("sk", ENVIRONMENT).generate,
    "another environment": SecretFormat("ost", "prod").generate,
    "not ASCII": lambda: unknown_secret()[:-7] + "é" + unknown_secret()[-6:],
    "digits that are not ASCII": lambda: unknown_secret()[:-1] + "\u0663",
    "a space inside": lambda: unknown_secret()[:20] + " " + unknown_secret()[20:],
    "two keys in one": lambda: f"{unknown_secret()},{unknown_secret()}",
    "the shape of a token": lambda: f"{random_base62(20)}.{random_base62(60)}.{random_base62(86)}",
    "nothing but a prefix": lambda: f"{FORMAT.prefix}_{ENVIRONMENT}_",
}


@pytest.mark.threat("flood of unknown keys")
async def test_what_is_no_key_costs_nobody_else_anything(stand: Stand) -> None:
    """Masses of it, wrong in every way: all 401; no store is asked, no upstream called, no memory kept. R006 R011."""
    node = await stand.start_node()
    secrets = [make() for _ in range(MALFORMED_EACH) for make in MALFORMED.values()]
    await ask_in_a_row(node.proxy_port, [get(secret) for secret in secrets[: len(MALFORMED)]])
    before, mark, calls = resident_bytes(node.pid), stand.mark(), await stand.redis_calls()
    statuses = await ask_all(node.proxy_port, [get(secret) for secret in secrets], connections=20)
    assert statuses == [401] * len(secrets)
    asked = stand.statements(mark)
    assert "api_keys" not in asked
    assert "retired_secrets" not in asked
    assert await stand.redis_calls() == calls
    assert stand.upstream.requests == []
    assert resident_bytes(node.pid) - before < FLOOD_BYTES
    for kind, tier in (("key", "postgres"), ("key", "redis")):
        assert await stand.sample(node, "ostiary_auth_total", kind=kind, tier=tier) == 0


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
async def test_one_unknown_key_everywhere_at_once_is_one_lookup_of_a_node(stand: Stand) -> None:
    """Fifty connections to each of two nodes, in one moment: a node asks once, and then nobody does. R046 R048.

    A node that comes to it later finds the answer in Redis, for as long as it holds.
    """
    nodes = [await stand.start_node({"cache": {"negative_ttl_seconds": 60}}) for _ in range(3)]
    key, mark = Key("", unknown_secret()), stand.mark()
    lines = [connected(node.proxy_port) for node in nodes[:2] for _ in range(AT_ONCE)]
    opened = await asyncio.gather(*(line.__aenter__() for line in lines))
    async with stand.connection() as lock:
        transaction = lock.transaction()
        await transaction.start()
        await lock.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        for _, writer in opened:
            writer.write(get(key.secret))
        waiting = [asyncio.ensure_future(reply(reader)) for reader, _ in opened]
        for node in nodes[:2]:
            await until_waiting(stand, node, AT_ONCE)
        await transaction.rollback()
    assert {(await answer)[0] for answer in waiting} == {401}
    assert stand.lookups(mark) == (2, 2)
    async with stand.redis_client() as client:
        await until(lambda: client.exists(key.entry_name), what="the answer in Redis")
    for node in nodes:
        assert set(await ask_all(node.proxy_port, [get(key.secret)] * AT_ONCE, connections=AT_ONCE)) == {401}
    assert stand.lookups(mark) == (2, 2)
    for line in lines:
        await line.__aexit__(None, None, None)


async def until_waiting(stand: Stand, node: GatewayProcess, count: int) -> None:
    """Wait until so many requests are under way on the node."""

    async def is_so() -> bool:
        return await stand.sample(node, "ostiary_connections", side="client", state="busy") == count

    await until(is_so, what=f"{count} requests under way")


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
    async with stand.connection() as lock, stand.redis_client() as client:
        await client.flushall()
        async with _rolled_back(lock):
            await lock.execute("LOCK TABLE api_keys, retired_secrets IN ACCESS EXCLUSIVE MODE")

            async def are_served_beside_it() -> bool:  # a busy machine may let the queue end first: then once more
                async with _full_queue(node.proxy_port) as waiting:
                    served = await ask_in_a_row(node.proxy_port, requests)
                    was_full = not all(answer.done() for answer in waiting)
                    assert {(await answer)[0] for answer in waiting} == {503}
                return was_full and served == [200] * len(known)

            await until(are_served_beside_it, seconds=60, what="known keys to be served beside a full queue")
    await until(lambda: _is_served(stand, requests), what="lookups to be done again")


@contextlib.asynccontextmanager
async def _rolled_back(connection: "asyncpg.Connection[asyncpg.Record]") -> AsyncIterator[None]:
    """A transaction that comes to nothing."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


@contextlib.asynccontextmanager
async def _full_queue(port: int) -> AsyncIterator[Sequence["asyncio.Future[tuple[int, bytes]]"]]:
    """What strangers will hear, of whom there are more than may wait; those who found no room have heard it."""
    async with contextlib.AsyncExitStack() as stack:
        lines = (stack.enter_async_context(connected(port)) for _ in range(LONGEST_QUEUE + 50))
        opened = await asyncio.gather(*lines)
        for _, writer in opened:
            writer.write(get(unknown_secret()))
        waiting = [asyncio.ensure_future(reply(reader)) for reader, _ in opened]
        await until(lambda: sum(answer.done() for answer in waiting) >= 50, what="those who find the queue full")
        yield waiting


async def _is_served(stand: Stand, requests: list[bytes]) -> bool:
    unknown = await ask_in_a_row(stand.nodes[0].proxy_port, [get(unknown_secret())])
    return {*await ask_in_a_row(stand.nodes[0].proxy_port, requests), *unknown} == {200, 401}


@pytest.mark.threat("flood of unknown keys")
async def test_a_flood_that_hangs_in_postgres_holds_up_no_warm_key(stand: Stand) -> None:
    """Postgres is frozen, ever new keys of strangers wait for it: who is known does not wait with them. R051 R059 R070.

    The strangers hear 503, never 401; the node opens no more connections than it may; all is well after the thaw.
    """
    node = await stand.start_node(
        {"cache": {"bound_seconds": 4 * HANGING_SECONDS}}
    )  # a machine that stalls lapses no view
    known, cold = await stand.new_keys(20), await stand.new_keys(1)
    requests = [get(key.secret) for key in known]
    assert set(await ask_in_a_row(node.proxy_port, requests)) == {200}
    told: dict[int, int] = {}
    is_over = asyncio.Event()

    async def flood() -> None:
        async with connected(node.proxy_port) as (reader, writer):
            while not is_over.is_set():
                writer.write(get(unknown_secret()))
                status, _ = await reply(reader)
                told[status] = told.get(status, 0) + 1

    hits = await warm_hits(stand, node)
    stand.postgres.pause()
    began = time.monotonic()
    callers = [asyncio.create_task(flood()) for _ in range(HANGING_CALLERS)]
    await until_waiting(stand, node, HANGING_CALLERS)
    seconds: list[float] = []
    most_connections = 0
    async with connected(node.proxy_port) as (reader, writer):
        while time.monotonic() < began + HANGING_SECONDS:
            for request in requests:
                asked_at = time.monotonic()
                writer.write(request)
                assert (await reply(reader))[0] == 200
                seconds.append(time.monotonic() - asked_at)
            most_connections = max(most_connections, connections_to(node.pid, stand.postgres.dsn))
    is_over.set()
    stand.postgres.resume()
    await asyncio.gather(*callers)
    assert len(seconds) > 5 * len(known)
    assert await warm_hits(stand, node) - hits == len(seconds), "a warm key was looked up"
    assert max(seconds) < SLOWEST_SECONDS
    assert told[503] >= HANGING_CALLERS
    assert told.keys() <= {503, 401}, "only after the thaw is anybody told that there is no such key"
    assert 0 < most_connections <= LOOKUP_CONNECTIONS + FEED_CONNECTIONS
    await until(lambda: _is_served(stand, [get(cold[0].secret)]), what="lookups to be done again")


async def warm_hits(stand: Stand, node: GatewayProcess) -> float:
    """How many requests the node has decided without asking anybody, by what it held."""
    return await stand.sample(node, "ostiary_cache_events_total", layer="local", event="hit")
