"""Rows that nobody needs any more, deleted a few at a time. Runs inside the caller's transaction."""

from typing import Final

from gateway.stores.postgres.connection import Connection

BATCH: Final = 1000


async def purge_batch(connection: Connection, table: str, key: str, *, kept_seconds: float = 0.0) -> int:
    """Delete up to BATCH rows that expired `kept_seconds` ago, the oldest first; how many.

    Those that others are deleting are left to them. `table` and `key` are names, and parts of the statement.
    """
    tag = await connection.execute(
        f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table}"  # noqa: S608  # ours
        " WHERE expires_at <= now() - make_interval(secs => $1) ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        kept_seconds,
        BATCH,
    )
    return int(tag.rpartition(" ")[2])
