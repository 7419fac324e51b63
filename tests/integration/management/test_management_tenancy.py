"""Tenants, users, entitlements and plans."""

import asyncio
from typing import Any

import pytest

from tests.integration.management.world import Management


async def test_a_tenant_from_creation_to_deletion(management: Management) -> None:
    """201, 200, 200, 204, and then it does not exist; every change says how far it has come."""
    made = await management.expect(201, "POST", "/v1/tenants", {"id": "new", "name": " New "})
    assert (made["id"], made["name"], made["status"]) == ("new", "New", "active")
    assert made["created_at"].endswith("Z")
    assert made["propagation"]["state"] == "confirmed"
    changed = await management.expect(200, "PATCH", "/v1/tenants/new", {"status": "suspended"})
    assert (changed["name"], changed["status"]) == ("New", "suspended")
    shown = await management.expect(200, "GET", "/v1/tenants/new")
    assert shown == {name: changed[name] for name in ("id", "name", "status", "issuance", "created_at")}
    await management.expect(204, "DELETE", "/v1/tenants/new")
    await management.expect(404, "GET", "/v1/tenants/new")
    await management.expect(404, "DELETE", "/v1/tenants/new")


async def test_a_tenant_id_is_taken_once(management: Management) -> None:
    """409, and the first one stays as it is."""
    reply = await management.call("POST", "/v1/tenants", {"id": "acme", "name": "Impostor"})
    assert (reply.status, reply.code) == (409, "duplicate_tenant")
    assert (await management.expect(200, "GET", "/v1/tenants/acme"))["name"] == "Acme"


async def test_a_new_name_alone_takes_no_revision(management: Management) -> None:
    """What does not decide admission makes no node forget anything."""
    changed = await management.expect(200, "PATCH", "/v1/tenants/acme", {"name": "Acme Ltd"})
    assert changed["propagation"]["revision"] == 0
    assert changed["status"] == "active"


async def test_deleting_a_tenant_deletes_all_that_is_its(management: Management) -> None:
    """Users, entitlements, keys, retired secrets and admin tokens go, and nothing of another tenant. R103."""
    key = await management.key()
    await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {})
    foreign = await management.key(user="olga")
    await management.expect(204, "DELETE", "/v1/tenants/acme")
    assert await management.record(key["secret"]) is None
    assert (await management.call("GET", "/v1/keys", token="tenant_admin")).status == 401
    for table in ("retired_secrets", "users WHERE tenant_id = 'acme'", "entitlements WHERE user_id <> 'olga'"):
        assert await management.execute(f"SELECT count(*) FROM {table}") == 0
    assert await management.record(foreign["secret"]) is not None


async def test_a_large_tenant_is_deleted_in_pieces(management: Management) -> None:
    """No transaction holds back the others for the whole of it, and nothing is left."""
    await management.execute("INSERT INTO users (id, tenant_id) SELECT 'u' || n, 'acme' FROM generate_series(1, 450) n")
    before = await management.execute("SELECT value FROM revision")
    await management.expect(204, "DELETE", "/v1/tenants/acme")
    assert await management.execute("SELECT count(*) FROM users WHERE tenant_id = 'acme'") == 0
    largest = await management.execute(
        "SELECT max(n) FROM (SELECT count(*) AS n FROM invalidations WHERE revision > $1 GROUP BY revision) AS t",
        before,
    )
    assert largest == 200


async def test_a_user_is_created_and_overwritten(management: Management) -> None:
    """201 and then 200; what is left out of an overwrite falls back, but never the suspension."""
    body: dict[str, Any] = {"tenant_id": "acme", "display_name": "Bo", "roles": ["dev"], "groups": ["g:1"]}
    made = await management.expect(201, "PUT", "/v1/users/bo", body | {"status": "suspended"})
    assert {name: made[name] for name in body} == body
    assert made["status"] == "suspended"
    changed = await management.expect(200, "PUT", "/v1/users/bo", {"tenant_id": "acme"})
    assert (changed["roles"], changed["display_name"], changed["status"]) == ([], "", "suspended")
    back = await management.expect(200, "PUT", "/v1/users/bo", {"tenant_id": "acme", "status": "active"})
    assert (await management.expect(200, "GET", "/v1/users/bo")).items() <= back.items()


async def test_a_user_stays_in_its_tenant(management: Management) -> None:
    """409, and nothing moves: keys and their tenant belong together."""
    reply = await management.call("PUT", "/v1/users/ada", {"tenant_id": "other"})
    assert (reply.status, reply.code) == (409, "tenant_fixed")
    assert (await management.expect(200, "GET", "/v1/users/ada"))["tenant_id"] == "acme"


async def test_a_user_needs_a_tenant_that_exists(management: Management) -> None:
    """400 that says so, and no user."""
    reply = await management.call("PUT", "/v1/users/bo", {"tenant_id": "nowhere"})
    assert (reply.status, reply.code) == (400, "unknown_tenant")
    await management.expect(404, "GET", "/v1/users/bo")


async def test_the_same_new_user_from_many_sides(management: Management) -> None:
    """One 201, the others 200, no failure."""
    replies = await asyncio.gather(*(management.call("PUT", "/v1/users/bo", {"tenant_id": "acme"}) for _ in range(8)))
    assert sorted(reply.status for reply in replies) == [200] * 7 + [201]


async def test_deleting_a_user_deletes_its_keys(management: Management) -> None:
    """All its secrets are unknown, current and retired. R103, R227."""
    key = await management.key()
    rotated = await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {})
    await management.expect(204, "DELETE", "/v1/users/ada")
    assert await management.record(key["secret"]) is None
    assert await management.record(rotated["secret"]) is None
    await management.expect(404, "GET", f"/v1/keys/{key['id']}")
    await management.expect(404, "DELETE", "/v1/users/ada")


async def test_suspension_reaches_every_credential(management: Management) -> None:
    """A suspended user or tenant is seen behind current and retired secrets. R104."""
    key = await management.key()
    rotated = await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {})
    await management.expect(200, "PUT", "/v1/users/ada", {"tenant_id": "acme", "status": "suspended"})
    await management.expect(200, "PATCH", "/v1/tenants/acme", {"status": "suspended"})
    for secret in (key["secret"], rotated["secret"]):
        record = await management.record(secret)
        assert record is not None
        assert not record.is_user_active
        assert not record.is_tenant_active


async def test_users_are_listed_by_tenant(management: Management) -> None:
    """All for the operator, or one tenant's."""
    everybody = await management.expect(200, "GET", "/v1/users")
    assert [user["id"] for user in everybody["items"]] == ["ada", "alan", "olga"]
    some = await management.expect(200, "GET", "/v1/users?tenant_id=other")
    assert [user["id"] for user in some["items"]] == ["olga"]
    own = await management.expect(200, "GET", "/v1/users", token="tenant_admin")
    assert [user["id"] for user in own["items"]] == ["ada", "alan"]


async def test_an_entitlement_from_creation_to_deletion(management: Management) -> None:
    """200, 200, 204, and then 404; times come back as ISO 8601 in UTC."""
    body = {
        "plan": "starter",
        "features": {"api_access": True, "seats": 3, "region": "eu"},
        "limits": {"per_minute": 60, "per_day": -1},
        "valid_until": "2099-01-01T01:00:00+01:00",
    }
    made = await management.expect(200, "PUT", "/v1/users/ada/entitlement", body)
    assert (made["features"], made["limits"]) == (body["features"], body["limits"])
    assert made["valid_until"] == "2099-01-01T00:00:00Z"
    shown = await management.expect(200, "GET", "/v1/users/ada/entitlement", token="tenant_admin")
    assert shown.items() <= made.items()
    await management.expect(204, "DELETE", "/v1/users/ada/entitlement")
    await management.expect(404, "GET", "/v1/users/ada/entitlement")
    await management.expect(404, "DELETE", "/v1/users/ada/entitlement")


async def test_an_entitlement_needs_a_plan_and_a_user_that_exist(management: Management) -> None:
    """400 for the plan, 404 for the user."""
    reply = await management.call("PUT", "/v1/users/ada/entitlement", {"plan": "none"})
    assert (reply.status, reply.code) == (400, "unknown_plan")
    assert (await management.call("PUT", "/v1/users/nobody/entitlement", {"plan": "starter"})).status == 404


async def test_renewing_brings_the_same_key_back(management: Management) -> None:
    """The key stays the same through lapse and renewal. R254."""
    key = await management.key()
    for valid_until in (0, 4_000_000_000):
        body = {"plan": "starter", "valid_until": valid_until}
        await management.expect(200, "PUT", "/v1/users/ada/entitlement", body)
        record = await management.record(key["secret"])
        assert record is not None
        assert record.entitlement_valid_until == valid_until


async def test_a_plan_from_creation_to_deletion(management: Management) -> None:
    """200 for both writes, then listed and shown; 409 while somebody has it; 204, and then 404."""
    body = {"tier": 3, "features": {"api_access": True, "export": "csv"}, "limits": {"per_second": 5}}
    made = await management.expect(200, "PUT", "/v1/plans/pro", body)
    shown = await management.expect(200, "GET", "/v1/plans/pro")
    assert shown == {"name": "pro", **body}
    assert shown.items() <= made.items()
    assert [plan["name"] for plan in (await management.expect(200, "GET", "/v1/plans"))["items"]] == ["pro", "starter"]
    await management.expect(200, "PUT", "/v1/users/ada/entitlement", {"plan": "pro"})
    reply = await management.call("DELETE", "/v1/plans/pro")
    assert (reply.status, reply.code) == (409, "plan_in_use")
    await management.expect(200, "PUT", "/v1/users/ada/entitlement", {"plan": "starter"})
    await management.expect(204, "DELETE", "/v1/plans/pro")
    await management.expect(404, "GET", "/v1/plans/pro")
    await management.expect(404, "DELETE", "/v1/plans/pro")


async def test_a_changed_plan_reaches_every_user_of_it(management: Management) -> None:
    """The next lookup of any key under the plan sees it. R264."""
    key = await management.key()
    changed = await management.expect(200, "PUT", "/v1/plans/starter", {"tier": 7, "features": {}})
    assert changed["propagation"]["revision"] > 0
    record = await management.record(key["secret"])
    assert record is not None
    assert (record.tier, record.features) == (7, {})


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "place"),
    [
        ("POST", "/v1/tenants", {"id": "a b", "name": "x"}, "invalid_id", "id"),
        ("POST", "/v1/tenants", {"id": "a"}, "invalid_name", "name"),
        ("POST", "/v1/tenants", {"id": "a", "name": " "}, "invalid_name", "name"),
        ("POST", "/v1/tenants", {"id": "a", "name": "x", "more": 1}, "invalid_body", "more"),
        ("PATCH", "/v1/tenants/acme", {"status": "dead"}, "invalid_status", "status"),
        ("PUT", "/v1/users/bo", {}, "invalid_tenant_id", "tenant_id"),
        ("PUT", "/v1/users/bo", {"tenant_id": "acme", "display_name": "a\x00b"}, "invalid_body", "display_name"),
        ("PUT", "/v1/users/bo", {"tenant_id": "acme", "roles": "admin"}, "invalid_body", "roles"),
        ("PUT", "/v1/users/bo", {"tenant_id": "acme", "roles": ["a", ""]}, "invalid_body", "roles[1]"),
        ("PUT", "/v1/users/b%20o", {"tenant_id": "acme"}, "invalid_id", "(path)"),
        ("PUT", "/v1/users/ada/entitlement", {"plan": 1}, "invalid_plan", "plan"),
        (
            "PUT",
            "/v1/users/ada/entitlement",
            {"plan": "starter", "valid_until": "soon"},
            "invalid_valid_until",
            "valid_until",
        ),
        (
            "PUT",
            "/v1/users/ada/entitlement",
            {"plan": "starter", "valid_until": True},
            "invalid_valid_until",
            "valid_until",
        ),
        (
            "PUT",
            "/v1/users/ada/entitlement",
            {"plan": "starter", "features": {"x": None}},
            "invalid_features",
            "features.x",
        ),
        (
            "PUT",
            "/v1/users/ada/entitlement",
            {"plan": "starter", "features": {"x": 1.5}},
            "invalid_features",
            "features.x",
        ),
        ("PUT", "/v1/users/ada/entitlement", {"plan": "starter", "features": []}, "invalid_features", "features"),
        (
            "PUT",
            "/v1/users/ada/entitlement",
            {"plan": "starter", "limits": {"per_day": -2}},
            "invalid_limits",
            "limits.per_day",
        ),
        (
            "PUT",
            "/v1/users/ada/entitlement",
            {"plan": "starter", "limits": {"per_day": "1"}},
            "invalid_limits",
            "limits.per_day",
        ),
        (
            "PUT",
            "/v1/users/ada/entitlement",
            {"plan": "starter", "limits": {"often": 1}},
            "invalid_limits",
            "limits.often",
        ),
        ("PUT", "/v1/plans/pro", {"tier": -1}, "invalid_tier", "tier"),
        ("PUT", "/v1/plans/pro", {"tier": 2**31}, "invalid_tier", "tier"),
        ("PUT", "/v1/plans/pro", {"tier": True}, "invalid_tier", "tier"),
        ("PUT", "/v1/plans/pro", {"features": {"x": "a\x00"}}, "invalid_features", "features.x"),
        ("PUT", "/v1/plans/p:ro", {}, "invalid_name", "(path)"),
        ("PUT", "/v1/plans/pro", [], "invalid_body", ""),
    ],
)
async def test_a_bad_body_is_refused(
    management: Management, method: str, path: str, body: Any, code: str, place: str
) -> None:
    """400 with a code for the field, and where and why; nothing is changed."""
    reply = await management.call(method, path, body)
    assert (reply.status, reply.code) == (400, code)
    assert reply.body["issues"][0]["place"].startswith(place)
    assert reply.body["issues"][0]["message"]
