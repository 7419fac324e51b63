"""When a key was last used, as its owner sees it: by real nodes on a real database."""

import asyncio
from datetime import datetime

import aiohttp

from tests.conftest import StartGateway
from tests.fixtures import psql
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import Caller, plant
from tests.fixtures.upstream import RecordingUpstream
from tests.fixtures.waiting import until


async def ask(node: GatewayProcess, secret: str, path: str = "/orders/1") -> int:
    async with aiohttp.request("GET", node.proxy_url + path, headers={"X-Api-Key": secret}) as response:
        return response.status


async def last_used_at(dsn: str, caller: Caller) -> datetime | None:
    found: datetime | None = await psql.value(dsn, "SELECT last_used_at FROM api_keys WHERE id = $1", caller.key_id)
    return found


async def test_use_is_written_once_and_changes_nothing_else(gateway: StartGateway, postgres_dsn: str) -> None:
    """Two nodes and many requests at once write it once; nothing becomes void by it. R310, R313."""
    caller = await plant(postgres_dsn)
    nodes = [await gateway(), await gateway()]
    assert await last_used_at(postgres_dsn, caller) is None
    revision = await psql.value(postgres_dsn, "SELECT value FROM revision")
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
    assert await psql.value(postgres_dsn, "SELECT value FROM revision") == revision


async def test_the_next_interval_is_written_and_nothing_backwards(gateway: StartGateway, postgres_dsn: str) -> None:
    """A use after the interval moves it forward. R310."""
    caller = await plant(postgres_dsn)
    await psql.value(
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
    await psql.value(postgres_dsn, "UPDATE api_keys SET revoked_at = now() WHERE id = $1", revoked.key_id)
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


async def test_which_secret_is_in_use_is_told_apart(
    gateway: StartGateway, postgres_dsn: str, operator_token: str
) -> None:
    """After a rotation the old secret's last use and the new one's first are both written, at once. R312."""
    caller = await plant(postgres_dsn)
    nodes = [await gateway(), await gateway()]
    revision = await psql.value(postgres_dsn, "SELECT value FROM revision")

    async def told(query: str) -> datetime | None:
        found: datetime | None = await psql.value(postgres_dsn, query, caller.key_id)
        return found

    first_used = "SELECT secret_first_used_at FROM api_keys WHERE id = $1"
    old_used = "SELECT last_used_at FROM retired_secrets WHERE key_id = $1"

    async def is_told(query: str) -> bool:
        return await told(query) is not None

    assert await ask(nodes[0], caller.secret) == 200
    await until(lambda: is_told(first_used), what="the first use to be written")
    assert await psql.value(postgres_dsn, "SELECT value FROM revision") == revision
    began = await told(first_used)
    headers = {"Authorization": f"Bearer {operator_token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{nodes[0].admin_url}/v1/keys/{caller.key_id}/rotate") as response,
    ):
        renewed = (await response.json())["secret"]
    assert (await told(first_used), await told(old_used)) == (None, began)
    retired_at = await told("SELECT retired_at FROM retired_secrets WHERE key_id = $1")
    assert retired_at is not None
    assert await ask(nodes[1], caller.secret) == 200  # within seconds of its use before, and yet it is written

    async def is_old_in_use() -> bool:
        used = await told(old_used)
        return used is not None and used > retired_at

    await until(is_old_in_use, what="the use of the old secret to be written")
    assert await told(first_used) is None
    assert await ask(nodes[1], renewed) == 200
    await until(lambda: is_told(first_used), what="the new secret's first use to be written")


async def test_who_may_pass_by_another_proxy_has_used_the_key(
    gateway: StartGateway, postgres_dsn: str, upstream: RecordingUpstream
) -> None:
    """What passes at the other door is a use of the very secret, and noted as one. R310, R312."""
    ada, bob = await plant(postgres_dsn), await plant(postgres_dsn, Caller("bob"))
    node = await gateway()
    assert await ask(node, ada.secret, "/.ostiary/auth/orders/1") == 200
    assert not upstream.requests

    async def is_written(caller: Caller) -> bool:
        first_used = "SELECT secret_first_used_at FROM api_keys WHERE id = $1"
        return await psql.value(postgres_dsn, first_used, caller.key_id) is not None

    await until(lambda: is_written(ada), what="the use to be written")
    assert await ask(node, bob.secret) == 200
    await until(lambda: is_written(bob), what="the next use to be written")
