"""Usage as the nodes write it: batches that are added exactly once, into partitions that come and go by the month."""

from collections.abc import Sequence
from typing import Final

import asyncpg

from gateway.errors import StoreUnavailable
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.records import UsedRow

WRITE_SECONDS: Final = 5.0
UPKEEP_SECONDS: Final = 10.0
LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '2s'"  # rather no upkeep now than writers that wait behind it
LOCK: Final = 0x6F7374757367  # any number that nothing else in the database locks
WRITERS_KEPT: Final = "31 days"  # far longer than any node can be in doubt about its last batch

# The writer's row is locked until the end: of a batch that was given up here, and is still under way there, and its
# repeat, only the first to come adds anything. Rows are taken in one order, so that two nodes cannot deadlock. The
# minute is told by its age, so that a node's clock is not asked; whatever that says, there is a partition for it.
_ADD: Final = """
    WITH fresh AS (
        INSERT INTO usage_writers AS w (node_id, batch) VALUES ($1, $2)
        ON CONFLICT (node_id) DO UPDATE SET batch = excluded.batch, written_at = now() WHERE w.batch < excluded.batch
        RETURNING date_trunc('minute', greatest(
            clock_timestamp() - make_interval(secs => $3),
            date_trunc('month', clock_timestamp(), 'UTC') - interval '7 days')) AS minute
    )
    INSERT INTO usage AS u
        (minute, key_id, tenant_id, user_id, route, outcome, code, requests, received_bytes, sent_bytes)
    SELECT fresh.minute, r.*
    FROM fresh, unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::bigint[], $11::bigint[], $12::bigint[])
        AS r (key_id, tenant_id, user_id, route, outcome, code, requests, received_bytes, sent_bytes)
    ORDER BY r.key_id, r.route, r.outcome, r.code
    ON CONFLICT (key_id, minute, route, outcome, code) DO UPDATE SET
        requests = u.requests + excluded.requests,
        received_bytes = u.received_bytes + excluded.received_bytes,
        sent_bytes = u.sent_bytes + excluded.sent_bytes"""

# Those of the last month, this one and the next that are missing.
_MISSING: Final = """
    SELECT to_char(month, '"usage_"YYYY"_"MM') AS name,
        to_char(month, 'YYYY-MM-DD"T"00:00"Z"') AS first,
        to_char(month + interval '1 month', 'YYYY-MM-DD"T"00:00"Z"') AS next
    FROM generate_series(-1, 1) AS n,
        LATERAL (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => n)) AS m (month)
    WHERE to_regclass(to_char(month, '"usage_"YYYY"_"MM')) IS NULL"""

_OUTDATED: Final = """
    SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'usage'::regclass AND c.relname ~ '^usage_[0-9]{4}_[0-9]{2}$' AND c.relname
        < to_char(date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => $1), '"usage_"YYYY"_"MM')"""


class UsageStore:
    """Writes the usage of one node, `node_id`, and keeps it for `retention_months` whole months beside the present."""

    def __init__(self, pg: Postgres, *, node_id: str, retention_months: int) -> None:
        self._pg = pg
        self._node_id = node_id
        self._retention_months = retention_months

    async def add(self, batch: int, age_seconds: float, rows: Sequence[UsedRow]) -> None:
        """Add `rows` to the minute of `age_seconds` ago, unless a batch with this number or a higher one was added.

        No two rows have key, route, outcome and code in common. So a batch whose fate is not known is sent again as it
        was. Raises StoreUnavailable.
        """
        columns = [list(column) for column in zip(*rows, strict=True)]

        async def work(connection: Connection) -> None:
            await connection.execute(_ADD, self._node_id, batch, age_seconds, *columns)

        try:
            await self._pg.run(work, seconds=WRITE_SECONDS)
        except asyncpg.IntegrityConstraintViolationError as error:  # a partition that should be there is not
            raise StoreUnavailable(f"Postgres: usage cannot be added: {error}") from error

    async def keep_partitions(self) -> None:
        """Make the partitions that are needed until next month, and drop those that are too old.

        Any number of nodes may do it at once. Nobody who reads or writes waits for it longer than two seconds.
        Raises StoreUnavailable.
        """
        await self._pg.run(self._make_missing, seconds=UPKEEP_SECONDS)
        await self._pg.run(self._drop_outdated, seconds=UPKEEP_SECONDS)

    async def _make_missing(self, connection: Connection) -> None:
        async with connection.transaction():
            await connection.execute(LOCK_TIMEOUT)
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            for row in await connection.fetch(_MISSING):
                # Made apart and then attached: to be made as a part would keep all readers and writers out.
                await connection.execute(f'CREATE TABLE "{row["name"]}" (LIKE usage INCLUDING ALL)')
                await connection.execute(
                    f'ALTER TABLE usage ATTACH PARTITION "{row["name"]}"'
                    f" FOR VALUES FROM ('{row['first']}') TO ('{row['next']}')"
                )

    async def _drop_outdated(self, connection: Connection) -> None:
        async with connection.transaction():
            await connection.execute(LOCK_TIMEOUT)
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            for row in await connection.fetch(_OUTDATED, self._retention_months):
                await connection.execute(f'DROP TABLE "{row["name"]}"')
            await connection.execute(
                f"DELETE FROM usage_writers WHERE written_at < now() - interval '{WRITERS_KEPT}'"  # noqa: S608  # ours
            )
