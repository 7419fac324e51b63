"""The database's time, which decides what has ended."""

from datetime import datetime

from gateway.stores.postgres.connection import Connection


async def now(connection: Connection) -> float:
    """Seconds since the epoch, this moment."""
    return float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))


async def has_passed(connection: Connection, moment: datetime | None) -> bool:
    """Whether the moment is not ahead of the transaction; None never comes."""
    return bool(await connection.fetchval("SELECT coalesce($1::timestamptz <= now(), false)", moment))
