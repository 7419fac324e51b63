import asyncio

import asyncpg
import pytest

from gateway.errors import StoreUnavailable
from gateway.stores.postgres.changes import Change, Changes
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.revisions import RevisionLog
from gateway.stores.records import Invalidation
from tests.fixtures.rows import CURRENT, RETIRED


@pytest.fixture
def changes(pg: Postgres) -> Changes:
    """The subject of these tests."""
    return Changes(pg, environment="test")


async def do(changes: Changes, *statements: str, target: str = "key:k1", is_narrowing: bool = True) -> Change:
    async def work(connection: Connection) -> str:
        for statement in statements:
            await connection.execute(statement)
        return "done"

    result, change = await changes.commit(work, target=target, is_narrowing=is_narrowing)
    assert result == "done"
    return change


REVOKE = "UPDATE api_keys SET revoked_at = clock_timestamp()"
END = "DELETE FROM retired_secrets"


def of_key(revision: int, digest: bytes) -> tuple[Invalidation, ...]:
    return (Invalidation(revision, f"digest:{digest.hex()}"), Invalidation(revision, "key:k1"))


async def test_narrowing(changes: Changes) -> None:
    """A narrowing change is in the outbox by its commit, whole, and leaves it when settled. R234."""
    change = await do(changes, REVOKE, END)
    assert change == Change("key:k1", 9, of_key(8, CURRENT) + of_key(9, RETIRED))
    assert await changes.count_pending() == 1
    assert await changes.pending("key:k1") == change
    assert await changes.pending("key:k2") is None
    await changes.settle(change)
    assert await changes.pending("key:k1") is None
    assert await changes.count_pending() == 0


async def test_widening(changes: Changes) -> None:
    """A widening change is told, but nobody has to wait for it."""
    change = await do(changes, "UPDATE api_keys SET expires_at = NULL, scopes = '{x}'", is_narrowing=False)
    assert change == Change("key:k1", 8, of_key(8, CURRENT))
    assert await changes.count_pending() == 0


async def test_nothing_that_decides(changes: Changes) -> None:
    """What decides nothing takes no revision and is not in the outbox, though called narrowing."""
    assert await do(changes, "UPDATE api_keys SET last_used_at = now()") == Change("key:k1", 0, ())
    assert await do(changes, REVOKE, "UPDATE api_keys SET revoked_at = NULL") != Change("key:k1", 0, ())
    assert await changes.count_pending() == 1


async def test_failure(changes: Changes, pg: Postgres) -> None:
    """Work that fails in the middle has changed nothing. R235 R091."""
    before = await RevisionLog(pg).poll(0)
    with pytest.raises(asyncpg.UniqueViolationError):
        await do(changes, REVOKE, "INSERT INTO tenants (id, name) VALUES ('t1', '')")
    with pytest.raises(StoreUnavailable):
        await do(changes, REVOKE, "SELECT 1 / 0")
    after = await RevisionLog(pg).poll(0)
    assert (after.revision, after.invalidations) == (before.revision, before.invalidations)
    assert await changes.count_pending() == 0


async def test_resuming(changes: Changes) -> None:
    """What a target has pending from several calls is resumed as one; settling the older keeps the newer. R233."""
    first = await do(changes, REVOKE)
    await do(changes, "UPDATE plans SET tier = 0", target="plan:basic")
    second = await do(changes, REVOKE)
    both = Change("key:k1", second.revision, first.invalidations + second.invalidations)
    assert await changes.pending("key:k1") == both
    assert await changes.count_pending() == 3
    await changes.settle(first)
    assert await changes.pending("key:k1") == second
    await changes.settle(both)
    assert await changes.pending("key:k1") is None
    assert await changes.count_pending() == 1


async def test_relays(changes: Changes) -> None:
    """Relays find what has been left in the outbox for too long, the oldest first, and nothing younger. R234."""
    plan = await do(changes, "UPDATE plans SET tier = 0", target="plan:basic")
    key = await do(changes, REVOKE)
    assert await changes.pending_older_than(60, 10) == []
    assert await changes.pending_older_than(0, 10) == [plan, key]
    assert await changes.pending_older_than(0, 1) == [plan]


async def test_pruned_invalidations(changes: Changes, pg: Postgres) -> None:
    """A change that outlives its invalidations still waits for its revision."""
    change = await do(changes, REVOKE)
    await RevisionLog(pg).prune(0)
    assert await changes.pending("key:k1") == Change("key:k1", change.revision, ())


async def test_own_invalidations_only(changes: Changes) -> None:
    """A change names what its own transaction changed, however many run beside it."""

    async def one(number: int) -> None:
        insert = f"INSERT INTO plans (name) VALUES ('p{number}')"
        change = await do(changes, insert, f"UPDATE plans SET tier = 3 WHERE name = 'p{number}'")
        assert [found.subject for found in change.invalidations] == [f"plan:p{number}"] * 2

    await asyncio.gather(*(one(number) for number in range(40)))


async def test_guards(changes: Changes) -> None:
    """A gateway that stops in the middle of a change does not hold its locks for ever. R238."""

    async def work(connection: Connection) -> list[str]:
        names = ("idle_in_transaction_session_timeout", "statement_timeout")
        return [await connection.fetchval(f"SHOW {name}") for name in names]

    assert (await changes.commit(work, target="key:k1", is_narrowing=False))[0] == ["5s", "5s"]
