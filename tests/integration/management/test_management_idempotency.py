"""Idempotency-Key: a repeat gets the reply of the first request, and nothing is done twice."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from gateway.control.purge import Purge
from gateway.stores.postgres.purging import BATCH
from gateway.stores.postgres.revisions import NodeReport
from tests.fixtures.waiting import until
from tests.integration.management.test_management_audit import MUTATIONS, events, prepared
from tests.integration.management.world import (
    ENVIRONMENT,
    NOWHERE_REDIS,
    Management,
    Reply,
    management_over,
)

WANTED = {"user_id": "ada", "name": "made once"}
KEY = "7f9c5a3e-once"


async def keyed(
    management: Management, method: str, path: str, body: Any = None, *, key: str = KEY, token: str = "operator"
) -> Reply:
    return await management.call(method, path, body, token=token, headers={"Idempotency-Key": key})


def is_replayed(reply: Reply) -> bool:
    return reply.headers.get("Idempotent-Replayed") == "true"


def said(reply: Reply) -> dict[str, Any]:
    """The body without what is told anew."""
    return {name: value for name, value in reply.body.items() if name != "propagation"}


async def state(management: Management) -> Any:
    tables = ("tenants", "users", "plans", "entitlements", "api_keys", "retired_secrets", "revision", "audit_events")
    return [await management.execute(f"SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM {t} AS t") for t in tables]


@pytest.mark.parametrize(("method", "path"), MUTATIONS)
async def test_every_mutation_is_done_once(management: Management, method: str, path: str) -> None:
    """A repeat has the same status and body, secrets included, and changes nothing, not even the trail. R301."""
    body, status, _, _ = MUTATIONS[method, path]
    address = await prepared(management, path)
    first = await keyed(management, method, address, body)
    assert (first.status, is_replayed(first)) == (status, False), first.text
    after = await state(management)
    again = await keyed(management, method, address, body)
    assert (again.status, is_replayed(again)) == (status, True), again.text
    assert said(again) == said(first)
    if status != 204:
        assert again.body["propagation"]["state"] == "confirmed"
    assert await state(management) == after


async def test_the_secret_is_shown_again_and_the_database_alone_cannot_show_it(management: Management) -> None:
    """Replayed while the row holds neither the secret nor the Idempotency-Key in any readable form. R301 R324."""
    made = await keyed(management, "POST", "/v1/keys", WANTED)
    rotated = await keyed(management, "POST", f"/v1/keys/{made.body['id']}/rotate", {})
    assert (await keyed(management, "POST", "/v1/keys", WANTED)).body["secret"] == made.body["secret"]
    again = await keyed(management, "POST", f"/v1/keys/{made.body['id']}/rotate", {})
    assert again.body["secret"] == rotated.body["secret"] != made.body["secret"]
    rows = await management.execute(
        "SELECT string_agg(encode(lookup || salt || sealed, 'escape') || r::text, ' ') FROM idempotent_replies AS r"
    )
    for secret in (made.body["secret"], rotated.body["secret"], KEY, "made once"):
        assert secret not in rows
        assert secret.encode().hex() not in rows


async def test_another_body_is_another_request(management: Management) -> None:
    """422, and nothing is done; whatever differs. R301."""
    first = await keyed(management, "POST", "/v1/keys", WANTED)
    before = await state(management)
    for body in ({**WANTED, "name": "other"}, {}, None):
        reply = await keyed(management, "POST", "/v1/keys", body)
        assert (reply.status, reply.code) == (422, "idempotency_key_reused")
    assert await state(management) == before
    assert (await keyed(management, "POST", "/v1/keys", WANTED)).body["secret"] == first.body["secret"]


async def test_a_key_is_of_one_administrator_and_one_call(management: Management) -> None:
    """Another's same key is another key, and so is the same key for another address or method. R301."""
    mine = await keyed(management, "POST", "/v1/keys", WANTED)
    theirs = await keyed(management, "POST", "/v1/keys", {**WANTED, "name": "theirs"}, token="tenant_admin")
    assert (theirs.status, is_replayed(theirs)) == (201, False)
    assert theirs.body["secret"] != mine.body["secret"]
    path = f"/v1/keys/{mine.body['id']}"
    assert not is_replayed(await keyed(management, "PATCH", path, {"name": "renamed"}))
    assert not is_replayed(await keyed(management, "POST", f"{path}/revoke", {}))
    assert is_replayed(await keyed(management, "POST", f"{path}/revoke", {}))
    assert (await keyed(management, "POST", "/v1/keys", WANTED, token="auditor")).code == "forbidden"
    assert (await keyed(management, "POST", "/v1/keys", WANTED, token="osta_nobody")).status == 401


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "naïve"], ids=["0", "256", "tab", "ascii"])
async def test_a_bad_key_is_refused(management: Management, key: str) -> None:
    """1 to 255 printable ASCII characters, or 400 and nothing is done. R301."""
    reply = await keyed(management, "POST", "/v1/keys", WANTED, key=key)
    assert (reply.status, reply.code) == (400, "invalid_idempotency_key")
    assert await management.execute("SELECT count(*) FROM api_keys") == 0


async def test_the_longest_key_and_two_keys(management: Management) -> None:
    """255 characters are taken; a header that is there twice is not. Reading ignores it. R301."""
    assert (await keyed(management, "POST", "/v1/keys", WANTED, key=" ~".join("x" * 85) + "~")).status == 201
    headers = [("Authorization", f"Bearer {management.operator}"), ("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    async with management.client.post("/v1/keys", headers=headers, json=WANTED) as response:
        assert (await response.json())["code"] == "invalid_idempotency_key"
    assert (await keyed(management, "GET", "/v1/keys", key="x" * 256)).status == 200


async def test_one_at_a_time(management: Management) -> None:
    """While the first is under way a second is a 409 with Retry-After; afterwards it gets the same reply. R301."""
    connection = await asyncpg.connect(management.dsn)
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM users WHERE id = 'ada' FOR UPDATE")
            first = asyncio.create_task(keyed(management, "POST", "/v1/keys", WANTED))
            await until(lambda: is_waiting(management))
            second = await keyed(management, "POST", "/v1/keys", WANTED)
            assert (second.status, second.code) == (409, "request_in_flight")
            assert int(second.headers["Retry-After"]) >= 1
    finally:
        await connection.close()
    made = await first
    assert made.status == 201
    again = await keyed(management, "POST", "/v1/keys", WANTED)
    assert (is_replayed(again), again.body["secret"]) == (True, made.body["secret"])


async def is_waiting(management: Management) -> bool:
    return bool(await management.execute("SELECT count(*) FROM pg_locks WHERE NOT granted"))


async def test_many_at_once_make_one(management: Management) -> None:
    """Of twenty the same, each is the one reply or a 409. R301."""
    replies = await asyncio.gather(*(keyed(management, "POST", "/v1/keys", WANTED) for _ in range(20)))
    assert {reply.status for reply in replies} <= {201, 409}
    assert {reply.code for reply in replies if reply.status == 409} <= {"request_in_flight"}
    assert len({reply.body["secret"] for reply in replies if reply.status == 201}) == 1
    assert await management.execute("SELECT count(*) FROM api_keys") == 1
    assert len(await events(management, "&action=key.create")) == 1


async def test_what_was_refused_is_tried_anew(management: Management) -> None:
    """A refusal has changed nothing: it is not kept, and a repeat may find better times. R301."""
    await management.expect(204, "DELETE", "/v1/users/ada/entitlement")
    assert (await keyed(management, "POST", "/v1/keys", WANTED)).code == "api_access_required"
    await management.expect(200, "PUT", "/v1/users/ada/entitlement", {"plan": "starter"})
    made = await keyed(management, "POST", "/v1/keys", WANTED)
    assert (made.status, is_replayed(made)) == (201, False)


async def test_a_reply_that_got_lost_is_there_for_the_repeat(management: Management) -> None:
    """Whatever happens after the commit: the client leaves, and finds the secret with the same key. R301."""
    await management.execute("INSERT INTO nodes (id, environment, version, revision) VALUES ('n1', 'test', '0', 0)")
    headers = {"Authorization": f"Bearer {management.operator}", "Idempotency-Key": KEY}
    first = asyncio.create_task(management.client.post("/v1/keys", json=WANTED, headers=headers))
    await until(lambda: is_kept(management))
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        (await first).close()
    again = await keyed(management, "POST", "/v1/keys", WANTED)
    assert (again.status, is_replayed(again)) == (201, True)
    record = await management.record(again.body["secret"])
    assert record is not None
    assert record.key_id == again.body["id"]


async def is_kept(management: Management) -> bool:
    return bool(await management.execute("SELECT count(*) FROM idempotent_replies"))


@pytest.fixture
async def cut_off(management: Management) -> AsyncIterator[Management]:
    """A writer with the same tokens that cannot publish, beside a node that may live on pushes alone."""
    await management.revisions.report(NodeReport("n1", ENVIRONMENT, "0", 0, 0.0))
    async with management_over(management.dsn, redis_url=NOWHERE_REDIS) as world:
        world.operator = management.operator
        yield world


async def test_a_pending_rotation_keeps_its_secret(management: Management, cut_off: Management) -> None:
    """Without a window it is a 503 until every node knows; then the repeat shows the secret. R232 R233 R301."""
    key = await management.key()
    path, body = f"/v1/keys/{key['id']}/rotate", {"grace_seconds": 0}
    for _ in range(2):
        assert (await keyed(cut_off, "POST", path, body)).code == "revocation_pending"
    done = await keyed(management, "POST", path, body)
    assert (done.status, is_replayed(done), done.body["propagation"]["state"]) == (200, True, "confirmed")
    assert await management.record(done.body["secret"]) is not None
    assert await management.changes.count_pending() == 0
    assert len(await events(management, "&action=key.rotate")) == 1


async def test_a_repeat_never_hides_what_is_pending(management: Management, cut_off: Management) -> None:
    """A call that found its change made, but not confirmed, is a 503 with and without a key until it is. R233 R301."""
    path, body = "/v1/tenants/acme", {"status": "suspended"}
    assert (await cut_off.call("PATCH", path, body)).code == "revocation_pending"
    for _ in range(3):
        assert (await keyed(cut_off, "PATCH", path, body)).code == "revocation_pending"
    done = await keyed(management, "PATCH", path, body)
    assert (done.status, is_replayed(done), done.body["propagation"]["state"]) == (200, True, "confirmed")
    assert (await keyed(cut_off, "DELETE", "/v1/users/ada")).code == "revocation_pending"
    await management.expect(204, "DELETE", "/v1/users/ada")
    gone = await keyed(cut_off, "DELETE", "/v1/users/ada")
    assert (gone.status, is_replayed(gone)) == (204, True)


async def test_a_widening_repeat_says_what_it_knows(management: Management, cut_off: Management) -> None:
    """`unconfirmed` as long as some node may not know; it never fails for that. R301."""
    for replayed in (False, True):
        made = await keyed(cut_off, "POST", "/v1/keys", WANTED)
        assert (made.status, is_replayed(made)) == (201, replayed)
        assert made.body["propagation"]["state"] == "unconfirmed"
    again = await keyed(management, "POST", "/v1/keys", WANTED)
    assert again.body["propagation"]["state"] == "confirmed"


async def test_a_failure_is_not_kept(management: Management) -> None:
    """A 500 leaves nothing behind; the repeat is a new request. R301."""
    await management.execute("ALTER TABLE audit_events ADD CONSTRAINT broken CHECK (at < 'epoch') NOT VALID")
    assert (await keyed(management, "POST", "/v1/keys", WANTED)).status == 500
    await management.execute("ALTER TABLE audit_events DROP CONSTRAINT broken")
    made = await keyed(management, "POST", "/v1/keys", WANTED)
    assert (made.status, is_replayed(made)) == (201, False)


async def test_a_reply_is_kept_for_a_day(management: Management) -> None:
    """Then the key is free again, whether the row has been purged or not. R301."""
    first = await keyed(management, "POST", "/v1/tenants", {"id": "t1", "name": "One"})
    assert first.status == 201
    left = await management.execute("SELECT extract(epoch FROM expires_at - now())::float8 FROM idempotent_replies")
    assert 86_000 < left <= 86_400
    await management.execute("UPDATE idempotent_replies SET expires_at = now()")
    assert (await keyed(management, "POST", "/v1/tenants", {"id": "t2", "name": "Two"})).status == 201
    again = await keyed(management, "POST", "/v1/tenants", {"id": "t2", "name": "Two"})
    assert is_replayed(again)


async def test_expired_replies_are_purged(management: Management) -> None:
    """All of them, in small transactions, and no other. R301."""
    await keyed(management, "POST", "/v1/keys", WANTED)
    await management.execute(
        "INSERT INTO idempotent_replies (lookup, salt, sealed, expires_at)"
        " SELECT sha256(int4send(n)), '', '', now() FROM generate_series(1, $1) AS n",
        BATCH + 5,
    )
    purge = Purge(management.postgres)
    assert await purge.purge() == BATCH + 5
    assert await purge.purge() == 0
    assert is_replayed(await keyed(management, "POST", "/v1/keys", WANTED))


async def test_a_kept_reply_that_was_altered_is_no_reply(management: Management) -> None:
    """Nor is one under another row's name: a 503, and nothing is done twice. R301."""
    await keyed(management, "POST", "/v1/keys", WANTED)
    await management.execute("UPDATE idempotent_replies SET sealed = set_byte(sealed, 3, get_byte(sealed, 3) # 1)")
    reply = await keyed(management, "POST", "/v1/keys", WANTED)
    assert (reply.status, reply.code) == (503, "auth_unavailable")
    assert json.loads(reply.text)["request_id"]
    assert await management.execute("SELECT count(*) FROM api_keys") == 1
