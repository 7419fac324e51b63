"""`POST /v1/imports`: many keys by their digests, each row for itself, in small transactions."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from gateway.control.import_rows import LARGEST_FILE_BYTES
from gateway.control.imports import BATCH
from tests.fixtures.waiting import until
from tests.integration.management.world import PEPPERS, Management, management_over

FUTURE = 4_000_000_000


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def row(name: str, *, user: str = "ada", secret: str | None = None, **more: Any) -> dict[str, Any]:
    return {"secret_sha256": sha256(secret or f"secret of {name}"), "user_id": user, "name": name, **more}


@dataclass(frozen=True)
class Imported:
    """What an import told."""

    rows: list[dict[str, Any]]
    summary: dict[str, Any]

    @property
    def outcomes(self) -> list[str]:
        """Of each row: its code where it was refused."""
        return [one.get("code", one["outcome"]) for one in self.rows]


async def sent(
    management: Management,
    raw: bytes,
    *,
    query: str = "",
    token: str = "operator",
    content_type: str = "application/x-ndjson",
    headers: Mapping[str, str] | None = None,
) -> Imported:
    """An import that has begun."""
    all_headers = {
        "Authorization": f"Bearer {getattr(management, token)}",
        "Content-Type": content_type,
        **(headers or {}),
    }
    async with management.client.post(f"/v1/imports{query}", data=raw, headers=all_headers) as response:
        text = await response.text()
        assert (response.status, response.content_type) == (200, "application/x-ndjson"), text
        assert response.headers["Cache-Control"] == "no-store"
    *rows, last = map(json.loads, text.splitlines())
    return Imported(rows, last.get("summary", last))


async def imported(management: Management, *rows: dict[str, Any], query: str = "", token: str = "operator") -> Imported:
    return await sent(management, "\n".join(map(json.dumps, rows)).encode(), query=query, token=token)


async def count(management: Management) -> Any:
    return await management.execute("SELECT count(*) FROM api_keys")


async def test_an_imported_key_is_a_key(management: Management) -> None:
    """As its row wants it, found by its secret, shown without a digest; on record one by one. R213, R218, R314."""
    told = await imported(
        management,
        row(
            "first", secret="old-secret", prefix="sk_live_ab", scopes=["a", "b:c"], expires_at=FUTURE, tenant_id="acme"
        ),
        row("second", user="olga", environment="prod"),
    )
    assert [(one["row"], one["outcome"]) for one in told.rows] == [(1, "created"), (2, "created")]
    assert told.summary["propagation"]["state"] == "confirmed"
    assert {name: told.summary[name] for name in ("rows", "created", "unchanged", "refused", "dry_run")} == {
        "rows": 2,
        "created": 2,
        "unchanged": 0,
        "refused": 0,
        "dry_run": False,
    }
    first, second = [await management.expect(200, "GET", f"/v1/keys/{one['key_id']}") for one in told.rows]
    assert (first["user_id"], first["name"], first["prefix"], first["scopes"]) == (
        "ada",
        "first",
        "sk_live_ab",
        ["a", "b:c"],
    )
    assert (first["environment"], first["expires_at"], first["status"]) == ("test", "2096-10-02T07:06:40Z", "active")
    assert (second["tenant_id"], second["prefix"], second["environment"]) == ("other", "imported", "prod")
    record = await management.record("old-secret")
    assert record is not None
    assert record.key_id == first["id"]
    (event,) = (await management.expect(200, "GET", f"/v1/audit?target=key:{first['id']}"))["items"]
    assert (event["action"], event["actor"]["name"], event["tenant_id"]) == ("key.import", "op", "acme")
    assert event["after"] == first
    assert sha256("old-secret") not in json.dumps([told.rows, told.summary, first, event])
    assert (await management.expect(200, "GET", "/v1/audit/verify"))["intact"]
    assert 'operations_total{operation="import",result="ok"} 2.0' in management.metrics.exposition().decode()


async def test_every_row_is_decided_for_itself(management: Management) -> None:
    """Bad rows are told with line and reason, and lose no good one. R211, R213, R214, R217, R223, R272, R273."""
    taken = await management.key("taken")
    rotated = await management.key("rotated")
    await management.expect(200, "POST", f"/v1/keys/{rotated['id']}/rotate", {})
    revoked = await management.key("revoked")
    await management.expect(200, "POST", f"/v1/keys/{revoked['id']}/revoke")
    await management.expect(201, "PUT", "/v1/users/poor", {"tenant_id": "acme"})
    told = await imported(
        management,
        row("good"),
        row("x", user="nobody"),
        row("x", tenant_id="other"),
        row("x", secret=taken["secret"]),
        row("x", secret=rotated["secret"]),
        row("revoked", secret=revoked["secret"], prefix=revoked["prefix"][:16]),
        row("x", user="poor"),
        row("x", expires_at=1),
        row("taken"),
        row("x", secret="secret of good"),
        row("good", secret="another"),
        {**row("x"), "secret_sha256": "short"},
        row("good too", user="olga"),
    )
    assert told.outcomes == [
        "created",
        "unknown_user",
        "unknown_user",
        "duplicate_key",
        "duplicate_key",
        "duplicate_key",
        "api_access_required",
        "invalid_expires_at",
        "duplicate_name",
        "duplicate_key",
        "duplicate_name",
        "invalid_digest",
        "created",
    ]
    assert [one["row"] for one in told.rows] == list(range(1, 14))
    assert all(one["message"] for one in told.rows if one["outcome"] == "refused")
    assert (told.summary["created"], told.summary["refused"], await count(management)) == (2, 11, 5)


async def test_no_user_gets_more_keys_than_allowed(management: Management) -> None:
    """The rows behind the last that fits are refused, whatever batch they are in; nothing is revoked. R214, R216."""
    await management.key("before")
    told = await imported(management, *(row(f"k{number}") for number in range(7)))
    assert told.outcomes == ["created"] * 4 + ["key_limit_reached"] * 3
    assert await management.execute("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL") == 5


async def test_a_repeat_changes_nothing(management: Management) -> None:
    """A row that is there already is `unchanged` with its key, so an import that was cut off is done again."""
    rows = [row("a", scopes=["x"]), row("b", user="alan", expires_at=FUTURE), row("c", user="olga")]
    first = await imported(management, *rows[:2])
    before = await management.execute("SELECT (SELECT value FROM revision) || '/' || (SELECT id FROM audit_head)")
    again = await imported(management, *rows[:2])
    assert again.outcomes == ["unchanged", "unchanged"]
    assert [one["key_id"] for one in again.rows] == [one["key_id"] for one in first.rows]
    assert before == await management.execute(
        "SELECT (SELECT value FROM revision) || '/' || (SELECT id FROM audit_head)"
    )
    assert (await imported(management, *rows)).outcomes == ["unchanged", "unchanged", "created"]
    changed = [
        {**rows[0], "scopes": []},
        {**rows[1], "expires_at": FUTURE + 1},
        {**rows[2], "name": "d"},
        rows[2],
        rows[2],
    ]
    assert (await imported(management, *changed)).outcomes == ["duplicate_key"] * 3 + ["unchanged"] * 2


async def test_a_dry_run_tells_the_same_and_does_nothing(management: Management) -> None:
    """Also of rows that are bad only because of others in the file, some batches before."""
    many = [row(f"u{number}", user=f"user{number}") for number in range(BATCH + 20)]
    for statement in (
        "INSERT INTO users (id, tenant_id) SELECT 'user' || n, 'acme' FROM generate_series(0, $1::int) AS n",
        "INSERT INTO entitlements (user_id, plan) SELECT 'user' || n, 'starter' FROM generate_series(0, $1::int) AS n",
    ):
        await management.execute(statement, len(many))
    rows = [
        *(row(f"k{number}") for number in range(4)),
        *many,
        row("k4"),
        row("k5"),
        row("k0", user="alan"),
        many[0],
        many[-1],
    ]
    rows += [row("other name", secret="secret of k0")]
    before = await management.execute("SELECT (SELECT value FROM revision) || '/' || (SELECT id FROM audit_head)")
    tried = await imported(management, *rows, query="?dry_run=true")
    assert (tried.summary["dry_run"], tried.summary["propagation"], await count(management)) == (True, None, 0)
    assert before == await management.execute(
        "SELECT (SELECT value FROM revision) || '/' || (SELECT id FROM audit_head)"
    )
    assert not any(one.get("key_id") for one in tried.rows)
    done = await imported(management, *rows, query="?dry_run=false")
    assert tried.outcomes == done.outcomes
    assert done.outcomes[-6:] == [
        "created",
        "key_limit_reached",
        "duplicate_key",
        "unchanged",
        "unchanged",
        "duplicate_key",
    ]


async def test_bulk_work_commits_in_small_batches(management: Management) -> None:
    """A revision for each batch, all on record in one chain; whoever else changes something gets in between."""
    await management.execute("UPDATE plans SET features = features")
    async with management_over(management.dsn, max_per_user=1000) as world:
        world.operator = management.operator
        before = await management.execute("SELECT value FROM revision")
        told = await imported(world, *(row(f"k{number}") for number in range(2 * BATCH + 1)))
        assert told.summary["created"] == 2 * BATCH + 1
        assert await management.execute("SELECT value FROM revision") == before + 3
        assert (await management.expect(200, "GET", "/v1/audit/verify"))["intact"]
        assert (
            await management.execute("SELECT count(*) FROM audit_events WHERE action = 'key.import'") == 2 * BATCH + 1
        )


async def test_a_tenants_administrator_imports_for_the_own_tenant(management: Management) -> None:
    """Other tenants' users do not exist, and another tenant's digest is taken without a word about its key. R272."""
    theirs = await imported(management, row("theirs", user="olga"))
    told = await imported(
        management, row("mine"), row("x", user="olga"), row("x", secret="secret of theirs"), token="tenant_admin"
    )
    assert told.outcomes == ["created", "unknown_user", "duplicate_key"]
    assert theirs.rows[0]["key_id"] not in json.dumps(told.rows)
    again = await imported(management, row("theirs", user="olga"), token="tenant_admin")
    assert again.outcomes == ["unknown_user"]


async def test_csv(management: Management) -> None:
    """The same as CSV; rows are numbered as the lines of the file."""
    raw = f"secret_sha256,user_id,name,scopes\n{sha256('s')},ada,ci,a b\n{sha256('t')},ada\n".encode()
    told = await sent(management, raw, content_type="text/csv; charset=utf-8")
    assert [(one["row"], one["outcome"]) for one in told.rows] == [(2, "created"), (3, "refused")]
    reply = await management.call("POST", "/v1/imports", raw=b"a,b\n", headers={"Content-Type": "text/csv"})
    assert (reply.status, reply.code) == (400, "invalid_body")


async def test_what_cannot_begin_is_a_problem(management: Management) -> None:
    """An unknown type, an unknown option, too large a file: nothing is done. R239."""
    line = json.dumps(row("x")).encode()
    for query, content_type, raw, status, code in (
        ("", "text/plain", line, 415, "unsupported_media_type"),
        ("?dry_run=maybe", "text/csv", line, 400, "invalid_query"),
        ("?dry_run=true&dry_run=false", "text/csv", line, 400, "invalid_query"),
        ("?force=true", "text/csv", line, 400, "invalid_query"),
        ("", "application/jsonl", b"x\n" * 100_002, 413, "payload_too_large"),
        ("", "application/jsonl", b"x" * (LARGEST_FILE_BYTES + 1), 413, "payload_too_large"),
    ):
        reply = await management.call("POST", f"/v1/imports{query}", raw=raw, headers={"Content-Type": content_type})
        assert (reply.status, reply.code) == (status, code), reply.text
    assert await count(management) == 0


async def test_what_is_larger_than_other_bodies_may_be(management: Management) -> None:
    """The bound of other bodies is not that of files."""
    told = await imported(management, *(row("x" * 60, user=f"nobody{number}") for number in range(1500)))
    assert told.summary["refused"] == 1500


async def test_an_idempotency_key_is_not_needed_and_does_no_harm(management: Management) -> None:
    """The body is read once all the same. R301."""
    raw = json.dumps(row("x")).encode()
    told = await sent(management, raw, headers={"Idempotency-Key": "one"})
    assert told.outcomes == ["created"]
    assert (await sent(management, raw, headers={"Idempotency-Key": "one"})).outcomes == ["unchanged"]


async def test_what_cannot_be_put_on_record_does_not_happen(management: Management) -> None:
    """Events are of the batch's own transaction. R314."""
    await management.execute("ALTER TABLE audit_events ADD CONSTRAINT broken CHECK (at < 'epoch') NOT VALID")
    reply = await management.call("POST", "/v1/imports", row("x"))
    assert (reply.status, reply.code) == (500, "internal_error")
    assert await count(management) == 0


async def test_an_outage_in_the_middle_is_told_at_the_end(management: Management) -> None:
    """What was told is done; the last line is no summary but the problem. A repeat finishes. R070."""
    await management.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM 1 / 0; RETURN NULL; END $$"
    )
    await management.execute(
        "CREATE TRIGGER fail AFTER INSERT ON api_keys FOR EACH ROW WHEN (NEW.name = 'k150') EXECUTE FUNCTION fail()"
    )
    async with management_over(management.dsn, max_per_user=1000) as world:
        world.operator = management.operator
        rows = [row(f"k{number}") for number in range(200)]
        broken = await imported(world, *rows)
        assert broken.outcomes == ["created"] * BATCH
        assert broken.summary["problem"]["code"] == "auth_unavailable"
        assert await count(management) == BATCH
        await management.execute("DROP TRIGGER fail ON api_keys")
        finished = await imported(world, *rows)
        assert finished.outcomes == ["unchanged"] * BATCH + ["created"] * (200 - BATCH)


async def test_imports_at_the_same_moment(management: Management) -> None:
    """The same file from several sides, in another order each: one key of each row, and no deadlock. R215, R217."""
    async with management_over(management.dsn, max_per_user=1000) as world:
        world.operator = management.operator
        users = ("ada", "alan", "olga")
        rows = [row(f"k{number}", user=users[number % 3]) for number in range(120)]
        orders = (rows, rows[::-1], rows[::2] + rows[1::2])
        told = await asyncio.gather(*(imported(world, *order) for order in orders))
        assert sum(one.summary["created"] for one in told) == len(rows)
        assert [one.summary["refused"] for one in told] == [0, 0, 0]
    assert await count(management) == len(rows)


@pytest.mark.parametrize("column", ["digest", "name"])
async def test_a_key_that_is_made_meanwhile_is_seen(management: Management, column: str) -> None:
    """Between the look and the insert: the batch begins again, and says what is true. R217, R273, R276."""
    stored = PEPPERS.stored_form(bytes.fromhex(sha256("secret of b" if column == "digest" else "else")))
    connection = await asyncpg.connect(management.dsn)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "INSERT INTO api_keys (id, tenant_id, user_id, name, prefix, environment, secret_id, digest)"
            " VALUES ('key_x', 'acme', 'alan', $1, 'p', 'test', 's', $2)",
            "b" if column == "name" else "other",
            stored,
        )
        importing = asyncio.create_task(imported(management, row("a"), row("b"), row("c")))

        async def is_waiting() -> bool:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT%'"
            return bool(await management.execute(waiting))

        await until(is_waiting)
        await transaction.commit()
        told = await importing
    finally:
        await connection.close()
    assert told.outcomes == ["created", f"duplicate_{'key' if column == 'digest' else 'name'}", "created"]
    assert [
        event["action"] for event in (await management.expect(200, "GET", "/v1/audit?action=key.import"))["items"]
    ] == ["key.import"] * 2


@pytest.mark.parametrize("state", ["before peppers", "old pepper"])
async def test_a_digest_is_known_in_every_form(management: Management, state: str) -> None:
    """Also one that is stored as it was before the present pepper. R217."""
    told = await imported(management, row("a"))
    digest = bytes.fromhex(sha256("secret of a"))
    form = digest if state == "before peppers" else PEPPERS.candidates(digest)[1]
    await management.execute("UPDATE api_keys SET digest = $1", form)
    again = await imported(management, row("a"), row("b", secret="secret of a"))
    assert again.outcomes == ["unchanged", "duplicate_key"]
    assert again.rows[0]["key_id"] == told.rows[0]["key_id"]
