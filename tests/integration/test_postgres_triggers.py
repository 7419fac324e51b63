from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.fixtures.rows import CURRENT, RETIRED, plant

KEY = {"key:k1", f"digest:{CURRENT.hex()}"}
RETIRED_SECRET = {"key:k1", f"digest:{RETIRED.hex()}"}
OTHER = "ab" * 32


@pytest.fixture
async def connection(postgres_dsn: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A session like psql's, on a database with a few rows."""
    await plant(postgres_dsn)
    session = await asyncpg.connect(postgres_dsn)
    await session.execute(
        "INSERT INTO signing_keys (id, environment, state, public_key) VALUES ('g1', 'test', 'previous', $1)", CURRENT
    )
    yield session
    await session.close()


async def changed_by(connection: "asyncpg.Connection[asyncpg.Record]", statement: str) -> list[set[str]]:
    """The subjects of each revision that the statement took, in order."""
    before = await connection.fetchval("SELECT value FROM revision")
    await connection.execute(statement)
    after = await connection.fetchval("SELECT value FROM revision")
    assert await connection.fetchval("SELECT count(*) FROM staged_changes") == 0
    assert await connection.fetchval("SELECT max(revision) FROM invalidations") == after
    rows = await connection.fetch(
        "SELECT revision, kind || ':' || subject AS subject FROM invalidations WHERE revision > $1", before
    )
    return [
        {row["subject"] for row in rows if row["revision"] == revision} for revision in range(before + 1, after + 1)
    ]


DECIDING = [
    ("tenant-insert", "INSERT INTO tenants (id, name) VALUES ('t2', 'Second')", {"tenant:t2"}),
    ("tenant-suspend", "UPDATE tenants SET status = 'suspended'", {"tenant:t1"}),
    ("user-insert", "INSERT INTO users (id, tenant_id) VALUES ('u2', 't1')", {"user:u2"}),
    ("user-suspend", "UPDATE users SET status = 'suspended' WHERE id = 'u1'", {"user:u1"}),
    ("plan-insert", "INSERT INTO plans (name) VALUES ('gold')", {"plan:gold"}),
    ("plan-tier", "UPDATE plans SET tier = 1", {"plan:basic"}),
    ("plan-features", "UPDATE plans SET features = features || '{\"api_access\": false}'", {"plan:basic"}),
    ("plan-limits", "UPDATE plans SET limits = '{}'", {"plan:basic"}),
    ("entitlement-features", "UPDATE entitlements SET features = '{}'", {"user:u1"}),
    ("entitlement-limits", "UPDATE entitlements SET limits = '{}'", {"user:u1"}),
    ("entitlement-renewed", "UPDATE entitlements SET valid_until = NULL", {"user:u1"}),
    ("entitlement-deleted", "DELETE FROM entitlements", {"user:u1"}),
    ("key-revoked", "UPDATE api_keys SET revoked_at = now() WHERE id = 'k1'", KEY),
    ("key-scopes", "UPDATE api_keys SET scopes = '{}'", KEY),
    ("key-expiry", "UPDATE api_keys SET expires_at = now()", KEY),
    ("key-environment", "UPDATE api_keys SET environment = 'other'", KEY),
    ("key-kind", "UPDATE api_keys SET kind = 'operator'", KEY),
    ("key-secret", f"UPDATE api_keys SET secret_id = 's2', digest = '\\x{OTHER}'", KEY | {f"digest:{OTHER}"}),
    (
        "key-insert",
        "INSERT INTO api_keys (id, tenant_id, user_id, name, prefix, environment, secret_id, digest)"
        f" VALUES ('k2', 't1', 'u1', 'second', 'p', 'test', 's2', '\\x{OTHER}')",
        {"key:k2", f"digest:{OTHER}"},
    ),
    (
        "retired-insert",
        "INSERT INTO retired_secrets (id, key_id, digest, prefix, expires_at)"
        f" VALUES ('r2', 'k1', '\\x{OTHER}', 'p', now())",
        {"key:k1", f"digest:{OTHER}"},
    ),
    ("retired-ended", "UPDATE retired_secrets SET expires_at = now()", RETIRED_SECRET),
    ("retired-deleted", "DELETE FROM retired_secrets", RETIRED_SECRET),
    (
        "many-rows",
        "INSERT INTO plans (name) SELECT 'p' || n FROM generate_series(1, 3) n",
        {"plan:p1", "plan:p2", "plan:p3"},
    ),
    ("some-rows", "UPDATE plans SET tier = CASE name WHEN 'basic' THEN 9 ELSE tier END", {"plan:basic"}),
    (
        "signer-insert",
        "INSERT INTO signing_keys (id, environment, state, public_key, sealed_key)"
        f" VALUES ('g2', 'test', 'next', '\\x{OTHER}', 'x')",
        {"signer:g2"},
    ),
    ("signer-retired", "UPDATE signing_keys SET state = 'retired'", {"signer:g1"}),
    ("signer-replaced", f"UPDATE signing_keys SET public_key = '\\x{OTHER}'", {"signer:g1"}),
    ("signer-deleted", "DELETE FROM signing_keys", {"signer:g1"}),
    ("signers-truncated", "TRUNCATE signing_keys", {"all:"}),
    ("truncate", "TRUNCATE retired_secrets", {"all:"}),
]


@pytest.mark.parametrize(("statement", "subjects"), [c[1:] for c in DECIDING], ids=[c[0] for c in DECIDING])
async def test_deciding_change(
    connection: "asyncpg.Connection[asyncpg.Record]", statement: str, subjects: set[str]
) -> None:
    """A statement that changes what decides admission takes one revision, which names whom it concerns. R221 R264."""
    assert await changed_by(connection, statement) == [subjects]


BOOKKEEPING = [
    ("last-used", "UPDATE api_keys SET last_used_at = now()"),
    ("key-name", "UPDATE api_keys SET name = 'renamed', prefix = 'q', revoked_reason = 'none'"),
    ("display-name", "UPDATE users SET display_name = 'x', roles = '{r}', groups = '{g}'"),
    ("tenant-name", "UPDATE tenants SET name = 'x'"),
    ("entitlement-touched", "UPDATE entitlements SET updated_at = now()"),
    ("same-values", "UPDATE api_keys SET scopes = scopes, expires_at = expires_at"),
    ("same-object", 'UPDATE plans SET features = \'{"export": false, "api_access": true}\''),
    ("no-row", "DELETE FROM api_keys WHERE id = 'k9'"),
    (
        "upsert-of-the-same",
        "INSERT INTO tenants (id, name) VALUES ('t1', 'x') ON CONFLICT (id) DO UPDATE SET name = 'x'",
    ),
    ("node", "INSERT INTO nodes (id, environment, version, revision) VALUES ('n', 'e', 'v', 1)"),
    ("admin-token", "DELETE FROM admin_tokens"),
    ("signer-signs", "UPDATE signing_keys SET state = 'current', sealed_key = 'x', activated_at = now()"),
]


@pytest.mark.parametrize("statement", [c[1] for c in BOOKKEEPING], ids=[c[0] for c in BOOKKEEPING])
async def test_bookkeeping(connection: "asyncpg.Connection[asyncpg.Record]", statement: str) -> None:
    """A statement that changes nothing that decides admission takes no revision. R310."""
    assert await changed_by(connection, statement) == []


CASCADES = [
    ("tenant", "DELETE FROM tenants WHERE id = 't1'", {"tenant:t1", "user:u1"} | KEY | RETIRED_SECRET, 5),
    ("user", "DELETE FROM users WHERE id = 'u1'", {"user:u1"} | KEY | RETIRED_SECRET, 4),
    ("key", "DELETE FROM api_keys", KEY | RETIRED_SECRET, 2),
    ("plan-renamed", "UPDATE plans SET name = 'base'", {"plan:basic", "plan:base", "user:u1"}, 2),
    (
        "user-moved",
        "WITH t AS (INSERT INTO tenants (id, name) VALUES ('t2', '') RETURNING id)"
        " UPDATE users SET tenant_id = t.id FROM t",
        {"tenant:t2", "user:u1"} | KEY,
        3,
    ),
    ("truncate", "TRUNCATE tenants CASCADE", {"all:"}, 5),
]


@pytest.mark.parametrize(
    ("statement", "subjects", "revisions"), [c[1:] for c in CASCADES], ids=[c[0] for c in CASCADES]
)
async def test_cascade(
    connection: "asyncpg.Connection[asyncpg.Record]", statement: str, subjects: set[str], revisions: int
) -> None:
    """What goes along with a deleted tenant, user or key is named as if deleted by hand. R103."""
    changed = await changed_by(connection, statement)
    assert set().union(*changed) == subjects
    assert len(changed) == revisions


async def test_rollback(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """What is rolled back, wholly or to a savepoint, takes no revision. R235."""
    assert await changed_by(connection, "BEGIN; DELETE FROM tenants; ROLLBACK") == []
    assert await changed_by(
        connection,
        "BEGIN; SAVEPOINT s; DELETE FROM tenants; ROLLBACK TO s; UPDATE plans SET tier = 7; COMMIT",
    ) == [{"plan:basic"}]


async def test_foreign_search_path(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """An operator's session with another search path is seen like any other. R221."""
    assert await changed_by(
        connection, "SET search_path = ''; DELETE FROM public.retired_secrets; RESET search_path"
    ) == [RETIRED_SECRET]


async def test_an_open_transaction_stops_nobody(
    connection: "asyncpg.Connection[asyncpg.Record]", postgres_dsn: str
) -> None:
    """A transaction that has changed a key and is not done yet stops no other change, and waits for none. R238."""
    other = await asyncpg.connect(postgres_dsn)
    before = await connection.fetchval("SELECT value FROM revision")
    await other.execute("SET lock_timeout = '5s'")
    await connection.execute("BEGIN; UPDATE api_keys SET expires_at = now()")
    await other.execute("BEGIN; UPDATE plans SET tier = 5; COMMIT")
    await connection.execute("UPDATE plans SET tier = 6; COMMIT")
    rows = await connection.fetch("SELECT DISTINCT revision, kind FROM invalidations WHERE revision > $1", before)
    kinds = {row["revision"] - before: row["kind"] for row in rows if row["kind"] != "digest"}
    assert kinds == {1: "plan", 2: "key", 3: "plan"}
    await other.close()
