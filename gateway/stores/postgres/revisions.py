"""The log of what has changed, and the nodes that follow it (docs/consistency.md)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from gateway.errors import StoreUnavailable
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.records import Invalidation

# Below the bound by which a view must have been refreshed, so that a hung poll leaves time for another.
POLL_SECONDS = 1.0
REPORT_SECONDS = 1.0
PRUNE_SECONDS = 5.0
# More news than this at once: forgetting everything costs less than reading it.
POLL_LIMIT = 10_000
PRUNE_BATCH = 10_000
# Other nodes may have seen more of the lost past than the one that speaks first.
SKIP = 1_000_000

_POLL = """
    SELECT
        r.value, {floor} AS floor, extract(epoch FROM clock_timestamp())::float8 AS database_time,
        CASE WHEN pg_is_in_recovery() THEN '' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END
            || '/' || r.made AS timeline,
        i.*
    FROM {source}
    LEFT JOIN LATERAL (
        SELECT n.revision, n.kind || ':' || n.subject AS subject
        FROM invalidations AS n
        WHERE n.revision > {above}
        ORDER BY n.revision
        LIMIT {limit}
    ) AS i ON true"""
_ABOVE_CURSOR = _POLL.format(
    source="(SELECT value, tableoid AS made, pruned_to FROM revision) AS r",
    floor="r.pruned_to",
    above="$1::bigint",
    limit=POLL_LIMIT + 1,
)
_YOUNGER_THAN = _POLL.format(
    source="""(
        SELECT value, tableoid AS made, greatest(pruned_to, (
            SELECT max(revision) FROM invalidations
            WHERE created_at <= clock_timestamp() - make_interval(secs => $1)
        )) AS floor
        FROM revision
    ) AS r""",
    floor="r.floor",
    above="r.floor",
    limit=POLL_LIMIT + 1,
)


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """What one snapshot of the log shows.

    `revision` is the latest. `invalidations` are all those above the cursor, or above `pruned_to` where there was
    none, in order of revision. Of what happened up to and including `pruned_to` the answer knows nothing: a cursor
    below it has lost its place. `is_truncated`: there were too many, and none is given; only what is stamped
    `revision` or later can be trusted. `database_time` is seconds since the epoch by the database's clock. `timeline`
    names the history that the database goes on with: another one after every failover, and where the table has been
    made anew, as a backup's is that is restored beside the old one.
    """

    revision: int
    pruned_to: int
    database_time: float
    invalidations: tuple[Invalidation, ...]
    is_truncated: bool = False
    timeline: str = ""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What a node says about itself. `view_age_seconds` is None while it has no view; `signs` are its vital signs."""

    id: str
    environment: str
    version: str
    revision: int
    view_age_seconds: float | None
    signs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as it last reported. `seen_seconds_ago` is by the database's clock alone."""

    id: str
    version: str
    revision: int
    view_age_seconds: float | None
    started_at: datetime
    seen_at: datetime
    seen_seconds_ago: float
    signs: Mapping[str, Any] = field(default_factory=dict)


class RevisionLog:
    """The log and the list of nodes, in Postgres. Every method raises StoreUnavailable."""

    def __init__(self, pg: Postgres) -> None:
        self._pg = pg

    async def poll(self, cursor: int) -> PollAnswer:
        """Everything above `cursor`."""

        async def work(connection: Connection) -> PollAnswer:
            return _answer(await connection.fetch(_ABOVE_CURSOR, cursor))

        return await self._pg.run(work, seconds=POLL_SECONDS, is_read=True)

    async def start(self, retention_seconds: float) -> PollAnswer:
        """What a node without a past needs: everything younger than `retention_seconds`.

        Its `pruned_to` is the youngest revision older than that.
        """

        async def work(connection: Connection) -> PollAnswer:
            return _answer(await connection.fetch(_YOUNGER_THAN, retention_seconds))

        return await self._pg.run(work, seconds=POLL_SECONDS, is_read=True)

    async def report(self, node: NodeReport) -> None:
        """Say that `node` lives, and how far its view has come. Its first report is its start."""

        async def work(connection: Connection) -> None:
            await connection.execute(
                """
                INSERT INTO nodes AS n (id, environment, version, revision, view_age_seconds, signs)
                VALUES ($1, $2, $3, $4, $5, $6)
                ON CONFLICT (id) DO UPDATE SET
                    environment = excluded.environment, version = excluded.version, revision = excluded.revision,
                    view_age_seconds = excluded.view_age_seconds, signs = excluded.signs,
                    seen_at = clock_timestamp()
                """,
                node.id,
                node.environment,
                node.version,
                node.revision,
                node.view_age_seconds,
                json.dumps(node.signs),
            )

        await self._pg.run(work, seconds=REPORT_SECONDS)

    async def leave(self, node_id: str) -> None:
        """Strike the node itself off the list, at its orderly end."""
        await self.forget(node_id)

    async def forget(self, node_id: str, *, silent_seconds: float = 0.0) -> None:
        """Strike a node off the list, unless it has reported within `silent_seconds`. No-op for one not on it."""

        async def work(connection: Connection) -> None:
            await connection.execute(
                "DELETE FROM nodes WHERE id = $1 AND seen_at <= clock_timestamp() - make_interval(secs => $2)",
                node_id,
                silent_seconds,
            )

        await self._pg.run(work, seconds=REPORT_SECONDS)

    async def nodes(self, environment: str) -> list[NodeRow]:
        """The nodes of `environment`, the longest-lived first, dead ones included until they are forgotten."""

        async def work(connection: Connection) -> list[NodeRow]:
            rows = await connection.fetch(
                """
                SELECT id, version, revision, view_age_seconds, started_at, seen_at, signs,
                    extract(epoch FROM clock_timestamp() - seen_at)::float8 AS seen_seconds_ago
                FROM nodes WHERE environment = $1 ORDER BY started_at, id
                """,
                environment,
            )
            return [NodeRow(**{**row, "signs": json.loads(row["signs"])}) for row in rows]

        return await self._pg.run(work, seconds=REPORT_SECONDS, is_read=True)

    async def skip_past(self, lost: int) -> None:
        """Void everything, by a revision well above `lost`: the highest of a past that this database has lost.

        Entries stamped in that past would otherwise pass for newer than what happens now. No-op once done.
        """

        async def work(connection: Connection) -> None:
            await connection.execute(
                """
                WITH skipped AS (UPDATE revision SET value = $1::bigint + $2 WHERE value <= $1 RETURNING value)
                INSERT INTO invalidations (revision, kind, subject) SELECT value, 'all', '' FROM skipped
                """,
                lost,
                SKIP,
            )

        await self._pg.run(work, seconds=REPORT_SECONDS)

    async def prune(self, older_than_seconds: float) -> int:
        """Delete the invalidations older than that, and say in `pruned_to` that they are gone; how many there were."""
        pruned = 0
        while True:
            batch = await self._pg.run(
                lambda connection: _prune_batch(connection, older_than_seconds), seconds=PRUNE_SECONDS
            )
            pruned += batch
            if batch < PRUNE_BATCH:
                return pruned

    async def seal_key(self) -> bytes:
        """The secret that all nodes of this database share."""

        async def work(connection: Connection) -> bytes:
            seal_key = await connection.fetchval("SELECT seal_key FROM deployment")
            if not isinstance(seal_key, bytes):
                raise StoreUnavailable("Postgres: the deployment has no seal key")
            return seal_key

        return await self._pg.run(work, seconds=REPORT_SECONDS, is_read=True)


def _answer(rows: list[asyncpg.Record]) -> PollAnswer:
    if not rows:
        raise StoreUnavailable("Postgres: the table `revision` is empty")
    is_truncated = len(rows) > POLL_LIMIT
    invalidations = (
        ()
        if is_truncated
        else (Invalidation(row["revision"], row["subject"]) for row in rows if row["revision"] is not None)
    )
    head = rows[0]
    return PollAnswer(
        head["value"], head["floor"], head["database_time"], tuple(invalidations), is_truncated, head["timeline"]
    )


async def _prune_batch(connection: Connection, older_than_seconds: float) -> int:
    async with connection.transaction():
        # Whole revisions, the oldest first. The revision's row is locked last, for one statement.
        rows = await connection.fetch(
            """
            DELETE FROM invalidations WHERE revision <= (
                SELECT max(revision) FROM (
                    SELECT revision FROM invalidations
                    WHERE created_at < clock_timestamp() - make_interval(secs => $1)
                    ORDER BY revision LIMIT $2
                ) AS oldest
            )
            RETURNING revision
            """,
            older_than_seconds,
            PRUNE_BATCH,
        )
        if rows:
            highest = max(row["revision"] for row in rows)
            await connection.execute("UPDATE revision SET pruned_to = greatest(pruned_to, $1)", highest)
        return len(rows)
