"""When keys and their secrets were last used: bookkeeping, which no revision counts."""

from collections.abc import Callable, Sequence

from gateway.stores.postgres.connection import Connection, Postgres

WRITE_SECONDS = 2.0
RETIRED_INTERVAL_SECONDS = 10.0  # between two writes about a retired secret; below that of the nodes' notes

# Rows that somebody is changing are left for the next time; what others wrote a moment ago is not written again (R310).
# The first use of a secret is always written, and the first one after its retirement: who has rotated waits for them.
_KEYS = """
    UPDATE api_keys SET
        last_used_at = statement_timestamp(),
        secret_first_used_at = CASE WHEN secret_id = ANY($2) THEN coalesce(secret_first_used_at, statement_timestamp())
            ELSE secret_first_used_at END,
        secret_last_used_at = CASE WHEN secret_id = ANY($2) THEN statement_timestamp() ELSE secret_last_used_at END
    WHERE id IN (
        SELECT id FROM api_keys
        WHERE id = ANY($1) AND (
            last_used_at IS NULL OR last_used_at <= clock_timestamp() - make_interval(secs => $3)
            OR (secret_id = ANY($2) AND secret_first_used_at IS NULL))
        ORDER BY id FOR UPDATE SKIP LOCKED
    )"""
_RETIRED_SECRETS = """
    UPDATE retired_secrets SET last_used_at = clock_timestamp() WHERE id IN (
        SELECT id FROM retired_secrets
        WHERE id = ANY($1) AND (last_used_at IS NULL OR last_used_at <= retired_at
            OR last_used_at <= clock_timestamp() - make_interval(secs => $2))
        ORDER BY id FOR UPDATE SKIP LOCKED
    )"""


class LastUsedStore:
    """Writes when what was used. `ids_of` tells the ids of the key and of the secret of a use."""

    def __init__(self, pg: Postgres, ids_of: Callable[[str], tuple[str, str]]) -> None:
        self._pg = pg
        self._ids_of = ids_of

    async def write(self, uses: Sequence[str], *, interval_seconds: float) -> None:
        """Say that this is in use now, where nobody has said so within the interval. Raises StoreUnavailable."""
        ids = [self._ids_of(use) for use in uses]
        key_ids, secret_ids = [key_id for key_id, _ in ids], [secret_id for _, secret_id in ids]

        async def work(connection: Connection) -> None:
            await connection.execute(_KEYS, key_ids, secret_ids, interval_seconds)
            await connection.execute(_RETIRED_SECRETS, secret_ids, RETIRED_INTERVAL_SECONDS)

        await self._pg.run(work, seconds=WRITE_SECONDS)
