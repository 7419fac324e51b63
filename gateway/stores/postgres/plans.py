"""The SQL of plans. A function runs inside the caller's transaction; the caller owns commit and deadline."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from gateway.errors import Fault, GatewayError
from gateway.stores.postgres.connection import Connection, Postgres

DECLARE_SECONDS = 5.0


class PlanInUse(GatewayError):
    """Some entitlement names the plan."""

    code = "plan_in_use"
    status = 409
    fault = Fault.CLIENT
    public = "Users have this plan. Give them another one first."


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One plan: what an entitlement to it gives unless it says otherwise."""

    name: str
    tier: int
    features: dict[str, Any]
    limits: dict[str, int]


def _plan(row: asyncpg.Record) -> PlanRow:
    return PlanRow(row["name"], row["tier"], json.loads(row["features"]), json.loads(row["limits"]))


async def find(connection: Connection, name: str) -> PlanRow | None:
    """The plan of this name."""
    row = await connection.fetchrow("SELECT name, tier, features::text, limits::text FROM plans WHERE name = $1", name)
    return None if row is None else _plan(row)


async def lock(connection: Connection, name: str) -> PlanRow | None:
    """The plan of this name, its row locked until the transaction ends."""
    row = await connection.fetchrow(
        "SELECT name, tier, features::text, limits::text FROM plans WHERE name = $1 FOR UPDATE", name
    )
    return None if row is None else _plan(row)


async def page(connection: Connection, *, after: str, limit: int) -> list[PlanRow]:
    """Up to `limit` plans with a name above `after`, by name."""
    rows = await connection.fetch(
        "SELECT name, tier, features::text, limits::text FROM plans WHERE name > $1 ORDER BY name LIMIT $2",
        after,
        limit,
    )
    return [_plan(row) for row in rows]


async def insert(connection: Connection, plan: PlanRow) -> bool:
    """A new plan; false, and nothing done, where the name is in use."""
    tag = await connection.execute(
        "INSERT INTO plans (name, tier, features, limits) VALUES ($1, $2, $3::text::jsonb, $4::text::jsonb)"
        " ON CONFLICT (name) DO NOTHING",
        plan.name,
        plan.tier,
        json.dumps(plan.features),
        json.dumps(plan.limits),
    )
    return tag != "INSERT 0 0"


async def update(connection: Connection, plan: PlanRow) -> None:
    """Overwrite a plan that the caller has locked."""
    await connection.execute(
        "UPDATE plans SET tier = $2, features = $3::text::jsonb, limits = $4::text::jsonb WHERE name = $1",
        plan.name,
        plan.tier,
        json.dumps(plan.features),
        json.dumps(plan.limits),
    )


async def delete(connection: Connection, name: str) -> None:
    """Delete a plan that the caller has locked. Raises PlanInUse."""
    try:
        await connection.execute("DELETE FROM plans WHERE name = $1", name)
    except asyncpg.ForeignKeyViolationError as error:
        raise PlanInUse(f"plan {name!r} is in use") from error


async def declare(postgres: Postgres, plans: Sequence[PlanRow]) -> None:
    """Write the configuration's plans: the file wins over what stands in the table under the same name.

    Writes only what differs, so a restart under an unchanged file takes no revision. Raises StoreUnavailable.
    """
    if not plans:
        return

    async def work(connection: Connection) -> None:
        await connection.executemany(
            "INSERT INTO plans AS p (name, tier, features, limits) VALUES ($1, $2, $3::jsonb, $4::jsonb)"
            " ON CONFLICT (name) DO UPDATE SET tier = excluded.tier, features = excluded.features,"
            " limits = excluded.limits WHERE (p.tier, p.features, p.limits)"
            " IS DISTINCT FROM (excluded.tier, excluded.features, excluded.limits)",
            [(plan.name, plan.tier, json.dumps(plan.features), json.dumps(plan.limits)) for plan in plans],
        )

    await postgres.run(work, seconds=DECLARE_SECONDS)
