"""Keys: created, listed, changed, revoked."""

import asyncio
import hashlib
import json
from typing import Any

import pytest

from gateway.auth.secrets import SecretFormat
from tests.integration.management.world import ENVIRONMENT, PEPPERS, Management, give_tokens, management_over

FIELDS = {
    "id",
    "tenant_id",
    "user_id",
    "name",
    "prefix",
    "environment",
    "scopes",
    "status",
    "created_at",
    "last_used_at",
    "expires_at",
    "revoked_at",
}
PAST, FUTURE = 1_000_000_000, 4_000_000_000


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


async def count(management: Management) -> Any:
    return await management.execute("SELECT count(*) FROM api_keys")


async def active(management: Management, user: str = "ada") -> list[str]:
    page = await management.expect(200, "GET", f"/v1/keys?user_id={user}&status=active")
    return [key["name"] for key in page["items"]]


async def test_a_new_key_works_at_once(management: Management) -> None:
    """201 with the key object and the secret, of the published shape, which a lookup finds. R061, R101, R218, R219."""
    key = await management.key(" first ", scopes=["orders:read", "a.b_*-c"], expires_at="2099-12-31T23:59:59Z")
    assert set(key) == FIELDS | {"secret", "propagation"}
    assert SecretFormat("ost", ENVIRONMENT).is_well_formed(key["secret"].encode())
    assert key["secret"].startswith(key["prefix"])
    assert (key["name"], key["tenant_id"], key["environment"], key["status"]) == ("first", "acme", "test", "active")
    assert (key["scopes"], key["expires_at"]) == (["orders:read", "a.b_*-c"], "2099-12-31T23:59:59Z")
    assert (key["last_used_at"], key["revoked_at"]) == (None, None)
    assert key["propagation"]["state"] == "confirmed"
    record = await management.record(key["secret"])
    assert record is not None
    assert (record.key_id, record.user_id, record.key_kind) == (key["id"], "ada", "user")


async def test_the_secret_stands_in_one_reply_and_nowhere_else(management: Management) -> None:
    """No other reply and no table holds the secret; no reply at all holds a digest. R040, R127, R218, R219."""
    key = await management.key()
    rotated = await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {})
    later = [
        await management.expect(200, "GET", f"/v1/keys/{key['id']}"),
        await management.expect(200, "GET", "/v1/keys"),
        await management.expect(200, "GET", f"/v1/keys/{key['id']}/retired-secrets"),
        await management.expect(
            200, "PATCH", f"/v1/retired-secrets/{rotated['retired_secret']['id']}", {"expires_at": FUTURE}
        ),
        await management.expect(200, "PATCH", f"/v1/keys/{key['id']}", {"name": "second"}),
        await management.expect(200, "POST", f"/v1/keys/{key['id']}/revoke"),
    ]
    tables = await management.execute(
        "SELECT (SELECT json_agg(k)::text FROM api_keys k) || (SELECT json_agg(r)::text FROM retired_secrets r)"
    )
    for secret in (key["secret"], rotated["secret"]):
        random_part = secret.removeprefix("ost_test_")[6:]
        digests = {digest.hex() for digest in PEPPERS.candidates(bytes.fromhex(sha256(secret)))}
        assert random_part not in tables + json.dumps(later)
        assert not any(digest in json.dumps([key, rotated, later]) for digest in digests)


@pytest.mark.parametrize(
    ("entitlement", "plan"),
    [
        pytest.param(None, {"api_access": True}, id="none"),
        pytest.param({}, {}, id="a paid plan without it"),
        pytest.param({"features": {"api_access": False}}, {"api_access": True}, id="false over the plan's true"),
        pytest.param({"features": {"api_access": "true"}}, {}, id="a text"),
        pytest.param({"features": {"api_access": 1}}, {}, id="a number"),
        pytest.param({"valid_until": PAST}, {"api_access": True}, id="lapsed"),
    ],
)
async def test_no_key_without_api_access(
    management: Management, entitlement: dict[str, Any] | None, plan: dict[str, Any]
) -> None:
    """403, and nothing is inserted. R211, R252, R253."""
    await management.expect(200, "PUT", "/v1/plans/starter", {"tier": 5, "features": plan})
    await management.expect(204, "DELETE", "/v1/users/ada/entitlement")
    if entitlement is not None:
        await management.expect(200, "PUT", "/v1/users/ada/entitlement", {"plan": "starter"} | entitlement)
    reply = await management.call("POST", "/v1/keys", {"user_id": "ada", "name": "x"})
    assert (reply.status, reply.code) == (403, "api_access_required")
    assert await count(management) == 0


async def test_operator_keys_need_no_entitlement(management: Management) -> None:
    """Made by operators alone; they neither need an entitlement nor count against the user's limit. R013."""
    await management.expect(204, "DELETE", "/v1/users/ada/entitlement")
    for number in range(6):
        key = await management.key(f"op{number}", kind="operator")
    record = await management.record(key["secret"])
    assert record is not None
    assert record.key_kind == "operator"


async def test_no_key_for_nobody(management: Management) -> None:
    """404 for a user that does not exist."""
    reply = await management.call("POST", "/v1/keys", {"user_id": "nobody", "name": "x"})
    assert (reply.status, reply.code) == (404, "not_found")


async def test_a_sixth_active_key_is_refused(management: Management) -> None:
    """409, and nothing is revoked; revoked and expired keys do not count. R214."""
    keys = [await management.key(f"k{number}") for number in range(5)]
    reply = await management.call("POST", "/v1/keys", {"user_id": "ada", "name": "k5"})
    assert (reply.status, reply.code, reply.body["limit"], reply.body["revoked"]) == (409, "key_limit_reached", 5, [])
    assert len(await active(management)) == 5
    await management.expect(200, "POST", f"/v1/keys/{keys[0]['id']}/revoke")
    await management.key("k5")
    await management.execute("UPDATE api_keys SET expires_at = now() WHERE id = $1", keys[1]["id"])
    await management.key("k6")
    await management.key("k0", user="alan")


async def test_twenty_creates_at_once_make_five_keys(management: Management) -> None:
    """The limit holds under concurrency. R215."""
    replies = await asyncio.gather(
        *(management.call("POST", "/v1/keys", {"user_id": "ada", "name": f"k{n}"}) for n in range(20))
    )
    assert sorted(reply.status for reply in replies) == [201] * 5 + [409] * 15
    assert {reply.code for reply in replies if reply.status == 409} == {"key_limit_reached"}
    assert await count(management) == 5


async def test_too_many_active_keys_converge_at_the_next_create(management: Management) -> None:
    """The oldest go until as many are left as allowed; the answer names them, and they are refused at once. R216."""
    keys = [await management.key(f"k{number}") for number in range(4)]
    async with management_over(management.dsn, max_per_user=2) as stricter:
        await give_tokens(stricter)
        reply = await stricter.call("POST", "/v1/keys", {"user_id": "ada", "name": "k4"})
        assert (reply.status, reply.code, reply.body["limit"]) == (409, "key_limit_reached", 2)
        assert reply.body["revoked"] == [keys[0]["id"], keys[1]["id"]]
        assert reply.body["propagation"]["state"] == "confirmed"
        for key in keys[:2]:
            record = await stricter.record(key["secret"])
            assert record is not None
            assert record.is_revoked
        assert await active(stricter) == ["k2", "k3"]
        again = await stricter.call("POST", "/v1/keys", {"user_id": "ada", "name": "k4"})
        assert (again.status, again.body["revoked"]) == (409, [])


async def test_converging_from_many_sides_revokes_no_more_than_needed(management: Management) -> None:
    """Concurrent creates over the limit leave exactly as many keys as allowed. R215, R216."""
    for number in range(5):
        await management.key(f"k{number}")
    async with management_over(management.dsn, max_per_user=2) as stricter:
        await give_tokens(stricter)
        replies = await asyncio.gather(
            *(stricter.call("POST", "/v1/keys", {"user_id": "ada", "name": f"n{n}"}) for n in range(6))
        )
        assert {reply.status for reply in replies} == {409}
        revoked = [key_id for reply in replies for key_id in reply.body["revoked"]]
        assert len(revoked) == len(set(revoked)) == 3
        assert await active(stricter) == ["k3", "k4"]


async def test_a_secret_made_by_the_client(management: Management) -> None:
    """Only its digest comes, so no secret goes back; the key works like any other. R213."""
    secret = SecretFormat("ost", ENVIRONMENT).generate()
    key = await management.key(secret_sha256=sha256(secret).upper(), prefix="ost_test_" + secret[9:15])
    assert "secret" not in key
    assert key["prefix"] == "ost_test_" + secret[9:15]
    record = await management.record(secret)
    assert record is not None
    assert record.key_id == key["id"]


@pytest.mark.parametrize("state", ["active", "revoked", "expired", "retired", "other tenant", "before peppers"])
async def test_a_digest_belongs_to_one_key_for_good(management: Management, state: str) -> None:
    """Active, revoked, expired or retired, whoever owns it: 409 and nothing inserted. R109, R217."""
    key = await management.key(user="olga" if state == "other tenant" else "ada")
    digest = sha256(key["secret"])
    match state:
        case "revoked":
            await management.expect(200, "POST", f"/v1/keys/{key['id']}/revoke")
        case "expired":
            await management.execute("UPDATE api_keys SET expires_at = now()")
        case "retired":
            await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {"grace_seconds": 0})
        case "before peppers":
            await management.execute("UPDATE api_keys SET digest = $1", bytes.fromhex(digest))
        case _:
            pass
    body = {"user_id": "ada", "name": "again", "secret_sha256": digest, "prefix": "ost_test_abcd"}
    reply = await management.call("POST", "/v1/keys", body)
    assert (reply.status, reply.code) == (409, "duplicate_key")
    assert await count(management) == 1


async def test_the_same_digest_from_many_sides(management: Management) -> None:
    """One key comes of it. R217."""
    digest = sha256("something")
    bodies = [{"user_id": "ada", "name": f"k{n}", "secret_sha256": digest, "prefix": "ost_test_abcd"} for n in range(8)]
    replies = await asyncio.gather(*(management.call("POST", "/v1/keys", body) for body in bodies))
    assert sorted(reply.status for reply in replies) == [201] + [409] * 7
    assert await count(management) == 1


async def test_a_rotation_does_not_let_a_known_digest_slip_in(management: Management) -> None:
    """While a rotation moves a digest from one table to the other, it is in use all the same. R109, R217."""
    key = await management.key()
    body = {"user_id": "alan", "secret_sha256": sha256(key["secret"]), "prefix": "ost_test_abcd"}
    replies = await asyncio.gather(
        management.call("POST", f"/v1/keys/{key['id']}/rotate", {}),
        *(management.call("POST", "/v1/keys", body | {"name": f"k{n}"}) for n in range(6)),
    )
    assert [reply.status for reply in replies] == [200] + [409] * 6


async def test_names_are_unique_among_unrevoked_keys_of_a_tenant(management: Management) -> None:
    """409, also under concurrency; other tenants are free, and so is a revoked key's name. R273, R276."""
    replies = await asyncio.gather(
        *(management.call("POST", "/v1/keys", {"user_id": user, "name": "n"}) for user in ("ada", "alan") * 2)
    )
    assert sorted(reply.status for reply in replies) == [201, 409, 409, 409]
    assert {reply.code for reply in replies if reply.status == 409} == {"duplicate_name"}
    await management.key("n", user="olga")
    made = next(reply.body for reply in replies if reply.status == 201)
    other = await management.key("m")
    assert (await management.call("PATCH", f"/v1/keys/{other['id']}", {"name": "n"})).code == "duplicate_name"
    await management.expect(200, "POST", f"/v1/keys/{made['id']}/revoke")
    await management.expect(200, "PATCH", f"/v1/keys/{other['id']}", {"name": "n"})


GOOD = {"user_id": "ada", "name": "x"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({"name": ""}, "invalid_name", id="empty name"),
        pytest.param({"name": " \t "}, "invalid_name", id="blank name"),
        pytest.param({"name": "x" * 65}, "invalid_name", id="long name"),
        pytest.param({"name": 7}, "invalid_name", id="number as name"),
        pytest.param({"name": None}, "invalid_name", id="null as name"),
        pytest.param({"name": "a\nb"}, "invalid_name", id="line break in the name"),
        pytest.param({"name": "a\x00b"}, "invalid_name", id="NUL in the name"),
        pytest.param({"user_id": ""}, "invalid_user_id", id="empty user"),
        pytest.param({"scopes": "a"}, "invalid_scopes", id="text as scopes"),
        pytest.param({"scopes": ["a b"]}, "invalid_scopes", id="space in a scope"),
        pytest.param({"scopes": [""]}, "invalid_scopes", id="empty scope"),
        pytest.param({"scopes": ["x" * 65]}, "invalid_scopes", id="long scope"),
        pytest.param({"scopes": ["a", "a"]}, "invalid_scopes", id="scope twice"),
        pytest.param({"scopes": [f"s{n}" for n in range(65)]}, "invalid_scopes", id="65 scopes"),
        pytest.param({"scopes": [1]}, "invalid_scopes", id="number as scope"),
        pytest.param({"environment": "UP"}, "invalid_environment", id="upper-case environment"),
        pytest.param({"environment": "a_b"}, "invalid_environment", id="environment with the separator"),
        pytest.param({"expires_at": PAST}, "invalid_expires_at", id="past"),
        pytest.param({"expires_at": "2001-01-01T00:00:00Z"}, "invalid_expires_at", id="past text"),
        pytest.param({"expires_at": "tomorrow"}, "invalid_expires_at", id="garbage"),
        pytest.param({"expires_at": False}, "invalid_expires_at", id="boolean"),
        pytest.param({"kind": "admin"}, "invalid_body", id="unknown kind"),
        pytest.param({"tenant_id": "other"}, "invalid_body", id="tenant is not the caller's to choose"),
        pytest.param({"secret": "ost_test_x"}, "invalid_body", id="a secret in the clear"),
        pytest.param({"prefix": "ost_test_abcd"}, "invalid_digest", id="prefix without digest"),
        pytest.param({"secret_sha256": "0" * 64}, "invalid_prefix", id="digest without prefix"),
        pytest.param({"secret_sha256": "0" * 63, "prefix": "ost_test_abcd"}, "invalid_digest", id="short digest"),
        pytest.param({"secret_sha256": "g" * 64, "prefix": "ost_test_abcd"}, "invalid_digest", id="no hexadecimal"),
        pytest.param({"secret_sha256": "0" * 64, "prefix": "ost_test_abc"}, "invalid_prefix", id="short prefix"),
        pytest.param({"secret_sha256": "0" * 64, "prefix": "ost_test_abcdefghi"}, "invalid_prefix", id="long prefix"),
        pytest.param(
            {"secret_sha256": "0" * 64, "prefix": "ost_prod_abcd"}, "invalid_prefix", id="another environment"
        ),
        pytest.param({"secret_sha256": "0" * 64, "prefix": "osx_test_abcd"}, "invalid_prefix", id="another prefix"),
        pytest.param({"secret_sha256": "0" * 64, "prefix": "ost_test_ab-d"}, "invalid_prefix", id="not base62"),
    ],
)
async def test_a_bad_key_is_refused(management: Management, change: dict[str, Any], code: str) -> None:
    """400 with the field's code and its place, and nothing is inserted. R212, R213, R223."""
    reply = await management.call("POST", "/v1/keys", GOOD | change)
    assert (reply.status, reply.code) == (400, code)
    assert reply.body["issues"][0]["message"]
    assert await count(management) == 0


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"user_id":"ada","name":"\\ud800"}', b"[" * 5000]
)
async def test_what_is_not_a_json_object_is_refused(management: Management, raw: bytes) -> None:
    """400 invalid_body with issues, never 500. R121, R144."""
    reply = await management.call("POST", "/v1/keys", raw=raw)
    assert (reply.status, reply.code) == (400, "invalid_body")
    assert reply.body["issues"]


async def test_several_mistakes_are_told_at_once(management: Management) -> None:
    """Every issue has its place."""
    reply = await management.call("POST", "/v1/keys", {"name": "", "scopes": ["a", "b c"], "expires_at": []})
    places = [issue["place"] for issue in reply.body["issues"]]
    assert places == ["user_id", "name", "scopes[1]", "expires_at"]


async def test_a_key_for_another_environment(management: Management) -> None:
    """Its secret says so; this gateway would refuse it without a lookup. R011, R106."""
    key = await management.key(environment="prod")
    assert key["secret"].startswith("ost_prod_")
    rotated = await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {})
    assert rotated["secret"].startswith("ost_prod_")


async def test_keys_are_listed_by_user_tenant_and_status(management: Management) -> None:
    """Active, revoked and expired ones, the key object each. R219."""
    keys = {name: await management.key(name) for name in ("live", "gone", "late")}
    await management.key("far", user="olga")
    await management.expect(200, "POST", f"/v1/keys/{keys['gone']['id']}/revoke")
    await management.execute("UPDATE api_keys SET expires_at = now() WHERE name = 'late'")
    for query, names in {
        "": ["live", "gone", "late", "far"],
        "?tenant_id=acme": ["live", "gone", "late"],
        "?user_id=olga": ["far"],
        "?status=active": ["live", "far"],
        "?status=revoked": ["gone"],
        "?status=expired&tenant_id=acme": ["late"],
        "?user_id=ada&tenant_id=other": [],
    }.items():
        page = await management.expect(200, "GET", f"/v1/keys{query}", token="auditor")
        assert [key["name"] for key in page["items"]] == names
        assert all(set(key) == FIELDS for key in page["items"])
    own = await management.expect(200, "GET", "/v1/keys", token="tenant_admin")
    assert [key["name"] for key in own["items"]] == ["live", "gone", "late"]


async def test_a_key_is_changed(management: Management) -> None:
    """Name, scopes and end; what is left out stays, null means no end."""
    key = await management.key(scopes=["a", "b"], expires_at=FUTURE)
    path = f"/v1/keys/{key['id']}"
    named = await management.expect(200, "PATCH", path, {"name": " new "})
    assert (named["name"], named["scopes"], named["propagation"]["revision"]) == ("new", ["a", "b"], 0)
    narrowed = await management.expect(200, "PATCH", path, {"scopes": ["a"]})
    assert narrowed["propagation"]["revision"] > 0
    endless = await management.expect(200, "PATCH", path, {"expires_at": None})
    assert (endless["name"], endless["scopes"], endless["expires_at"]) == ("new", ["a"], None)
    record = await management.record(key["secret"])
    assert record is not None
    assert (record.scopes, record.key_expires_at) == (("a",), None)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": " "}, "invalid_name"),
        ({"scopes": ["a", "a"]}, "invalid_scopes"),
        ({"expires_at": PAST}, "invalid_expires_at"),
        ({"expires_at": "x"}, "invalid_expires_at"),
        ({"status": "active"}, "invalid_body"),
        ({"environment": "prod"}, "invalid_body"),
        ({"user_id": "alan"}, "invalid_body"),
    ],
)
async def test_a_bad_change_is_refused(management: Management, change: dict[str, Any], code: str) -> None:
    """400; owner, environment and status cannot be changed here."""
    key = await management.key()
    assert (await management.call("PATCH", f"/v1/keys/{key['id']}", change)).code == code
    shown = await management.expect(200, "GET", f"/v1/keys/{key['id']}")
    assert shown == {name: key[name] for name in FIELDS}


async def test_an_expired_key_comes_back_only_where_there_is_room(management: Management) -> None:
    """Extending an expired key counts like a new one. R214."""
    key = await management.key("old")
    await management.execute("UPDATE api_keys SET expires_at = now()")
    assert (await management.expect(200, "GET", f"/v1/keys/{key['id']}"))["status"] == "expired"
    for number in range(5):
        await management.key(f"k{number}")
    reply = await management.call("PATCH", f"/v1/keys/{key['id']}", {"expires_at": FUTURE})
    assert (reply.status, reply.code) == (409, "key_limit_reached")
    await management.execute("DELETE FROM api_keys WHERE name = 'k0'")
    back = await management.expect(200, "PATCH", f"/v1/keys/{key['id']}", {"expires_at": FUTURE})
    assert back["status"] == "active"


async def test_revoking_is_for_good(management: Management) -> None:
    """200 with the key and how far it has come; all secrets are revoked; nothing brings it back. R220, R222."""
    key = await management.key()
    path = f"/v1/keys/{key['id']}"
    rotated = await management.expect(200, "POST", f"{path}/rotate", {})
    revoked = await management.expect(200, "POST", f"{path}/revoke", {"reason": "leaked"})
    assert set(revoked) == FIELDS | {"propagation"}
    assert revoked["status"] == "revoked"
    assert revoked["revoked_at"].endswith("Z")
    assert revoked["propagation"]["state"] == "confirmed"
    for secret in (key["secret"], rotated["secret"]):
        record = await management.record(secret)
        assert record is not None
        assert record.is_revoked
    assert await management.execute("SELECT revoked_reason FROM api_keys") == "leaked"
    again = await management.call("POST", f"{path}/revoke")
    assert (again.status, again.code) == (409, "already_revoked")
    for method, end, body in (
        ("PATCH", "", {"expires_at": FUTURE}),
        ("PATCH", "", {"name": "x"}),
        ("POST", "/rotate", {}),
    ):
        assert (await management.call(method, path + end, body)).code == "key_revoked"
    retired = rotated["retired_secret"]["id"]
    assert (await management.call("PATCH", f"/v1/retired-secrets/{retired}", {"expires_at": FUTURE})).status == 409
    assert (await management.expect(200, "GET", path))["revoked_at"] == revoked["revoked_at"]


async def test_revoking_from_many_sides(management: Management) -> None:
    """One does it, the others learn that it is done. R220."""
    key = await management.key()
    replies = await asyncio.gather(*(management.call("POST", f"/v1/keys/{key['id']}/revoke") for _ in range(6)))
    assert {reply.status for reply in replies} <= {200, 409}
    assert 200 in {reply.status for reply in replies}


async def test_revoking_what_does_not_exist(management: Management) -> None:
    """404. R220."""
    reply = await management.call("POST", "/v1/keys/key_unknown/revoke")
    assert (reply.status, reply.code) == (404, "not_found")


@pytest.mark.parametrize("body", [{"reason": 5}, {"reason": "x" * 201}, {"reason": "a\x07"}, {"why": "x"}])
async def test_a_bad_reason_revokes_nothing(management: Management, body: Any) -> None:
    """400, and the key works on."""
    key = await management.key()
    assert (await management.call("POST", f"/v1/keys/{key['id']}/revoke", body)).status == 400
    assert await active(management) == ["first"]
