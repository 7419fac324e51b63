"""The worlds of the stories. All of them live on the session's loop, so that one pair of nodes serves many tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.embedded.keeper import Addresses
from tests.fixtures.stores import Databases
from tests.integration.stories.fragile import Fragile, fragile_over
from tests.integration.stories.world import World, world_over


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the nodes' configurations and logs."""
    return tmp_path_factory.mktemp("stories")


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def world(folder: Path, databases: Databases, servers: Addresses) -> AsyncIterator[World]:
    """Two nodes with everything as shipped. Tests share them, and keep to tenants of their own."""
    assert servers.redis_url is not None
    dsn = await databases.create(is_migrated=True)
    async with world_over(folder / "shared", dsn, servers.redis_url) as shared:
        yield shared
    await databases.drop(dsn)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def fragile_world(folder: Path) -> AsyncIterator[Fragile]:
    """Two nodes with servers and wires that may be hurt."""
    async with fragile_over(folder / "fragile") as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def fragile(fragile_world: Fragile) -> AsyncIterator[Fragile]:
    """The same, whole again after each test."""
    yield fragile_world
    await fragile_world.heal()
