"""The SQL of replies that are kept for a repeat. `claim` and `keep` run inside the mutation's own transaction."""

from dataclasses import dataclass, field

from gateway.errors import Fault, GatewayError
from gateway.stores.postgres.connection import Connection
from gateway.stores.postgres.purging import purge_batch

KEPT_SECONDS = 24 * 3600.0


class RequestInFlight(GatewayError):
    """A request with the same Idempotency-Key is being handled now, on this node or another (R301)."""

    code = "request_in_flight"
    status = 409
    fault = Fault.CLIENT
    public = "A request with this Idempotency-Key is being handled. Repeat it a little later."
    retry_after_seconds = 1


@dataclass(frozen=True, slots=True)
class SealedReply:
    """A reply that nobody can read who has not its Idempotency-Key."""

    salt: bytes
    sealed: bytes = field(repr=False)


async def claim(connection: Connection, lookup: bytes) -> SealedReply | None:
    """What was answered before; None where the transaction is now the only one that may answer.

    The claim goes with the transaction, however that ends: nothing is left behind by a process that dies.
    Raises RequestInFlight.
    """
    high, low = (int.from_bytes(lookup[at : at + 4], signed=True) for at in (0, 4))
    if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1::int, $2::int)", high, low):
        raise RequestInFlight
    return await find(connection, lookup)


async def find(connection: Connection, lookup: bytes) -> SealedReply | None:
    """The reply under this hash, unless it has expired."""
    row = await connection.fetchrow(
        "SELECT salt, sealed FROM idempotent_replies WHERE lookup = $1 AND expires_at > clock_timestamp()", lookup
    )
    return None if row is None else SealedReply(row["salt"], row["sealed"])


async def keep(connection: Connection, lookup: bytes, reply: SealedReply) -> None:
    """Keep the reply of a transaction that has claimed `lookup`, in the place of one that has expired."""
    await connection.execute(
        "INSERT INTO idempotent_replies (lookup, salt, sealed, expires_at)"
        " VALUES ($1, $2, $3, now() + make_interval(secs => $4)) ON CONFLICT (lookup) DO UPDATE SET"
        " salt = excluded.salt, sealed = excluded.sealed, created_at = now(), expires_at = excluded.expires_at",
        lookup,
        reply.salt,
        reply.sealed,
        KEPT_SECONDS,
    )


async def purge(connection: Connection) -> int:
    """Delete a few replies that have expired; how many."""
    return await purge_batch(connection, "idempotent_replies", "lookup")
