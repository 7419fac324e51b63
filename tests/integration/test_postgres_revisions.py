from dataclasses import replace

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.revisions import POLL_LIMIT, PRUNE_BATCH, NodeReport, RevisionLog
from gateway.stores.records import Invalidation


@pytest.fixture
def log(pg: Postgres) -> RevisionLog:
    """The subject of these tests."""
    return RevisionLog(pg)


async def execute(pg: Postgres, statement: str) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute(statement)

    await pg.run(work, seconds=20)


async def database_time(pg: Postgres) -> float:
    async def work(connection: Connection) -> float:
        return float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())"))

    return await pg.run(work, seconds=5)


async def age(pg: Postgres, up_to: int) -> None:
    await execute(pg, f"UPDATE invalidations SET created_at = now() - interval '1 hour' WHERE revision <= {up_to}")


async def test_poll(log: RevisionLog, pg: Postgres) -> None:
    """A poll brings what is above the cursor, and the database's time. R045."""
    before = await database_time(pg)
    answer = await log.poll(4)
    after = await database_time(pg)
    assert (answer.revision, answer.pruned_to, answer.is_truncated) == (7, 1, False)
    assert {found.revision for found in answer.invalidations} == {5, 6, 7}
    assert answer.invalidations[0] == Invalidation(5, "user:u1")
    assert before <= answer.database_time <= after
    assert (await log.poll(7)).invalidations == ()
    assert (await log.poll(99)).revision == 7


async def test_start(log: RevisionLog, pg: Postgres) -> None:
    """A fresh node gets what is young enough to matter, and is told where its knowledge begins. R237."""
    await age(pg, up_to=5)
    answer = await log.start(60)
    assert (answer.revision, answer.pruned_to) == (7, 5)
    assert {found.revision for found in answer.invalidations} == {6, 7}
    answer = await log.start(7200)
    assert (answer.revision, answer.pruned_to) == (7, 1)
    assert {found.revision for found in answer.invalidations} == set(range(2, 8))


async def test_prune(log: RevisionLog, pg: Postgres) -> None:
    """What is pruned is said to be: a cursor below it has lost its place, one at it has not. R237."""
    assert await log.prune(60) == 0
    await age(pg, up_to=5)
    assert await log.prune(60) == 4
    answer = await log.poll(3)
    assert answer.pruned_to == 5
    assert {found.revision for found in answer.invalidations} == {6, 7}
    assert (await log.start(7200)).pruned_to == 5
    assert await log.prune(60) == 0
    assert (await log.poll(3)).pruned_to == 5


async def test_prune_much(log: RevisionLog, pg: Postgres) -> None:
    """Much is pruned in batches, whole revisions each."""
    await execute(pg, f"INSERT INTO plans (name) SELECT 'p' || n FROM generate_series(1, {PRUNE_BATCH + 5}) n")
    await execute(pg, "UPDATE plans SET tier = 1 WHERE name = 'basic'")
    assert await log.prune(0) == PRUNE_BATCH + 5 + 9
    answer = await log.start(7200)
    assert (answer.revision, answer.pruned_to, answer.invalidations) == (9, 9, ())


async def test_too_much_news(log: RevisionLog, pg: Postgres) -> None:
    """More news than one answer may hold is said to be: none is given, rather than a part. R237."""
    await execute(pg, f"INSERT INTO plans (name) SELECT 'p' || n FROM generate_series(1, {POLL_LIMIT}) n")
    answer = await log.poll(7)
    assert (answer.revision, len(answer.invalidations), answer.is_truncated) == (8, POLL_LIMIT, False)
    for answer in (await log.poll(6), await log.start(7200)):
        assert (answer.revision, answer.invalidations, answer.is_truncated) == (8, (), True)


async def test_no_revision(log: RevisionLog, pg: Postgres) -> None:
    """A log without its counter is an outage, not a log without news. R047."""
    await execute(pg, "DELETE FROM revision")
    with pytest.raises(StoreUnavailable):
        await log.poll(7)
    with pytest.raises(StoreUnavailable):
        await log.start(60)


async def test_nodes(log: RevisionLog, pg: Postgres) -> None:
    """Nodes are listed per environment with what they last reported, until they leave or are forgotten. R053 R236."""
    node = NodeReport("n1", "test", "1.0", 5, None)
    await log.report(node)
    await log.report(replace(node, id="n2"))
    await log.report(replace(node, id="elsewhere", environment="other"))
    first = (await log.nodes("test"))[0]
    await execute(pg, "UPDATE nodes SET seen_at = seen_at - interval '1 minute'")
    assert 60 <= (await log.nodes("test"))[0].seen_seconds_ago < 90
    await log.report(replace(node, revision=7, view_age_seconds=0.25))
    again = (await log.nodes("test"))[0]
    assert (again.id, again.revision, again.view_age_seconds, again.version) == ("n1", 7, 0.25, "1.0")
    assert again.started_at == first.started_at
    assert again.seen_seconds_ago < 60
    await log.leave("n1")
    assert [row.id for row in await log.nodes("test")] == ["n2"]
    await log.forget("n2")
    await log.forget("n2")
    assert await log.nodes("test") == []
    assert [row.id for row in await log.nodes("other")] == ["elsewhere"]


async def test_seal_key(log: RevisionLog, pg: Postgres) -> None:
    """The nodes of a database share one secret of 256 bits, which stays the same."""
    key = await log.seal_key()
    assert len(key) == 32
    assert await log.seal_key() == key
    await execute(pg, "DELETE FROM deployment")
    with pytest.raises(StoreUnavailable):
        await log.seal_key()
