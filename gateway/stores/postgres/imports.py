"""The SQL of imports: what is known of many rows at once. A function runs inside the caller's transaction."""

from collections.abc import Sequence
from datetime import datetime

from gateway.stores.postgres.connection import Connection
from gateway.stores.postgres.keys import KeyRow, NewKey, key_of


async def prepare(connection: Connection) -> None:
    """To be said first in the transaction: the table grows all the while, and a plan made for a small one would stay.

    A plan for any parameters would also compare each key with each of the digests.
    """
    await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")


async def active_counts(connection: Connection, user_ids: Sequence[str]) -> dict[str, int]:
    """How many active keys of their own the users have; those without any are left out."""
    rows = await connection.fetch(
        "SELECT user_id, count(*) FROM api_keys WHERE user_id = ANY($1::text[]) AND kind = 'user'"
        " AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) GROUP BY user_id",
        list(user_ids),
    )
    return {row["user_id"]: row["count"] for row in rows}


async def keys_of_digests(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, KeyRow]:
    """The keys, whatever their state and whoever owns them, whose current secret has one of these stored forms."""
    rows = await connection.fetch(
        "SELECT *, coalesce(expires_at <= now(), false) AS is_expired FROM api_keys WHERE digest = ANY($1::bytea[])",
        list(digests),
    )
    return {row["digest"]: key_of(row) for row in rows}


async def retired_among(connection: Connection, digests: Sequence[bytes]) -> set[bytes]:
    """Those of the stored forms that belong to a retired secret."""
    rows = await connection.fetch("SELECT digest FROM retired_secrets WHERE digest = ANY($1::bytea[])", list(digests))
    return {row["digest"] for row in rows}


async def names_in_use(connection: Connection, names: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the pairs of tenant and name that an unrevoked key has."""
    rows = await connection.fetch(
        "SELECT k.tenant_id, k.name FROM api_keys AS k"
        " JOIN unnest($1::text[], $2::text[]) AS n (tenant_id, name) ON n.tenant_id = k.tenant_id AND n.name = k.name"
        " WHERE k.revoked_at IS NULL",
        [tenant_id for tenant_id, _ in names],
        [name for _, name in names],
    )
    return {(row["tenant_id"], row["name"]) for row in rows}


async def insert_all(connection: Connection, keys: Sequence[NewKey]) -> list[KeyRow]:
    """New keys, by one statement; one that meets a key which another transaction has made meanwhile is left out."""
    ends: list[datetime | None] = [key.expires_at for key in keys]
    rows = await connection.fetch(
        "INSERT INTO api_keys (id, tenant_id, user_id, kind, name, prefix, environment, scopes, secret_id, digest,"
        " expires_at) SELECT id, tenant_id, user_id, kind, name, prefix, environment, string_to_array(scopes, ' '),"
        " secret_id, digest, expires_at FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],"
        " $6::text[], $7::text[], $8::text[], $9::text[], $10::bytea[], $11::timestamptz[]) AS new (id, tenant_id,"
        " user_id, kind, name, prefix, environment, scopes, secret_id, digest, expires_at)"
        " ON CONFLICT DO NOTHING RETURNING *, coalesce(expires_at <= now(), false) AS is_expired",
        [key.id for key in keys],
        [key.tenant_id for key in keys],
        [key.user_id for key in keys],
        [key.kind for key in keys],
        [key.name for key in keys],
        [key.prefix for key in keys],
        [key.environment for key in keys],
        [" ".join(key.scopes) for key in keys],  # no scope holds a blank
        [key.secret_id for key in keys],
        [key.digest for key in keys],
        ends,
    )
    return [key_of(row) for row in rows]
