"""When a key was last used, as its owner sees it: by real nodes on a real database."""

import asyncio
from datetime import datetime
from typing import Any

import aiohttp
import asyncpg

from tests.conftest import StartGateway
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import Caller, plant
from tests.fixtures.upstream import RecordingUpstream
from tests.fixtures.waiting import until


async def ask(node: GatewayProcess, secret: str, path: str = "/orders/1") -> int:
    async with aiohttp.request("GET", node.proxy_url + path, headers={"X-Api-Key": secret}) as response:
        return response.status


async def fetch(dsn: str, query: str, *values: object) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query, *values)
    finally:
        await connection.close()


async def last_used_at(dsn: str, caller: Caller) -> datetime | None:
    found: datetime | None = await fetch(dsn, "SELECT last_used_at FROM api_keys WHERE id = $1", caller.key_id)
    return found


async def test_use_is_written_once_and_changes_nothing_else(gateway: StartGateway, postgres_dsn: str) -> None:
    """Two nodes and many requests at once write it once; nothing becomes void by it. R310, R313."""
    caller = await plant(postgres_dsn)
    nodes = [await gateway(), await gateway()]
    assert await last_used_at(postgres_dsn, caller) is None
    revision = await fetch(postgres_dsn, "SELECT value FROM revision")
    statuses = await asyncio.gather(*(ask(node, caller.secret) for node in nodes for _ in range(50)))
    assert set(statuses) == {200}

    async def is_written() -> bool:
        return await last_used_at(postgres_dsn, caller) is not None

    await until(is_written, what="the first use to be written")
    first = await last_used_at(postgres_dsn, caller)
    late = await gateway()
    assert await ask(late, caller.secret) == 200
    await late.stop()
    assert await last_used_at(postgres_dsn, caller) == first
    assert await fetch(postgres_dsn, "SELECT value FROM revision") == revision


async def test_the_next_interval_is_written_and_nothing_backwards(gateway: StartGateway, postgres_dsn: str) -> None:
    """A use after the interval moves it forward. R310."""
    caller = await plant(postgres_dsn)
    await fetch(
        postgres_dsn, "UPDATE api_keys SET last_used_at = now() - interval '301 s' WHERE id = $1", caller.key_id
    )
    before = await last_used_at(postgres_dsn, caller)
    assert before is not None
    node = await gateway()
    assert await ask(node, caller.secret) == 200
    await node.stop()
    after = await last_used_at(postgres_dsn, caller)
    assert after is not None
    assert after > before


async def test_who_is_refused_has_not_used_his_key(
    gateway: StartGateway, postgres_dsn: str, upstream: RecordingUpstream
) -> None:
    """A key that is revoked, lacks a scope or asks for nothing that there is, has not been used. R311."""
    revoked, poor = await plant(postgres_dsn), await plant(postgres_dsn, Caller("eve", scopes=()))
    await fetch(postgres_dsn, "UPDATE api_keys SET revoked_at = now() WHERE id = $1", revoked.key_id)
    routes = [
        {"name": "orders", "paths": ["/orders"], "upstream": "orders", "require": {"scopes": ["orders:read"]}},
        {"name": "reading", "paths": ["/reading"], "upstream": "orders", "methods": ["POST"]},
    ]
    node = await gateway({"routes": routes})
    assert await ask(node, revoked.secret) == 401
    assert [await ask(node, poor.secret, path) for path in ("/orders/1", "/reading", "/nowhere")] == [403, 405, 404]
    await node.stop()
    assert not upstream.requests
    assert [await last_used_at(postgres_dsn, caller) for caller in (revoked, poor)] == [None, None]
