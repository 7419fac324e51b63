"""The SQL of sessions of the portal. A function runs inside the caller's transaction.

A session has ended when `ends_at` has come, or when nobody has been seen in it for `idle_seconds`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from gateway.stores.postgres.connection import Connection

PURGE_BATCH = 100


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session without its digest. `is_due`: that it is in use has not been written lately."""

    kind: str
    subject: str
    facts: dict[str, Any]
    created_at: datetime
    seen_at: datetime
    ends_at: datetime
    is_due: bool


def _session(row: asyncpg.Record) -> SessionRow:
    return SessionRow(
        row["kind"],
        row["subject"],
        json.loads(row["facts"]),
        row["created_at"],
        row["seen_at"],
        row["ends_at"],
        row["is_due"],
    )


_LIVE = "ends_at > now() AND seen_at > now() - make_interval(secs => $2)"


async def insert(
    connection: Connection, digest: bytes, *, kind: str, subject: str, facts: Mapping[str, Any], seconds: float
) -> None:
    """A new session, which ends `seconds` from now at the latest."""
    await connection.execute(
        "INSERT INTO portal_sessions (digest, kind, subject, facts, ends_at)"
        " VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))",
        digest,
        kind,
        subject,
        json.dumps(facts),
        seconds,
    )


async def find(connection: Connection, digest: bytes, *, idle_seconds: float, due_seconds: float) -> SessionRow | None:
    """The session of that digest, if it has not ended."""
    row = await connection.fetchrow(
        "SELECT *, seen_at <= now() - make_interval(secs => $3) AS is_due FROM portal_sessions"  # noqa: S608  # our own text
        f" WHERE digest = $1 AND {_LIVE}",
        digest,
        idle_seconds,
        due_seconds,
    )
    return None if row is None else _session(row)


async def of_subject(connection: Connection, kind: str, subject: str, *, idle_seconds: float) -> Sequence[SessionRow]:
    """All sessions of somebody that have not ended, the latest first."""
    rows = await connection.fetch(
        f"SELECT *, false AS is_due FROM portal_sessions WHERE kind = $1 AND subject = $3 AND {_LIVE}"  # noqa: S608  # our own text
        " ORDER BY created_at DESC LIMIT 100",
        kind,
        idle_seconds,
        subject,
    )
    return [_session(row) for row in rows]


async def touch(connection: Connection, digest: bytes) -> None:
    """Somebody is seen in the session now."""
    await connection.execute("UPDATE portal_sessions SET seen_at = now() WHERE digest = $1", digest)


async def delete(connection: Connection, digest: bytes) -> None:
    """End one session."""
    await connection.execute("DELETE FROM portal_sessions WHERE digest = $1", digest)


async def delete_all(connection: Connection, kind: str, subject: str) -> None:
    """End every session of somebody."""
    await connection.execute("DELETE FROM portal_sessions WHERE kind = $1 AND subject = $2", kind, subject)


async def purge(connection: Connection, *, idle_seconds: float) -> None:
    """Take away some sessions that have ended. Rows that somebody else is taking away are left to them."""
    await connection.execute(
        "DELETE FROM portal_sessions WHERE digest IN (SELECT digest FROM portal_sessions"
        " WHERE ends_at <= now() OR seen_at <= now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED)",
        idle_seconds,
        PURGE_BATCH,
    )
