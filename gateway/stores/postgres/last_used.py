"""When keys were last used: bookkeeping, which no revision counts."""

from collections.abc import Sequence

from gateway.stores.postgres.connection import Connection, Postgres

WRITE_SECONDS = 2.0

# Rows that somebody is changing are left for the next time; what others wrote a moment ago is not written again (R310).
_STATEMENT = """
    UPDATE api_keys SET last_used_at = clock_timestamp() WHERE id IN (
        SELECT id FROM api_keys
        WHERE id = ANY($1) AND (last_used_at IS NULL OR last_used_at <= clock_timestamp() - make_interval(secs => $2))
        ORDER BY id FOR UPDATE SKIP LOCKED
    )"""


class LastUsedStore:
    """Writes `last_used_at`."""

    def __init__(self, pg: Postgres) -> None:
        self._pg = pg

    async def write(self, key_ids: Sequence[str], *, interval_seconds: float) -> None:
        """Say that these keys are in use now, where nobody has said so within the interval. Raises StoreUnavailable."""

        async def work(connection: Connection) -> None:
            await connection.execute(_STATEMENT, key_ids, interval_seconds)

        await self._pg.run(work, seconds=WRITE_SECONDS)
