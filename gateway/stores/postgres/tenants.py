"""The SQL of tenants. A function runs inside the caller's transaction; the caller owns commit and deadline."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from gateway.errors import Fault, GatewayError
from gateway.stores.postgres.connection import Connection


class DuplicateTenant(GatewayError):
    """The id is in use."""

    code = "duplicate_tenant"
    status = 409
    fault = Fault.CLIENT
    public = "There is a tenant with this id already."


class UnknownTenant(GatewayError):
    """Something was to belong to a tenant that does not exist."""

    code = "unknown_tenant"
    status = 400
    fault = Fault.CLIENT
    public = "There is no tenant with this id. Create it first."


@dataclass(frozen=True, slots=True)
class TenantRow:
    """One tenant. `status` is `active` or `suspended`, `issuance` `open`, `closed` or None: as configured."""

    id: str
    name: str
    status: str
    issuance: str | None
    created_at: datetime


def _tenant(row: asyncpg.Record) -> TenantRow:
    return TenantRow(row["id"], row["name"], row["status"], row["issuance"], row["created_at"])


async def insert(connection: Connection, tenant_id: str, name: str) -> TenantRow:
    """A new tenant, active. Raises DuplicateTenant."""
    try:
        row = await connection.fetchrow("INSERT INTO tenants (id, name) VALUES ($1, $2) RETURNING *", tenant_id, name)
    except asyncpg.UniqueViolationError as error:
        raise DuplicateTenant(f"tenant {tenant_id!r} exists") from error
    assert row is not None
    return _tenant(row)


async def find(connection: Connection, tenant_id: str) -> TenantRow | None:
    """The tenant of this id."""
    row = await connection.fetchrow("SELECT * FROM tenants WHERE id = $1", tenant_id)
    return None if row is None else _tenant(row)


async def lock(connection: Connection, tenant_id: str) -> TenantRow | None:
    """The tenant of this id, its row locked until the transaction ends."""
    row = await connection.fetchrow("SELECT * FROM tenants WHERE id = $1 FOR UPDATE", tenant_id)
    return None if row is None else _tenant(row)


async def page(connection: Connection, *, only_id: str | None, after: str, limit: int) -> list[TenantRow]:
    """Up to `limit` tenants with an id above `after`, by id; `only_id` narrows to one."""
    rows = await connection.fetch(
        "SELECT * FROM tenants WHERE id > $1 AND ($2::text IS NULL OR id = $2) ORDER BY id LIMIT $3",
        after,
        only_id,
        limit,
    )
    return [_tenant(row) for row in rows]


async def update(connection: Connection, tenant_id: str, *, name: str, status: str, issuance: str | None) -> TenantRow:
    """Overwrite name, status and issuance of a tenant that the caller has locked."""
    row = await connection.fetchrow(
        "UPDATE tenants SET name = $2, status = $3, issuance = $4 WHERE id = $1 RETURNING *",
        tenant_id,
        name,
        status,
        issuance,
    )
    assert row is not None
    return _tenant(row)


async def delete_users(connection: Connection, tenant_id: str, *, limit: int) -> list[str]:
    """Delete up to `limit` users of the tenant with all that hangs on them; returns their ids."""
    rows = await connection.fetch(
        "DELETE FROM users WHERE id IN (SELECT id FROM users WHERE tenant_id = $1 ORDER BY id LIMIT $2 FOR UPDATE)"
        " RETURNING id",
        tenant_id,
        limit,
    )
    return sorted(row["id"] for row in rows)


async def delete(connection: Connection, tenant_id: str) -> None:
    """Delete a tenant with all that hangs on it."""
    await connection.execute("DELETE FROM tenants WHERE id = $1", tenant_id)
