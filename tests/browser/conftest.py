"""One house for all browser tests of a process."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from gateway.embedded.keeper import Addresses
from tests.browser.house import House
from tests.browser.house import house as open_house
from tests.fixtures.stores import Databases


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def house(servers: Addresses, databases: Databases) -> AsyncIterator[House]:
    """Nodes, provider, upstream and browser."""
    assert servers.redis_url is not None
    folder = Path(tempfile.mkdtemp(prefix="ostiary-browser-"))
    dsn = await databases.create(is_migrated=True)
    async with open_house(folder, dsn, servers.redis_url) as opened:
        yield opened
    await databases.drop(dsn)
    shutil.rmtree(folder)
