"""What a request costs the stores, counted there: Postgres' own log of statements, Redis' own count of commands."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from gateway.auth.secrets import sha256_digest
from gateway.stores.records import Finding
from gateway.stores.redis.entry_format import pack, unpack
from gateway.stores.redis.seal import Seal
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.stand import FORMAT, Answer, Key, Stand, unknown_secret
from tests.fixtures.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEGATIVE_TTL_SECONDS = 1.0


@dataclass(frozen=True)
class Pair:
    """Two nodes on one stand."""

    stand: Stand
    one: GatewayProcess
    two: GatewayProcess


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """Shared by the tests of this module: each uses keys of its own."""
    folder: Path = tmp_path_factory.mktemp("economy")
    stand = Stand(folder, cache={"negative_ttl_seconds": NEGATIVE_TTL_SECONDS})
    try:
        await stand.start()
        yield Pair(stand, await stand.start_node(), await stand.start_node())
    finally:
        await stand.stop()


async def sealed_of_another(pair: "Pair") -> bytes:
    """What one node has left about some other key. A Redis slow for a moment is left alone: then by a next one."""
    for _ in range(4):
        (other,) = await pair.stand.new_keys(1)
        assert good(await pair.stand.call(pair.two, other.secret), other)
        with contextlib.suppress(AssertionError):
            return await until_entry(pair.stand, other, seconds=2)
    raise AssertionError("no entry of four keys has come to Redis")


async def until_entry(stand: Stand, key: Key, *, seconds: float = 10.0) -> bytes:
    """What the nodes leave each other about the key, once it is there."""
    found: list[bytes] = []

    async def is_there() -> bool:
        async with stand.redis_client() as client:
            value = await client.get(key.entry_name)
        found.extend([] if value is None else [value])
        return bool(found)

    await until(is_there, seconds=seconds, what="the entry in Redis")
    return found[0]


def good(answer: Answer, key: Key) -> bool:
    """Whether the key was admitted as itself."""
    return (answer.status, answer.who) == (200, key.id)


# -- who is asked


async def test_a_warm_key_costs_no_store_anything(pair: Pair) -> None:
    """Once admitted, a key is searched for in neither Postgres nor Redis. R042."""
    stand = pair.stand
    key = await stand.new_key()
    assert good(await stand.call(pair.one, key.secret), key)
    await until_entry(stand, key)
    mark, calls = stand.mark(), await stand.redis_calls()
    for _ in range(200):
        assert good(await stand.call(pair.one, key.secret), key)
    assert stand.lookups(mark) == (0, 0)
    assert await stand.redis_calls() == calls


async def test_the_tiers_are_asked_in_order(pair: Pair) -> None:
    """Redis, then the current secrets; the second node finds the answer in Redis and asks no Postgres. R041."""
    stand = pair.stand
    key = await stand.new_key()
    mark, calls = stand.mark(), await stand.redis_calls()
    assert good(await stand.call(pair.one, key.secret), key)
    assert stand.lookups(mark) == (1, 0)
    await until_entry(stand, key)
    mark = stand.mark()
    assert good(await stand.call(pair.two, key.secret), key)
    assert stand.lookups(mark) == (0, 0)
    after = await stand.redis_calls()
    assert after["set"] - calls.get("set", 0) == 1
    assert await stand.sample(pair.two, "ostiary_auth_total", tier="redis", result="admitted") >= 1


async def test_the_retired_secrets_are_searched_only_after_the_current_ones(pair: Pair) -> None:
    """A current secret costs one search; a retired or an unknown one costs two. R041."""
    stand = pair.stand
    key = await stand.new_key()
    retired = Key(key.id, unknown_secret())
    await stand.execute(
        "INSERT INTO retired_secrets (id, key_id, digest, prefix, expires_at)"
        " VALUES ($1, $2, $3, 'ost_', now() + interval '1 hour')",
        f"old-{key.id}",
        key.id,
        retired.digest,
    )
    await stand.heard_by(stand.nodes)
    mark = stand.mark()
    assert good(await stand.call(pair.one, retired.secret), key)
    assert stand.lookups(mark) == (1, 1)
    mark = stand.mark()
    assert (await stand.call(pair.one, unknown_secret())).code == "invalid_api_key"
    assert stand.lookups(mark) == (1, 1)


@pytest.mark.threat("SQL in the key", "flood of unknown keys")
async def test_what_has_not_the_shape_is_refused_without_asking(pair: Pair) -> None:
    """Malformed, mistyped and foreign secrets are refused with no question to anybody. R006 R011."""
    stand = pair.stand
    key = await stand.new_key()
    mark, calls = stand.mark(), await stand.redis_calls()
    flipped = key.secret[:-1] + ("0" if key.secret[-1] != "0" else "1")
    for secret in (flipped, key.secret[:-1], key.secret.upper(), key.secret.replace("_test_", "_prod_"), "x" * 60):
        answer = await stand.call(pair.one, secret)
        assert (answer.status, answer.code) == (401, "invalid_api_key")
    assert stand.lookups(mark) == (0, 0)
    assert await stand.redis_calls() == calls


@pytest.mark.threat("flood of unknown keys")
async def test_an_unknown_key_is_searched_once_in_its_time(pair: Pair) -> None:
    """The second request with it, on either node, asks no Postgres; after its time it is searched again. R046."""
    stand, secret = pair.stand, unknown_secret()
    mark = stand.mark()
    assert (await stand.call(pair.one, secret)).status == 401
    assert (await stand.call(pair.one, secret)).status == 401
    await until_entry(stand, Key("", secret))
    assert (await stand.call(pair.two, secret)).status == 401
    assert stand.lookups(mark) == (1, 1)

    async def is_searched_again() -> bool:
        assert (await stand.call(pair.one, secret)).status == 401
        return stand.lookups(mark) == (2, 2)

    await until(is_searched_again, seconds=3 * NEGATIVE_TTL_SECONDS, what="the second search")


async def test_a_key_created_after_it_was_probed_works_at_once(pair: Pair) -> None:
    """Both nodes and Redis remember that nobody has this secret; its creation ends that everywhere. R061."""
    stand, secret = pair.stand, unknown_secret()
    for node in (pair.one, pair.two):
        assert (await stand.call(node, secret)).status == 401
    await until_entry(stand, Key("", secret))
    created = await stand.manage(
        pair.one,
        "POST",
        "/v1/keys",
        {
            "user_id": "ann",
            "name": "made by the client",
            "secret_sha256": sha256_digest(secret.encode()).hex(),
            "prefix": FORMAT.display_prefix(secret),
        },
    )
    assert created.status == 201, created.text
    for node in (pair.one, pair.two):
        answer = await stand.call(node, secret)
        assert (answer.status, answer.who) == (200, json.loads(created.text)["id"])


# -- many at once


@pytest.mark.threat("herd after a cache restart")
async def test_fifty_cold_requests_are_one_lookup(pair: Pair) -> None:
    """However many ask for one key at once, Postgres is asked once, and all get the same answer. R048."""
    stand = pair.stand
    key, mark = await stand.new_key(), stand.mark()
    answers = await asyncio.gather(*(stand.call(pair.one, key.secret) for _ in range(50)))
    assert all(good(answer, key) for answer in answers)
    assert stand.lookups(mark) == (1, 0)


async def test_every_key_is_looked_up_for_itself(pair: Pair) -> None:
    """N keys at once are N lookups, and nobody gets another's answer. R049."""
    stand = pair.stand
    keys = await stand.new_keys(30)
    mark = stand.mark()
    answers = await asyncio.gather(*(stand.call(pair.one, key.secret) for key in keys for _ in range(3)))
    assert [answer.who for answer in answers] == [key.id for key in keys for _ in range(3)]
    assert stand.lookups(mark) == (30, 0)


@pytest.mark.threat("answer of another request")
async def test_the_first_client_may_leave_during_the_lookup(pair: Pair) -> None:
    """Its disconnection neither fails nor repeats the lookup that the others wait for. R050."""
    stand = pair.stand
    key = await stand.new_key()
    async with stand.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        mark = stand.mark()
        leader = asyncio.create_task(stand.call(pair.one, key.secret))
        await until(lambda: has_waiting(connection), what="the lookup to begin")
        others = [asyncio.create_task(stand.call(pair.one, key.secret)) for _ in range(5)]
        await until_busy(pair, 6)
        leader.cancel()
        await until_busy(pair, 5)
        await transaction.rollback()
    assert all(good(answer, key) for answer in await asyncio.gather(*others))
    assert stand.lookups(mark) == (1, 0)


async def has_waiting(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    """Whether a statement waits for a lock."""
    return bool(await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))


async def until_busy(pair: Pair, count: int) -> None:
    """Wait until so many requests are under way on the first node."""

    async def is_so() -> bool:
        return await pair.stand.sample(pair.one, "ostiary_connections", side="client", state="busy") == count

    await until(is_so, what=f"{count} requests under way")


async def test_a_lookup_that_hangs_is_cut_and_leaves_no_trace(pair: Pair) -> None:
    """Within three seconds its callers hear of an outage; warm keys are served meanwhile, and it works after. R051."""
    stand = pair.stand
    warm, key = await stand.new_keys(2)
    assert good(await stand.call(pair.one, warm.secret), warm)
    async with stand.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        hung = asyncio.create_task(stand.call(pair.one, key.secret))
        while not hung.done():
            assert good(await stand.call(pair.one, warm.secret), warm)
        answer = await hung
        assert (answer.status, answer.code) == (503, "auth_unavailable")
        assert answer.seconds < 3
        await transaction.rollback()
    retried = await stand.call(pair.two, key.secret)
    assert good(retried, key)
    # By now the first node finds the answer in Redis, back-off or not.
    await until_entry(stand, key)
    assert good(await stand.call(pair.one, key.secret), key)


# -- what stands in Redis


async def test_every_name_in_redis_belongs_to_its_environment(pair: Pair) -> None:
    """Two environments share one Redis and one database, and none of their names. R053."""
    stand = pair.stand
    abroad = await stand.start_node({"environment": "stage"})
    (foreign,) = await stand.insert_keys(1, environment="stage")
    key = await stand.new_key()
    assert good(await stand.call(pair.one, key.secret), key)
    assert good(await stand.call(abroad, foreign.secret), foreign)
    assert (await stand.call(abroad, key.secret)).status == 401
    assert (await stand.call(pair.one, foreign.secret)).status == 401
    await until_entry(stand, key)
    there = foreign.entry_name.replace(":test:", ":stage:")
    async with stand.redis_client() as client:
        await until(lambda: _exists(client, there), what="the foreign entry")
        names = {name.decode() for name in await client.keys("*")}
        channels = {name.decode() for name in await client.pubsub_channels("*")}
    assert {name.split(":")[:2][1] for name in names | channels} == {"test", "stage"}
    assert all(name.startswith("ostiary:") for name in names | channels)
    assert foreign.entry_name not in names
    await abroad.stop()


async def _exists(client: Any, name: str) -> bool:
    return bool(await client.exists(name))


async def test_value_and_lifetime_are_one_command(pair: Pair) -> None:
    """No entry is ever without its end: it is set with it, and reading does not put it off. R043 R063."""
    stand = pair.stand
    key = await stand.new_key()
    assert good(await stand.call(pair.one, key.secret), key)
    await until_entry(stand, key)
    async with stand.redis_client() as client:
        before = await client.pttl(key.entry_name)
        assert good(await stand.call(pair.two, key.secret), key)
        assert 0 < await client.pttl(key.entry_name) <= before <= 60_000
        assert [await client.pttl(name) > 0 or not await client.exists(name) for name in await client.keys("*")]
    calls = await stand.redis_calls()
    assert calls["set"] > 0
    assert not {"expire", "pexpire", "expireat", "pexpireat", "persist", "getex"} & calls.keys()


GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "not JSON": lambda _: b"{",
    "empty object": lambda _: b"{}",
    "list": lambda _: b"[]",
    "number": lambda _: b"1",
    "pickle": lambda _: b"\x80\x04N.",
    "huge": lambda _: b"x" * 500_000,
    "cut off": lambda sealed: sealed[:-1],
    "longer": lambda sealed: sealed + b" ",
    "one bit changed": lambda sealed: sealed[:-2] + bytes([sealed[-2] ^ 1]) + sealed[-1:],
    "another seal version": lambda sealed: b"o0" + sealed[2:],
    "unsigned": lambda sealed: sealed[34:],
    "signed with nothing": lambda sealed: sealed[:2] + bytes(32) + sealed[34:],
}


@pytest.mark.threat("poisoned cache entry")
@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_in_redis_is_a_miss(pair: Pair, kind: str) -> None:
    """Whatever stands under a key's name, the answer is Postgres' and the caller's own. R055."""
    stand = pair.stand
    (key,) = await stand.new_keys(1)
    await check_truth_is_asked(pair, key, GARBAGE[kind](await sealed_of_another(pair)))


async def check_truth_is_asked(pair: Pair, key: Key, value: bytes) -> None:
    """With this value under its name the key, cold on the first node, is looked up in Postgres."""
    stand = pair.stand
    async with stand.redis_client() as client:
        await client.set(key.entry_name, value, ex=60)
    await until(lambda: _asks_redis(pair), what="Redis to be asked")
    refused = await stand.sample(pair.one, "ostiary_cache_events_total", layer="redis", event="refused")
    mark = stand.mark()
    assert good(await stand.call(pair.one, key.secret), key)
    assert stand.lookups(mark) == (1, 0)
    assert await stand.sample(pair.one, "ostiary_cache_events_total", layer="redis", event="refused") == refused + 1


async def _asks_redis(pair: Pair) -> bool:
    """Whether it does; for a second after it was slow on a busy machine it does not."""
    return await pair.stand.sample(pair.one, "ostiary_dependency_up", dependency="redis") == 1


@pytest.mark.threat("poisoned cache entry")
async def test_another_keys_record_is_a_miss(pair: Pair) -> None:
    """A record that is genuine, but was left for another secret, makes nobody somebody else. R055."""
    stand = pair.stand
    other, key = await stand.new_keys(2)
    assert good(await stand.call(pair.two, other.secret), other)
    await check_truth_is_asked(pair, key, await until_entry(stand, other))


@pytest.mark.threat("poisoned cache entry")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"version": 0}, id="older version"),
        pytest.param({"version": 99}, id="newer version"),
        pytest.param({"revision": "1"}, id="revision of a wrong type"),
        pytest.param({"record": {}}, id="empty record"),
        pytest.param({"record": {"user_id": ""}}, id="empty owner"),
        pytest.param({"record": {"is_revoked": 0}}, id="flag of a wrong type"),
        pytest.param({"digests": []}, id="no digest"),
        pytest.param({"more": 1}, id="one field too many"),
    ],
)
async def test_a_sealed_record_of_another_shape_is_a_miss(pair: Pair, change: dict[str, Any]) -> None:
    """Another version's or a broken writer's record, though genuine, is not guessed at. R055."""
    stand = pair.stand
    key = await stand.new_key()
    assert good(await stand.call(pair.two, key.secret), key)
    seal = await seal_of(stand)
    body = seal.open(key.entry_name, await until_entry(stand, key))
    assert body is not None
    document = json.loads(body)
    if change.get("record"):
        change = {"record": document["record"] | change["record"]}
    await check_truth_is_asked(pair, key, seal.close(key.entry_name, json.dumps(document | change).encode()))


async def seal_of(stand: Stand) -> Seal:
    """The deployment's seal."""
    seal = Seal()
    async with stand.connection() as connection:
        seal.unlock(await connection.fetchval("SELECT seal_key FROM deployment"))
    return seal


@pytest.mark.threat("poisoned cache entry")
async def test_another_type_in_redis_is_a_miss(pair: Pair) -> None:
    """A list where a value should stand is an error of Redis, and a miss here. R055 R056."""
    stand = pair.stand
    key = await stand.new_key()
    async with stand.redis_client() as client:
        await client.rpush(key.entry_name, "x")
    mark = stand.mark()
    assert good(await stand.call(pair.one, key.secret), key)
    assert stand.lookups(mark) == (1, 0)


@pytest.mark.threat("poisoned cache entry")
async def test_a_record_from_before_a_revocation_brings_nothing_back(pair: Pair) -> None:
    """Genuine, unexpired, of this very key, but older than its revocation: Redis' past does not count. R055 R231."""
    stand = pair.stand
    key = await stand.new_key()
    assert good(await stand.call(pair.two, key.secret), key)
    old = await until_entry(stand, key)
    revoked = await stand.manage(pair.two, "POST", f"/v1/keys/{key.id}/revoke", {})
    assert revoked.status == 200, revoked.text
    async with stand.redis_client() as client:
        await client.set(key.entry_name, old, ex=60)
    for node in (pair.one, pair.two):
        answer = await stand.call(node, key.secret)
        assert (answer.status, answer.code) == (401, "key_revoked")


@pytest.mark.threat("poisoned cache entry")
async def test_a_record_that_was_made_here_is_used(pair: Pair) -> None:
    """The counterpart of the above: a genuine record is taken, so the misses are not for want of reading. R041 R055."""
    stand = pair.stand
    key = await stand.new_key()
    assert good(await stand.call(pair.two, key.secret), key)
    seal = await seal_of(stand)
    body = seal.open(key.entry_name, await until_entry(stand, key))
    finding = None if body is None else unpack(body)
    assert isinstance(finding, Finding)
    async with stand.redis_client() as client:
        await client.set(key.entry_name, seal.close(key.entry_name, pack(finding)), ex=60)
    mark = stand.mark()
    assert good(await stand.call(pair.one, key.secret), key)
    assert stand.lookups(mark) == (0, 0)


# -- where secrets are


@pytest.mark.threat("secrets in logs")
async def test_a_secret_stands_nowhere(pair: Pair) -> None:
    """Created, used, rotated, revoked, mistyped: no secret is in a table, in Redis, in a log or a metric. R040."""
    stand = pair.stand
    await stand.execute("INSERT INTO users (id, tenant_id) VALUES ('eve', 'acme')")
    await stand.execute("INSERT INTO entitlements (user_id, plan) VALUES ('eve', 'basic')")
    mark = stand.mark()
    created = await stand.manage(pair.one, "POST", "/v1/keys", {"user_id": "eve", "name": "watched"})
    assert created.status == 201, created.text
    key = Key(json.loads(created.text)["id"], json.loads(created.text)["secret"])
    rotated = await stand.manage(pair.two, "POST", f"/v1/keys/{key.id}/rotate", {})
    assert rotated.status == 200, rotated.text
    secrets = [key.secret, json.loads(rotated.text)["secret"], unknown_secret()]
    secrets.append(secrets[0][:-1] + "-")
    for node in (pair.one, pair.two):
        statuses = [(await stand.call(node, secret)).status for secret in secrets]
        assert statuses == [200, 200, 401, 401]
    await until_entry(stand, key)
    assert (await stand.manage(pair.one, "POST", f"/v1/keys/{key.id}/revoke", {})).status == 200
    haystacks = {"the log of statements": stand.statements(mark), **await tables(stand), **await redis_values(stand)}
    for node in (pair.one, pair.two):
        haystacks[f"the log of {node.pid}"] = node.log
        haystacks[f"the metrics of {node.pid}"] = (await stand.ask("GET", f"{node.status_url}/metrics")).text
    assert key.digest.hex() in haystacks["table api_keys"] + haystacks["table retired_secrets"]
    for place, text in haystacks.items():
        for secret in secrets:
            hidden = secret.removeprefix(FORMAT.display_prefix(secret))
            assert hidden not in text, f"a secret stands in {place}"
    assert not any(secret.encode() in request.raw_head for request in stand.upstream.requests for secret in secrets)


async def tables(stand: Stand) -> dict[str, str]:
    """Every row of every table, as text."""
    async with stand.connection() as connection:
        names = [
            row[0] for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ]
        return {
            f"table {name}": "\n".join(
                str(row[0]) for row in await connection.fetch(f'SELECT t::text FROM "{name}" AS t')
            )
            for name in names
        }


async def redis_values(stand: Stand) -> dict[str, str]:
    """Every name and value in Redis."""
    async with stand.redis_client() as client:
        values = {}
        for name in await client.keys("*"):
            is_plain = await client.type(name) == b"string"
            values[f"Redis {name!r}"] = f"{name!r} {await client.get(name) if is_plain else ''!r}"
        assert values
        return values
