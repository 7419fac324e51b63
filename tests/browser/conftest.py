"""One house for all browser tests in a row."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.browser.house import House
from tests.browser.house import house as open_house
from tests.fixtures.stores import Databases, OwnRedis


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def house(databases: Databases) -> AsyncIterator[House]:
    """Nodes, provider, upstream and browser."""
    folder = Path(tempfile.mkdtemp(prefix="ostiary-browser-"))
    dsn = await databases.create(is_migrated=True)
    redis = OwnRedis(folder / "redis")  # the shared one is emptied by tests that run between these
    await redis.start()
    async with open_house(folder, dsn, redis.url) as opened:
        yield opened
    await redis.stop()
    await databases.drop(dsn)
    shutil.rmtree(folder)
