"""The SQL of keys. A function runs inside the caller's transaction.

Order of locks, here and in the cascades of a deletion: user, key, retired secret.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from gateway.errors import Fault, GatewayError
from gateway.stores.postgres.connection import Connection
from gateway.stores.postgres.users import API_ACCESS


class DuplicateKey(GatewayError):
    """The digest belongs to a key already: active, revoked, expired or retired, whoever owns it (R217)."""

    code = "duplicate_key"
    status = 409
    fault = Fault.CLIENT
    public = "This secret is or was in use. Make a new one."


class DuplicateName(GatewayError):
    """Another unrevoked key of the tenant has the name (R273, R276)."""

    code = "duplicate_name"
    status = 409
    fault = Fault.CLIENT
    public = "Another key of this tenant has this name. Choose another one, or revoke that key."


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key without its digest. `status` is `active`, `revoked` or `expired`, in database time.

    `secret_...` is about its current secret.
    """

    id: str
    tenant_id: str
    user_id: str
    kind: str
    name: str
    prefix: str
    environment: str
    scopes: tuple[str, ...]
    status: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    secret_first_used_at: datetime | None
    secret_last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key is made of. `digest` is the stored form (32 bytes)."""

    id: str
    secret_id: str
    digest: bytes
    prefix: str
    tenant_id: str
    user_id: str
    kind: str
    name: str
    environment: str
    scopes: tuple[str, ...]
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Owner:
    """A user who is to own one more key, as the transaction sees it. `now` is the database's time.

    `issuance` is what is set for the tenant: `open`, `closed` or None.
    """

    tenant_id: str
    has_api_access: bool
    issuance: str | None
    now: datetime


def key_of(row: asyncpg.Record) -> KeyRow:
    """The key of a row that has `is_expired` beside its columns."""
    return KeyRow(
        id=row["id"],
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        kind=row["kind"],
        name=row["name"],
        prefix=row["prefix"],
        environment=row["environment"],
        scopes=tuple(row["scopes"]),
        status="revoked" if row["revoked_at"] is not None else "expired" if row["is_expired"] else "active",
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        secret_first_used_at=row["secret_first_used_at"],
        secret_last_used_at=row["secret_last_used_at"],
    )


_OWNERS = f"""
    SELECT u.id, u.tenant_id, now(), t.issuance, {API_ACCESS} AS has_api_access
    FROM users u JOIN tenants t ON t.id = u.tenant_id
    LEFT JOIN entitlements e ON e.user_id = u.id LEFT JOIN plans p ON p.name = e.plan
    WHERE u.id = ANY($1::text[]) AND ($2::text IS NULL OR u.tenant_id = $2) ORDER BY u.id"""  # noqa: S608  # our own text
_OWNERS_LOCKED = _OWNERS + " FOR NO KEY UPDATE OF u"


async def owners(
    connection: Connection, user_ids: Sequence[str], tenant_id: str | None, *, are_locked: bool
) -> dict[str, Owner]:
    """Those of the users that exist, by id; only in `tenant_id` unless that is None.

    `are_locked`: against other creates and deletion, in the order of their ids, so that two that lock several cannot
    deadlock.
    """
    statement = _OWNERS_LOCKED if are_locked else _OWNERS
    rows = await connection.fetch(statement, list(user_ids), tenant_id)
    return {row["id"]: Owner(row["tenant_id"], row["has_api_access"], row["issuance"], row["now"]) for row in rows}


async def lock_owner(connection: Connection, user_id: str, tenant_id: str | None) -> Owner | None:
    """The user, its row locked against other creates and deletion; only in `tenant_id` unless that is None."""
    return (await owners(connection, [user_id], tenant_id, are_locked=True)).get(user_id)


async def active_of_user(connection: Connection, user_id: str) -> list[str]:
    """The ids of the user's own active keys, oldest first. Operator keys do not count."""
    rows = await connection.fetch(
        "SELECT id FROM api_keys WHERE user_id = $1 AND kind = 'user' AND revoked_at IS NULL"
        " AND (expires_at IS NULL OR expires_at > now()) ORDER BY created_at, id",
        user_id,
    )
    return [row["id"] for row in rows]


async def is_known_secret(connection: Connection, digests: Sequence[bytes], *, other_than: Sequence[str]) -> bool:
    """Whether one of these stored forms belongs to a secret, current or retired, of another key than `other_than`.

    To be asked after the insert of those keys: a rotation that is moving the digest from one table to the other has
    let the insert wait for its commit, so that this sees where it went.
    """
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT 1 FROM api_keys WHERE digest = ANY($1::bytea[]) AND id <> ALL($2::text[]))"
            " OR EXISTS (SELECT 1 FROM retired_secrets WHERE digest = ANY($1::bytea[]))",
            list(digests),
            list(other_than),
        )
    )


async def insert(connection: Connection, key: NewKey) -> KeyRow:
    """A new key. Raises DuplicateName, DuplicateKey."""
    try:
        row = await connection.fetchrow(
            "INSERT INTO api_keys (id, tenant_id, user_id, kind, name, prefix, environment, scopes, secret_id, digest,"
            " expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
            " RETURNING *, coalesce(expires_at <= now(), false) AS is_expired",
            key.id,
            key.tenant_id,
            key.user_id,
            key.kind,
            key.name,
            key.prefix,
            key.environment,
            list(key.scopes),
            key.secret_id,
            key.digest,
            key.expires_at,
        )
    except asyncpg.UniqueViolationError as error:
        raise _duplicate(error, key.name) from error
    assert row is not None
    return key_of(row)


def _duplicate(error: asyncpg.UniqueViolationError, name: str) -> GatewayError:
    if error.constraint_name == "api_keys_name":
        return DuplicateName(f"an unrevoked key is named {name!r}")
    return DuplicateKey(f"violates {error.constraint_name}")


async def find(connection: Connection, key_id: str, tenant_id: str | None) -> KeyRow | None:
    """The key of this id; only in `tenant_id` unless that is None."""
    row = await connection.fetchrow(
        "SELECT *, coalesce(expires_at <= now(), false) AS is_expired FROM api_keys"
        " WHERE id = $1 AND ($2::text IS NULL OR tenant_id = $2)",
        key_id,
        tenant_id,
    )
    return None if row is None else key_of(row)


async def lock(connection: Connection, key_id: str, tenant_id: str | None) -> KeyRow | None:
    """As `find`, the row locked until the transaction ends."""
    row = await connection.fetchrow(
        "SELECT *, coalesce(expires_at <= now(), false) AS is_expired FROM api_keys"
        " WHERE id = $1 AND ($2::text IS NULL OR tenant_id = $2) FOR UPDATE",
        key_id,
        tenant_id,
    )
    return None if row is None else key_of(row)


async def update(
    connection: Connection, key_id: str, *, name: str, scopes: Sequence[str], expires_at: datetime | None
) -> KeyRow:
    """Overwrite what may change of a key that the caller has locked. Raises DuplicateName."""
    try:
        row = await connection.fetchrow(
            "UPDATE api_keys SET name = $2, scopes = $3, expires_at = $4 WHERE id = $1"
            " RETURNING *, coalesce(expires_at <= now(), false) AS is_expired",
            key_id,
            name,
            list(scopes),
            expires_at,
        )
    except asyncpg.UniqueViolationError as error:
        raise _duplicate(error, name) from error
    assert row is not None
    return key_of(row)


async def revoke(connection: Connection, key_id: str, reason: str | None) -> KeyRow:
    """Revoke a key that the caller has locked and seen unrevoked."""
    row = await connection.fetchrow(
        "UPDATE api_keys SET revoked_at = now(), revoked_reason = $2 WHERE id = $1"
        " RETURNING *, coalesce(expires_at <= now(), false) AS is_expired",
        key_id,
        reason,
    )
    assert row is not None
    return key_of(row)


async def tenants_of_digests(connection: Connection, digests: Sequence[bytes]) -> set[str]:
    """The tenants of the keys, revoked ones included, whose current or retired secret has one of these digests."""
    rows = await connection.fetch(
        "SELECT tenant_id FROM api_keys WHERE digest = ANY($1::bytea[])"
        " UNION SELECT k.tenant_id FROM retired_secrets r JOIN api_keys k ON k.id = r.key_id"
        " WHERE r.digest = ANY($1::bytea[])",
        list(digests),
    )
    return {row["tenant_id"] for row in rows}


async def key_ids_of_digests(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, str]:
    """The ids of the keys, revoked ones included, whose current or retired secret has one of these digests."""
    rows = await connection.fetch(
        "SELECT digest, id FROM api_keys WHERE digest = ANY($1::bytea[])"
        " UNION ALL SELECT digest, key_id FROM retired_secrets WHERE digest = ANY($1::bytea[])",
        list(digests),
    )
    return {row["digest"]: row["id"] for row in rows}


async def invalidate_digests(connection: Connection, digests: Sequence[bytes]) -> None:
    """Take a revision that voids what is cached about these digests, without changing any key.

    What a cache holds about a digest of some key depends on the key, and not on the digest: so both are named.
    """
    await connection.execute(
        "SELECT ostiary_stage(array(SELECT 'digest:' || encode(d, 'hex') FROM unnest($1::bytea[]) AS d"
        " UNION SELECT 'key:' || id FROM api_keys WHERE digest = ANY($1::bytea[])"
        " UNION SELECT 'key:' || key_id FROM retired_secrets WHERE digest = ANY($1::bytea[])))",
        list(digests),
    )
