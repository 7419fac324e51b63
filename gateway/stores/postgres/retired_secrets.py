"""The SQL of rotation and of the secrets that it retires. A function runs inside the caller's transaction."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from gateway.stores.postgres.connection import Connection
from gateway.stores.postgres.purging import purge_batch

KEPT_SECONDS = 90 * 86_400.0  # after its end: for who finds one somewhere, and asks whose it was


@dataclass(frozen=True, slots=True)
class RetiredSecretRow:
    """A former secret of a key: works until `expires_at`, strictly before."""

    id: str
    key_id: str
    prefix: str
    retired_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


def _retired(row: asyncpg.Record) -> RetiredSecretRow:
    return RetiredSecretRow(
        row["id"], row["key_id"], row["prefix"], row["retired_at"], row["expires_at"], row["last_used_at"]
    )


async def rotate(
    connection: Connection, key_id: str, *, secret_id: str, digest: bytes, prefix: str, grace_seconds: int
) -> RetiredSecretRow:
    """Retire the current secret of a key that the caller has locked, and put a new one in its place (R091).

    One statement: both or neither. The window ends `grace_seconds` after the transaction's start, in database time.
    """
    row = await connection.fetchrow(
        "WITH retired AS (INSERT INTO retired_secrets (id, key_id, digest, prefix, expires_at, last_used_at)"
        "   SELECT secret_id, id, digest, prefix, now() + make_interval(secs => $5), secret_last_used_at"
        "   FROM api_keys WHERE id = $1"
        "   RETURNING id, key_id, prefix, retired_at, expires_at, last_used_at),"
        " replaced AS (UPDATE api_keys SET secret_id = $2, digest = $3, prefix = $4, secret_first_used_at = NULL,"
        "   secret_last_used_at = NULL WHERE id = $1 RETURNING id)"
        " SELECT retired.* FROM retired JOIN replaced ON replaced.id = retired.key_id",
        key_id,
        secret_id,
        digest,
        prefix,
        float(grace_seconds),
    )
    assert row is not None
    return _retired(row)


async def page(connection: Connection, key_id: str, *, after: str, limit: int) -> list[RetiredSecretRow]:
    """Up to `limit` retired secrets of the key with an id above `after`, by id (which is by age)."""
    rows = await connection.fetch(
        "SELECT * FROM retired_secrets WHERE key_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        key_id,
        after,
        limit,
    )
    return [_retired(row) for row in rows]


async def open_of_user(connection: Connection, user_id: str) -> list[RetiredSecretRow]:
    """The retired secrets that still work, of all keys of the user, oldest first."""
    rows = await connection.fetch(
        "SELECT r.* FROM retired_secrets r JOIN api_keys k ON k.id = r.key_id"
        " WHERE k.user_id = $1 AND k.revoked_at IS NULL AND r.expires_at > now() ORDER BY r.id LIMIT 1000",
        user_id,
    )
    return [_retired(row) for row in rows]


async def find(connection: Connection, secret_id: str, tenant_id: str | None) -> RetiredSecretRow | None:
    """The retired secret of this id; only of a key in `tenant_id` unless that is None."""
    row = await connection.fetchrow(
        "SELECT r.* FROM retired_secrets r JOIN api_keys k ON k.id = r.key_id"
        " WHERE r.id = $1 AND ($2::text IS NULL OR k.tenant_id = $2)",
        secret_id,
        tenant_id,
    )
    return None if row is None else _retired(row)


async def lock(connection: Connection, secret_id: str) -> RetiredSecretRow | None:
    """The retired secret of this id, its row locked until the transaction ends."""
    row = await connection.fetchrow("SELECT * FROM retired_secrets WHERE id = $1 FOR UPDATE", secret_id)
    return None if row is None else _retired(row)


async def set_window(connection: Connection, secret_id: str, expires_at: datetime) -> RetiredSecretRow:
    """Move the end of the window of a retired secret that the caller has locked."""
    row = await connection.fetchrow(
        "UPDATE retired_secrets SET expires_at = $2 WHERE id = $1 RETURNING *", secret_id, expires_at
    )
    assert row is not None
    return _retired(row)


async def purge(connection: Connection) -> int:
    """Delete a few secrets whose end is long ago; how many. It decides nothing: they are refused since (R107)."""
    return await purge_batch(connection, "retired_secrets", "id", kept_seconds=KEPT_SECONDS)
