"""Budgets that nodes share by Redis: how far they may be exceeded, what asks Redis, and what happens without it."""

import asyncio
import itertools
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio

from gateway.auth.secrets import SecretFormat
from gateway.limits.limit import SLICES
from tests.conftest import StartGateway
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.limited import ask, asked, counted, statuses
from tests.fixtures.planted import ENVIRONMENT, plant
from tests.fixtures.redis_servers import cluster
from tests.fixtures.stores import OwnRedis
from tests.fixtures.upstream import RecordingUpstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import Wire

NODES, CLIENTS, BUDGET = 4, 50, 400
PATIENT = {"patience_seconds": 2.0}  # what is tested is not how busy the machine is
HOURLY = {"plans": {"starter": {"limits": {"per_hour": BUDGET}}}}  # what time gives back in a test is next to nothing


async def stormed(nodes: list[GatewayProcess], secret: str, requests: int) -> tuple[int, float]:
    """All clients at once, each at all nodes in turn; how many requests were let through, and in what time."""
    numbers = itertools.count()
    began = time.monotonic()

    async def client(first: int) -> int:
        served = 0
        async with aiohttp.ClientSession() as session:
            while next(numbers) < requests:
                first += 1
                reply = await ask(session, nodes[first % len(nodes)], secret)
                assert reply.status in (200, 429), reply
                served += reply.status == 200
        return served

    return sum(await asyncio.gather(*(client(number) for number in range(CLIENTS)))), time.monotonic() - began


async def started(gateway: StartGateway, changes: dict[str, Any]) -> list[GatewayProcess]:
    return [await gateway(changes) for _ in range(NODES)]


async def degraded(nodes: list[GatewayProcess]) -> float:
    """Decisions that a node made by its own counts."""
    return sum([await counted(node, "ostiary_limits_degraded") for node in nodes])


async def test_exactly_what_was_sold(gateway: StartGateway, postgres_dsn: str, upstream: RecordingUpstream) -> None:
    """Four nodes and fifty clients: not one request more than the budget, and all of it. R291."""
    nodes = await started(gateway, {**HOURLY, "limits": {"shared": "exact", **PATIENT}})
    ada = await plant(postgres_dsn)
    served, seconds = await stormed(nodes, ada.secret, 2 * BUDGET)
    assert await degraded(nodes) == 0
    assert BUDGET <= served <= BUDGET + int(seconds * BUDGET / 3600)
    assert len(upstream.requests) == served


async def test_approximately_what_was_sold(gateway: StartGateway, postgres_dsn: str) -> None:
    """The same by leases: no more than the budget and a lease for each node; what they hold is given back. R291."""
    nodes = await started(gateway, {**HOURLY, "limits": PATIENT})
    ada = await plant(postgres_dsn)
    served, seconds = await stormed(nodes, ada.secret, 2 * BUDGET)
    bound = NODES * (BUDGET // SLICES)
    assert await degraded(nodes) == 0
    most = BUDGET + seconds * BUDGET / 3600 + bound
    assert BUDGET - bound <= served <= most
    total = served

    async def is_all_used() -> bool:
        nonlocal total
        total += statuses(await asked(nodes[0], [ada.secret])).count(200)
        return total >= BUDGET

    await until(is_all_used, what="idle leases to come back")
    assert total <= most + 10 * BUDGET / 3600


async def test_warm_requests_ask_nobody(gateway: StartGateway, postgres_dsn: str, redis_url: str) -> None:
    """By leases, Redis is called a few times for hundreds of requests."""
    node = await gateway({"plans": {"starter": {"limits": {"per_minute": 10_000, "per_day": 1_000_000}}}})
    ada = await plant(postgres_dsn)
    await asked(node, [ada.secret])
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        before = await scripts_run(client)
        assert statuses(await asked(node, [ada.secret] * 300)) == [200] * 300
        assert await scripts_run(client) - before <= 300 // (10_000 // SLICES // 2) + 10


async def scripts_run(client: "redis.asyncio.Redis") -> int:
    stats: dict[str, Any] = await client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


@pytest.mark.parametrize("shared", ["exact", "approximate"])
async def test_no_counter_lives_for_ever(gateway: StartGateway, postgres_dsn: str, redis_url: str, shared: str) -> None:
    """Every counter has an expiry, and its name is made of ids: no secret, no digest. R298, R299."""
    routes = [
        {
            "name": "orders",
            "paths": ["/orders"],
            "upstream": "orders",
            "limits": [{"by": "address", "per_second": 50}, {"by": "key", "per_month": 10_000}],
        }
    ]
    limits = {"shared": shared, "unknown_keys_per_minute": 5, **PATIENT}
    node = await gateway({"routes": routes, "limits": limits, "plans": {"starter": {"limits": {"per_day": 1000}}}})
    ada = await plant(postgres_dsn)
    unknown = SecretFormat("ost", ENVIRONMENT).generate()
    assert statuses(await asked(node, [ada.secret, ada.secret, unknown])) == [200, 200, 401]
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        names = [name.decode() async for name in client.scan_iter("ostiary:test:limit:*")]
        lives = [await client.ttl(name) for name in names]
    assert [name.removeprefix("ostiary:test:limit:") for name in sorted(names)] == [
        "guard:address:127.0.0.1",
        "plan:user:user-ada",
        "route.orders.0:address:127.0.0.1",
        "route.orders.1:key:key_ada",
    ]
    assert all(0 <= life <= 32 * 86_400 for life in lives)


async def test_a_frozen_redis_is_not_waited_for(gateway: StartGateway, postgres_dsn: str, own_redis: OwnRedis) -> None:
    """Accounts go on by a node's own counts, with a metric, rules that say so refuse, and the guard is closed.

    R290, R296.
    """
    routes = [
        {"name": "orders", "paths": ["/orders"], "upstream": "orders"},
        {
            "name": "dear",
            "paths": ["/dear"],
            "upstream": "orders",
            "limits": [{"per_minute": 50, "without_redis": "refuse"}],
        },
    ]
    ada = await plant(postgres_dsn)  # before the node: what it hears of later is looked up again, by the guard's leave
    node = await gateway(
        {
            "redis": {"url": own_redis.url},
            "routes": routes,
            "limits": {"shared": "exact", "unknown_keys_per_minute": 5},
            "plans": {"starter": {"limits": {"per_hour": 12}}},
            "cache": {"ttl_seconds": 0.2},  # what is known is not looked up by the guard's leave, however old
        }
    )
    assert statuses(await asked(node, [ada.secret])) == [200]
    assert statuses(await asked(node, [ada.secret], "/dear")) == [200]
    own_redis.pause()
    began = time.monotonic()
    replies = await asked(node, [ada.secret] * 14)
    seconds = time.monotonic() - began
    assert statuses(replies) == [200] * 10 + [429] * 4  # by its own counts
    assert seconds < 5.0  # it would be frozen for longer
    assert await counted(node, "ostiary_limits_degraded", limiter="plan") >= 10
    assert await counted(node, "ostiary_dependency_up", dependency="redis_limits") == 0
    (dear,) = await asked(node, [ada.secret], "/dear")
    assert (dear.status, dear.code) == (503, "limits_unavailable")
    unknown = await asked(node, [SecretFormat("ost", ENVIRONMENT).generate()])
    assert (unknown[0].status, unknown[0].code) == (503, "auth_unavailable")
    own_redis.resume()

    async def is_counting_again() -> bool:
        return statuses(await asked(node, [ada.secret], "/dear")) != [503]

    await until(is_counting_again, what="Redis to be asked again")


@pytest.mark.parametrize("shared", ["exact", "approximate"])
async def test_a_slow_redis_is_not_waited_for(
    gateway: StartGateway, postgres_dsn: str, redis_url: str, shared: str
) -> None:
    """A Redis that answers, but too late for a limit, costs callers neither their requests nor their time. R296."""
    wire = Wire(redis_url)
    await wire.start()
    try:
        node = await gateway(
            {
                "redis": {"url": wire.url},
                "limits": {"shared": shared},
                "plans": {"starter": {"limits": {"per_hour": 40}}},
            }
        )
        ada = await plant(postgres_dsn)
        assert statuses(await asked(node, [ada.secret])) == [200]
        wire.delay_seconds = 0.3
        began = time.monotonic()
        replies = await asked(node, [ada.secret] * 50)
        assert set(statuses(replies[:39])) == {200}
        assert statuses(replies[-5:]) == [429] * 5  # by its own counts, and what it had leased
        assert time.monotonic() - began < 50 * wire.delay_seconds / 5
        assert await counted(node, "ostiary_limits_degraded", limiter="plan") >= 1
        assert await counted(node, "ostiary_dependency_up", dependency="redis_limits") == 0
    finally:
        await wire.stop()


@pytest.mark.parametrize("shared", ["exact", "approximate"])
async def test_budgets_on_a_cluster(gateway: StartGateway, postgres_dsn: str, own_folder: Path, shared: str) -> None:
    """On a Cluster too: nodes share what was sold, and who is refused by one limit is charged by none. R291, R293."""
    routes = [
        {"name": "orders", "paths": ["/orders"], "upstream": "orders", "limits": [{"by": "key", "per_hour": 30}]},
        {"name": "other", "paths": ["/other"], "upstream": "orders"},
    ]
    async with cluster(own_folder / "cluster") as url:
        changes = {
            "redis": {"url": url},
            "limits": {"shared": shared, **PATIENT},
            "routes": routes,
            "plans": {"starter": {"limits": {"per_hour": 50}}},
        }
        nodes = [await gateway(changes), await gateway(changes)]
        ada = await plant(postgres_dsn)

        async def served(path: str) -> int:
            replies = [(await asked(nodes[number % 2], [ada.secret], path))[0] for number in range(50)]
            return statuses(replies).count(200)

        held = 0 if shared == "exact" else len(nodes)  # a lease each that is not given back yet
        assert 30 - held <= (orders := await served("/orders")) <= 30
        assert 20 - held <= await served("/other") <= 50 - orders
