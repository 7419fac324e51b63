"""Who may call what, and in which order a call is refused."""

import asyncio
import base64
import hashlib
from functools import partial
from typing import Any

import asyncpg
import pytest

from gateway.control.admin_tokens import AdminTokens, Role, generate
from tests.fixtures.waiting import until
from tests.integration.management.world import Management, management_over

# A tenant does not touch what it has bought, nor what is about all tenants.
NOT_FOR_TENANT_ADMINS = {
    "POST /v1/tenants",
    "PATCH /v1/tenants/{id}",
    "DELETE /v1/tenants/{id}",
    "PUT /v1/users/{id}/entitlement",
    "DELETE /v1/users/{id}/entitlement",
    "PUT /v1/plans/{name}",
    "DELETE /v1/plans/{name}",
    "GET /v1/nodes",
    "GET /v1/signing-keys",
    "GET /v1/audit/verify",
}
FOR_ANYBODY = {"GET /v1/openapi.json", "OPTIONS /v1/cache/invalidate"}


async def test_what_is_for_users_is_for_nobody_else(management: Management) -> None:
    """Without a provider nobody is a signed-in user: 401 before anything is read, for operators too. R210, R280."""
    personal = [operation for operation in management.documented.operations() if operation.is_personal]
    assert len(personal) >= 8
    for operation in personal:
        for token in (None, "operator", "tenant_admin", generate(), "a.b.c"):
            reply = await management.call(operation.method, operation.nowhere, raw=b"{not json", token=token)
            assert (str(operation), reply.status, reply.code) == (str(operation), 401, "sign_in_required")
            assert reply.headers["WWW-Authenticate"].startswith("Bearer")


async def test_who_may_call_what(management: Management) -> None:
    """An operator everything, an auditor all that reads, a tenant's administrator what is about the tenant. R123, R210.

    That no other role is let through is tried for every call in `test_management_every_call.py`.
    """
    wanted: dict[str, frozenset[str] | None] = {}
    for operation in management.documented.operations():
        if operation.is_personal:
            wanted[str(operation)] = frozenset()
            continue
        allowed = {
            "operator": True,
            "auditor": operation.method == "GET",
            "tenant-admin": str(operation) not in NOT_FOR_TENANT_ADMINS,
        }
        roles = frozenset(role for role, is_allowed in allowed.items() if is_allowed)
        wanted[str(operation)] = None if str(operation) in FOR_ANYBODY else roles
    assert {str(operation): operation.roles for operation in management.documented.operations()} == wanted


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param("", id="empty"),
        pytest.param("Bearer", id="scheme alone"),
        pytest.param("Bearer ", id="empty token"),
        pytest.param("Bearer osta_short", id="short"),
        pytest.param(f"Bearer {generate()}", id="unknown"),
        pytest.param(f"Bearer {generate()[:-1]}!", id="bad checksum"),
        pytest.param("Bearer \u00e9\u00e9", id="not ASCII"),
        pytest.param("Bearer " + "x" * 4000, id="long"),
        pytest.param("Basic b3N0YTpvc3Rh", id="another scheme"),
    ],
)
async def test_a_bad_token_is_refused(management: Management, authorization: str) -> None:
    """Whatever is not a valid admin token is a 401, never a 403 or a 500. R123."""
    reply = await management.call("GET", "/v1/keys", token=None, headers={"Authorization": authorization})
    assert (reply.status, reply.code) == (401, "invalid_admin_token")


async def test_an_api_key_is_no_admin_token(management: Management) -> None:
    """Not even an operator's key opens the management API. R123."""
    key = await management.key(kind="operator")
    reply = await management.call("GET", "/v1/keys", token=key["secret"])
    assert reply.status == 401


@pytest.mark.threat("two credentials")
async def test_two_authorization_headers_are_refused(management: Management) -> None:
    """Never «the first one wins». R008."""
    host, port = management.client.host, management.client.port
    async with management.client.session.get(
        f"http://{host}:{port}/v1/keys",
        headers=[("Authorization", f"Bearer {management.operator}"), ("Authorization", f"Bearer {generate()}")],
    ) as response:
        assert response.status == 401


async def test_a_revoked_token_is_refused_at_once(management: Management) -> None:
    """Tokens are looked up for every call, without a cache. R123, R129, R274."""
    tokens = AdminTokens(management.postgres)
    row, token = await tokens.create(name="x", role=Role.AUDITOR, tenant_id=None, expires_at=None)
    assert (await management.call("GET", "/v1/keys", token=token)).status == 200
    await tokens.revoke(row.id)
    assert (await management.call("GET", "/v1/keys", token=token)).status == 401


async def test_an_expired_token_is_refused(management: Management) -> None:
    """By the database's time. R123."""
    tokens = AdminTokens(management.postgres)
    row, token = await tokens.create(name="x", role=Role.AUDITOR, tenant_id=None, expires_at=None)
    await management.execute("UPDATE admin_tokens SET expires_at = now() WHERE id = $1", row.id)
    assert (await management.call("GET", "/v1/keys", token=token)).status == 401


async def test_tokens_are_hashed_at_rest(management: Management) -> None:
    """The database holds the SHA-256 and a few characters to know a token by. R129."""
    stored = await management.execute("SELECT string_agg(a::text, ' ') FROM admin_tokens a")
    for token in (management.operator, management.auditor, management.tenant_admin):
        assert hashlib.sha256(token.encode()).hexdigest() in stored
        assert token not in stored
        assert token[11:] not in stored


async def test_the_use_of_a_token_is_recorded_once_in_five_minutes(management: Management) -> None:
    """At most one write in five minutes, whatever the number of calls. R129."""
    query = "SELECT last_used_at FROM admin_tokens WHERE name = 'op'"
    first = await management.execute(query)
    assert first is not None
    await management.call("GET", "/v1/keys")
    assert await management.execute(query) == first
    await management.execute("UPDATE admin_tokens SET last_used_at = now() - interval '5 minutes' WHERE name = 'op'")
    await management.call("GET", "/v1/keys")
    assert await management.execute(query) > first


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/keys/key_x/rotate", "POST"),
        ("DELETE", "/v1/keys/key_x/revoke", "POST"),
        ("GET", "/v1/retired-secrets/sec_x", "PATCH"),
        ("POST", "/v1/retired-secrets/sec_x", "PATCH"),
        ("PUT", "/v1/retired-secrets/sec_x", "PATCH"),
        ("DELETE", "/v1/retired-secrets/sec_x", "PATCH"),
        ("PUT", "/v1/keys", "GET, POST"),
        ("DELETE", "/v1/keys/key_x", "GET, PATCH"),
        ("GET", "/v1/cache/invalidate", "OPTIONS, POST"),
    ],
)
async def test_other_methods_are_named(management: Management, method: str, path: str, allow: str) -> None:
    """405 with Allow; 401 without a token. R105, R126."""
    reply = await management.call(method, path)
    assert (reply.status, reply.code, reply.headers["Allow"]) == (405, "method_not_allowed", allow)
    assert (await management.call(method, path, token=None)).status == 401


async def test_an_address_that_does_not_exist(management: Management) -> None:
    """404 for those who may call something; strangers learn nothing of what exists."""
    assert (await management.call("GET", "/v1/nothing")).code == "not_found"
    assert (await management.call("GET", "/v1/nothing", token=None)).status == 401


@pytest.mark.threat("cached refusals")
@pytest.mark.parametrize(
    ("call", "body", "token"),
    [
        pytest.param(("GET", "/v1/keys"), None, "operator", id="200"),
        pytest.param(("GET", "/v1/keys"), None, None, id="401"),
        pytest.param(("POST", "/v1/keys"), {}, "auditor", id="403"),
        pytest.param(("GET", "/v1/keys/key_x"), None, "operator", id="404"),
        pytest.param(("POST", "/v1/keys"), {}, "operator", id="400"),
        pytest.param(("DELETE", "/v1/keys"), None, "operator", id="405"),
        pytest.param(("OPTIONS", "/v1/cache/invalidate"), None, None, id="204"),
        pytest.param(("POST", "/v1/keys"), {"name": "x" * 70_000}, "operator", id="413"),
    ],
)
async def test_every_reply_is_no_store_and_has_a_request_id(
    management: Management, call: tuple[str, str], body: Any, token: str | None, request: pytest.FixtureRequest
) -> None:
    """No reply may be cached, and each can be found in the log; problems are RFC 9457. R030, R218, R343."""
    reply = await management.call(*call, body, token=token)
    assert str(reply.status) == request.node.callspec.id
    assert reply.headers["Cache-Control"] == "no-store"
    assert len(reply.headers["X-Request-Id"]) == 32
    if reply.status >= 400:
        assert reply.headers["Content-Type"].startswith("application/problem+json")
        assert reply.body["status"] == reply.status
        assert reply.body["request_id"] == reply.headers["X-Request-Id"]
        assert reply.body["title"]


@pytest.mark.parametrize(("sent", "is_kept"), [("abc-1.2_3", True), ("a b", False), ("x" * 129, False)])
async def test_a_request_id_is_kept_if_it_is_one(management: Management, sent: str, is_kept: bool) -> None:
    """Propagated when valid, else a new one. R030."""
    reply = await management.call("GET", "/v1/keys/key_x", headers={"X-Request-Id": sent})
    assert (reply.body["request_id"] == sent) is is_kept


async def test_an_outage_is_no_verdict_on_the_caller() -> None:
    """Postgres away: 503 with Retry-After, also for a token that may be bad; malformed ones need no Postgres. R070."""
    async with management_over("postgresql://nobody@127.0.0.1:1/nothing") as world:
        reply = await world.call("GET", "/v1/keys", token=generate())
        assert (reply.status, reply.code) == (503, "auth_unavailable")
        assert int(reply.headers["Retry-After"]) >= 1
        assert "127.0.0.1" not in reply.text
        assert (await world.call("GET", "/v1/keys", token="osta_nonsense")).status == 401


async def test_tenants_do_not_exist_for_each_other(management: Management) -> None:
    """404 for every object of another tenant, whatever is tried; lists leave it out. R105, R272."""
    key = await management.key(user="olga")
    rotated = await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {})
    secret = rotated["retired_secret"]["id"]
    attempts: list[tuple[str, str, Any]] = [
        ("GET", "/v1/tenants/other", None),
        ("GET", "/v1/users/olga", None),
        ("DELETE", "/v1/users/olga", None),
        ("PUT", "/v1/users/olga", {"tenant_id": "acme"}),
        ("GET", "/v1/users/olga/entitlement", None),
        ("POST", "/v1/keys", {"user_id": "olga", "name": "mine"}),
        ("GET", f"/v1/keys/{key['id']}", None),
        ("PATCH", f"/v1/keys/{key['id']}", {"name": "mine"}),
        ("POST", f"/v1/keys/{key['id']}/rotate", {}),
        ("POST", f"/v1/keys/{key['id']}/revoke", {}),
        ("GET", f"/v1/keys/{key['id']}/retired-secrets", None),
        ("PATCH", f"/v1/retired-secrets/{secret}", {"expires_at": 4_000_000_000}),
    ]
    for method, path, body in attempts:
        reply = await management.call(method, path, body, token="tenant_admin")
        assert (method, path, reply.status, reply.code) == (method, path, 404, "not_found")
    for path in ("/v1/keys?tenant_id=other", "/v1/keys?user_id=olga", "/v1/users?tenant_id=other"):
        assert (await management.expect(200, "GET", path, token="tenant_admin"))["items"] == []
    tenants = await management.expect(200, "GET", "/v1/tenants", token="tenant_admin")
    assert [tenant["id"] for tenant in tenants["items"]] == ["acme"]


async def test_a_tenant_admin_does_not_renew_an_operator_key(management: Management) -> None:
    """An operator key skips entitlement, so only operators get a secret of it, or widen it; anyone may revoke. R013."""
    wanted = {"user_id": "ada", "name": "op", "kind": "operator"}
    key = await management.expect(201, "POST", "/v1/keys", wanted)
    path = f"/v1/keys/{key['id']}"
    rotated = await management.expect(200, "POST", f"{path}/rotate", {})
    retired = rotated["retired_secret"]["id"]
    for call in (
        ("POST", f"{path}/rotate", {"grace_seconds": 60}),
        ("PATCH", path, {"scopes": ["all:write"]}),
        ("PATCH", f"/v1/retired-secrets/{retired}", {"expires_at": "2100-01-01T00:00:00Z"}),
    ):
        reply = await management.call(*call, token="tenant_admin")
        assert reply.status == 403
    await management.expect(200, "POST", f"{path}/revoke", {}, token="tenant_admin")


async def test_a_tenant_admin_manages_the_own_tenant(management: Management) -> None:
    """Users, keys and retired secrets of the own tenant; never an operator's key, never another tenant's user."""
    await management.expect(201, "PUT", "/v1/users/new", {"tenant_id": "acme"}, token="tenant_admin")
    reply = await management.call("PUT", "/v1/users/far", {"tenant_id": "other"}, token="tenant_admin")
    assert (reply.status, reply.code) == (403, "forbidden")
    key = await management.expect(201, "POST", "/v1/keys", {"user_id": "ada", "name": "k"}, token="tenant_admin")
    wanted = {"user_id": "ada", "name": "o", "kind": "operator"}
    assert (await management.call("POST", "/v1/keys", wanted, token="tenant_admin")).status == 403
    await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {}, token="tenant_admin")
    await management.expect(200, "POST", f"/v1/keys/{key['id']}/revoke", {}, token="tenant_admin")
    await management.expect(204, "DELETE", "/v1/users/new", token="tenant_admin")


async def test_listings_come_in_pages(management: Management) -> None:
    """`limit` items, then an opaque cursor to the next ones; every item once."""
    for number in range(5):
        await management.key(f"k{number}")
    seen: list[str] = []
    path = "/v1/keys?user_id=ada&limit=2"
    page = await management.expect(200, "GET", path)
    while True:
        assert len(page["items"]) <= 2
        seen += [key["name"] for key in page["items"]]
        if page["next_cursor"] is None:
            break
        page = await management.expect(200, "GET", f"{path}&cursor={page['next_cursor']}")
    assert seen == [f"k{number}" for number in range(5)]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=-1",
        "limit=ten",
        "limit=\u0661",
        "limit=",
        "cursor=%00",
        "cursor=!!",
        "cursor=" + base64.urlsafe_b64encode(b"\x00\xff").decode(),
        "status=dead",
        "user_id=a%00b",
        "nonsense=1",
        "limit=1&limit=2",
    ],
)
async def test_a_bad_query_is_refused(management: Management, query: str) -> None:
    """400 with the place, never a 500 and never ignored."""
    reply = await management.call("GET", f"/v1/keys?{query}")
    assert (reply.status, reply.code) == (400, "invalid_query")
    assert reply.body["issues"]


@pytest.mark.parametrize("bad", ["%00", "a%00b", "%ff", "a%20b", "x" * 200, "%2e%2e", "'--", "a%2Fb", "%F0%9F%92%A9"])
async def test_a_malformed_id_names_nothing(management: Management, bad: str) -> None:
    """404, never 500. R122, R278."""
    for method, path, body in (
        ("GET", f"/v1/keys/{bad}", None),
        ("POST", f"/v1/keys/{bad}/revoke", None),
        ("PATCH", f"/v1/retired-secrets/{bad}", {"expires_at": 1}),
        ("GET", f"/v1/users/{bad}", None),
        ("GET", f"/v1/tenants/{bad}", None),
        ("GET", f"/v1/plans/{bad}", None),
    ):
        reply = await management.call(method, path, body)
        assert (path, reply.status) == (path, 404)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_body_that_cannot_be_read_is_refused(management: Management, coding: str) -> None:
    """What is not in the coding that it names is a 400, not a 500. R121."""
    headers = {"Content-Encoding": coding}
    reply = await management.call("POST", "/v1/keys", raw=b'{"user_id": "ada", "name": "x"}', headers=headers)
    assert (reply.status, reply.code) == (400, "bad_request")


async def test_key_operations_are_counted(management: Management) -> None:
    """By operation and result, from closed sets. R321."""
    key = await management.key()
    await management.expect(200, "POST", f"/v1/keys/{key['id']}/revoke")
    await management.expect(409, "POST", f"/v1/keys/{key['id']}/revoke")
    text = management.metrics.exposition().decode()
    assert 'ostiary_key_operations_total{operation="create",result="ok"} 1.0' in text
    assert 'ostiary_key_operations_total{operation="revoke",result="ok"} 1.0' in text
    assert 'ostiary_key_operations_total{operation="revoke",result="refused"} 1.0' in text


async def test_what_nobody_foresaw_is_a_500_without_details(
    management: Management, capsys: pytest.CaptureFixture[str]
) -> None:
    """The details are in the log, under the request id that the reply names. R075, R239, R327."""
    await management.execute("ALTER TABLE admin_tokens DROP CONSTRAINT admin_tokens_role_check")
    await management.execute("UPDATE admin_tokens SET role = 'king' WHERE name = 'au'")
    reply = await management.call("GET", "/v1/keys", token="auditor")
    assert (reply.status, reply.code) == (500, "internal_error")
    assert "king" not in reply.text
    log = "".join(capsys.readouterr())
    assert reply.body["request_id"] in log
    assert "king" in log


async def test_no_secret_is_logged(management: Management, capsys: pytest.CaptureFixture[str]) -> None:
    """Refusals and failures are logged without tokens, secrets and what was sent. R324."""
    key = await management.key()
    await management.call("GET", "/v1/keys", token=key["secret"])
    await management.call("GET", "/v1/keys/key_x")
    await management.call("POST", "/v1/keys", {"user_id": "ada", "name": key["secret"] + "\n" + "x" * 64})
    await management.call("POST", "/v1/keys", {"user_id": "ada", "name": "first"})
    log = "".join(capsys.readouterr())
    assert log.count("management call refused") == 4
    for text in (key["secret"], management.operator, hashlib.sha256(key["secret"].encode()).hexdigest()):
        assert text not in log


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("UPDATE admin_tokens SET revoked_at = now() WHERE id = $1", id="revoked"),
        pytest.param("UPDATE admin_tokens SET role = 'auditor' WHERE id = $1", id="another role"),
        pytest.param("DELETE FROM admin_tokens WHERE id = $1", id="deleted"),
    ],
)
async def test_who_loses_the_right_in_the_middle_changes_nothing(management: Management, statement: str) -> None:
    """A token that ends between its check and the write: 401, and nothing is written. R275 R274."""
    row, token = await AdminTokens(management.postgres).create(
        name="short", role=Role.OPERATOR, tenant_id=None, expires_at=None
    )
    connection = await asyncpg.connect(management.dsn)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(statement, row.id)  # uncommitted: the check before the call does not see it
        call = asyncio.create_task(management.call("POST", "/v1/tenants", {"id": "late", "name": "Late"}, token=token))
        await until(partial(_waits_for_a_lock, connection), what="the call to wait for the token's row")
        await transaction.commit()
        assert ((await call).status, (await call).code) == (401, "invalid_admin_token")
        assert await connection.fetchval("SELECT count(*) FROM tenants WHERE id = 'late'") == 0
    finally:
        await connection.close()


async def test_a_suspended_tenants_administrator(management: Management) -> None:
    """403 for every call while the tenant is suspended, whatever role the token has; and back. R279."""
    await management.expect(200, "PATCH", "/v1/tenants/acme", {"status": "suspended"})
    for method, path in (("GET", "/v1/keys"), ("POST", "/v1/keys"), ("GET", "/v1/nowhere")):
        reply = await management.call(method, path, token="tenant_admin")
        assert (reply.status, reply.code) == (403, "tenant_suspended")
    await management.expect(200, "PATCH", "/v1/tenants/acme", {"status": "active"})
    assert (await management.call("GET", "/v1/keys", token="tenant_admin")).status == 200


async def _waits_for_a_lock(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    return bool(await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
