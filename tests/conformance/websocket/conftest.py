"""Real ends of WebSockets, and two ways between them: directly, and through a gateway."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.conformance.websocket.world import World, standing
from tests.fixtures.edge import Edge
from tests.fixtures.stores import Databases


@pytest_asyncio.fixture(loop_scope="session")
async def edge(shared_edge: Edge) -> AsyncIterator[Edge]:
    """As everywhere, but what reaches the upstream need not be HTTP."""
    await shared_edge.upstream.reset()
    yield shared_edge
    assert shared_edge.gateway.is_running(), shared_edge.gateway.log
    assert "Traceback" not in shared_edge.gateway.log, shared_edge.gateway.log


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_world(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> AsyncIterator[World]:
    """The echo servers, and the gateway in front of them."""
    dsn = await databases.create(is_migrated=True)
    async with standing(tmp_path_factory.mktemp("websocket"), dsn) as world:
        yield world
    await databases.drop(dsn)


@pytest_asyncio.fixture(loop_scope="session")
async def world(shared_world: World) -> AsyncIterator[World]:
    """The same for each test; the gateway has nothing to complain of."""
    yield shared_world
    assert shared_world.gateway.is_running(), shared_world.gateway.log
    assert "Traceback" not in shared_world.gateway.log, shared_world.gateway.log
