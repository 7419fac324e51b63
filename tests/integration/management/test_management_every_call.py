"""What holds for every call of the management API, whichever there are: they are taken from its document.

A new call is tried here without a line of its own, unless it takes something of a new kind: then it fails until
`foreign` says what of another tenant's it may be given.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.control.admin_tokens import AdminTokens, Role, generate
from tests.fixtures.documented import METHODS, Documented, Operation
from tests.integration.management.world import Management

# Whatever belongs to nobody; and the digest of another tenant's secret is the one thing that is refused as such (R240).
OF_NO_TENANT = {"/v1/plans/{name}"}
ANOTHERS_DIGEST = "POST /v1/cache/invalidate"
TENANT_ADMIN = "tenant-admin"


@dataclass(frozen=True)
class Foreign:
    """What belongs to the tenant `other`: by the collection in a path, and by the name of a field or a query."""

    ids: Mapping[str, str]
    fields: Mapping[str, Any]

    def path(self, operation: Operation) -> str:
        """The path of the call, with ids of theirs."""
        return re.sub(r"/([a-z-]+)/{\w+}", lambda found: f"/{found[1]}/{self.ids[found[1]]}", operation.path)

    def body(self, operation: Operation) -> dict[str, Any] | None:
        """A body that the call takes, which names what is theirs."""
        if operation.body is None:
            return None
        optional = {name for name in operation.body["properties"] if name in ("user_id", "tenant_id", "key_id")}
        return {name: self.fields[name] for name in {*operation.body.get("required", ()), *optional}}


@pytest.fixture
async def foreign(management: Management) -> Foreign:
    """A tenant with a user, an entitlement, a key and a retired secret."""
    key = await management.key(user="olga")
    rotated = await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {})
    await management.key("own", user="ada")
    digest = await management.execute("SELECT encode(sha256(convert_to($1, 'UTF8')), 'hex')", rotated["secret"])
    ids = {
        "tenants": "other",
        "users": "olga",
        "keys": key["id"],
        "retired-secrets": rotated["retired_secret"]["id"],
        "plans": "starter",
    }
    fields = {
        "id": "other",
        "tenant_id": "other",
        "user_id": "olga",
        "key_id": key["id"],
        "secret": rotated["secret"],
        "secret_sha256": digest,
        "name": "mine",
        "plan": "starter",
        "expires_at": 4_000_000_000,
    }
    return Foreign(ids, fields)


async def contents(management: Management) -> str:
    """A digest of all that is stored but for what no call is about."""
    tables = await management.execute(
        "SELECT array_agg(tablename::text ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'"
        " AND tablename NOT IN ('admin_tokens', 'nodes')"
    )
    digests = [
        await management.execute(f"SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM {table} t")
        for table in tables
    ]
    return repr(dict(zip(tables, digests, strict=True)))


def guarded(documented: Documented) -> list[Operation]:
    """The calls that need a token."""
    return [operation for operation in documented.operations() if operation.roles is not None]


async def test_the_document_tells_of_every_route(management: Management) -> None:
    """Nothing can be called that it lacks, and all that it has can be called."""
    routes = {
        f"{route.method} {route.resource.canonical}"
        for route in management.client.app.router.routes()
        if route.resource is not None
    }
    assert routes == {str(operation) for operation in management.documented.operations()}


async def test_the_document_needs_no_token(management: Management) -> None:
    """It tells nothing of what is stored; clients are made from it."""
    reply = await management.call("GET", "/v1/openapi.json", token=None)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    assert reply.body == management.documented.document


@pytest.fixture
async def strangers(management: Management) -> dict[str, list[tuple[str, str]]]:
    """Headers of those who are nobody here, by what is wrong with them."""
    tokens = AdminTokens(management.postgres)
    revoked, revoked_token = await tokens.create(name="r", role=Role.OPERATOR, tenant_id=None, expires_at=None)
    await tokens.revoke(revoked.id)
    expired, expired_token = await tokens.create(name="e", role=Role.OPERATOR, tenant_id=None, expires_at=None)
    await management.execute("UPDATE admin_tokens SET expires_at = now() WHERE id = $1", expired.id)
    key = await management.key("a key")
    operators_key = await management.key("an operator's", kind="operator")
    bearers = {
        "unknown": generate(),
        "bad checksum": management.operator[:-1] + ("A" if management.operator[-1] != "A" else "B"),
        "revoked": revoked_token,
        "expired": expired_token,
        "an API key": key["secret"],
        "an operator's API key": operators_key["secret"],
        "empty": "",
    }
    return {
        "none": [],
        "another scheme": [("Authorization", f"Basic {management.operator}")],
        "X-Api-Key": [("X-Api-Key", management.operator)],
        **{name: [("Authorization", f"Bearer {token}")] for name, token in bearers.items()},
    }


async def test_nobody_calls_anything_without_a_valid_token(
    management: Management, foreign: Foreign, strangers: dict[str, list[tuple[str, str]]]
) -> None:
    """401 for every call, before its body is read and before anything is looked up. R123, R124, R129, R210."""
    before = await contents(management)
    wrong = []
    for operation in guarded(management.documented):
        for name, headers in strangers.items():
            for raw in (b"{not json", b""):
                reply = await management.call(
                    operation.method, foreign.path(operation), raw=raw, token=None, headers=dict(headers)
                )
                code = "sign_in_required" if operation.is_personal else "invalid_admin_token"
                if (reply.status, reply.code) != (401, code):
                    wrong.append((str(operation), name, reply.status, reply.code))
    assert wrong == []
    assert await contents(management) == before


async def test_roles_are_kept_apart(management: Management, foreign: Foreign) -> None:
    """Exactly the documented roles come further than 403, before body and existence are looked at. R123, R124."""
    before = await contents(management)
    roles = {"operator": management.operator, "auditor": management.auditor, TENANT_ADMIN: management.tenant_admin}
    wrong = []
    for operation in guarded(management.documented):
        assert operation.roles is not None
        for role, token in roles.items():
            reply = await management.call(operation.method, operation.nowhere, raw=b"{not json", token=token)
            if operation.is_personal:
                is_right = reply.status == 401
            else:
                is_right = reply.status not in (401, 500) and (reply.status != 403) is (role in operation.roles)
            if not is_right:
                wrong.append((str(operation), role, reply.status, reply.code))
    assert wrong == []
    assert await contents(management) == before


async def test_other_methods_are_named_everywhere(management: Management, foreign: Foreign) -> None:
    """405 with Allow for every method that the document does not tell of; 401 without a token. R105, R126."""
    before = await contents(management)
    known: dict[str, set[str]] = {}
    for operation in management.documented.operations():
        known.setdefault(foreign.path(operation), set()).add(operation.method)
    wrong = []
    for path, methods in known.items():
        for method in set(METHODS) - methods:
            reply = await management.call(method, path)
            stranger = await management.call(method, path, token=None)
            seen = (reply.status, reply.headers.get("Allow"), stranger.status)
            if seen != (405, ", ".join(sorted(methods)), 401):
                wrong.append((method, path, seen))
    assert wrong == []
    assert await contents(management) == before


async def test_what_is_another_tenants_does_not_exist(management: Management, foreign: Foreign) -> None:
    """404 for every call that names something of theirs, in its path or its body; nothing changes. R105, R272, R277.

    What is another user's is tried in `test_self_service.py`.
    """
    before = await contents(management)
    wrong = []
    for operation in guarded(management.documented):
        assert operation.roles is not None
        if operation.is_personal:
            continue
        body = foreign.body(operation)
        is_about_them = foreign.path(operation) != operation.path or (body or {}).keys() & {"user_id", "key_id"}
        if operation.path in OF_NO_TENANT or not (is_about_them or str(operation) == ANOTHERS_DIGEST):
            continue
        if body is not None and "tenant_id" in body:  # theirs is claimed to be ours
            body["tenant_id"] = "acme"
        reply = await management.call(operation.method, foreign.path(operation), body, token="tenant_admin")
        is_ours_to_make = TENANT_ADMIN in operation.roles and str(operation) != ANOTHERS_DIGEST
        if (reply.status, reply.code) != ((404, "not_found") if is_ours_to_make else (403, "forbidden")):
            wrong.append((str(operation), reply.status, reply.code))
    assert wrong == []
    assert await contents(management) == before


async def test_nothing_of_another_tenant_is_shown(management: Management, foreign: Foreign) -> None:
    """No reading shows a name or an id of theirs, whatever it is asked to filter by. R219, R272, R282."""
    theirs = re.compile("|".join(map(re.escape, {*foreign.ids.values()} - {"other", "starter"})) + '|"other"')
    wrong = []
    for operation in guarded(management.documented):
        assert operation.roles is not None
        if operation.method != "GET" or "{" in operation.path or TENANT_ADMIN not in operation.roles:
            continue
        asked = [{}, *({name: str(foreign.fields[name])} for name in operation.queries & foreign.fields.keys())]
        for query in asked:
            headers = {"Authorization": f"Bearer {management.tenant_admin}"}
            async with management.client.get(operation.path, params=query, headers=headers) as response:
                text = await response.text()
                if response.status != 200 or theirs.search(text) or (query and '"id"' in text):
                    wrong.append((str(operation), query, response.status, text[:200]))
    assert wrong == []
