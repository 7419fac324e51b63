"""A secret is replaced while callers use it: both work for a while, and the end of that while is exact everywhere."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.control.admin_tokens import AdminTokens
from gateway.embedded.keeper import Addresses
from gateway.stores.postgres.connection import Postgres
from gateway.telemetry.metrics import Metrics
from tests.fixtures.gateway import operator_token
from tests.fixtures.stores import Databases
from tests.integration.stories.world import Key, World, iso, moment_of, world_over

pytestmark = pytest.mark.asyncio(loop_scope="session")

DAY_SECONDS = 86400


async def retired_rows(world: World, key: Key) -> int:
    return int(await world.sql("SELECT count(*) FROM retired_secrets WHERE key_id = $1", key.id))


async def rotated(world: World, **body: int) -> tuple[Key, str, str]:
    """A key that has been rotated: the key, its new secret, and the id of the retired one. All nodes remember both."""
    key = await world.key()
    reply = await world.rotate(key, **body)
    await world.warm(key.secret, reply["secret"])
    return key, reply["secret"], reply["retired_secret"]["id"]


@asynccontextmanager
async def failing(world: World, event: str, relation: str, key: Key) -> AsyncIterator[None]:
    """Meanwhile the database refuses this statement for this key."""
    column = "id" if relation == "api_keys" else "key_id"
    await world.sql("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'disk full'; END$$")
    try:
        await world.sql(
            f"CREATE TRIGGER failing BEFORE {event} ON {relation}"
            f" FOR EACH ROW WHEN (NEW.{column} = '{key.id}') EXECUTE FUNCTION fail()"
        )
        yield
    finally:
        await world.sql("DROP FUNCTION fail CASCADE")


# -- the rotation


async def test_both_secrets_work_and_a_bogus_one_does_not(world: World) -> None:
    """Rotation shows the new secret once; old and new pass both nodes as the same key, a bogus one none. R090 R093."""
    key = await world.key()
    await world.warm(key.secret)
    reply = await world.rotate(key)
    assert reply["id"] == key.id
    assert reply["secret"] != key.secret
    await world.admitted(key, reply["secret"], key.secret)
    await world.refused("invalid_api_key", world.format.generate())
    await world.warm(key.secret, reply["secret"])
    await world.admitted(key, reply["secret"], key.secret)
    # Whatever is asked from now on, `World.api` looks for either secret in it.
    await world.do("GET", f"/v1/keys/{key.id}", node=1)
    await world.do("GET", f"/v1/keys/{key.id}/retired-secrets", node=1)


async def test_the_window_is_a_day_or_what_the_call_says(world: World) -> None:
    """The window ends at rotation time plus 24 h, or plus `grace_seconds`, within 5 s. R090 R092."""
    key = await world.key()
    for body, seconds in (({}, DAY_SECONDS), ({"grace_seconds": 3600}, 3600)):
        reply = await world.rotate(key, **body)
        assert abs(moment_of(reply["retired_secret"]["expires_at"]) - (time.time() + seconds)) < 5


@pytest.mark.parametrize(("event", "relation"), [("INSERT", "retired_secrets"), ("UPDATE", "api_keys")])
async def test_rotation_is_all_or_nothing(world: World, event: str, relation: str) -> None:
    """When retiring or replacing fails, the old secret stays current and nothing is retired. R091."""
    key = await world.key()
    await world.warm(key.secret)
    async with failing(world, event, relation, key):
        reply = await world.api("POST", f"/v1/keys/{key.id}/rotate")
        assert reply.status == 503
        assert "disk full" not in reply.text
    await world.admitted(key)
    assert await retired_rows(world, key) == 0
    assert (await world.rotate(key))["secret"]
    assert await retired_rows(world, key) == 1


async def test_an_immediate_rotation_ends_the_leaked_secret(world: World) -> None:
    """With a grace of 0 the old secret is refused at the next request on both warm nodes. R108."""
    key = await world.key()
    await world.warm(key.secret)
    reply = await world.rotate(key, grace_seconds=0)
    await world.refused("key_rotated", key.secret)
    await world.admitted(key, reply["secret"])


async def test_two_rotations_give_two_windows(world: World) -> None:
    """After two rotations three secrets work; ending one window leaves the other two. R095 R096."""
    key = await world.key()
    first = await world.rotate(key)
    second = await world.rotate(key, node=1, grace_seconds=3600)
    secrets = [key.secret, first["secret"], second["secret"]]
    await world.warm(*secrets)
    await world.admitted(key, *secrets)
    await world.set_window(second["retired_secret"]["id"], time.time())
    await world.refused("key_rotated", first["secret"])
    await world.admitted(key, key.secret, second["secret"])
    await world.set_window(first["retired_secret"]["id"], time.time(), node=1)
    await world.refused("key_rotated", key.secret, first["secret"])
    await world.admitted(key, second["secret"])


async def test_each_window_ends_by_itself(world: World) -> None:
    """Of two overlapping windows each ends at its own moment, though both nodes are warm. R094 R095."""
    key = await world.key()
    first = await world.rotate(key)
    second = await world.rotate(key)
    soon = time.time() + 0.8
    await world.set_window(second["retired_secret"]["id"], soon)
    await world.set_window(first["retired_secret"]["id"], soon + 0.5)
    await world.warm(key.secret, first["secret"])
    await asyncio.gather(
        world.ends_at(soon, first["secret"], "key_rotated"), world.ends_at(soon + 0.5, key.secret, "key_rotated")
    )
    await world.admitted(key, second["secret"])


async def test_a_cached_copy_learns_the_deadline_of_its_rotation(world: World) -> None:
    """What every cache held before the rotation does not outlive the window that the rotation gave. R094 R100."""
    key = await world.key()
    await world.warm(key.secret)
    reply = await world.rotate(key, grace_seconds=1)
    await world.warm(key.secret)
    await world.ends_at(moment_of(reply["retired_secret"]["expires_at"]), key.secret, "key_rotated")
    await world.admitted(key, reply["secret"])


async def test_a_stale_copy_in_redis_does_not_outlive_the_window(world: World) -> None:
    """A copy of the secret from before its rotation, written to Redis late, gives it no longer life. R100."""
    key = await world.key()
    await world.warm(key.secret)
    before = await world.entry(key.secret)
    assert before is not None
    await world.rotate(key, grace_seconds=0)
    await world.write_entry(key.secret, before)
    await world.refused("key_rotated", key.secret)


async def test_concurrent_rotations_lose_no_secret(world: World) -> None:
    """Of two rotations at once on two nodes no secret is lost: both new ones and the old one are accepted. R102."""
    for _ in range(5):
        key = await world.key()
        await world.warm(key.secret)
        replies = await asyncio.gather(*(world.rotate(key, node=node) for node in (0, 1)))
        await world.admitted(key, key.secret, *(reply["secret"] for reply in replies))
        assert await retired_rows(world, key) == 2
        distinct = "SELECT count(DISTINCT digest) FROM (SELECT digest FROM retired_secrets WHERE key_id = $1"
        assert await world.sql(f"{distinct} UNION ALL SELECT digest FROM api_keys WHERE id = $1) AS d", key.id) == 3


async def test_a_retired_secret_never_becomes_current_again(world: World) -> None:
    """Neither more rotations, nor a reopened window, nor a client that brings it back make it a current one. R109."""
    key, second, retired_id = await rotated(world)
    await world.set_window(retired_id, time.time())
    third = (await world.rotate(key))["secret"]
    body = {
        "user_id": key.user,
        "name": f"again {key.id}",
        "secret_sha256": (
            await world.sql("SELECT encode(digest, 'hex') FROM retired_secrets WHERE id = $1", retired_id)
        ),
        "prefix": key.secret[:16],
    }
    assert (await world.api("POST", "/v1/keys", body)).code == "duplicate_key"
    await world.refused("key_rotated", key.secret)
    await world.set_window(retired_id, time.time() + 60)
    await world.admitted(key, key.secret, second, third)
    assert await retired_rows(world, key) == 2
    # Were it current, the end of its window would not touch it.
    await world.set_window(retired_id, time.time(), node=1)
    await world.refused("key_rotated", key.secret)
    await world.admitted(key, second, third)


# -- the window


async def test_an_early_end_acts_on_the_next_request(world: World) -> None:
    """`expires_at` = now refuses the secret at the next request, warm in two processes and in Redis. R097 R120 R128."""
    key, second, retired_id = await rotated(world)
    now = time.time()
    reply = await world.set_window(retired_id, iso(now))
    await world.refused("key_rotated", key.secret)
    assert reply.keys() == {"id", "key_id", "expires_at", "propagation"}
    assert (reply["id"], reply["key_id"]) == (retired_id, key.id)
    assert reply["expires_at"].endswith("Z")
    assert moment_of(reply["expires_at"]) == pytest.approx(now, abs=1e-5)
    await world.admitted(key, second)


async def test_a_reopened_window_acts_on_the_next_request(world: World) -> None:
    """An end moved into the future readmits the secret at once, though every cache holds its refusal. R098 R120."""
    key, second, retired_id = await rotated(world)
    for node in (0, 1):
        await world.set_window(retired_id, time.time(), node=node)
        await world.remembered(key.secret)
        await world.refused("key_rotated", key.secret)
        await world.set_window(retired_id, time.time() + 60, node=node)
        await world.admitted(key, key.secret, second)


async def test_an_end_in_the_past_refuses(world: World) -> None:
    """`expires_at` in the past is refused at once, also where the window was over already and was reopened. R099."""
    key, second, retired_id = await rotated(world)
    await world.set_window(retired_id, time.time() - 3600)
    await world.refused("key_rotated", key.secret)
    await world.set_window(retired_id, time.time() + 3600)
    await world.admitted(key)
    await world.set_window(retired_id, time.time() - 60)
    await world.refused("key_rotated", key.secret)
    await world.admitted(key, second)


async def test_every_form_of_a_moment_ends_the_window_alike(world: World) -> None:
    """Offset, `Z`, naive and epoch forms mean the same moment on the data plane, and come back as UTC. R125."""
    key, _, retired_id = await rotated(world)
    past, ahead = time.time() - 60, time.time() + 60
    forms = (
        lambda moment: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)),
        lambda moment: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)),
        lambda moment: time.strftime("%Y-%m-%dT%H:%M:%S+05:00", time.gmtime(moment + 5 * 3600)),
        lambda moment: time.strftime("%Y-%m-%dT%H:%M:%S-09:30", time.gmtime(moment - 9.5 * 3600)),
        int,
        float,
    )
    for form in forms:
        for moment in (past, ahead):
            reply = await world.set_window(retired_id, form(moment))
            assert reply["expires_at"].endswith("Z")
            assert int(moment_of(reply["expires_at"])) == int(moment)
            await (world.refused("key_rotated", key.secret) if moment == past else world.admitted(key))


async def test_what_cannot_be_a_moment_changes_nothing(world: World) -> None:
    """A bad body or a wrong method is refused with its own status, and the secret works on as before. R121 R126."""
    key, _, retired_id = await rotated(world)
    before = await world.sql("SELECT expires_at FROM retired_secrets WHERE id = $1", retired_id)
    path = f"/v1/retired-secrets/{retired_id}"
    values: list[object] = [None, "soon", True, [], {}]
    for body in (*({"expires_at": value} for value in values), {}, [], "now"):
        reply = await world.api("PATCH", path, body)
        assert reply.status == 400, reply.text
        assert reply.body["issues"]
    for method in ("PUT", "DELETE", "GET", "POST"):
        reply = await world.api(method, path, {"expires_at": 0})
        assert (reply.status, reply.headers["Allow"]) == (405, "PATCH")
    await world.admitted(key)
    assert await world.sql("SELECT expires_at FROM retired_secrets WHERE id = $1", retired_id) == before


async def test_no_stranger_moves_a_window(world: World) -> None:
    """A key, a token of no standing or a wrong id ends no window; who may not call learns no more. R122 R123 R124."""
    key, second, retired_id = await rotated(world)
    path, body = f"/v1/retired-secrets/{retired_id}", {"expires_at": 0}
    auditor = await operator_token(world.dsn)
    await world.sql("UPDATE admin_tokens SET role = 'auditor' WHERE digest = sha256($1)", auditor.encode())
    for token, status in ((second, 401), (key.secret, 401), ("osta_nobody", 401), (auditor, 403)):
        for somewhere in (path, "/v1/retired-secrets/sec_unknown"):
            for sent in (body, {"expires_at": "soon"}):
                assert (await world.api("PATCH", somewhere, sent, token=token)).status == status
    for wrong in ("sec_unknown", "%00", "..%2F", "x" * 300):
        reply = await world.api("PATCH", f"/v1/retired-secrets/{wrong}", body)
        assert reply.status in (400, 404), reply.text
    await world.admitted(key, key.secret, second)


async def test_a_revoked_admin_token_moves_no_window(world: World) -> None:
    """Admin tokens stand hashed in the database, and one that is revoked is refused at its next call. R123 R129."""
    key, _, retired_id = await rotated(world)
    token = await operator_token(world.dsn)
    reply = await world.do("PATCH", f"/v1/retired-secrets/{retired_id}", {"expires_at": time.time() + 60}, token=token)
    assert reply["id"] == retired_id
    assert await world.sql("SELECT count(*) FROM admin_tokens AS t WHERE t::text LIKE '%' || $1 || '%'", token) == 0
    postgres = Postgres(world.dsn, metrics=Metrics())
    await postgres.open()
    try:
        token_id = await world.sql("SELECT id FROM admin_tokens WHERE digest = sha256($1)", token.encode())
        await AdminTokens(postgres).revoke(token_id)
    finally:
        await postgres.close()
    for node in (0, 1):
        path = f"/v1/retired-secrets/{retired_id}"
        assert (await world.api("PATCH", path, {"expires_at": 0}, node=node, token=token)).status == 401
    await world.admitted(key)


# -- what a rotated key hangs on


@pytest.mark.parametrize("what", ["key", "user", "tenant"])
async def test_deletion_takes_all_secrets_with_it(world: World, what: str) -> None:
    """Deleting the key, its user or its tenant removes the retired rows and refuses every secret. R103."""
    key, second, _ = await rotated(world)
    if what == "key":
        await world.sql("DELETE FROM api_keys WHERE id = $1", key.id)
        await world.refused_within(2.5, "invalid_api_key", key.secret, second)
    else:
        await world.do("DELETE", f"/v1/{what}s/{key.user if what == 'user' else key.tenant}", status=204)
    await world.refused("invalid_api_key", key.secret, second)
    assert await retired_rows(world, key) == 0


async def test_revocation_takes_all_secrets_with_it(world: World) -> None:
    """A revoked key's retired secrets are refused with it, and no window of theirs can be reopened. R103 R222."""
    key, second, retired_id = await rotated(world)
    await world.revoke(key)
    await world.refused("key_revoked", key.secret, second)
    reply = await world.api("PATCH", f"/v1/retired-secrets/{retired_id}", {"expires_at": time.time() + 60}, node=1)
    assert (reply.status, reply.code) == (409, "key_revoked")
    await world.refused("key_revoked", key.secret, second)


async def probe_and_create(world: World, *, node: int) -> None:
    """Ask for a secret until everybody holds it as unknown, make a key of it, and ask again."""
    user, tenant = await world.user()
    secret = world.format.generate()
    await world.warm(secret)
    await world.refused("invalid_api_key", secret)
    sha256 = hashlib.sha256(secret.encode()).hexdigest()
    prefix = world.format.display_prefix(secret)
    body = {"user_id": user, "name": f"of {user}", "secret_sha256": sha256, "prefix": prefix}
    made = await world.do("POST", "/v1/keys", body, node=node, status=201)
    assert "secret" not in made
    await world.admitted(Key(made["id"], secret, user, tenant))


async def test_a_new_key_works_though_it_was_probed_before(world: World) -> None:
    """A secret that every cache holds as unknown is admitted at the first request after its creation. R101."""
    for node in (0, 1):
        await probe_and_create(world, node=node)


async def test_in_another_environment_and_with_peppers(
    tmp_path: Path, databases: Databases, servers: Addresses
) -> None:
    """`dev`, with peppered digests, behaves as `prod` does without: overlap, ends, reopening, probing. R101 R106."""
    dsn = await databases.create(is_migrated=True)
    peppers = {"keys": {"peppers": [{"id": "one", "secret": "p" * 32}, {"id": "two", "secret": "q" * 32}]}}
    async with world_over(tmp_path, dsn, servers.redis_url, environment="dev", nodes=[peppers] * 2) as dev:
        key, second, retired_id = await rotated(dev)
        assert second.startswith("ost_dev_")
        await dev.admitted(key, key.secret, second)
        await dev.set_window(retired_id, time.time())
        await dev.refused("key_rotated", key.secret)
        await dev.remembered(key.secret)
        await dev.set_window(retired_id, time.time() + 60)
        await dev.admitted(key, key.secret, second)
        third = (await dev.rotate(key, grace_seconds=0))["secret"]
        await dev.refused("key_rotated", second)
        await dev.admitted(key, key.secret, third)
        await probe_and_create(dev, node=1)
        await dev.revoke(key)
        await dev.refused("key_revoked", key.secret, second, third)
    await databases.drop(dsn)
