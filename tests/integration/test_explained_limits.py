"""`explain` tells which limits a request would meet, their sizes and whose they are, and uses nothing of them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import redis.asyncio

from gateway.auth.secrets import SecretFormat
from gateway.embedded.keeper import Addresses
from tests.fixtures.launching import command
from tests.fixtures.limited import ask
from tests.fixtures.stores import Databases
from tests.integration.stories.world import World, world_over

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROUTES: list[dict[str, Any]] = [
    {
        "name": "orders",
        "paths": ["/orders"],
        "upstream": "orders",
        "cost": 3,
        "limits": [
            {"by": "tenant", "per_second": 50, "per_hour": 900, "burst": 20, "without_redis": "refuse"},
            {"name": "fair", "by": "address", "per_minute": 7, "mode": "shadow"},
        ],
    },
    {"name": "plain", "paths": ["/plain"], "upstream": "orders", "body_limit_bytes": 1},
    {"name": "public", "paths": ["/public"], "upstream": "free", "auth": "none"},
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(
    tmp_path_factory: pytest.TempPathFactory, databases: Databases, servers: Addresses
) -> AsyncIterator[World]:
    """One node that limits in every way."""
    dsn = await databases.create(is_migrated=True)
    folder: Path = tmp_path_factory.mktemp("explained-limits")
    async with world_over(folder, dsn, servers.redis_url, environment="explained", nodes=()) as world:
        target = {"targets": [world.upstream.url]}
        await world.add_node(
            {
                "routes": ROUTES,
                "upstreams": {"orders": {**target, "concurrency": 11}, "free": target},
                "limits": {"plan": {"by": "key"}, "key_concurrency": 4, "unknown_keys_per_minute": 6},
                "plans": {
                    "starter": {"tier": 1, "features": {"api_access": True}, "limits": {"per_minute": 60, "per_day": 9}}
                },
            }
        )
        yield world
    await databases.drop(dsn)


async def limits_of(world: World, path: str, **asked: Any) -> dict[str, dict[str, Any]]:
    """The steps that tell of limits, by their names."""
    told = await world.do("POST", "/v1/explain", {"path": path, "address": "192.0.2.7", **asked})
    return {step["step"]: step for step in told["steps"] if step["step"].startswith("limit")}


async def test_every_limit_that_holds_is_told(world: World) -> None:
    """Of the plan, of the route, in the shadow, and of what may be under way: sizes, costs, and whose they are."""
    key = await world.key()
    await world.do("PUT", f"/v1/users/{key.user}/entitlement", {"plan": "starter", "limits": {"per_minute": 90}})
    told = await limits_of(world, "/orders/1", key_id=key.id)
    assert {step["outcome"] for step in told.values()} == {"noted"}
    plan = told["limit plan"]["facts"]
    assert (plan["by"], plan["subject"], plan["cost"], plan["counted"]) == ("key", key.id, 3, "approximate")
    assert [(one["window"], one["count"], one["burst"]) for one in plan["windows"]] == [
        ("per_minute", 90, 90),
        ("per_day", 9, 9),
    ]
    route = told["limit route.orders.0"]["facts"]
    assert (route["by"], route["subject"], route["mode"]) == ("tenant", key.tenant, "enforce")
    assert route["without_redis"] == "refuse"
    assert [(one["window"], one["count"], one["burst"]) for one in route["windows"]] == [
        ("per_second", 50, 20),
        ("per_hour", 900, 20),
    ]
    shadow = told["limit route.orders.fair"]
    assert (shadow["facts"]["subject"], shadow["facts"]["mode"]) == ("192.0.2.7", "shadow")
    assert "refuses nobody" in shadow["text"]
    assert told["limit key_concurrency"]["facts"] == {"limit": 4, "subject": key.id}
    assert told["limit upstream_concurrency"]["facts"] == {"limit": 11, "subject": "orders"}
    assert "90 per minute, 9 per day" in told["limit plan"]["text"]


async def test_where_none_hold(world: World) -> None:
    """An open route, the gateway's own endpoints; and what is refused before limits are asked tells of none."""
    key = await world.key()
    assert set(await limits_of(world, "/public")) == {"limits"}
    assert set(await limits_of(world, "/.ostiary/whoami", key_id=key.id)) == {"limits"}
    assert await limits_of(world, "/plain", key_id=key.id, method="POST", headers={"Content-Length": "9"}) == {}
    assert await limits_of(world, "/orders") == {}, "without a key nobody comes so far"
    operator = await world.key(kind="operator")
    assert "limit plan" not in await limits_of(world, "/orders", key_id=operator.id)


async def test_look_ups_of_unknown_keys(world: World) -> None:
    """A key that nobody knows meets the limit on such look-ups, of the address that it comes from."""
    told = await limits_of(world, "/orders", secret=SecretFormat("ost", "explained").generate())
    facts = told["limit unknown_keys"]["facts"]
    assert (facts["subject"], facts["windows"][0]["count"], facts["windows"][0]["window"]) == (
        "192.0.2.7",
        6,
        "per_minute",
    )


async def test_nothing_is_used_by_it(world: World, servers: Addresses) -> None:
    """However often it is asked, no budget in Redis is touched, and the next caller finds all of it. R293."""
    key = await world.key()
    for _ in range(12):
        await limits_of(world, "/plain", key_id=key.id)
    assert servers.redis_url is not None
    async with redis.asyncio.Redis.from_url(servers.redis_url) as client:
        names = [name.decode() async for name in client.scan_iter(f"*explained*{key.id}*")]
        assert [name for name in names if ":limit:" in name] == []
    async with aiohttp.ClientSession() as session:
        reply = await ask(session, world.nodes[0], key.secret, "/plain")
    assert reply.status == 200
    assert '"plan.per_day";r=8' in reply.headers["RateLimit"], "one of nine, the one that was really made"


async def test_the_command_tells_them(world: World) -> None:
    """A line for each; the sizes in words and in facts."""
    key = await world.key()
    config = str(world.nodes[0].config_path)
    environment = {"OSTIARY_ADMIN_TOKEN": world.token}
    table = await command("explain", "/orders", "--key", key.id, "-c", config, environment=environment)
    assert (table.returncode, table.stderr) == (0, "")
    assert "--  limit plan" in table.stdout
    assert "60 per minute, 9 per day, shared by the key alone" in table.stdout
    told = await command("explain", "/orders", "--key", key.id, "-c", config, "-o", "json", environment=environment)
    assert any(step["step"] == "limit plan" for step in json.loads(told.stdout)["steps"])
