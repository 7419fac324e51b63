"""The audit trail: nothing is changed without an event, no event holds a secret, and no event can be altered unseen."""

import asyncio
import hashlib
import json
import re
from typing import Any

import aiohttp
import asyncpg
import pytest

from gateway.auth.secrets import SecretFormat, sha256_digest
from gateway.control.admin_tokens import AdminTokens, Role
from gateway.control.problems import NotFound
from tests.integration.management.world import ENVIRONMENT, PEPPERS, Management

OWN_SECRET = SecretFormat("ost", ENVIRONMENT).generate()
SHA256 = hashlib.sha256(OWN_SECRET.encode()).hexdigest()

# Every call that changes something: body, status, action on record, and target.
MUTATIONS: dict[tuple[str, str], tuple[Any, int, str, str]] = {
    ("POST", "/v1/tenants"): ({"id": "new", "name": "New"}, 201, "tenant.create", "tenant:new"),
    ("PATCH", "/v1/tenants/{id}"): ({"name": "Acme Ltd"}, 200, "tenant.change", "tenant:acme"),
    ("DELETE", "/v1/tenants/{id}"): (None, 204, "tenant.delete", "tenant:acme"),
    ("PUT", "/v1/users/{id}"): ({"tenant_id": "acme", "status": "suspended"}, 200, "user.change", "user:ada"),
    ("DELETE", "/v1/users/{id}"): (None, 204, "user.delete", "user:ada"),
    ("PUT", "/v1/users/{id}/entitlement"): ({"plan": "starter", "limits": {"per_day": 3}}, 200, "entitlement.put", ""),
    ("DELETE", "/v1/users/{id}/entitlement"): (None, 204, "entitlement.delete", "entitlement:ada"),
    ("PUT", "/v1/plans/{name}"): ({"tier": 2, "features": {"size": 9007199254740993}}, 200, "plan.put", "plan:spare"),
    ("DELETE", "/v1/plans/{name}"): (None, 204, "plan.delete", "plan:spare"),
    ("POST", "/v1/keys"): ({"user_id": "ada", "name": "made"}, 201, "key.create", ""),
    ("PATCH", "/v1/keys/{id}"): ({"expires_at": 4_000_000_000}, 200, "key.change", ""),
    ("POST", "/v1/keys/{id}/rotate"): ({"grace_seconds": 60}, 200, "key.rotate", ""),
    ("POST", "/v1/keys/{id}/revoke"): ({"reason": "leaked"}, 200, "key.revoke", ""),
    ("POST", "/v1/keys/{id}/contain"): ({"reason": "leaked"}, 200, "key.contain", ""),
    ("PATCH", "/v1/retired-secrets/{id}"): ({"expires_at": 0}, 200, "retired_secret.set_window", ""),
    ("POST", "/v1/cache/invalidate"): ({"secret_sha256": SHA256}, 200, "cache.invalidate", "cache:secret"),
}

# Calls that change nothing although their method could, and those that have tests of their own for all this.
OTHERS = {("POST", "/v1/keys/verify"), ("POST", "/v1/imports")}


async def events(management: Management, query: str = "", *, token: str = "auditor") -> list[dict[str, Any]]:
    page = await management.expect(200, "GET", f"/v1/audit?limit=200{query}", token=token)
    found: list[dict[str, Any]] = page["items"]
    assert page["next_cursor"] is None
    return found


async def verdict(management: Management) -> Any:
    return await management.expect(200, "GET", "/v1/audit/verify", token="auditor")


async def prepared(management: Management, path: str) -> str:
    """The path of a thing that is there to be changed."""
    if "plans" in path:
        await management.expect(200, "PUT", "/v1/plans/spare", {"tier": 1})
        return path.format(name="spare")
    if "tenants" in path:
        return path.format(id="acme")
    if "users" in path:
        return path.format(id="ada")
    if "retired" in path or "keys/" in path:
        key = await management.key()
        if "retired" in path:
            rotated = await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {})
            return path.format(id=rotated["retired_secret"]["id"])
        return path.format(id=key["id"])
    return path


def test_every_mutation_of_the_api_is_covered(management: Management) -> None:
    """A call that is added to the API has to be added to the table above, and so to the tests below. R314.

    Those of signed-in users, below `/v1/me`, are the same mutations; `test_self_service.py` looks at who is on record.
    """
    routes = management.client.server.app.router.routes()  # type: ignore[attr-defined]
    known = {
        (route.method, route.resource.canonical)
        for route in routes
        if route.method not in {"GET", "HEAD", "OPTIONS"} and route.resource is not None
    }
    known = {(method, path) for method, path in known if not path.startswith("/v1/me/")}
    assert known == set(MUTATIONS) | OTHERS


@pytest.mark.parametrize(("method", "path"), MUTATIONS)
async def test_every_mutation_is_on_record(management: Management, method: str, path: str) -> None:
    """Who, from where, in which request, what to which thing, and how it was before and after. R110 R314."""
    body, status, action, target = MUTATIONS[method, path]
    address = await prepared(management, path)
    known = len(await events(management))
    reply = await management.call(method, address, body, headers={"X-Request-Id": "the-request"})
    assert reply.status == status, reply.text
    new = (await events(management))[known:]
    assert new
    last = new[-1]
    assert last["action"] == action
    token_id = await management.execute("SELECT id FROM admin_tokens WHERE name = 'op'")
    for event in new:
        assert event["actor"] == {"kind": "admin_token", "id": token_id, "name": "op"}
        assert (event["address"], event["request_id"]) == ("127.0.0.1", "the-request")
        assert event["outcome"] == "changed"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", event["at"])
    assert target in ("", last["target"])
    assert last["tenant_id"] == (None if "plan" in action else "new" if "create" in action and target else "acme") or (
        action == "cache.invalidate"
    )
    assert (last["before"] is None) == (action in {"tenant.create", "key.create", "cache.invalidate"})
    assert (last["after"] is None) == ("delete" in action)
    assert (await verdict(management))["intact"] is True


async def test_a_rotation_and_a_change_of_the_end_tell_their_times(management: Management) -> None:
    """Which secret was retired, until when it works, and both ends of a window that was moved. R110."""
    key = await management.key()
    rotated = await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {"grace_seconds": 60})
    retired = rotated["retired_secret"]
    moved = await management.expect(200, "PATCH", f"/v1/retired-secrets/{retired['id']}", {"expires_at": 4_000_000_000})
    (rotation,) = await events(management, f"&target=key:{key['id']}&action=key.rotate")
    assert rotation["before"]["prefix"] == key["prefix"]
    assert rotation["after"]["prefix"] == rotated["prefix"]
    assert rotation["after"]["retired_secret"] == retired
    (window,) = await events(management, f"&target=secret:{retired['id']}")
    assert (window["before"]["expires_at"], window["after"]["expires_at"]) == (
        retired["expires_at"],
        moved["expires_at"],
    )


async def test_no_event_holds_a_secret(management: Management) -> None:
    """Neither a secret nor a digest of one, of keys, retired secrets and admin tokens. R110 R324."""
    key = await management.key()
    rotated = await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {})
    await management.key("own", secret_sha256=SHA256, prefix=OWN_SECRET[:15])
    await management.expect(200, "POST", "/v1/cache/invalidate", {"secret_sha256": SHA256})
    _, token = await AdminTokens(management.postgres).create(
        name="more", role=Role.AUDITOR, tenant_id=None, expires_at=None
    )
    written = (await management.execute("SELECT string_agg(e::text, ' ') FROM audit_events AS e")).lower()
    written += json.dumps(await events(management)).lower()
    for secret in (key["secret"], rotated["secret"], OWN_SECRET, token):
        digest = sha256_digest(secret.encode())
        for form in (secret[-20:], digest.hex(), *(candidate.hex() for candidate in PEPPERS.candidates(digest))):
            assert form.lower() not in written
    assert key["id"] in written


async def test_what_is_refused_is_no_event(management: Management) -> None:
    """A call that is rolled back leaves nothing on record; one that changes nothing says so."""
    known = await events(management)
    await management.expect(409, "POST", "/v1/tenants", {"id": "acme", "name": "Again"})
    await management.expect(409, "DELETE", "/v1/plans/starter")
    await management.expect(400, "PUT", "/v1/users/new", {"tenant_id": "nowhere"})
    assert await events(management) == known
    await management.expect(200, "PATCH", "/v1/tenants/acme", {})
    assert (await events(management))[-1]["outcome"] == "unchanged"


@pytest.mark.parametrize(("method", "path"), MUTATIONS)
async def test_what_cannot_be_put_on_record_does_not_happen(management: Management, method: str, path: str) -> None:
    """The event is of the change's own transaction: where it fails, so does the change. R314."""
    address = await prepared(management, path)
    await management.execute("ALTER TABLE audit_events ADD CONSTRAINT broken CHECK (at < 'epoch') NOT VALID")
    before = await state(management)
    reply = await management.call(method, address, MUTATIONS[method, path][0])
    assert (reply.status, "constraint" in reply.text) == (500, False)
    assert await state(management) == before


async def state(management: Management) -> Any:
    tables = ("tenants", "users", "plans", "entitlements", "api_keys", "retired_secrets", "revision", "audit_head")
    return [await management.execute(f"SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM {t} AS t") for t in tables]


async def test_admin_tokens_are_on_record(management: Management) -> None:
    """Made and revoked by command: the operating system's user is the actor; a tenant's token is the tenant's. R314."""
    (made,) = await events(management, "&tenant_id=acme&action=admin_token.create")
    assert (made["actor"]["kind"], made["actor"]["id"], made["address"]) == ("command", "cli", None)
    assert (made["before"], made["after"]["name"], made["after"]["role"]) == (None, "ta", "tenant-admin")
    tokens = AdminTokens(management.postgres)
    token_id = made["after"]["id"]
    await tokens.revoke(token_id)
    await tokens.revoke(token_id)
    with pytest.raises(NotFound):
        await tokens.revoke("adm_nobody")
    first, again = await events(management, f"&target=admin_token:{token_id}&action=admin_token.revoke")
    assert (first["before"]["status"], first["after"]["status"]) == ("active", "revoked")
    assert again["outcome"] == "unchanged"


async def test_surplus_keys_that_go_are_on_record(management: Management) -> None:
    """The revocations that a create makes for the limit's sake are events of its caller. R216 R314."""
    first = await management.key("first")
    for number in range(5):
        await management.execute(
            "INSERT INTO api_keys (id, tenant_id, user_id, name, prefix, environment, secret_id, digest)"
            " VALUES ('key_z' || $1, 'acme', 'ada', $1, 'p', 'test', $1, sha256(convert_to($1, 'UTF8')))",
            str(number),
        )
    await management.expect(409, "POST", "/v1/keys", {"user_id": "ada", "name": "seventh"})
    (event,) = await events(management, "&action=key.revoke")
    assert (event["target"], event["actor"]["name"]) == (f"key:{first['id']}", "op")


async def test_a_large_tenant_goes_on_record_in_pieces(management: Management) -> None:
    """The suspension, the users that went with it, and the tenant. R103 R314."""
    await management.expect(204, "DELETE", "/v1/tenants/acme")
    *_, suspended, emptied, deleted = await events(management, "&tenant_id=acme")
    assert (suspended["before"]["status"], suspended["after"]["status"]) == ("active", "suspended")
    assert emptied["before"] == {"users": ["ada", "alan"]}
    assert (deleted["action"], deleted["before"]["status"]) == ("tenant.delete", "suspended")


async def test_events_are_found_by_what_they_are_about(management: Management) -> None:
    """Filters and pages; ids are 1, 2, 3 ... in the order of commits."""
    everything = await events(management)
    assert [event["id"] for event in everything] == list(range(1, len(everything) + 1))
    assert {event["tenant_id"] for event in await events(management, "&tenant_id=other")} == {"other"}
    assert len(await events(management, "&action=user.create")) == 3
    assert [event["target"] for event in await events(management, "&target=user:olga")] == ["user:olga"]
    assert len(await events(management, "&actor=cli")) == 3
    middle = everything[len(everything) // 2]
    assert await events(management, f"&since={middle['at']}") == everything[middle["id"] - 1 :]
    assert await events(management, f"&until={middle['at']}") == everything[: middle["id"] - 1]
    assert await events(management, "&since=4000000000") == []
    assert await events(management, "&target=key:nothing&action=key.create") == []
    paged, cursor = [], ""
    while True:
        page = await management.expect(200, "GET", f"/v1/audit?limit=3{cursor}", token="auditor")
        paged += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert paged == everything


@pytest.mark.parametrize(
    "query", ["cursor=YWJj", "since=yesterday", "target=x", "action=%00", "actor=%20", "limit=0", "kind=x", "until="]
)
async def test_a_bad_query_is_refused(management: Management, query: str) -> None:
    """400 and not an outage, for the listing and the export."""
    for path in ("/v1/audit", "/v1/audit/export"):
        assert (await management.call("GET", f"{path}?{query}")).code == "invalid_query"
    assert (await management.call("GET", "/v1/audit/verify?tenant_id=acme")).code == "invalid_query"


async def test_a_tenants_administrator_reads_what_is_about_the_tenant(management: Management) -> None:
    """Of others, and of what belongs to no tenant, nothing; the whole chain is not theirs to verify. R272 R314."""
    await management.key(user="olga")
    seen = await events(management, token="tenant_admin")
    assert seen == await events(management, "&tenant_id=acme")
    assert {event["tenant_id"] for event in seen} == {"acme"}
    assert await events(management, "&tenant_id=other", token="tenant_admin") == []
    exported = await management.call_text("/v1/audit/export", token="tenant_admin")
    assert [json.loads(line) for line in exported.splitlines()] == seen
    assert await management.call_text("/v1/audit/export?tenant_id=other", token="tenant_admin") == ""
    assert (await management.call("GET", "/v1/audit/verify", token="tenant_admin")).code == "forbidden"


async def test_an_export_can_be_verified_by_anybody(management: Management) -> None:
    """With twelve lines of standard library, as docs/api.md shows. R314."""
    await management.expect(200, "PUT", "/v1/plans/odd", {"features": {"size": 9007199254740993, "text": "ö\u2028"}})
    lines = (await management.call_text("/v1/audit/export", token="auditor")).splitlines()
    assert [json.loads(line) for line in lines] == await events(management)
    previous = "00" * 32
    for line in lines:
        event = json.loads(line)
        claimed, before = event.pop("hash"), event.pop("previous_hash")
        text = json.dumps(event, sort_keys=True, separators=(",", ":"))
        assert before == previous
        assert claimed == hashlib.sha256(bytes.fromhex(before) + text.encode()).hexdigest()
        previous = claimed


async def test_an_export_that_is_cut_off_does_not_pass_for_the_whole(management: Management) -> None:
    """Where the database goes away in the middle, the client sees a broken transfer."""
    await management.execute(
        "INSERT INTO audit_events SELECT n, now(), 'command', 'cli', repeat('x', 2000), NULL, 'a.b', 'c:d', NULL, NULL,"
        " NULL, NULL, 'changed', sha256(''), sha256('') FROM generate_series(1000, 30000) AS n"
    )
    headers = {"Authorization": f"Bearer {management.auditor}"}
    async with management.client.get("/v1/audit/export", headers=headers) as response:
        assert response.status == 200
        await response.content.readline()
        await management.postgres.close()
        with pytest.raises(aiohttp.ClientError):
            await response.read()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET address = NULL",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
        "DELETE FROM audit_events WHERE id = 0",
        "DELETE FROM audit_head",
        "TRUNCATE audit_head",
    ],
)
async def test_the_trail_is_only_appended_to(management: Management, statement: str) -> None:
    """The database itself refuses to alter or delete, whoever asks. R314."""
    with pytest.raises(asyncpg.RaiseError, match="appended"):
        await management.execute(statement)


@pytest.mark.parametrize(
    ("statement", "first_broken"),
    [
        ("UPDATE audit_events SET actor_name = 'somebody else' WHERE id = 5", 5),
        ("""UPDATE audit_events SET after = '{"id": "other"}' WHERE id = 4""", 4),
        ("UPDATE audit_events SET at = at + interval '1 microsecond' WHERE id = 7", 7),
        ("DELETE FROM audit_events WHERE id = 6", 6),
        ("DELETE FROM audit_events WHERE id = 1", 1),
        ("DELETE FROM audit_events WHERE id = (SELECT max(id) FROM audit_events)", 12),
        ("DELETE FROM audit_events", 1),
        ("UPDATE audit_events SET id = CASE id WHEN 3 THEN 4 ELSE 3 END WHERE id IN (3, 4)", 3),
        ("UPDATE audit_head SET hash = sha256('')", 12),
        ("UPDATE audit_events SET hash = sha256('') WHERE id = 12", 12),
    ],
    ids=["actor", "after", "at", "deleted", "first", "last", "all", "swapped", "head", "hash"],
)
async def test_what_was_altered_is_found(management: Management, statement: str, first_broken: int) -> None:
    """By whoever may disable triggers: the chain shows the first event that is not as it was. R314."""
    assert await verdict(management) == {"events": 12, "intact": True, "first_broken": None}
    await management.execute("ALTER TABLE audit_events DISABLE TRIGGER ALL")
    await management.execute("ALTER TABLE audit_events DROP CONSTRAINT audit_events_pkey")
    await management.execute(statement)
    found = await verdict(management)
    assert (found["intact"], found["first_broken"]) == (False, first_broken)


async def test_the_chain_holds_under_many_writers(management: Management) -> None:
    """Changes at the same moment, of the same and of different things, follow one another and none is lost. R314."""
    known = len(await events(management))
    key = await management.key()
    calls = [management.call("PUT", f"/v1/users/u{n}", {"tenant_id": "acme"}) for n in range(20)]
    calls += [management.call("PATCH", f"/v1/keys/{key['id']}", {"name": f"n{n}"}) for n in range(10)]
    calls += [management.call("PUT", "/v1/plans/starter", {"tier": n}) for n in range(10)]
    assert {reply.status for reply in await asyncio.gather(*calls)} <= {200, 201}
    assert await verdict(management) == {"events": known + 41, "intact": True, "first_broken": None}
