import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.migrate import MigrationFailed, SchemaOutdated, SchemaUnknown, check_schema, migrate
from gateway.telemetry.metrics import Metrics
from tests.fixtures import psql
from tests.fixtures.stores import OwnPostgres

Execute = Callable[[str], Coroutine[Any, Any, None]]


@pytest.fixture
async def pg(empty_postgres_dsn: str) -> AsyncIterator[Postgres]:
    """A database without a schema."""
    postgres = Postgres(empty_postgres_dsn, metrics=Metrics())
    await postgres.open()
    yield postgres
    await postgres.close()


@pytest.fixture
def execute(empty_postgres_dsn: str) -> Execute:
    """A psql of one statement."""

    async def run(statement: str) -> None:
        await psql.run(empty_postgres_dsn, statement)

    return run


async def test_from_nothing(pg: Postgres, empty_postgres_dsn: str) -> None:
    """An empty database is refused with the command to run, which brings it to the schema; again is a no-op. R077."""
    with pytest.raises(SchemaOutdated, match="ostiary migrate -c FILE"):
        await check_schema(pg)
    assert (await migrate(empty_postgres_dsn))[0] == "0001_initial"
    await check_schema(pg)
    assert await migrate(empty_postgres_dsn) == []


async def test_at_once(pg: Postgres, empty_postgres_dsn: str) -> None:
    """Of any number of migrators at once one does the work, and all return when it is done."""
    applied = await asyncio.gather(*(migrate(empty_postgres_dsn) for _ in range(6)))
    assert [len(names) > 0 for names in applied].count(True) == 1
    await check_schema(pg)


async def test_newer_database(pg: Postgres, empty_postgres_dsn: str, execute: Execute) -> None:
    """A database that a later version has migrated is refused by name, and not touched."""
    await migrate(empty_postgres_dsn)
    await execute("INSERT INTO schema_migrations (number, name, sha256) VALUES (9999, '9999_later', '')")
    with pytest.raises(SchemaUnknown, match="9999_later"):
        await check_schema(pg)
    with pytest.raises(SchemaUnknown, match="newer than this version"):
        await migrate(empty_postgres_dsn)


async def test_changed_migration(pg: Postgres, empty_postgres_dsn: str, execute: Execute) -> None:
    """A migration whose text has changed since it was applied is an error."""
    await migrate(empty_postgres_dsn)
    await execute("UPDATE schema_migrations SET sha256 = 'another' WHERE number = 1")
    with pytest.raises(SchemaUnknown, match="0001_initial"):
        await check_schema(pg)
    with pytest.raises(SchemaUnknown, match="0001_initial"):
        await migrate(empty_postgres_dsn)


async def test_failed_migration(pg: Postgres, empty_postgres_dsn: str, execute: Execute) -> None:
    """A migration that fails leaves nothing of itself, and works once its obstacle is gone."""
    await execute("CREATE TABLE nodes (id int)")
    with pytest.raises(MigrationFailed, match="0001_initial"):
        await migrate(empty_postgres_dsn)
    with pytest.raises(SchemaOutdated):
        await check_schema(pg)
    await execute("DROP TABLE nodes")
    assert (await migrate(empty_postgres_dsn))[0] == "0001_initial"


async def test_server_away(own_postgres: OwnPostgres) -> None:
    """Without a server both are outages."""
    await own_postgres.stop()
    pg = Postgres(own_postgres.dsn, metrics=Metrics())
    await pg.open()
    with pytest.raises(StoreUnavailable):
        await migrate(own_postgres.dsn)
    with pytest.raises(StoreUnavailable):
        await check_schema(pg)
    await pg.close()
