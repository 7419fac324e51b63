"""The SQL of tokens that are for one request: whose first use it is. Runs inside the caller's transaction."""

from gateway.stores.postgres.connection import Connection
from gateway.stores.postgres.purging import purge_batch

# After a token's end: longer than the clock of a database that takes over may be behind.
KEPT_SECONDS = 3600.0


async def use(connection: Connection, token_id: str, ends_at: float) -> bool:
    """Whether this is the token's first use, which it then has had. `ends_at`: seconds since the epoch."""
    tag = await connection.execute(
        "INSERT INTO used_tokens (id, expires_at) VALUES ($1, to_timestamp($2)) ON CONFLICT DO NOTHING",
        token_id,
        ends_at,
    )
    return tag.endswith(" 1")


async def is_used(connection: Connection, token_id: str) -> bool:
    """Whether it has been used."""
    return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM used_tokens WHERE id = $1)", token_id))


async def purge(connection: Connection) -> int:
    """Forget a few whose tokens ended long ago; how many."""
    return await purge_batch(connection, "used_tokens", "id", kept_seconds=KEPT_SECONDS)
