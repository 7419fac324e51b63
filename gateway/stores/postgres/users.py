"""The SQL of users and their entitlements. A function runs inside the caller's transaction."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from gateway.errors import Fault, GatewayError
from gateway.stores.postgres.connection import Connection
from gateway.stores.postgres.tenants import UnknownTenant


class UnknownPlan(GatewayError):
    """An entitlement was to name a plan that does not exist."""

    code = "unknown_plan"
    status = 400
    fault = Fault.CLIENT
    public = "There is no plan with this name. Create it first."


@dataclass(frozen=True, slots=True)
class UserFacts:
    """What a caller says about a user. `status` is `active` or `suspended`."""

    id: str
    tenant_id: str
    display_name: str
    roles: tuple[str, ...]
    groups: tuple[str, ...]
    status: str


@dataclass(frozen=True, slots=True)
class UserRow(UserFacts):
    """One user."""

    created_at: datetime


@dataclass(frozen=True, slots=True)
class EntitlementRow:
    """What a user is entitled to. `features` and `limits` override the plan's; no `valid_until` means no end."""

    user_id: str
    plan: str
    features: dict[str, Any]
    limits: dict[str, int]
    valid_until: datetime | None
    updated_at: datetime


# Whether an entitlement `e` to a plan `p` admits: the feature is exactly `true`, and it has not ended (R211).
API_ACCESS = (
    "coalesce((p.features || e.features) -> 'api_access' = 'true'::jsonb"
    " AND (e.valid_until IS NULL OR e.valid_until > now()), false)"
)
_EFFECTIVE = f"""
    SELECT e.plan, p.tier, (p.features || e.features)::text AS features, (p.limits || e.limits)::text AS limits,
        e.valid_until, {API_ACCESS} AS has_api_access
    FROM entitlements e JOIN plans p ON p.name = e.plan WHERE e.user_id = $1"""  # noqa: S608  # our own text


@dataclass(frozen=True, slots=True)
class Standing:
    """What the database knows, at `now` (seconds since the epoch), of somebody who says to be a user."""

    user: UserRow | None
    is_tenant_active: bool
    now: float


@dataclass(frozen=True, slots=True)
class EffectiveEntitlement:
    """What a user has: the plan with the entitlement laid over it. `has_api_access` is what admission asks (R211)."""

    plan: str
    tier: int
    features: dict[str, Any]
    limits: dict[str, int]
    valid_until: datetime | None
    has_api_access: bool


def _user(row: asyncpg.Record) -> UserRow:
    return UserRow(
        row["id"],
        row["tenant_id"],
        row["display_name"],
        tuple(row["roles"]),
        tuple(row["groups"]),
        row["status"],
        row["created_at"],
    )


def _entitlement(row: asyncpg.Record) -> EntitlementRow:
    return EntitlementRow(
        row["user_id"],
        row["plan"],
        json.loads(row["features"]),
        json.loads(row["limits"]),
        row["valid_until"],
        row["updated_at"],
    )


async def find(connection: Connection, user_id: str) -> UserRow | None:
    """The user of this id, in whatever tenant."""
    row = await connection.fetchrow("SELECT * FROM users WHERE id = $1", user_id)
    return None if row is None else _user(row)


async def lock(connection: Connection, user_id: str) -> UserRow | None:
    """The user of this id, in whatever tenant, its row locked until the transaction ends."""
    row = await connection.fetchrow("SELECT * FROM users WHERE id = $1 FOR UPDATE", user_id)
    return None if row is None else _user(row)


async def standing(connection: Connection, user_id: str) -> Standing:
    """How the user of this id stands; there may be none."""
    row = await connection.fetchrow(
        "SELECT u.*, coalesce(t.status = 'active', false) AS is_tenant_active,"
        " extract(epoch FROM now())::float8 AS asked_at"
        " FROM (VALUES (1)) AS one LEFT JOIN users u ON u.id = $1 LEFT JOIN tenants t ON t.id = u.tenant_id",
        user_id,
    )
    assert row is not None
    user = None if row["id"] is None else _user(row)
    return Standing(user, row["is_tenant_active"], row["asked_at"])


def page_query(*, tenant_id: str | None, search: str, after: str, limit: int) -> tuple[str, list[str | int]]:
    """The statement of a page and its arguments: only the filters that are there stand in it.

    A tenant's users are a range of the index on tenant and id (see `key_pages`). What begins with `search` is two other
    ranges, one of ids and one of names, in the order of bytes: unlike LIKE, they have an index in every plan. It is all
    found first and put in order then: else a plan may go through all users in their order, to find the few that fit.
    """
    arguments: list[str | int] = [after, limit]
    if tenant_id is not None:
        arguments.append(tenant_id)
    if search:
        arguments.append(search)
        begins = _BEGINS.replace("$n", f"${len(arguments)}::text")
        of_tenant = "" if tenant_id is None else " AND tenant_id = $3"
        statement = (
            f"WITH found AS MATERIALIZED (SELECT * FROM users WHERE {begins}{of_tenant})"  # noqa: S608  # our own clauses
            " SELECT * FROM found WHERE id > $1 ORDER BY id LIMIT $2"
        )
        return statement, arguments
    clause, order = ("id > $1", "id")
    if tenant_id is not None:
        clause, order = "(tenant_id, id) > ($3, $1) AND tenant_id <= $3", "tenant_id, id"
    return f"SELECT * FROM users WHERE {clause} ORDER BY {order} LIMIT $2", arguments  # noqa: S608  # our own clauses


_BEGINS = (
    "(id ~>=~ $n AND id ~<~ ($n || chr(1114111))"
    " OR lower(display_name) ~>=~ lower($n) AND lower(display_name) ~<~ (lower($n) || chr(1114111)))"
)


async def page(
    connection: Connection, *, tenant_id: str | None, search: str = "", after: str, limit: int
) -> list[UserRow]:
    """Up to `limit` users with an id above `after`, by id: of one tenant or of all, found by `search` or not."""
    statement, arguments = page_query(tenant_id=tenant_id, search=search, after=after, limit=limit)
    return [_user(row) for row in await connection.fetch(statement, *arguments)]


async def insert(connection: Connection, user: UserFacts) -> UserRow | None:
    """A new user; None where the id is in use. Raises UnknownTenant."""
    try:
        row = await connection.fetchrow(
            "INSERT INTO users (id, tenant_id, display_name, roles, groups, status)"
            " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING RETURNING *",
            user.id,
            user.tenant_id,
            user.display_name,
            list(user.roles),
            list(user.groups),
            user.status,
        )
    except asyncpg.ForeignKeyViolationError as error:
        raise UnknownTenant(f"no tenant {user.tenant_id!r}") from error
    return None if row is None else _user(row)


async def update(connection: Connection, user: UserFacts) -> UserRow:
    """Overwrite all but id and tenant of a user that the caller has locked."""
    row = await connection.fetchrow(
        "UPDATE users SET display_name = $2, roles = $3, groups = $4, status = $5 WHERE id = $1 RETURNING *",
        user.id,
        user.display_name,
        list(user.roles),
        list(user.groups),
        user.status,
    )
    assert row is not None
    return _user(row)


async def delete(connection: Connection, user_id: str) -> None:
    """Delete a user with entitlement, keys and retired secrets (R103)."""
    await connection.execute("DELETE FROM users WHERE id = $1", user_id)


async def entitlement(connection: Connection, user_id: str) -> EntitlementRow | None:
    """The user's entitlement."""
    row = await connection.fetchrow(
        "SELECT user_id, plan, features::text, limits::text, valid_until, updated_at"
        " FROM entitlements WHERE user_id = $1",
        user_id,
    )
    return None if row is None else _entitlement(row)


async def effective_entitlement(connection: Connection, user_id: str) -> EffectiveEntitlement | None:
    """What the user has now; None without an entitlement."""
    row = await connection.fetchrow(
        _EFFECTIVE,
        user_id,
    )
    if row is None:
        return None
    return EffectiveEntitlement(
        row["plan"],
        row["tier"],
        json.loads(row["features"]),
        json.loads(row["limits"]),
        row["valid_until"],
        row["has_api_access"],
    )


async def put_entitlement(
    connection: Connection,
    user_id: str,
    *,
    plan: str,
    features: dict[str, Any],
    limits: dict[str, int],
    valid_until: datetime | None,
) -> EntitlementRow:
    """Create or overwrite the entitlement of a user that the caller has locked. Raises UnknownPlan."""
    try:
        row = await connection.fetchrow(
            "INSERT INTO entitlements (user_id, plan, features, limits, valid_until)"
            " VALUES ($1, $2, $3::text::jsonb, $4::text::jsonb, $5)"
            " ON CONFLICT (user_id) DO UPDATE SET plan = excluded.plan, features = excluded.features,"
            " limits = excluded.limits, valid_until = excluded.valid_until, updated_at = now()"
            " RETURNING user_id, plan, features::text, limits::text, valid_until, updated_at",
            user_id,
            plan,
            json.dumps(features),
            json.dumps(limits),
            valid_until,
        )
    except asyncpg.ForeignKeyViolationError as error:
        raise UnknownPlan(f"no plan {plan!r}") from error
    assert row is not None
    return _entitlement(row)


async def delete_entitlement(connection: Connection, user_id: str) -> None:
    """Delete the entitlement of a user that the caller has locked."""
    await connection.execute("DELETE FROM entitlements WHERE user_id = $1", user_id)
