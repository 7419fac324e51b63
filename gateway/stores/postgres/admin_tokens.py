"""The SQL of admin tokens. A function runs inside the caller's transaction."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import asyncpg

from gateway.stores.postgres.connection import Connection
from gateway.stores.postgres.tenants import UnknownTenant

# R129: a token that is used in a loop costs one write in this many seconds.
USE_RECORDED_EVERY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class AdminTokenRow:
    """One admin token without its digest. `status` is `active`, `revoked` or `expired`, in database time."""

    id: str
    name: str
    role: str
    tenant_id: str | None
    prefix: str
    status: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


def _token(row: asyncpg.Record) -> AdminTokenRow:
    return AdminTokenRow(
        id=row["id"],
        name=row["name"],
        role=row["role"],
        tenant_id=row["tenant_id"],
        prefix=row["prefix"],
        status="revoked" if row["revoked_at"] is not None else "expired" if row["is_expired"] else "active",
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
    )


async def insert(
    connection: Connection,
    *,
    token_id: str,
    name: str,
    role: str,
    tenant_id: str | None,
    prefix: str,
    digest: bytes,
    expires_at: datetime | None,
) -> AdminTokenRow:
    """A new admin token. Raises UnknownTenant."""
    try:
        row = await connection.fetchrow(
            "INSERT INTO admin_tokens (id, name, role, tenant_id, prefix, digest, expires_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *, coalesce(expires_at <= now(), false) AS is_expired",
            token_id,
            name,
            role,
            tenant_id,
            prefix,
            digest,
            expires_at,
        )
    except asyncpg.ForeignKeyViolationError as error:
        raise UnknownTenant(f"no tenant {tenant_id!r}") from error
    assert row is not None
    return _token(row)


class Found(NamedTuple):
    """A token, whether its use is due to be recorded, and whether its tenant, if it has one, is active."""

    token: AdminTokenRow
    is_due: bool
    is_tenant_active: bool


async def find_by_digest(connection: Connection, digest: bytes) -> Found | None:
    """The token of this SHA-256."""
    return await _find(connection, "digest", digest)


async def find(connection: Connection, token_id: str) -> Found | None:
    """The token of this id."""
    return await _find(connection, "id", token_id)


async def _find(connection: Connection, column: str, value: str | bytes) -> Found | None:
    row = await connection.fetchrow(
        "SELECT a.*, coalesce(a.expires_at <= now(), false) AS is_expired,"  # noqa: S608  # our own text
        " coalesce(a.last_used_at <= now() - make_interval(secs => $2), true) AS is_due,"
        " coalesce(t.status = 'active', true) AS is_tenant_active"
        f" FROM admin_tokens AS a LEFT JOIN tenants AS t ON t.id = a.tenant_id WHERE a.{column} = $1",
        value,
        USE_RECORDED_EVERY_SECONDS,
    )
    return None if row is None else Found(_token(row), row["is_due"], row["is_tenant_active"])


async def record_use(connection: Connection, token_id: str) -> None:
    """Set `last_used_at`, unless somebody else has just done so."""
    await connection.execute(
        "UPDATE admin_tokens SET last_used_at = now() WHERE id = $1"
        " AND (last_used_at IS NULL OR last_used_at <= now() - make_interval(secs => $2))",
        token_id,
        USE_RECORDED_EVERY_SECONDS,
    )


async def hold(connection: Connection, token_id: str, role: str, tenant_id: str | None) -> bool:
    """Whether the token lives and has this role; it can be neither revoked nor changed until the transaction ends."""
    row = await connection.fetchrow(
        "SELECT FROM admin_tokens WHERE id = $1 AND role = $2 AND tenant_id IS NOT DISTINCT FROM $3"
        " AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
        " AND NOT EXISTS (SELECT FROM tenants AS t WHERE t.id = tenant_id AND t.status <> 'active') FOR SHARE",
        token_id,
        role,
        tenant_id,
    )
    return row is not None


async def page(connection: Connection) -> list[AdminTokenRow]:
    """All admin tokens, oldest first."""
    rows = await connection.fetch(
        "SELECT *, coalesce(expires_at <= now(), false) AS is_expired FROM admin_tokens ORDER BY created_at, id"
    )
    return [_token(row) for row in rows]


async def lock(connection: Connection, token_id: str) -> AdminTokenRow | None:
    """The token of this id, its row locked until the transaction ends."""
    row = await connection.fetchrow(
        "SELECT *, coalesce(expires_at <= now(), false) AS is_expired FROM admin_tokens WHERE id = $1 FOR UPDATE",
        token_id,
    )
    return None if row is None else _token(row)


async def revoke(connection: Connection, token_id: str) -> AdminTokenRow:
    """Revoke, for good, a token that the caller has locked; the time of the first revocation stays."""
    row = await connection.fetchrow(
        "UPDATE admin_tokens SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1"
        " RETURNING *, coalesce(expires_at <= now(), false) AS is_expired",
        token_id,
    )
    assert row is not None
    return _token(row)
