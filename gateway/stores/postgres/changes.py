"""How the truth is changed: in one transaction that knows which revisions it made (docs/consistency.md)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import asyncpg

from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.records import Invalidation

COMMIT_SECONDS = 5.0
OUTBOX_SECONDS = 2.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """What one transaction changed of that which decides admission: `revision` 0 and nothing when it changed nothing.

    `target` is what the call was about (`key:<id>`, `user:<id>` ...). `revision` is the highest one that it took.
    """

    target: str
    revision: int
    invalidations: tuple[Invalidation, ...]


class Changes:
    """Transactions on the truth, and the outbox of those that not every node of `environment` has confirmed yet.

    Every method raises StoreUnavailable.
    """

    def __init__(self, pg: Postgres, *, environment: str) -> None:
        self._pg = pg
        self._environment = environment

    async def commit(
        self, work: Callable[[Connection], Awaitable[T]], *, target: str, is_narrowing: bool
    ) -> tuple[T, Change]:
        """Run `work` in one transaction, commit, and say what it changed.

        A narrowing change that changed something is in the outbox with its commit (R234). On StoreUnavailable the
        change may have been committed or not; on any other exception of `work` it was not.
        """

        async def transaction(connection: Connection) -> tuple[T, Change]:
            async with connection.transaction():
                await connection.execute(_GUARD)
                result = await work(connection)
                rows = await connection.fetch(
                    "SELECT revision, kind || ':' || subject AS subject FROM ostiary_seal($1, $2, $3)",
                    target,
                    self._environment,
                    is_narrowing,
                )
            return result, _change(target, rows)

        return await self._pg.run(transaction, seconds=COMMIT_SECONDS)

    async def settle(self, change: Change) -> None:
        """Every node has confirmed `change`: take it, and what its target had pending before it, out of the outbox."""

        async def work(connection: Connection) -> None:
            await connection.execute(
                "DELETE FROM pending_propagations WHERE environment = $1 AND target = $2 AND revision <= $3",
                self._environment,
                change.target,
                change.revision,
            )

        await self._pg.run(work, seconds=OUTBOX_SECONDS)

    async def pending(self, target: str) -> Change | None:
        """All that `target` still has in the outbox, as one change; None when nothing.

        Invalidations that have been pruned meanwhile are not named: nothing as old as they are is believed any more.
        """

        async def work(connection: Connection) -> list[Change]:
            return _changes(await connection.fetch(_PENDING.format(which="target = $2"), self._environment, target))

        changes = await self._pg.run(work, seconds=OUTBOX_SECONDS, is_read=True)
        return changes[0] if changes else None

    async def latest(self, target: str) -> Change:
        """All that was ever changed, as one change of `target` that does not name what."""

        async def work(connection: Connection) -> int:
            return int(await connection.fetchval("SELECT value FROM revision"))

        return Change(target, await self._pg.run(work, seconds=OUTBOX_SECONDS, is_read=True), ())

    async def pending_older_than(self, seconds: float, limit: int) -> list[Change]:
        """At most `limit` targets with changes in the outbox for longer than `seconds`, the oldest first."""
        which = """target IN (
            SELECT target FROM pending_propagations
            WHERE environment = $1 AND created_at <= clock_timestamp() - make_interval(secs => $2)
            GROUP BY target ORDER BY min(created_at) LIMIT $3
        )"""

        async def work(connection: Connection) -> list[Change]:
            return _changes(await connection.fetch(_PENDING.format(which=which), self._environment, seconds, limit))

        return await self._pg.run(work, seconds=OUTBOX_SECONDS, is_read=True)

    async def count_pending(self) -> int:
        """How many changes are in the outbox."""

        async def work(connection: Connection) -> int:
            count = "SELECT count(*) FROM pending_propagations WHERE environment = $1"
            return int(await connection.fetchval(count, self._environment))

        return await self._pg.run(work, seconds=OUTBOX_SECONDS, is_read=True)


# A gateway that stops in mid-transaction must not hold its locks for ever, nor a statement outlive its caller.
_GUARD = f"""
    SET LOCAL idle_in_transaction_session_timeout = {int(COMMIT_SECONDS * 1000)};
    SET LOCAL statement_timeout = {int(COMMIT_SECONDS * 1000)}"""

_PENDING = """
    SELECT p.target, p.reached, i.revision, i.kind || ':' || i.subject AS subject
    FROM (
        SELECT target, first_revision, revision, max(revision) OVER own AS reached, min(created_at) OVER own AS since
        FROM pending_propagations WHERE environment = $1 AND {which} WINDOW own AS (PARTITION BY target)
    ) AS p
    LEFT JOIN invalidations AS i ON i.revision BETWEEN p.first_revision AND p.revision
    ORDER BY p.since, p.target, i.revision, i.kind, i.subject"""


def _change(target: str, rows: list[asyncpg.Record]) -> Change:
    invalidations = tuple(Invalidation(row["revision"], row["subject"]) for row in rows)
    return Change(target, max((found.revision for found in invalidations), default=0), invalidations)


def _changes(rows: list[asyncpg.Record]) -> list[Change]:
    reached: dict[str, int] = {}
    found: dict[str, list[Invalidation]] = {}
    for row in rows:
        reached[row["target"]] = row["reached"]
        invalidations = found.setdefault(row["target"], [])
        if row["revision"] is not None:
            invalidations.append(Invalidation(row["revision"], row["subject"]))
    return [Change(target, revision, tuple(found[target])) for target, revision in reached.items()]
