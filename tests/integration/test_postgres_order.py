import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from gateway.stores.postgres.changes import Change, Changes
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.lookup import KeyLookup
from gateway.stores.postgres.revisions import PollAnswer, RevisionLog
from gateway.telemetry.metrics import Metrics
from tests.fixtures.rows import CURRENT, plant

WRITERS = 8
CHANGES_EACH = 25


@pytest.fixture
async def pg(postgres_dsn: str) -> AsyncIterator[Postgres]:
    """A database with a few rows."""
    await plant(postgres_dsn)
    postgres = Postgres(postgres_dsn, pool_size=WRITERS + 2, metrics=Metrics())
    await postgres.open()
    yield postgres
    await postgres.close()


async def test_revision_order_is_commit_order(pg: Postgres) -> None:
    """Under concurrent writers no revision ever appears at or below one that a poll has already reported. R237."""
    changes, log = Changes(pg, environment="test"), RevisionLog(pg)
    dice = random.Random(7)

    async def write(writer: int) -> list[Change]:
        done = []
        for number in range(CHANGES_EACH):
            statements = dice.randint(1, 3)

            async def work(connection: Connection, number: int = number, statements: int = statements) -> None:
                for statement in range(statements):
                    await connection.execute("INSERT INTO plans (name) VALUES ($1)", f"p{writer}-{number}-{statement}")

            _, change = await changes.commit(work, target=f"plan:{writer}", is_narrowing=False)
            assert len(change.invalidations) == statements
            done.append(change)
        return done

    async def follow(writing: "asyncio.Future[list[list[Change]]]", cursor: int) -> list[PollAnswer]:
        answers = []
        is_last = False
        while not is_last:
            is_last = writing.done()
            answer = await log.poll(cursor)
            revisions = [found.revision for found in answer.invalidations]
            assert sorted(set(revisions)) == list(range(cursor + 1, answer.revision + 1))
            cursor = answer.revision
            answers.append(answer)
        return answers

    start = await log.poll(0)
    writing = asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    answers = await follow(writing, start.revision)
    told = {found for answer in answers for found in answer.invalidations}
    made = {found for done in writing.result() for change in done for found in change.invalidations}
    assert told == made
    for done in writing.result():
        for change in done:
            revisions = sorted(found.revision for found in change.invalidations)
            assert revisions == list(range(revisions[0], change.revision + 1)), (
                "a transaction's revisions are contiguous"
            )
        assert [change.revision for change in done] == sorted(change.revision for change in done)


async def test_deletions_meet_revocations(pg: Postgres) -> None:
    """A tenant that is deleted while its keys are being changed deadlocks with none of those changes. R103 R215."""
    changes = Changes(pg, environment="test")

    async def tenant(connection: Connection) -> None:
        await connection.execute("INSERT INTO tenants (id, name) VALUES ('big', '')")
        await connection.execute(
            "INSERT INTO users (id, tenant_id) SELECT 'b' || n, 'big' FROM generate_series(1, 40) n"
        )
        await connection.execute(
            "INSERT INTO entitlements (user_id, plan) SELECT id, 'basic' FROM users WHERE tenant_id = 'big'"
        )

    await changes.commit(tenant, target="tenant:big", is_narrowing=False)

    async def change(number: int) -> None:
        async def work(connection: Connection) -> None:
            await connection.execute("UPDATE entitlements SET valid_until = now() WHERE user_id = $1", f"b{number}")

        await changes.commit(work, target=f"user:b{number}", is_narrowing=True)

    async def delete(connection: Connection) -> None:
        await connection.execute("DELETE FROM tenants WHERE id = 'big'")

    await asyncio.gather(
        *(change(number) for number in range(1, 21)),
        changes.commit(delete, target="tenant:big", is_narrowing=True),
        *(change(number) for number in range(21, 41)),
    )


async def test_stamp_is_of_the_same_snapshot(pg: Postgres) -> None:
    """The revision of a finding is the one under which its facts were true, also while they change. R231."""
    lookup = KeyLookup(pg)
    stop = asyncio.Event()

    async def write(connection: Connection) -> int:
        count = 0
        while not stop.is_set():
            # The sole writer knows the revision that its statement is going to take.
            await connection.execute("UPDATE api_keys SET expires_at = to_timestamp((SELECT value + 1 FROM revision))")
            count += 1
        return count

    writing = asyncio.ensure_future(pg.run(write, seconds=20))
    seen: set[int] = set()
    while len(seen) < 50 and not writing.done():
        finding = await lookup.find((CURRENT,))
        assert finding.record is not None
        if finding.record.key_expires_at is not None:
            assert finding.record.key_expires_at == finding.revision
            seen.add(finding.revision)
    stop.set()
    assert await writing >= len(seen) - 1
