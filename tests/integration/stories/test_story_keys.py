"""The life of a key, from its first request to its last: what is done to it acts on the very next request, anywhere."""

import asyncio
import hashlib
import time

import pytest

from tests.fixtures.exposition import page_of
from tests.integration.stories.world import Key, World, iso

pytestmark = pytest.mark.asyncio(loop_scope="session")

MOST_KEYS = 5


async def overcrowded(world: World, count: int) -> list[Key]:
    """A user with more active keys than allowed, as an import or an older configuration leaves them; oldest first."""
    user, tenant = await world.user()
    keys = []
    for number in range(count):
        secret, key_id = world.format.generate(), f"key_{user}_{number}"
        await world.sql(
            "INSERT INTO api_keys (id, tenant_id, user_id, name, prefix, environment, secret_id, digest, created_at)"
            " VALUES ($1, $2, $3, $1, 'ost_prod_', 'prod', 's' || $1, sha256($4), now() - make_interval(hours => $5))",
            key_id,
            tenant,
            user,
            secret.encode(),
            count - number,
        )
        keys.append(Key(key_id, secret, user, tenant))
    return keys


# -- birth


async def test_a_new_key_works_at_once_everywhere(world: World) -> None:
    """The first request with a new key passes on either node, whichever made it. R226."""
    for node in (0, 1):
        await world.admitted(await world.key(node=node))


async def test_only_administrators_make_keys(world: World) -> None:
    """Neither a key nor a bogus token makes one, and nobody who tried it has left anything. R210 R224."""
    key = await world.key(scopes=["reports:read"])
    for token in (key.secret, "osta_bogus", world.format.generate()):
        body = {"user_id": key.user, "name": "more", "scopes": ["admin:all"]}
        for node in (0, 1):
            assert (await world.api("POST", "/v1/keys", body, node=node, token=token)).status == 401
            path = f"/v1/keys/{key.id}"
            assert (await world.api("PATCH", path, {"scopes": ["admin:all"]}, node=node, token=token)).status == 401
            assert (await world.api("POST", f"{path}/revoke", node=node, token=token)).status == 401
    assert await world.sql("SELECT count(*) FROM api_keys WHERE user_id = $1", key.user) == 1
    await world.admitted(key)


@pytest.mark.parametrize(
    "entitlement",
    [
        None,
        {"features": {"api_access": False}},
        {"features": {"api_access": "true"}},
        {"features": {"api_access": 1}},
        {"valid_until": 1},
    ],
    ids=["none", "false", "text", "number", "lapsed"],
)
async def test_no_key_without_api_access(world: World, entitlement: dict[str, object] | None) -> None:
    """Without `api_access`, or past `valid_until`, no key is made, also under a paid plan; with it, one works. R211."""
    tenant = await world.tenant()
    user = f"user-of-{tenant}"
    await world.do("PUT", f"/v1/users/{user}", {"tenant_id": tenant}, status=201)
    if entitlement is not None:
        await world.do("PUT", f"/v1/users/{user}/entitlement", {"plan": "starter", **entitlement})
    for node in (0, 1):
        reply = await world.api("POST", "/v1/keys", {"user_id": user, "name": "first"}, node=node)
        assert (reply.status, reply.code) == (403, "api_access_required")
    assert await world.sql("SELECT count(*) FROM api_keys WHERE user_id = $1", user) == 0
    await world.do("PUT", f"/v1/users/{user}/entitlement", {"plan": "starter"})
    await world.admitted(await world.key((user, tenant)))


async def test_a_refused_name_or_secret_makes_nothing(world: World) -> None:
    """A blank name, a bad prefix or a bad digest inserts nothing, and the secret stays unknown. R212 R213."""
    user, _ = await world.user()
    secret = world.format.generate()
    own = {"secret_sha256": hashlib.sha256(secret.encode()).hexdigest(), "prefix": secret[:15]}
    for body, code in (
        ({"name": "  ", **own}, "invalid_name"),
        ({"name": "n" * 65, **own}, "invalid_name"),
        ({"name": "mine", **own, "prefix": "sk_live_abcdef"}, "invalid_prefix"),
        ({"name": "mine", **own, "secret_sha256": "abc"}, "invalid_digest"),
    ):
        reply = await world.api("POST", "/v1/keys", {"user_id": user, **body})
        assert (reply.status, reply.code) == (400, code)
    await world.refused("invalid_api_key", secret)
    assert await world.sql("SELECT count(*) FROM api_keys WHERE user_id = $1", user) == 0


async def test_a_secret_is_one_key_s_for_ever(world: World) -> None:
    """A secret in use, retired or revoked makes no second key for anybody, and goes on meaning what it meant. R217."""
    key = await world.key()
    other_user, _ = await world.user()
    second = (await world.rotate(key))["secret"]
    await world.warm(key.secret, second)

    async def offer(secret: str) -> None:
        sha256 = await world.sql("SELECT encode(sha256($1), 'hex')", secret.encode())
        for node, user in ((0, other_user), (1, key.user)):
            body = {"user_id": user, "name": f"again {node}", "secret_sha256": sha256, "prefix": secret[:15]}
            reply = await world.api("POST", "/v1/keys", body, node=node)
            assert (reply.status, reply.code) == (409, "duplicate_key")

    await offer(key.secret)
    await offer(second)
    await world.admitted(key, key.secret, second)
    await world.revoke(key)
    await offer(key.secret)
    await offer(second)
    await world.refused("key_revoked", key.secret, second)


# -- how many


async def test_the_sixth_key_is_refused_and_none_is_touched(world: World) -> None:
    """A user with five active keys gets no sixth, and keeps the five; revoked and expired ones do not count. R214."""
    keys = [await world.key(owner := await world.user())]
    keys += [await world.key(owner, node=number % 2) for number in range(1, MOST_KEYS)]
    await world.warm(*(key.secret for key in keys))
    body = {"user_id": owner[0], "name": "the sixth"}
    reply = await world.api("POST", "/v1/keys", body, node=1)
    assert (reply.status, reply.code, reply.body["revoked"]) == (409, "key_limit_reached", [])
    for key in keys:
        await world.admitted(key)
    await world.revoke(keys[0])
    soon = time.time() + 0.5
    await world.do("PATCH", f"/v1/keys/{keys[1].id}", {"expires_at": soon})
    await world.admitted(await world.key(owner))
    await world.ends_at(soon, keys[1].secret, "key_expired")
    await world.admitted(await world.key(owner, node=1))
    assert (await world.api("POST", "/v1/keys", body)).code == "key_limit_reached"


async def test_twenty_creations_at_once_make_five_keys(world: World) -> None:
    """Of 20 concurrent creations on two nodes five succeed, and exactly those five secrets are admitted. R215."""
    user, tenant = await world.user()
    bodies = [{"user_id": user, "name": f"{user} {number}"} for number in range(20)]
    replies = await asyncio.gather(
        *(world.api("POST", "/v1/keys", body, node=number % 2) for number, body in enumerate(bodies))
    )
    made = [reply.body for reply in replies if reply.status == 201]
    assert len(made) == MOST_KEYS
    assert {reply.code for reply in replies if reply.status != 201} == {"key_limit_reached"}
    assert await world.sql("SELECT count(*) FROM api_keys WHERE user_id = $1", user) == MOST_KEYS
    for body in made:
        await world.admitted(Key(body["id"], body["secret"], user, tenant))


async def test_too_many_keys_converge_and_the_dropped_are_refused(world: World) -> None:
    """At the next creation the oldest surplus keys are revoked, and refused at their next request on any node. R216."""
    keys = await overcrowded(world, MOST_KEYS + 2)
    await world.warm(*(key.secret for key in keys))
    reply = await world.api("POST", "/v1/keys", {"user_id": keys[0].user, "name": "one more"})
    await world.refused("key_revoked", keys[0].secret, keys[1].secret)
    assert (reply.status, reply.code) == (409, "key_limit_reached")
    assert reply.body["revoked"] == [keys[0].id, keys[1].id]
    for key in keys[2:]:
        await world.admitted(key)


# -- a scope, an end


async def test_scopes_follow_the_key(world: World) -> None:
    """Scopes taken away or given act on the next request on both warm nodes, and on no other key. R224."""
    key = await world.key(scopes=["reports:read", "reports:write"])
    other = await world.key((key.user, key.tenant), scopes=["reports:read"])
    await world.warm(key.secret, other.secret)
    for node in (0, 1):
        for answer in await world.admitted(key, path="/reports"):
            assert answer.arrival is not None
            assert (answer.arrival.header("X-Scopes") or "").split() == ["reports:read", "reports:write"]
        await world.do("PATCH", f"/v1/keys/{key.id}", {"scopes": ["reports:write"]}, node=node)
        for answer in await world.refused("insufficient_scope", key.secret, path="/reports"):
            assert answer.body["missing_scopes"] == ["reports:read"]
        await world.admitted(key, path="/orders")
        await world.admitted(other, path="/reports")
        await world.do("PATCH", f"/v1/keys/{key.id}", {"scopes": ["reports:read", "reports:write"]}, node=node)


async def test_a_rotated_key_keeps_its_scopes(world: World) -> None:
    """A new secret may what the old one may, no more: before and after a change of scopes. R224 R226."""
    key = await world.key(scopes=["reports:read"])
    second = (await world.rotate(key))["secret"]
    await world.warm(key.secret, second)
    await world.admitted(key, key.secret, second, path="/reports")
    await world.do("PATCH", f"/v1/keys/{key.id}", {"scopes": []})
    await world.refused("insufficient_scope", key.secret, second, path="/reports")


async def test_a_key_ends_at_its_end(world: World) -> None:
    """A key expires by itself on every warm node, unrevoked, and its retired secret with it; no past end is taken.

    R223.
    """
    soon = time.time() + 0.8
    key = await world.key(expires_at=iso(soon))
    second = (await world.rotate(key))["secret"]
    await world.warm(key.secret, second)
    await asyncio.gather(world.ends_at(soon, key.secret, "key_expired"), world.ends_at(soon, second, "key_expired"))
    shown = await world.do("GET", f"/v1/keys/{key.id}")
    assert (shown["status"], shown["revoked_at"]) == ("expired", None)
    body = {"user_id": key.user, "name": "late", "expires_at": iso(time.time() - 1)}
    assert (await world.api("POST", "/v1/keys", body)).status == 400


async def test_an_end_moves_both_ways(world: World) -> None:
    """An end that is moved acts at once: nearer, it ends every warm copy; further, an expired key is back. R223."""
    key = await world.key()
    for node in (0, 1):
        await world.warm(key.secret)
        soon = time.time() + 0.4
        await world.do("PATCH", f"/v1/keys/{key.id}", {"expires_at": soon}, node=node)
        await world.ends_at(soon, key.secret, "key_expired")
        await world.remembered(key.secret)
        await world.do("PATCH", f"/v1/keys/{key.id}", {"expires_at": None}, node=node)
        await world.admitted(key)


# -- death


async def test_a_revoked_key_is_refused_at_its_next_request(world: World) -> None:
    """Revoked through either node, a key that every cache holds is refused at the next request on both. R220 R221."""
    for node in (0, 1):
        key = await world.key()
        other = await world.key((key.user, key.tenant))
        await world.warm(key.secret, other.secret)
        reply = await world.revoke(key, node=node)
        await world.refused("key_revoked", key.secret)
        assert (reply["status"], reply["propagation"]["nodes"], reply["propagation"]["reported"]) == ("revoked", 2, 2)
        await world.admitted(other)
        again = await world.api("POST", f"/v1/keys/{key.id}/revoke", node=1 - node)
        assert (again.status, again.code) == (409, "already_revoked")


async def test_a_revocation_is_for_good(world: World) -> None:
    """No call brings a revoked key back; its name is free for another one, which is somebody else. R222 R226 R273."""
    key = await world.key()
    name = (await world.do("GET", f"/v1/keys/{key.id}"))["name"]
    await world.revoke(key)
    path = f"/v1/keys/{key.id}"
    for node in (0, 1):
        for method, call, body in (
            ("PATCH", path, {"expires_at": None}),
            ("PATCH", path, {"scopes": ["reports:read"]}),
            ("POST", f"{path}/rotate", {}),
        ):
            reply = await world.api(method, call, body, node=node)
            assert (reply.status, reply.code) == (409, "key_revoked")
    heir = await world.key((key.user, key.tenant))
    await world.do("PATCH", f"/v1/keys/{heir.id}", {"name": name})
    await world.admitted(heir)
    await world.refused("key_revoked", key.secret)
    shown = [item["id"] for item in (await world.do("GET", f"/v1/keys?user_id={key.user}"))["items"]]
    assert shown == [key.id, heir.id]


async def test_nobody_revokes_another_tenant_s_key(world: World) -> None:
    """For a stranger's administrator the key does not exist: it is neither shown, changed nor revoked. R220 R272."""
    key = await world.key()
    stranger = await world.tenant()
    token = await world.tenant_admin(stranger)
    await world.warm(key.secret)
    path = f"/v1/keys/{key.id}"
    for node in (0, 1):
        for method, call in (("GET", path), ("PATCH", path), ("POST", f"{path}/rotate"), ("POST", f"{path}/revoke")):
            body: dict[str, object] | None = None if method == "GET" else {}
            assert (await world.api(method, call, body, node=node, token=token)).status == 404
    await world.admitted(key)
    await world.do("POST", f"{path}/revoke", token=await world.tenant_admin(key.tenant))
    await world.refused("key_revoked", key.secret)


async def test_a_bad_key_is_nobody_even_where_none_is_needed(world: World) -> None:
    """On an optional route a revoked key is refused, not taken for an anonymous caller; a route without auth asks none.

    R221.
    """
    key = await world.key()
    await world.warm(key.secret)
    await world.admitted(key, path="/maybe")
    await world.revoke(key)
    await world.refused("key_revoked", key.secret, path="/maybe")
    await world.refused("missing_api_key", None, path="/orders")
    for path, secret in (("/maybe", None), ("/public", None), ("/public", key.secret)):
        for answer in await world.ask_all(secret, path, headers={"X-User-Id": "root", "X-Tenant-Id": "root"}):
            assert answer.arrival is not None
            assert answer.arrival.all("X-User-Id") == answer.arrival.all("X-Tenant-Id") == []


# -- what nobody sees


async def test_no_secret_shows_anywhere(world: World) -> None:
    """Of all secrets and digests of these stories none is in a log, a metric or a listing. R218 R219."""
    key = await world.key()
    await world.warm(key.secret)
    await world.revoke(key)
    await world.refused("key_revoked", key.secret)
    texts = [node.log for node in world.nodes]
    texts += [await page_of(node) for node in world.nodes]
    for path in ("/v1/keys?limit=100", "/v1/nodes", "/v1/users?limit=100", f"/v1/keys/{key.id}/retired-secrets"):
        texts += [(await world.api("GET", path)).text]
    assert len(world.secrets) > 0
    for secret in world.secrets:
        digest = hashlib.sha256(secret.encode()).hexdigest()
        assert not [text for text in texts if secret in text or digest in text]
