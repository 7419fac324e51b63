"""Once a revocation has answered, no node admits the key any more: under traffic, in races, and typed into psql."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from tests.fixtures.waiting import until
from tests.integration.stories import fragile as fragile_parts
from tests.integration.stories.fragile import COMMIT, Fragile
from tests.integration.stories.traffic import Traffic
from tests.integration.stories.world import POLL_SECONDS, Key, World

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOUND_SECONDS = 2.0


def digest_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def revoke(world: World, key: Key, node: int) -> str:
    await world.revoke(key, node=node)
    return "key_revoked"


async def end_the_window(world: World, key: Key, node: int) -> str:
    retired = (await world.do("GET", f"/v1/keys/{key.id}/retired-secrets", node=node))["items"]
    await world.set_window(retired[0]["id"], time.time(), node=node)
    return "key_rotated"


async def suspend_the_tenant(world: World, key: Key, node: int) -> str:
    await world.do("PATCH", f"/v1/tenants/{key.tenant}", {"status": "suspended"}, node=node)
    return "tenant_suspended"


async def delete_the_user(world: World, key: Key, node: int) -> str:
    await world.do("DELETE", f"/v1/users/{key.user}", node=node, status=204)
    return "invalid_api_key"


async def end_the_subscription(world: World, key: Key, node: int) -> str:
    body = {"plan": "starter", "valid_until": time.time() - 1}
    await world.do("PUT", f"/v1/users/{key.user}/entitlement", body, node=node)
    return "subscription_lapsed"


# -- under traffic


@pytest.mark.parametrize(
    "narrow",
    [revoke, end_the_window, suspend_the_tenant, delete_the_user, end_the_subscription],
    ids=lambda act: act.__name__,
)
async def test_under_constant_traffic(world: World, narrow: Callable[[World, Key, int], Awaitable[str]]) -> None:
    """While both nodes are asked without pause, no request sent after the answer is admitted. R104 R221 R242."""
    for number in range(4):
        key = await world.key()
        await world.rotate(key)
        await world.warm(key.secret)
        async with Traffic(world, [key.secret]) as traffic:
            await traffic.goes_on(5)
            code = await narrow(world, key, number % 2)
            answered_at = time.time()
            await traffic.goes_on(5)
        late = [answer for answer in traffic.answers if answer.sent_at >= answered_at]
        assert {(answer.node, answer.code) for answer in late} == {(0, code), (1, code)}
        assert {answer.code for answer in traffic.answers} == {None, code}  # and nobody got an error meanwhile


async def test_many_revocations_at_once(world: World) -> None:
    """Forty keys revoked at the same time through both nodes are all refused at their next request. R221 R238."""
    owners = await asyncio.gather(*(world.user() for _ in range(8)))
    keys = [await world.key(owner) for owner in owners for _ in range(5)]
    for key in keys:
        await world.admitted(key)
    async with Traffic(world, [key.secret for key in keys]) as traffic:
        await traffic.goes_on(1)

        async def end(number: int, key: Key) -> None:
            await world.revoke(key, node=number % 2)
            await world.refused("key_revoked", key.secret)

        await asyncio.gather(*(end(number, key) for number, key in enumerate(keys)))
    await world.refused("key_revoked", *(key.secret for key in keys))


async def test_two_revocations_of_one_key(world: World) -> None:
    """Of two calls at once on two nodes either may win; whichever has answered, no node admits the key. R221 R233."""
    for _ in range(5):
        key = await world.key()
        await world.warm(key.secret)

        async def end(node: int, key: Key = key) -> tuple[int, Any]:
            reply = await world.api("POST", f"/v1/keys/{key.id}/revoke", node=node)
            await world.refused("key_revoked", key.secret)
            return reply.status, reply.code

        answers = await asyncio.gather(end(0), end(1))
        assert (200, None) in answers
        assert set(answers) <= {(200, None), (409, "already_revoked")}


async def test_a_rotation_beside_a_revocation(world: World) -> None:
    """A key rotated on one node while it is revoked on the other has no secret that works, new or old. R103 R221."""
    for _ in range(5):
        key = await world.key()
        await world.warm(key.secret)
        rotation, _ = await asyncio.gather(
            world.api("POST", f"/v1/keys/{key.id}/rotate", {}), world.revoke(key, node=1)
        )
        assert (rotation.status, rotation.code) in {(200, None), (409, "key_revoked")}
        secrets = [key.secret, rotation.body["secret"]] if rotation.status == 200 else [key.secret]
        await world.refused("key_revoked", *secrets)


async def test_propagation_is_measured(world: World) -> None:
    """Every confirmed change is counted with its time on the node that made it. R244."""
    for node in (0, 1):
        key = await world.key()
        before = await world.metric(node, "ostiary_propagation_seconds_count")
        reply = await world.revoke(key, node=node)
        assert await world.metric(node, "ostiary_propagation_seconds_count") == before + 1
        assert 0 < reply["propagation"]["seconds"] < BOUND_SECONDS


# -- the order of things


async def test_nothing_is_evicted_before_the_commit(fragile: Fragile) -> None:
    """Until the commit every cache goes on with what it has; from the answer on none does. R230."""
    world = fragile.world
    key = await world.key()
    await world.warm(key.secret)
    held = fragile.to_postgres[0].hold_request(COMMIT)
    call = asyncio.create_task(world.revoke(key))
    await held.wait_until_caught()
    lookups = [await world.metric(node, "ostiary_cache_events_total", layer="local", event="miss") for node in (0, 1)]
    await world.admitted(key, key.secret, key.secret)
    assert await world.entry(key.secret) is not None
    after = [await world.metric(node, "ostiary_cache_events_total", layer="local", event="miss") for node in (0, 1)]
    assert after == lookups
    assert not call.done()
    held.release()
    await call
    await world.refused("key_revoked", key.secret)


@pytest.mark.threat("lookup against revocation")
async def test_a_lookup_that_a_revocation_overtakes(fragile: Fragile) -> None:
    """A node has read the key, the revocation commits and answers, the node goes on: the key is refused. R231."""
    world = fragile.world
    key = await world.key()
    held = fragile.to_postgres[1].hold_reply(digest_of(key.secret))
    late = asyncio.create_task(world.ask(1, key.secret))
    await held.wait_until_caught()
    await world.revoke(key)
    held.release()
    assert (await late).code == "key_revoked"
    await world.refused("key_revoked", key.secret)


async def test_a_lookup_that_a_creation_overtakes(fragile: Fragile) -> None:
    """A node has read that there is no such key, the key is made, the node goes on: the key is admitted. R101 R231."""
    world = fragile.world
    user, tenant = await world.user()
    secret = world.format.generate()
    held = fragile.to_postgres[1].hold_reply(digest_of(secret))
    late = asyncio.create_task(world.ask(1, secret))
    await held.wait_until_caught()
    body = {"user_id": user, "name": "own", "secret_sha256": digest_of(secret).hex(), "prefix": secret[:15]}
    made = await world.do("POST", "/v1/keys", body, status=201)
    held.release()
    assert (await late).status == 200
    await world.admitted(Key(made["id"], secret, user, tenant))


@pytest.mark.threat("lookup against revocation")
async def test_a_write_to_redis_that_a_revocation_overtakes(fragile: Fragile) -> None:
    """A node's write of the key to Redis arrives after its revocation: it is there, and no node believes it. R231."""
    world = fragile.world
    key = await world.key()
    name = world.entry_name(key.secret).encode()
    held = fragile.to_redis[1].hold_request(b"SET\r\n$%d\r\n%b" % (len(name), name))
    assert (await world.ask(1, key.secret)).status == 200
    await held.wait_until_caught()
    await world.revoke(key)
    held.release()

    async def has_arrived() -> bool:
        return await world.entry(key.secret) is not None

    await until(has_arrived, what="the late write")
    await world.refused("key_revoked", key.secret)


@pytest.mark.threat("poisoned cache entry")
async def test_old_contents_of_redis(world: World) -> None:
    """What Redis held before a revocation, put back after it, convinces neither the nodes nor one that starts. R231."""
    key = await world.key()
    second = (await world.rotate(key))["secret"]
    await world.warm(key.secret, second)
    entries = {secret: await world.entry(secret) for secret in (key.secret, second)}
    await world.revoke(key)
    for secret, value in entries.items():
        assert value is not None
        await world.write_entry(secret, value)
    await world.refused("key_revoked", key.secret)
    number = await world.add_node()
    try:
        for secret in (key.secret, second):
            assert (await world.ask(number, secret)).code == "key_revoked"
    finally:
        await world.nodes.pop().stop()
    await world.refused("key_revoked", second)


# -- typed into psql


@pytest.mark.threat("missed revocation")
async def test_edits_typed_into_psql(world: World) -> None:
    """Whatever is typed into psql about a key refuses it on every node within the bound and a poll. R221 R237."""
    edits = [
        ("invalid_api_key", "DELETE FROM api_keys WHERE id = $1"),
        ("key_revoked", "UPDATE api_keys SET revoked_at = now() WHERE id = $1"),
        ("key_expired", "UPDATE api_keys SET expires_at = now() WHERE id = $1"),
        ("invalid_api_key", "UPDATE api_keys SET digest = sha256(digest) WHERE id = $1"),
        ("invalid_api_key", "UPDATE api_keys SET environment = 'dev' WHERE id = $1"),
        ("key_rotated", "UPDATE retired_secrets SET expires_at = now() WHERE key_id = $1"),
        ("invalid_api_key", "DELETE FROM retired_secrets WHERE key_id = $1"),
    ]
    keys, secrets = [], []
    for _, statement in edits:
        key = await world.key()
        second = (await world.rotate(key))["secret"]
        keys.append(key)
        secrets.append(key.secret if "retired" in statement else second)
    await world.warm(*secrets)

    async def edit(key: Key, secret: str, code: str, statement: str) -> None:
        await world.sql(statement, key.id)
        await world.refused_within(BOUND_SECONDS + POLL_SECONDS, code, secret)

    await asyncio.gather(*(edit(*what) for what in zip(keys, secrets, *zip(*edits, strict=True), strict=True)))


async def test_an_edit_that_is_rolled_back_changes_nothing(world: World) -> None:
    """A deletion in psql that is not committed refuses nobody and stops no other call, nor when rolled back. R230."""
    key, other = await world.key(), await world.key()
    await world.warm(key.secret, other.secret)
    connection = await asyncpg.connect(world.dsn)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("DELETE FROM api_keys WHERE id = $1", key.id)
        await world.admitted(key)
        await world.revoke(other)
        await world.refused("key_revoked", other.secret)
        await world.admitted(key)
        await transaction.rollback()
    finally:
        await connection.close()
    await world.admitted(key)
    await world.revoke(key)
    await world.refused("key_revoked", key.secret)


async def test_a_truncated_table(fragile: Fragile) -> None:
    """TRUNCATE in psql, which names no row, refuses every key on every node within the bound and a poll. R221."""
    world = fragile.world
    keys = [await world.key() for _ in range(3)]
    await world.warm(*(key.secret for key in keys))
    await world.sql("TRUNCATE api_keys CASCADE")
    within = fragile_parts.BOUND_SECONDS + fragile_parts.POLL_SECONDS
    await world.refused_within(within, "invalid_api_key", *(key.secret for key in keys))


# -- forgetting on demand


async def test_who_may_have_a_secret_forgotten(world: World) -> None:
    """Invalidation makes both nodes ask again, for its owner also of a revoked key; a stranger evicts nothing.

    R240 R241.
    """
    key = await world.key()
    owner, stranger = await world.tenant_admin(key.tenant), await world.tenant_admin(await world.tenant())
    body = {"secret_sha256": digest_of(key.secret).hex()}

    async def misses() -> list[float]:
        return [await world.metric(node, "ostiary_cache_events_total", layer="local", event="miss") for node in (0, 1)]

    async def call(token: str, body: Any = body) -> int:
        return (await world.api("POST", "/v1/cache/invalidate", body, token=token)).status

    await world.warm(key.secret)
    before = await misses()
    assert [await call(stranger), await call("osta_bogus"), await call(owner, {"secret_sha256": "abc"})] == [
        403,
        401,
        422,
    ]
    await world.admitted(key)
    assert await misses() == before
    assert await call(owner) == 200
    await world.admitted(key)
    assert await misses() == [count + 1 for count in before]
    await world.revoke(key)
    await world.refused("key_revoked", key.secret)
    assert [await call(stranger), await call(owner)] == [403, 200]
    await world.refused("key_revoked", key.secret)
