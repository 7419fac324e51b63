"""Users look after their own keys: as `/v1/keys`, where nobody else's keys exist."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.auth.secrets import SecretFormat
from gateway.settings import OidcSettings
from gateway.stores.postgres.usage import UsageStore
from tests.fixtures.provider import AUDIENCE, OpenIdProvider
from tests.integration.management.test_management_keys import FIELDS
from tests.integration.management.world import ENVIRONMENT, Management, Reply, give_tokens, management_over

PAST, FUTURE = 1_000_000_000, 4_000_000_000


@pytest.fixture
async def provider() -> AsyncIterator[OpenIdProvider]:
    """A provider that answers."""
    async with OpenIdProvider() as provider:
        yield provider


class Users:
    """The API as users see it, each by a token of the provider."""

    def __init__(self, world: Management, provider: OpenIdProvider) -> None:
        self.world = world
        self.provider = provider

    async def call(
        self, method: str, path: str, body: Any = None, *, user: str = "ada", key: str | None = None, **claims: Any
    ) -> Reply:
        """One call below `/v1/me` by the user; `key` is its Idempotency-Key."""
        headers = {} if key is None else {"Idempotency-Key": key}
        token = self.provider.token(user, **claims)
        return await self.world.call(method, f"/v1/me{path}", body, token=token, headers=headers)

    async def expect(self, status: int, method: str, path: str, body: Any = None, *, user: str = "ada") -> Any:
        """The body of a call that must answer `status`."""
        reply = await self.call(method, path, body, user=user)
        assert reply.status == status, reply.text
        return reply.body

    async def names(self, user: str = "ada", query: str = "") -> list[str]:
        """The names of the user's keys, as they are listed."""
        return [key["name"] for key in (await self.expect(200, "GET", f"/keys{query}", user=user))["items"]]

    async def count(self) -> Any:
        """How many keys there are at all."""
        return await self.world.execute("SELECT count(*) FROM api_keys")


def settings_of(provider: OpenIdProvider) -> OidcSettings:
    """Users may give their keys two scopes."""
    scopes = ["orders:read", "orders:write"]
    return OidcSettings.model_validate({"issuer": provider.issuer, "audience": AUDIENCE, "key_scopes": scopes})


@pytest.fixture
async def users(postgres_dsn: str, provider: OpenIdProvider) -> AsyncIterator[Users]:
    """The API, planted."""
    async with management_over(postgres_dsn, oidc=settings_of(provider)) as world:
        await give_tokens(world)
        await world.plant()
        yield Users(world, provider)


async def test_a_key_from_its_making_to_its_end(users: Users) -> None:
    """Made, listed, shown, rotated, its old secret's window ended, revoked. R090 R120 R218 R219 R220 R222."""
    made = await users.call("POST", "/keys", {"name": " laptop ", "scopes": ["orders:read"], "expires_at": FUTURE})
    assert (made.status, made.headers["Cache-Control"]) == (201, "no-store")
    key = made.body
    assert set(key) == FIELDS | {"secret", "propagation"}
    assert (key["name"], key["user_id"], key["tenant_id"], key["scopes"]) == ("laptop", "ada", "acme", ["orders:read"])
    assert SecretFormat("ost", ENVIRONMENT).is_well_formed(key["secret"].encode())
    record = await users.world.record(key["secret"])
    assert record is not None
    assert (record.key_id, record.user_id, record.key_kind) == (key["id"], "ada", "user")
    path = f"/keys/{key['id']}"
    shown = await users.expect(200, "GET", path)
    assert shown == {name: value for name, value in key.items() if name in FIELDS}
    assert (await users.expect(200, "GET", "/keys"))["items"] == [shown]
    rotated = await users.expect(200, "POST", f"{path}/rotate", {"grace_seconds": 3600})
    assert rotated["secret"] != key["secret"]
    retired = rotated["retired_secret"]["id"]
    listed = await users.expect(200, "GET", f"{path}/retired-secrets")
    assert [secret["id"] for secret in listed["items"]] == [retired]
    ended = await users.expect(200, "PATCH", f"/retired-secrets/{retired}", {"expires_at": 0})
    assert (ended["key_id"], ended["propagation"]["state"]) == (key["id"], "confirmed")
    revoked = await users.expect(200, "POST", f"{path}/revoke", {"reason": "sold"})
    assert (revoked["status"], revoked["propagation"]["state"]) == ("revoked", "confirmed")
    again = await users.call("POST", f"{path}/revoke", {})
    assert (again.status, again.code) == (409, "already_revoked")
    assert (await users.call("POST", f"{path}/rotate", {})).code == "key_revoked"
    assert await users.names(query="?status=active") == []
    assert await users.names(query="?status=revoked") == ["laptop"]
    later = json.dumps([shown, listed, ended, revoked, await users.expect(200, "GET", "/keys")])
    for secret in (key["secret"], rotated["secret"]):
        assert secret[15:] not in later
        assert hashlib.sha256(secret.encode()).hexdigest() not in later


async def test_nobody_sees_or_touches_the_keys_of_another(users: Users) -> None:
    """404 for every key of another user, of the own tenant and of another, as for one that never was. R220 R272."""
    for owner in ("alan", "olga"):
        key = await users.expect(201, "POST", "/keys", {"name": f"of {owner}"}, user=owner)
        rotated = await users.expect(200, "POST", f"/keys/{key['id']}/rotate", {}, user=owner)
        secret = rotated["retired_secret"]["id"]
        for key_id, secret_id in ((key["id"], secret), ("key_none", "sec_none"), ("%00", "%00")):
            for method, path, body in (
                ("GET", f"/keys/{key_id}", None),
                ("POST", f"/keys/{key_id}/rotate", {}),
                ("POST", f"/keys/{key_id}/revoke", {}),
                ("GET", f"/keys/{key_id}/retired-secrets", None),
                ("PATCH", f"/retired-secrets/{secret_id}", {"expires_at": FUTURE}),
            ):
                # Nor does the role of an administrator reach further here: for that there is /v1/keys.
                reply = await users.call(method, path, body, roles=["admin"])
                assert (path, reply.status, reply.code) == (path, 404, "not_found")
        for query in ("", f"?user_id={owner}", "?tenant_id=acme", "?tenant_id=other"):
            assert await users.names(query=query) == []
        assert (await users.expect(200, "GET", f"/keys/{key['id']}", user=owner))["status"] == "active"


async def test_an_owner_cannot_be_named(users: Users) -> None:
    """A key is always the caller's own, and never an operator's."""
    for more in ({"user_id": "alan"}, {"tenant_id": "other"}, {"kind": "operator"}):
        reply = await users.call("POST", "/keys", {"name": "x", **more})
        assert (reply.status, reply.code) == (400, "invalid_body")
    assert await users.count() == 0


async def test_no_key_without_api_access(users: Users) -> None:
    """403, and nothing is inserted; `/v1/me` says the same. R211."""
    cases: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {
        "none": (None, {"api_access": True}),
        "a paid plan without it": ({}, {}),
        "false over the plan's true": ({"features": {"api_access": False}}, {"api_access": True}),
        "a text": ({"features": {"api_access": "true"}}, {}),
        "lapsed": ({"valid_until": PAST}, {"api_access": True}),
    }
    await users.world.expect(204, "DELETE", "/v1/users/ada/entitlement")
    for case, (entitlement, plan) in cases.items():
        await users.world.expect(200, "PUT", "/v1/plans/starter", {"tier": 5, "features": plan})
        if entitlement is not None:
            await users.world.expect(200, "PUT", "/v1/users/ada/entitlement", {"plan": "starter"} | entitlement)
        reply = await users.call("POST", "/keys", {"name": "x"})
        assert (case, reply.status, reply.code) == (case, 403, "api_access_required")
        mine = await users.expect(200, "GET", "")
        assert not (mine["entitlement"] or {}).get("api_access"), case
    assert await users.count() == 0


async def test_a_bad_wish_is_refused(users: Users) -> None:
    """400 with the code of its field, and nothing is inserted. R212 R213 R223."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": "  "}, "invalid_name"),
        ({"name": "x" * 65}, "invalid_name"),
        ({"name": 7}, "invalid_name"),
        ({}, "invalid_name"),
        ({"name": "x", "expires_at": PAST}, "invalid_expires_at"),
        ({"name": "x", "scopes": "orders:read"}, "invalid_scopes"),
        ({"name": "x", "secret_sha256": "zz", "prefix": "ost_test_abcdef"}, "invalid_digest"),
        ({"name": "x", "prefix": "ost_test_abcdef"}, "invalid_digest"),
        ({"name": "x", "secret_sha256": "a" * 64, "prefix": "other_abcdef"}, "invalid_prefix"),
        ({"name": "x", "secret_sha256": "a" * 64}, "invalid_prefix"),
    ]
    for body, code in cases:
        reply = await users.call("POST", "/keys", body)
        assert (body, reply.status, reply.code) == (body, 400, code)
    assert await users.count() == 0


async def test_a_secret_of_the_users_own(users: Users) -> None:
    """Made by the client, known by its digest alone; one that was ever used is nobody's again. R213 R217."""
    secret = SecretFormat("ost", ENVIRONMENT).generate()
    body = {"name": "own", "secret_sha256": hashlib.sha256(secret.encode()).hexdigest(), "prefix": secret[:15]}
    key = await users.expect(201, "POST", "/keys", body)
    assert "secret" not in key
    record = await users.world.record(secret)
    assert record is not None
    assert record.key_id == key["id"]
    await users.expect(200, "POST", f"/keys/{key['id']}/revoke", {})
    for user in ("ada", "alan", "olga"):
        reply = await users.call("POST", "/keys", {**body, "name": "again"}, user=user)
        assert (reply.status, reply.code) == (409, "duplicate_key")


async def test_a_key_gets_no_scopes_that_users_may_not_give(users: Users) -> None:
    """Routes trust scopes: 403 for one that the configuration does not list, which is named. R224."""
    reply = await users.call("POST", "/keys", {"name": "x", "scopes": ["orders:read", "admin:write", "orders:*"]})
    assert (reply.status, reply.code) == (403, "insufficient_scope")
    assert reply.body["denied"] == ["admin:write", "orders:*"]
    assert await users.count() == 0
    key = await users.expect(201, "POST", "/keys", {"name": "x", "scopes": ["orders:write"]})
    assert (await users.expect(200, "POST", f"/keys/{key['id']}/rotate", {}))["scopes"] == ["orders:write"]


async def test_no_key_makes_a_key(users: Users) -> None:
    """Whoever has but a key, scoped or not, cannot make, rotate or read any. R123 R224."""
    key = await users.expect(201, "POST", "/keys", {"name": "x", "scopes": ["orders:read"]})
    for method, path in (("POST", "/keys"), ("GET", "/keys"), ("POST", f"/keys/{key['id']}/rotate"), ("GET", "")):
        body = {"name": "y"} if method == "POST" else None
        reply = await users.world.call(method, f"/v1/me{path}", body, token=key["secret"])
        assert (reply.status, reply.code) == (401, "sign_in_required")
    assert await users.count() == 1


async def test_twenty_creates_at_once_make_five_keys(users: Users) -> None:
    """The limit holds under concurrency; keys of others do not count, revoked ones neither. R214 R215."""
    replies = await asyncio.gather(*(users.call("POST", "/keys", {"name": f"k{number}"}) for number in range(20)))
    assert sorted(reply.status for reply in replies) == [201] * 5 + [409] * 15
    assert {reply.code for reply in replies if reply.status == 409} == {"key_limit_reached"}
    assert len(await users.names(query="?status=active")) == 5
    first = next(reply.body["id"] for reply in replies if reply.status == 201)
    await users.expect(201, "POST", "/keys", {"name": "of alan"}, user="alan")
    await users.expect(200, "POST", f"/keys/{first}/revoke", {})
    await users.expect(201, "POST", "/keys", {"name": "sixth"})
    assert (await users.call("POST", "/keys", {"name": "seventh"})).code == "key_limit_reached"


async def test_too_many_keys_converge(postgres_dsn: str, provider: OpenIdProvider) -> None:
    """After the limit was lowered the next create revokes the oldest ones, and names them. R216."""
    async with management_over(postgres_dsn, oidc=settings_of(provider)) as world:
        await give_tokens(world)
        await world.plant()
        keys = [await Users(world, provider).expect(201, "POST", "/keys", {"name": f"k{n}"}) for n in range(4)]
    async with management_over(postgres_dsn, oidc=settings_of(provider), max_per_user=2) as world:
        users = Users(world, provider)
        reply = await users.call("POST", "/keys", {"name": "more"})
        assert (reply.status, reply.code) == (409, "key_limit_reached")
        assert reply.body["revoked"] == [key["id"] for key in keys[:2]]
        assert await users.names(query="?status=active") == ["k2", "k3"]
        record = await world.record(keys[0]["secret"])
        assert record is not None
        assert record.is_revoked


async def test_names_are_the_tenants(users: Users) -> None:
    """Unique among the tenant's unrevoked keys, free in another tenant. R273."""
    await users.expect(201, "POST", "/keys", {"name": "ci"}, user="alan")
    assert (await users.call("POST", "/keys", {"name": "ci"})).code == "duplicate_name"
    await users.expect(201, "POST", "/keys", {"name": "ci"}, user="olga")


async def test_an_operators_key_in_the_users_name(users: Users) -> None:
    """It is seen, and may be ended; its secret is not for the user, since it skips the entitlement. R013."""
    key = await users.world.key(kind="operator")
    assert await users.names() == ["first"]
    assert (await users.call("POST", f"/keys/{key['id']}/rotate", {})).code == "forbidden"
    await users.expect(200, "POST", f"/keys/{key['id']}/revoke", {})


async def test_what_a_user_does_is_on_record(users: Users) -> None:
    """The user is the actor, from which address and in which request; the secret is nowhere. R110 R314."""
    key = await users.expect(201, "POST", "/keys", {"name": "k"})
    rotated = await users.expect(200, "POST", f"/keys/{key['id']}/rotate", {})
    secret_id = rotated["retired_secret"]["id"]
    await users.expect(200, "PATCH", f"/retired-secrets/{secret_id}", {"expires_at": 0})
    await users.expect(200, "POST", f"/keys/{key['id']}/revoke", {"reason": "sold"})
    await users.call("POST", "/keys", {"name": ""})
    events = (await users.world.expect(200, "GET", "/v1/audit?actor=ada", token="auditor"))["items"]
    assert [event["action"] for event in events] == [
        "key.create",
        "key.rotate",
        "retired_secret.set_window",
        "key.revoke",
    ]
    for event in events:
        assert event["actor"] == {"kind": "user", "id": "ada", "name": "Ada"}
        assert (event["tenant_id"], event["address"]) == ("acme", "127.0.0.1")
        assert event["request_id"]
    assert key["secret"][15:] not in json.dumps(events)
    assert (await users.world.expect(200, "GET", "/v1/audit/verify", token="auditor"))["intact"] is True


async def test_a_repeat_is_answered_as_the_first_was(users: Users) -> None:
    """An Idempotency-Key is one user's: the same one of another user is another; the secret is shown again. R301."""
    body = {"name": "once"}
    first = await users.call("POST", "/keys", body, key="the-key")
    again = await users.call("POST", "/keys", body, key="the-key")
    assert (again.status, again.headers["Idempotent-Replayed"]) == (201, "true")
    assert again.body["secret"] == first.body["secret"]
    assert (await users.call("POST", "/keys", {"name": "twice"}, key="the-key")).code == "idempotency_key_reused"
    other = await users.call("POST", "/keys", body, user="olga", key="the-key")
    assert (other.status, "Idempotent-Replayed" in other.headers) == (201, False)
    assert other.body["secret"] != first.body["secret"]
    path = f"/keys/{first.body['id']}/rotate"
    rotated = await users.call("POST", path, {}, key="the-key")
    assert (await users.call("POST", path, {}, key="the-key")).body["secret"] == rotated.body["secret"]
    await users.world.expect(200, "PUT", "/v1/users/ada", {"tenant_id": "acme", "status": "suspended"})
    assert (await users.call("POST", "/keys", body, key="the-key")).code == "user_suspended"
    assert await users.count() == 2


async def test_a_key_made_twice_at_once_with_one_idempotency_key(users: Users) -> None:
    """One is made; whoever comes meanwhile is told so, or gets its reply. R301."""
    replies = await asyncio.gather(*(users.call("POST", "/keys", {"name": "k"}, key="one") for _ in range(10)))
    made = {reply.body["id"] for reply in replies if reply.status == 201}
    assert len(made) == 1
    assert {reply.code for reply in replies if reply.status != 201} <= {"request_in_flight"}
    assert await users.count() == 1


async def test_own_usage(users: Users) -> None:
    """What the own keys have used, in all and one by one, and nobody else's; as CSV, too."""
    await UsageStore(users.world.postgres, node_id="node", retention_months=1).keep_partitions()
    keys = {}
    for user, name, requests in (("ada", "one", 1), ("ada", "two", 2), ("alan", "three", 4)):
        keys[name] = (await users.expect(201, "POST", "/keys", {"name": name}, user=user))["id"]
        await users.world.execute(
            "INSERT INTO usage"
            " SELECT date_trunc('minute', now()), $1, 'acme', $2, 'orders', 'forwarded', '2xx', $3, 0, 0",
            keys[name],
            user,
            requests,
        )
    for path, expected in (
        ("/usage", [3]),
        ("/usage?by=key", [1, 2]),
        (f"/usage?key_id={keys['two']}", [2]),
        (f"/usage?key_id={keys['three']}", []),
        (f"/keys/{keys['one']}/usage", [1]),
    ):
        items = (await users.expect(200, "GET", path))["items"]
        assert [item["requests"] for item in items] == expected, path
    assert (await users.call("GET", f"/keys/{keys['three']}/usage")).status == 404
    assert (await users.call("GET", "/usage?user_id=alan")).code == "invalid_query"
    exported = (await users.call("GET", "/usage/export?by=key")).text.splitlines()
    assert [line.split(",")[1:] for line in exported] == [
        ["key_id", "requests", "received_bytes", "sent_bytes"],
        [keys["one"], "1", "0", "0"],
        [keys["two"], "2", "0", "0"],
    ]
