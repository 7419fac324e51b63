"""The SQL of the audit trail, and its chain of hashes. `append` runs inside the change's own transaction.

The trail is only ever appended to. Who can write to the tables at will can forge all of it, from one event on to the
end: an export that is kept elsewhere shows that.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from gateway.stores.postgres.connection import Connection

LATEST = 2**62  # above every id
GENESIS = bytes(32)  # what the first event has for the hash of the one before it


@dataclass(frozen=True, slots=True)
class NewEvent:
    """What is to be put on record. `before` and `after` are objects as the API shows them: without any secret."""

    actor_kind: str
    actor_id: str
    actor_name: str
    address: str | None
    action: str
    target: str
    tenant_id: str | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One event: its `members` as they are shown and hashed, and its place in the chain."""

    id: int
    members: dict[str, Any]
    previous_hash: bytes
    hash: bytes

    def shown(self) -> dict[str, Any]:
        """The event as the API shows it."""
        return {**self.members, "previous_hash": self.previous_hash.hex(), "hash": self.hash.hex()}


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: how many events there are, and the hash of the last."""

    id: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Filters:
    """Which events are meant: those that fit each one that is not None; `since` is in, `until` is not."""

    tenant_id: str | None = None
    actor: str | None = None
    target: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def hash_of(previous_hash: bytes, members: Mapping[str, Any]) -> bytes:
    """SHA-256 of the hash before it and the event as JSON: ASCII, names sorted, no blanks."""
    return hashlib.sha256(previous_hash + json.dumps(members, sort_keys=True, separators=(",", ":")).encode()).digest()


async def append(connection: Connection, event: NewEvent) -> None:
    """Put `event` at the end of the chain.

    The last of the transaction but for the seal: whoever holds the chain's lock wants no other than the revision's.
    """
    last, at = await _locked_head(connection)
    row = _row(last, at, event)
    await connection.execute(
        f"WITH appended AS ({_INSERT} RETURNING id, hash)"  # noqa: S608  # our own text
        " UPDATE audit_head SET id = appended.id, hash = appended.hash FROM appended",
        *row.values(),
    )


async def append_all(connection: Connection, events: Sequence[NewEvent]) -> None:
    """Put several events at the end of the chain, in their order, as `append` does one."""
    if not events:
        return
    last, at = await _locked_head(connection)
    rows: list[dict[str, Any]] = []
    for event in events:
        rows.append(_row(last, at, event))
        last = Head(rows[-1]["id"], rows[-1]["hash"])
    await connection.executemany(_INSERT, [tuple(row.values()) for row in rows])
    await connection.execute("UPDATE audit_head SET id = $1, hash = $2", last.id, last.hash)


_INSERT = (
    "INSERT INTO audit_events (id, at, actor_kind, actor_id, actor_name, address, action, target,"
    " tenant_id, before, after, request_id, outcome, previous_hash, hash)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
)


async def _locked_head(connection: Connection) -> tuple[Head, datetime]:
    row = await connection.fetchrow("SELECT id, hash, clock_timestamp() AS at FROM audit_head FOR UPDATE")
    assert row is not None
    return Head(row["id"], row["hash"]), row["at"]


def _row(last: Head, at: datetime, event: NewEvent) -> dict[str, Any]:
    """The values of one event behind `last`, in the order of `_INSERT`."""
    before, after = _text(event.before), _text(event.after)
    row = {
        "id": last.id + 1,
        "at": at,
        "actor_kind": event.actor_kind,
        "actor_id": event.actor_id,
        "actor_name": event.actor_name,
        "address": event.address,
        "action": event.action,
        "target": event.target,
        "tenant_id": event.tenant_id,
        "before": before,
        "after": after,
        "request_id": event.request_id,
        "outcome": "unchanged" if before == after else "changed",
        "previous_hash": last.hash,
    }
    return {**row, "hash": hash_of(last.hash, _members(row))}


async def head(connection: Connection) -> Head:
    """The end of the chain, as of now."""
    row = await connection.fetchrow("SELECT id, hash FROM audit_head")
    assert row is not None
    return Head(row["id"], row["hash"])


async def page(
    connection: Connection, filters: Filters, *, after: int | None, limit: int, is_latest_first: bool = False
) -> list[AuditRow]:
    """Up to `limit` events behind the id `after`, by id, which is the order of commits, or against it."""
    wanted: Sequence[tuple[str, Any]] = [
        ("tenant_id =", filters.tenant_id),
        ("actor_id =", filters.actor),
        ("target =", filters.target),
        ("action =", filters.action),
        ("at >=", filters.since),
        ("at <", filters.until),
    ]
    named = [(clause, value) for clause, value in wanted if value is not None]
    clauses = "".join(f" AND {clause} ${number}" for number, (clause, _) in enumerate(named, start=3))
    sign, direction, start = ("<", "DESC", LATEST) if is_latest_first else (">", "", 0)
    rows = await connection.fetch(
        f"SELECT * FROM audit_events WHERE id {sign} $1{clauses} ORDER BY id {direction} LIMIT $2",  # noqa: S608  # our own clauses
        start if after is None else after,
        limit,
        *(value for _, value in named),
    )
    return [AuditRow(row["id"], _members(row), row["previous_hash"], row["hash"]) for row in rows]


async def latest(connection: Connection, target: str, *, limit: int) -> list[AuditRow]:
    """Up to `limit` events about `target`, the latest first."""
    rows = await connection.fetch(
        "SELECT * FROM audit_events WHERE target = $1 ORDER BY id DESC LIMIT $2", target, limit
    )
    return [AuditRow(row["id"], _members(row), row["previous_hash"], row["hash"]) for row in rows]


# What a user has done, and what was done to them, to their keys and to these keys' old secrets.
_OF_USER = """
    SELECT * FROM audit_events WHERE tenant_id = $2 AND id IN (
        (SELECT id FROM audit_events WHERE actor_id = $1 AND actor_kind = 'user' AND id < $3 ORDER BY id DESC LIMIT $4)
        UNION (
            SELECT e.id FROM (
                SELECT unnest(ARRAY['user:' || $1, 'entitlement:' || $1]) AS target
                UNION ALL SELECT 'key:' || id FROM api_keys WHERE user_id = $1
                UNION ALL SELECT 'secret:' || r.id FROM retired_secrets r JOIN api_keys k ON k.id = r.key_id
                    WHERE k.user_id = $1
            ) AS t CROSS JOIN LATERAL (
                SELECT id FROM audit_events WHERE target = t.target AND id < $3 ORDER BY id DESC LIMIT $4
            ) AS e
        )
    ) ORDER BY id DESC LIMIT $4"""


async def of_user(connection: Connection, user_id: str, tenant_id: str, *, before: int, limit: int) -> list[AuditRow]:
    """Up to `limit` events with an id below `before` that are about a user of that tenant, the latest first."""
    rows = await connection.fetch(_OF_USER, user_id, tenant_id, before, limit)
    return [AuditRow(row["id"], _members(row), row["previous_hash"], row["hash"]) for row in rows]


def _text(shown: Mapping[str, Any] | None) -> str | None:
    return None if shown is None else json.dumps(shown, sort_keys=True)


def _members(row: asyncpg.Record | Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "at": row["at"].astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "actor": {"kind": row["actor_kind"], "id": row["actor_id"], "name": row["actor_name"]},
        "address": row["address"],
        "action": row["action"],
        "target": row["target"],
        "tenant_id": row["tenant_id"],
        "before": None if row["before"] is None else json.loads(row["before"]),
        "after": None if row["after"] is None else json.loads(row["after"]),
        "request_id": row["request_id"],
        "outcome": row["outcome"],
    }
