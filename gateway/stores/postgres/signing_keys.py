"""The SQL of signing keys, and of minting. A function runs inside the caller's transaction."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gateway.stores.postgres.connection import Connection


@dataclass(frozen=True, slots=True)
class SigningKeyRow:
    """One signing key. `sealed_key` is None where it signs no more; `age_seconds`: since when it has signed."""

    id: str
    state: str
    public_key: bytes
    sealed_key: bytes | None = field(repr=False)
    created_at: datetime
    activated_at: datetime | None
    replaced_at: datetime | None
    retired_at: datetime | None
    age_seconds: float


@dataclass(frozen=True, slots=True)
class MintingRow:
    """What a token is made of, in one snapshot. Times are seconds since the epoch, by the database's clock."""

    tenant_id: str
    user_id: str
    secret_id: str
    scopes: tuple[str, ...]
    key_expires_at: float | None
    now: float
    signer_id: str
    sealed_key: bytes = field(repr=False)


async def lock(connection: Connection, environment: str) -> None:
    """Wait until nobody else changes the signing keys of `environment`; until the transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('signing_keys:' || $1, 0))", environment)


async def listed(connection: Connection, environment: str) -> list[SigningKeyRow]:
    """All signing keys of `environment`, the oldest first."""
    rows = await connection.fetch(
        "SELECT id, state, public_key, sealed_key, created_at, activated_at, replaced_at, retired_at,"
        " coalesce(extract(epoch FROM now() - activated_at), 0)::float8 AS age_seconds"
        " FROM signing_keys WHERE environment = $1 ORDER BY created_at, id",
        environment,
    )
    return [SigningKeyRow(**row) for row in rows]


async def insert_next(
    connection: Connection, environment: str, *, key_id: str, public_key: bytes, sealed_key: bytes
) -> None:
    """A new key that is published and does not sign yet. There must be no other such."""
    await connection.execute(
        "INSERT INTO signing_keys (id, environment, state, public_key, sealed_key) VALUES ($1, $2, 'next', $3, $4)",
        key_id,
        environment,
        public_key,
        sealed_key,
    )


async def advance(connection: Connection, environment: str) -> None:
    """`next` signs from now on, and `current` only proves what it has signed. There must be a `next`."""
    await connection.execute(
        "UPDATE signing_keys SET state = 'previous', sealed_key = NULL, replaced_at = now()"
        " WHERE environment = $1 AND state = 'current'",
        environment,
    )
    await connection.execute(
        "UPDATE signing_keys SET state = 'current', activated_at = now() WHERE environment = $1 AND state = 'next'",
        environment,
    )


async def retire(connection: Connection, environment: str, key_id: str) -> None:
    """Nobody believes any more what this key has signed."""
    await connection.execute(
        "UPDATE signing_keys SET state = 'retired', sealed_key = NULL, retired_at = now()"
        " WHERE environment = $1 AND id = $2",
        environment,
        key_id,
    )


async def retire_older(connection: Connection, environment: str, seconds: float) -> None:
    """Retire those that signed for the last time longer ago than any token lives."""
    await connection.execute(
        "UPDATE signing_keys SET state = 'retired', retired_at = now()"
        " WHERE environment = $1 AND state = 'previous' AND replaced_at < now() - make_interval(secs => $2)",
        environment,
        seconds,
    )


async def for_minting(connection: Connection, environment: str, key_id: str) -> MintingRow | None:
    """What a token of this API key is made of; None where the key is gone or revoked, or nothing can sign."""
    row: Any = await connection.fetchrow(
        "SELECT k.tenant_id, k.user_id, k.secret_id, k.scopes, extract(epoch FROM k.expires_at)::float8"
        " AS key_expires_at, extract(epoch FROM clock_timestamp())::float8 AS now, g.id AS signer_id, g.sealed_key"
        " FROM api_keys AS k JOIN signing_keys AS g ON g.environment = k.environment AND g.state = 'current'"
        " WHERE k.id = $1 AND k.environment = $2 AND k.revoked_at IS NULL",
        key_id,
        environment,
    )
    return None if row is None else MintingRow(**{**row, "scopes": tuple(row["scopes"])})
