"""Usage in a real Postgres: batches are added once, whatever becomes of the answer; partitions come and go."""

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.migrate import migrate
from gateway.stores.postgres.usage import UsageStore
from gateway.stores.records import UsedRow
from gateway.telemetry.metrics import Metrics
from tests.fixtures import psql

Stores = Callable[..., UsageStore]


@pytest.fixture
async def stores(postgres_dsn: str) -> AsyncIterator[Stores]:
    """Makes the stores of nodes, which have all partitions that they need."""
    postgres = Postgres(postgres_dsn, metrics=Metrics())
    await postgres.open()

    def store(node_id: str = "node_a", *, retention_months: int = 13) -> UsageStore:
        return UsageStore(postgres, node_id=node_id, retention_months=retention_months)

    await store().keep_partitions()
    yield store
    await postgres.close()


def used(key_id: str = "key_1", *, route: str = "orders", requests: int = 1, size: int = 10) -> UsedRow:
    return UsedRow(key_id, "acme", "ada", route, "forwarded", "2xx", requests, size, 2 * size)


TOTALS = (
    "SELECT key_id, sum(requests)::int, sum(received_bytes)::int, sum(sent_bytes)::int FROM usage GROUP BY 1 ORDER BY 1"
)
PARTITIONS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage'::regclass ORDER BY 1"


async def test_a_batch_that_comes_again_changes_nothing(stores: Stores, postgres_dsn: str) -> None:
    """A batch whose answer was lost is sent again as it was, and counts once; so does one that comes late."""
    store = stores()
    await store.add(1, 0.0, [used(), used("key_2", requests=3)])
    await store.add(1, 0.0, [used(), used("key_2", requests=3)])
    await store.add(2, 0.0, [used(requests=5)])
    await store.add(1, 0.0, [used(), used("key_2", requests=3)])
    assert await psql.rows(postgres_dsn, TOTALS) == [("key_1", 6, 20, 40), ("key_2", 3, 10, 20)]


async def test_a_batch_and_its_repeat_at_once(stores: Stores, postgres_dsn: str) -> None:
    """A batch that was given up, and is still under way in the database, meets its repeat there: one of them counts."""
    for number in range(1, 6):
        await asyncio.gather(*(stores().add(number, 0.0, [used(f"key_{n}") for n in range(200)]) for _ in range(4)))
    assert await psql.rows(postgres_dsn, "SELECT sum(requests)::int, count(*)::int FROM usage WHERE requests <= 5") == [
        (1000, 200)
    ]


async def test_nodes_add_to_the_same_rows(stores: Stores, postgres_dsn: str) -> None:
    """Whatever order their rows are in, nodes neither deadlock nor overwrite each other."""
    rows = [used(f"key_{n}", route=route) for n in range(100) for route in ("orders", "payments")]
    orders = [rows, rows[::-1], rows[50:] + rows[:50]]
    for number in range(1, 4):
        await asyncio.gather(
            *(stores(f"node_{n}").add(number, 0.0, order) for n, order in enumerate(orders)),
        )
    assert await psql.rows(postgres_dsn, "SELECT sum(requests)::int FROM usage") == [(1800,)]
    assert await psql.rows(postgres_dsn, "SELECT count(*)::int FROM usage_writers") == [(3,)]


async def test_the_minute_is_told_by_its_age(stores: Stores, postgres_dsn: str) -> None:
    """By the database's clock; what is older than anything can be falls into the oldest partition that is kept."""
    await stores().add(1, 600.0, [used()])
    await stores().add(2, 1e9, [used("key_2")])
    rows = await psql.rows(
        postgres_dsn, "SELECT key_id, extract(epoch FROM now() - minute)::float8 FROM usage ORDER BY 1"
    )
    assert 600 <= rows[0][1] < 665 or rows[0][1] < 600 + 120
    assert rows[1][1] < 40 * 86400
    assert await psql.rows(postgres_dsn, "SELECT extract(second FROM minute)::int FROM usage") == [(0,), (0,)]


async def test_partitions_are_made_ahead_and_dropped_when_outdated(stores: Stores, postgres_dsn: str) -> None:
    """There is one for each of three months; what is older than the retention goes with its partition, whole."""
    made = await psql.rows(
        postgres_dsn,
        """SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => n),
        '"usage_"YYYY"_"MM') FROM generate_series(-1, 1) AS n ORDER BY 1""",
    )
    assert await psql.rows(postgres_dsn, PARTITIONS) == made
    await psql.rows(
        postgres_dsn, "CREATE TABLE usage_2020_01 PARTITION OF usage FOR VALUES FROM ('2020-01-01Z') TO ('2020-02-01Z')"
    )
    await psql.rows(
        postgres_dsn,
        "INSERT INTO usage VALUES ('2020-01-05Z', 'old', '', '', 'orders', 'forwarded', '2xx', 1, 0, 0),"
        " (now() - interval '1 month', 'young', '', '', 'orders', 'forwarded', '2xx', 1, 0, 0)",
    )
    await psql.rows(postgres_dsn, "INSERT INTO usage_writers VALUES ('node_long_gone', 7, now() - interval '32 days')")
    await stores(retention_months=1200).keep_partitions()
    assert [row[0] for row in await psql.rows(postgres_dsn, "SELECT key_id FROM usage ORDER BY 1")] == ["old", "young"]
    await asyncio.gather(*(stores(f"node_{n}").keep_partitions() for n in range(4)))
    assert await psql.rows(postgres_dsn, PARTITIONS) == made
    assert await psql.rows(postgres_dsn, "SELECT key_id FROM usage") == [("young",)]
    assert await psql.rows(postgres_dsn, "SELECT count(*)::int FROM usage_writers") == [(0,)]


async def test_partitions_have_the_indexes_of_the_whole(stores: Stores, postgres_dsn: str) -> None:
    """What a key, a user or a tenant has used is found by an index in every partition."""
    rows = await psql.rows(
        postgres_dsn, "SELECT tablename, count(*)::int FROM pg_indexes WHERE tablename LIKE 'usage\\_2%' GROUP BY 1"
    )
    assert [count for _, count in rows] == [3, 3, 3]


async def test_upkeep_waits_for_nobody_long(stores: Stores, postgres_dsn: str) -> None:
    """A reader who holds on to a partition delays its end, and no writer."""
    await psql.rows(
        postgres_dsn, "CREATE TABLE usage_2020_01 PARTITION OF usage FOR VALUES FROM ('2020-01-01Z') TO ('2020-02-01Z')"
    )
    reader = await asyncpg.connect(postgres_dsn)
    try:
        async with reader.transaction():
            await reader.fetch("SELECT count(*) FROM usage")
            upkeep = asyncio.create_task(stores("node_b").keep_partitions())
            await stores().add(1, 0.0, [used()])
            assert "LockNotAvailable" in str(await asyncio.wait_for(asyncio.gather(upkeep, return_exceptions=True), 8))
    finally:
        await reader.close()
    assert await psql.rows(postgres_dsn, TOTALS) == [("key_1", 1, 10, 20)]


async def test_an_existing_database_is_brought_to_it(empty_postgres_dsn: str) -> None:
    """A database from before has its keys afterwards, and takes usage."""
    await migrate(empty_postgres_dsn)
    await psql.rows(empty_postgres_dsn, "INSERT INTO tenants (id, name) VALUES ('acme', 'Acme')")
    await psql.rows(empty_postgres_dsn, "DROP TABLE usage")
    await psql.rows(empty_postgres_dsn, "DROP TABLE usage_writers")
    await psql.rows(empty_postgres_dsn, "DELETE FROM schema_migrations WHERE number = 7")
    assert await migrate(empty_postgres_dsn) == ["0007_usage"]
    postgres = Postgres(empty_postgres_dsn, metrics=Metrics())
    await postgres.open()
    try:
        store = UsageStore(postgres, node_id="node_a", retention_months=1)
        await store.keep_partitions()
        await store.add(1, 0.0, [used()])
    finally:
        await postgres.close()
    assert await psql.rows(empty_postgres_dsn, TOTALS) == [("key_1", 1, 10, 20)]
    assert await psql.rows(empty_postgres_dsn, "SELECT count(*)::int FROM tenants") == [(1,)]
