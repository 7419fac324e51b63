"""Whether new keys are made: the switch of the installation, and what is set for a tenant."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.fixtures.provider import OpenIdProvider
from tests.integration.management.test_management_imports import imported, row, sha256
from tests.integration.management.test_self_service import settings_of
from tests.integration.management.world import Management, give_tenant_token, give_tokens, management_over


@asynccontextmanager
async def closed_over(world: Management) -> AsyncIterator[Management]:
    """Another API over the same database and with the same tokens, which makes no keys unless a tenant says so."""
    async with management_over(world.dsn, issuance="closed") as closed:
        closed.operator, closed.auditor, closed.tenant_admin = world.operator, world.auditor, world.tenant_admin
        yield closed


async def keys(world: Management) -> Any:
    """All that is in the tables of keys and their secrets, and how much was recorded of keys made."""
    return [
        await world.execute("SELECT coalesce(json_agg(k ORDER BY id), '[]')::text FROM api_keys k"),
        await world.execute("SELECT coalesce(json_agg(r ORDER BY id), '[]')::text FROM retired_secrets r"),
        await world.execute("SELECT count(*) FROM audit_events WHERE action IN ('key.create', 'key.import')"),
    ]


async def attempt(world: Management, name: str, *, user: str = "ada", token: str = "operator", **more: Any) -> Any:
    """The code with which a create is refused; None where it is not. A refusal must leave no trace."""
    before = await keys(world)
    reply = await world.call("POST", "/v1/keys", {"user_id": user, "name": name, **more}, token=token)
    if reply.status == 201:
        return None
    assert "secret" not in reply.body
    assert await keys(world) == before
    return reply.status, reply.code


async def set_issuance(world: Management, word: str | None, tenant: str = "acme") -> Any:
    return await world.expect(200, "PATCH", f"/v1/tenants/{tenant}", {"issuance": word})


REFUSED = (403, "issuance_closed")


async def test_without_a_word_keys_are_made(management: Management) -> None:
    """Open is the default of the installation, and a new tenant says nothing of its own. R225."""
    assert (await management.expect(200, "GET", "/v1/tenants/acme"))["issuance"] is None
    assert await attempt(management, "first") is None


async def test_a_tenant_is_closed_and_opened_again(management: Management) -> None:
    """A closed tenant gets no key, of whatever kind, by whomever, with whatever secret; the neighbour does. R225."""
    changed = await set_issuance(management, "closed")
    assert (changed["issuance"], changed["status"], changed["propagation"]["revision"]) == ("closed", "active", 0)
    assert (await management.expect(200, "GET", "/v1/tenants/acme", token="tenant_admin"))["issuance"] == "closed"
    own = {"secret_sha256": sha256("mine"), "prefix": "ost_test_abcd"}
    assert await attempt(management, "a") == REFUSED
    assert await attempt(management, "a", token="tenant_admin") == REFUSED
    assert await attempt(management, "a", kind="operator") == REFUSED
    assert await attempt(management, "a", **own) == REFUSED
    assert await attempt(management, "a", user="olga") is None
    await set_issuance(management, "open")
    assert await attempt(management, "a") is None
    await set_issuance(management, "closed")
    assert await attempt(management, "b") == REFUSED
    assert (await set_issuance(management, None))["issuance"] is None
    assert await attempt(management, "b") is None


async def test_a_closed_installation_makes_no_keys_but_for_open_tenants(management: Management) -> None:
    """What is set for a tenant counts before the configuration, at once and on every node. R225."""
    async with closed_over(management) as closed:
        assert await attempt(closed, "a") == REFUSED
        assert await attempt(closed, "a", kind="operator") == REFUSED
        assert await attempt(management, "a") is None  # a node that is configured otherwise
        await set_issuance(management, "open")
        assert await attempt(closed, "b") is None
        assert await attempt(closed, "a", user="olga") == REFUSED
        await set_issuance(management, "closed")
        assert (await attempt(closed, "c"), await attempt(management, "c")) == (REFUSED, REFUSED)
        await set_issuance(management, None)
        assert (await attempt(closed, "c"), await attempt(management, "c")) == (REFUSED, None)


async def test_what_a_change_leaves_out_stays(management: Management) -> None:
    """A new name or a suspension does not touch the issuance, nor that them; the list tells of it."""
    await set_issuance(management, "closed")
    changed = await management.expect(200, "PATCH", "/v1/tenants/acme", {"name": "Acme Ltd", "status": "suspended"})
    assert (changed["name"], changed["status"], changed["issuance"]) == ("Acme Ltd", "suspended", "closed")
    changed = await set_issuance(management, "open")
    assert (changed["name"], changed["status"], changed["issuance"]) == ("Acme Ltd", "suspended", "open")
    await management.expect(200, "PATCH", "/v1/tenants/acme", {"status": "active"})
    listed = (await management.expect(200, "GET", "/v1/tenants"))["items"]
    assert [(tenant["id"], tenant["issuance"]) for tenant in listed] == [("acme", "open"), ("other", None)]


@pytest.mark.parametrize("word", ["", "OPEN", "configured", True, 1, ["open"], {}])
async def test_other_words_are_refused(management: Management, word: Any) -> None:
    """Nothing that is neither `open`, `closed` nor null is taken for one of them. R225."""
    reply = await management.call("PATCH", "/v1/tenants/acme", {"issuance": word})
    assert (reply.status, reply.code) == (400, "invalid_body")
    assert (await management.expect(200, "GET", "/v1/tenants/acme"))["issuance"] is None


async def test_what_exists_goes_on_while_it_is_closed(management: Management) -> None:
    """A key of a closed tenant is found, changed, rotated and revoked; an expired one comes back. R225."""
    key = await management.key()
    await set_issuance(management, "closed")
    path = f"/v1/keys/{key['id']}"
    assert await management.record(key["secret"]) is not None
    rotated = await management.expect(200, "POST", f"{path}/rotate", {"grace_seconds": 3600})
    assert rotated["secret"] != key["secret"]
    assert await management.record(rotated["secret"]) is not None
    await management.expect(200, "PATCH", f"/v1/retired-secrets/{rotated['retired_secret']['id']}", {"expires_at": 0})
    await management.expect(200, "PATCH", path, {"name": "new", "scopes": ["a"], "expires_at": 4_000_000_000})
    await management.execute("UPDATE api_keys SET expires_at = now() WHERE id = $1", key["id"])
    assert (await management.expect(200, "PATCH", path, {"expires_at": None}))["status"] == "active"
    assert (await management.expect(200, "POST", f"{path}/revoke"))["status"] == "revoked"


async def test_imports_know_the_switch(management: Management) -> None:
    """Rows of a closed tenant are refused one by one, tried out or not; what is there already is left. R225."""
    assert (await imported(management, row("there"))).outcomes == ["created"]
    await set_issuance(management, "closed")
    before = await keys(management)
    rows = [row("there"), row("a"), row("b", user="alan"), row("x", user="nobody")]
    for query in ("?dry_run=true", ""):
        told = await imported(management, *rows, query=query)
        assert told.outcomes == ["unchanged", "issuance_closed", "issuance_closed", "unknown_user"]
        assert all(one["message"] for one in told.rows if one["outcome"] == "refused")
        assert (told.summary["created"], told.summary["refused"]) == (0, 3)
        assert await keys(management) == before
    assert (await imported(management, row("a"), row("c", user="olga"))).outcomes == ["issuance_closed", "created"]
    async with closed_over(management) as closed:
        assert (await imported(closed, row("d", user="olga"))).outcomes == ["issuance_closed"]
        await set_issuance(management, "open")
        assert (await imported(closed, row("a"))).outcomes == ["created"]


async def test_operators_alone_decide(management: Management) -> None:
    """Neither a tenant's administrator nor an auditor opens or closes anything. R225, R123."""
    await set_issuance(management, "closed")
    for token in ("tenant_admin", "auditor"):
        for word in ("open", None):
            reply = await management.call("PATCH", "/v1/tenants/acme", {"issuance": word}, token=token)
            assert (reply.status, reply.code) == (403, "forbidden")
    assert await attempt(management, "a", token="tenant_admin") == REFUSED
    assert (await management.expect(200, "GET", "/v1/tenants/acme"))["issuance"] == "closed"


async def test_a_change_is_on_record(management: Management) -> None:
    """Who has closed a tenant, and what was before. R225, R314."""
    await set_issuance(management, "closed")
    (event,) = (await management.expect(200, "GET", "/v1/audit?target=tenant:acme&action=tenant.change"))["items"]
    assert (event["actor"]["name"], event["tenant_id"]) == ("op", "acme")
    assert (event["before"]["issuance"], event["after"]["issuance"]) == (None, "closed")
    assert {name for name in event["before"] if event["before"][name] != event["after"][name]} == {"issuance"}


async def test_a_refusal_is_not_kept_for_a_repeat(management: Management) -> None:
    """The same request with the same Idempotency-Key makes the key once issuance is open. R225."""
    headers, wanted = {"Idempotency-Key": "one"}, {"user_id": "ada", "name": "a"}
    await set_issuance(management, "closed")
    assert (await management.call("POST", "/v1/keys", wanted, headers=headers)).code == "issuance_closed"
    await set_issuance(management, "open")
    assert (await management.call("POST", "/v1/keys", wanted, headers=headers)).status == 201


async def test_users_make_no_keys_where_it_is_closed(postgres_dsn: str) -> None:
    """Who has signed in is refused, and cannot open it either; rotating and revoking goes on. R225."""
    async with OpenIdProvider() as provider, management_over(postgres_dsn, oidc=settings_of(provider)) as world:
        await give_tokens(world)
        await world.plant()
        await give_tenant_token(world, "acme")
        ada = provider.token("ada", roles=["admin"])
        key = await world.call("POST", "/v1/me/keys", {"name": "first"}, token=ada)
        assert key.status == 201
        await set_issuance(world, "closed")
        before = await keys(world)
        reply = await world.call("POST", "/v1/me/keys", {"name": "second"}, token=ada)
        assert (reply.status, reply.code) == REFUSED
        assert (await world.call("PATCH", "/v1/tenants/acme", {"issuance": "open"}, token=ada)).status in (401, 403)
        assert await keys(world) == before
        path = f"/v1/me/keys/{key.body['id']}"
        assert (await world.call("POST", f"{path}/rotate", {}, token=ada)).status == 200
        assert (await world.call("POST", f"{path}/revoke", {}, token=ada)).status == 200
