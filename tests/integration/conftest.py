"""What the tests of single stores begin with."""

from collections.abc import AsyncIterator

import pytest

from gateway.stores.postgres.connection import Postgres
from gateway.telemetry.metrics import Metrics
from tests.fixtures.rows import plant


@pytest.fixture
async def pg(postgres_dsn: str) -> AsyncIterator[Postgres]:
    """A database with a few rows, at revision 7."""
    await plant(postgres_dsn)
    postgres = Postgres(postgres_dsn, metrics=Metrics())
    await postgres.open()
    yield postgres
    await postgres.close()
