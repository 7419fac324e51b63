"""What a change's answer says about the nodes, and what happens when they cannot be reached."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from gateway.clock import SystemClock
from gateway.consistency.feed import Feed
from gateway.consistency.view import View
from gateway.stores.postgres.revisions import NodeReport
from tests.integration.management.world import (
    BOUND_SECONDS,
    ENVIRONMENT,
    NOWHERE_REDIS,
    Management,
    Reply,
    give_tenant_token,
    give_tokens,
    management_over,
)

FUTURE = 4_000_000_000


async def node_is_at(management: Management, revision: int) -> None:
    """A node says that it has come so far."""
    await management.revisions.report(NodeReport("n1", ENVIRONMENT, "0", revision, 0.0))


@pytest.fixture
async def cut_off(management: Management) -> AsyncIterator[Management]:
    """A writer that cannot publish, beside a node that may live on pushes alone: it can confirm nothing."""
    await node_is_at(management, 0)
    async with management_over(management.dsn, redis_url=NOWHERE_REDIS) as world:
        await give_tokens(world)
        await give_tenant_token(world, "acme")
        yield world


async def is_revoked(management: Management, secret: str) -> bool:
    record = await management.record(secret)
    assert record is not None
    return record.is_revoked


def check_pending(reply: Reply) -> None:
    """503 with a text that tells strangers nothing. R239."""
    assert (reply.status, reply.code) == (503, "revocation_pending")
    assert int(reply.headers["Retry-After"]) >= 1
    assert set(reply.body) == {"type", "code", "status", "title", "request_id"}
    assert "n1" not in reply.text
    assert "edis" not in reply.text


async def test_an_unconfirmed_revocation_is_no_success(management: Management, cut_off: Management) -> None:
    """503, but committed; a repeat finishes it and is a 200, the one after that a 409. R232, R233, R239."""
    key = await management.key()
    path = f"/v1/keys/{key['id']}/revoke"
    check_pending(await cut_off.call("POST", path))
    assert await is_revoked(management, key["secret"])
    check_pending(await cut_off.call("POST", path))
    assert await management.changes.count_pending() == 1
    finished = await management.expect(200, "POST", path)
    assert (finished["status"], finished["propagation"]["state"]) == ("revoked", "confirmed")
    assert await management.changes.count_pending() == 0
    assert (await management.call("POST", path)).code == "already_revoked"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/v1/tenants/acme", {"status": "suspended"}),
        ("PUT", "/v1/users/ada", {"tenant_id": "acme", "status": "suspended"}),
        ("PUT", "/v1/users/ada/entitlement", {"plan": "starter", "valid_until": 5}),
        ("DELETE", "/v1/users/ada/entitlement", None),
        ("DELETE", "/v1/users/ada", None),
        ("DELETE", "/v1/tenants/acme", None),
        ("PUT", "/v1/plans/starter", {"tier": 0}),
        ("PATCH", "/v1/keys/{key}", {"scopes": ["a"]}),
        ("PATCH", "/v1/keys/{key}", {"expires_at": 3_000_000_000}),
        ("POST", "/v1/keys/{key}/rotate", {"grace_seconds": 0}),
        ("PATCH", "/v1/retired-secrets/{retired}", {"expires_at": 5}),
    ],
)
async def test_every_narrowing_change_is_confirmed_or_pending(
    management: Management, cut_off: Management, method: str, path: str, body: Any
) -> None:
    """503 until every node knows it; the repeat of the same call ends in success. R128, R232, R233, R264."""
    key = await management.key(scopes=["a", "b"])
    rotated = await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {})
    path = path.format(key=key["id"], retired=rotated["retired_secret"]["id"])
    check_pending(await cut_off.call(method, path, body))
    check_pending(await cut_off.call(method, path, body))
    reply = await management.call(method, path, body)
    assert reply.status == (204 if method == "DELETE" else 200)
    if reply.status == 200:
        assert reply.body["propagation"]["state"] == "confirmed"
    assert await management.changes.count_pending() == 0


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/tenants", {"id": "new", "name": "New"}),
        ("PUT", "/v1/users/new", {"tenant_id": "acme"}),
        ("PUT", "/v1/users/alan/entitlement", {"plan": "starter", "valid_until": None}),
        ("PUT", "/v1/plans/new", {"tier": 1}),
        ("POST", "/v1/keys", {"user_id": "ada", "name": "second"}),
        ("PATCH", "/v1/keys/{key}", {"scopes": ["a", "b", "c"]}),
        ("PATCH", "/v1/keys/{key}", {"expires_at": None}),
        ("POST", "/v1/keys/{key}/rotate", {"grace_seconds": 600}),
        ("PATCH", "/v1/retired-secrets/{retired}", {"expires_at": FUTURE}),
    ],
)
async def test_a_widening_change_never_fails_for_its_propagation(
    management: Management, cut_off: Management, method: str, path: str, body: Any
) -> None:
    """It says `unconfirmed` at worst; a rotation with a window answers with its secret, and is finished later. R102."""
    key = await management.key(scopes=["a", "b"], expires_at=FUTURE)
    rotated = await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {})
    await management.execute("UPDATE entitlements SET valid_until = to_timestamp($1)", FUTURE)
    path = path.format(key=key["id"], retired=rotated["retired_secret"]["id"])
    reply = await cut_off.call(method, path, body)
    assert reply.status in (200, 201), reply.text
    assert reply.body["propagation"]["state"] == "unconfirmed"
    assert await management.changes.count_pending() == ("rotate" in path)


async def test_a_window_ended_again_is_still_pending(management: Management, cut_off: Management) -> None:
    """A repeat with a later moment of the past must not pass for an extension. R128."""
    key = await management.key()
    rotated = await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {})
    path = f"/v1/retired-secrets/{rotated['retired_secret']['id']}"
    check_pending(await cut_off.call("PATCH", path, {"expires_at": 5}))
    check_pending(await cut_off.call("PATCH", path, {"expires_at": 6}))


async def test_a_node_that_has_reported_confirms(management: Management, cut_off: Management) -> None:
    """Without Redis from here, the nodes' rows in Postgres tell. R232."""
    key = await management.key()
    await node_is_at(management, 1_000_000)
    revoked = await cut_off.expect(200, "POST", f"/v1/keys/{key['id']}/revoke")
    assert {name: revoked["propagation"][name] for name in ("state", "nodes", "reported")} == {
        "state": "confirmed",
        "nodes": 1,
        "reported": 1,
    }


async def test_a_live_node_has_seen_a_change_when_the_answer_comes(management: Management) -> None:
    """Whatever the call changed, a node's view is at or past it, or trusts nothing. R128, R221, R230."""
    key = await management.key()
    view = View(SystemClock(), bound_seconds=BOUND_SECONDS, retention_seconds=60.0)
    feed = Feed(
        view,
        management.revisions,
        node_id="n2",
        environment=ENVIRONMENT,
        version="0",
        clock=SystemClock(),
        metrics=management.metrics,
    )
    await feed.start()
    try:
        revoked = await management.expect(200, "POST", f"/v1/keys/{key['id']}/revoke")
        said = revoked["propagation"]
        assert said["state"] == "confirmed"
        assert view.revision >= said["revision"] or not view.is_fresh
        nodes = await management.expect(200, "GET", "/v1/nodes", token="auditor")
        (node,) = nodes["items"]
        assert set(node) == {
            "id",
            "version",
            "revision",
            "view_age_seconds",
            "started_at",
            "seen_at",
            "seen_seconds_ago",
            "is_fresh",
            "decisions",
            "dependencies",
            "durations",
        }
        assert node["id"] == "n2"
    finally:
        await feed.close()


async def test_a_database_that_cannot_be_written_changes_nothing(management: Management) -> None:
    """A failed revocation is a 5xx, and the key works on. R235."""
    key = await management.key()
    blocker = await asyncpg.connect(management.dsn)
    try:
        async with blocker.transaction():
            await blocker.execute("SELECT 1 FROM api_keys WHERE id = $1 FOR UPDATE", key["id"])
            reply = await management.call("POST", f"/v1/keys/{key['id']}/revoke")
            assert (reply.status, reply.code) == (503, "auth_unavailable")
    finally:
        await blocker.close()
    assert not await is_revoked(management, key["secret"])


async def test_other_operations_proceed_while_one_is_being_confirmed(
    management: Management, cut_off: Management
) -> None:
    """No lock is held while nodes are waited for. R238."""
    first, second = await management.key("k1"), await management.key("k2")
    waiting = asyncio.ensure_future(cut_off.call("POST", f"/v1/keys/{first['id']}/revoke"))
    replies = [
        await management.call("PATCH", f"/v1/keys/{second['id']}", {"name": "k3"}),
        await management.call("GET", f"/v1/keys/{first['id']}"),
    ]
    assert [reply.status for reply in replies] == [200, 200]
    check_pending(await waiting)


async def test_surplus_keys_that_are_not_confirmed_gone(management: Management) -> None:
    """Converging is a revocation too: 503, and a repeat goes on where it stopped. R216, R233."""
    for number in range(3):
        await management.key(f"k{number}")
    await node_is_at(management, 0)
    wanted = {"user_id": "ada", "name": "new"}
    async with management_over(management.dsn, redis_url=NOWHERE_REDIS, max_per_user=1) as stricter:
        await give_tokens(stricter)
        check_pending(await stricter.call("POST", "/v1/keys", wanted))
        check_pending(await stricter.call("POST", "/v1/keys", wanted))
        reply = await stricter.call("POST", "/v1/keys", wanted)
        assert (reply.status, reply.code) == (409, "key_limit_reached")


# -- forgetting what is cached about a secret


def digest_of(secret: str) -> dict[str, str]:
    return {"secret_sha256": hashlib.sha256(secret.encode()).hexdigest()}


async def invalidations(management: Management) -> Any:
    return await management.execute("SELECT count(*) FROM invalidations")


@pytest.mark.parametrize("state", ["active", "revoked", "retired", "unknown"])
async def test_a_digest_is_forgotten_whatever_its_state(management: Management, state: str) -> None:
    """200 for the owner's administrator, also for revoked keys and unknown digests. R240, R241."""
    key = await management.key()
    if state == "revoked":
        await management.expect(200, "POST", f"/v1/keys/{key['id']}/revoke")
    if state == "retired":
        await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {})
    before = await invalidations(management)
    secret = "nobody's" if state == "unknown" else key["secret"]
    reply = await management.expect(200, "POST", "/v1/cache/invalidate", digest_of(secret), token="tenant_admin")
    assert reply["propagation"]["state"] == "confirmed"
    assert await invalidations(management) > before


async def test_a_stranger_evicts_nothing(management: Management) -> None:
    """403 for the administrator of another tenant, and nothing is voided. R240, R241."""
    key = await management.key(user="olga")
    before = await invalidations(management)
    reply = await management.call("POST", "/v1/cache/invalidate", digest_of(key["secret"]), token="tenant_admin")
    assert (reply.status, reply.code) == (403, "forbidden")
    assert await invalidations(management) == before


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"{}", b'{"secret_sha256": 5}', b'{"secret_sha256": "00"}', b'{"secret": "x"}']
)
async def test_a_bad_digest_is_unprocessable(management: Management, raw: bytes) -> None:
    """422. R240."""
    reply = await management.call("POST", "/v1/cache/invalidate", raw=raw)
    assert reply.status == 422
    assert reply.body["status"] == 422
