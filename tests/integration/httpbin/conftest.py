"""One httpbin, one gateway and one key for all tests of this folder."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import redis.asyncio

from gateway.embedded.keeper import Addresses
from tests.fixtures.gateway import GatewayProcess, operator_token
from tests.fixtures.stores import Databases
from tests.integration.httpbin.clients import CLIENTS, Client
from tests.integration.httpbin.tap import Tap
from tests.integration.httpbin.world import Httpbin, World, configuration, create_key


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def httpbin_world(
    servers: Addresses, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """Everything running, and warm: the key has been used once."""
    assert servers.redis_url is not None
    async with redis.asyncio.Redis.from_url(servers.redis_url) as client:
        await client.flushall()
    folder = tmp_path_factory.mktemp("httpbin")
    dsn = await databases.create(is_migrated=True)
    httpbin = Httpbin(folder / "upstream")
    tap = Tap(httpbin.port)
    await tap.start()
    node = GatewayProcess(folder / "node", configuration(dsn, servers.redis_url, httpbin, tap))
    try:
        await httpbin.serve()
        await node.start()
        key_id, secret = await create_key(node.admin_url, await operator_token(dsn))
        yield World(node, httpbin, tap, key_id, secret)
    finally:
        await node.stop()
        await tap.stop()
        await httpbin.stop()
        await databases.drop(dsn)


@pytest.fixture
def world(httpbin_world: World) -> World:
    """The world, with nothing left on the tap by the test before."""
    httpbin_world.tap.forget()
    return httpbin_world


@pytest.fixture(params=CLIENTS, ids=lambda kind: kind.name)
def client(request: pytest.FixtureRequest) -> Client:
    """Each HTTP client in turn, as people use it."""
    made: Client = request.param()
    return made
