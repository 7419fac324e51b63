"""Real servers for every test; see `tests/fixtures/` for the parts."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import pytest
import redis.asyncio
import structlog

from gateway.embedded.keeper import Addresses, Keeper
from gateway.stores.postgres.migrate import migrate
from tests.fixtures.gateway import GatewayProcess, merged
from tests.fixtures.gateway import operator_token as make_operator_token
from tests.fixtures.long_first import pytest_collection_modifyitems as pytest_collection_modifyitems
from tests.fixtures.nothing_skipped import pytest_sessionfinish as pytest_sessionfinish
from tests.fixtures.stores import Databases, OwnPostgres, OwnRedis
from tests.fixtures.sweeping import check_redis
from tests.fixtures.upstream import RecordingUpstream

# What parts of the gateway log in a test's own process is told as the gateway tells it. Structlog's own way draws each
# traceback with the code around it and all variables: that costs a second of CPU, and shows secrets.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

# Machines that others use too are slow at any moment: how long an example takes is no fault of what is tested.
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")


@pytest.fixture(scope="session")
def servers() -> Iterator[Addresses]:
    """The Postgres and Redis that all tests share. They end with this process, however it ends."""
    with tempfile.TemporaryDirectory(prefix="ostiary-tests-") as data:
        keeper = Keeper(Path(data), is_durable=False)
        try:
            yield keeper.start()
        finally:
            keeper.stop()


@pytest.fixture(scope="session")
def databases(servers: Addresses) -> Databases:
    """Makes databases on the shared Postgres."""
    assert servers.postgres_dsn is not None
    return Databases(servers.postgres_dsn)


@pytest.fixture
async def postgres_dsn(databases: Databases) -> AsyncIterator[str]:
    """A fresh migrated database."""
    dsn = await databases.create(is_migrated=True)
    yield dsn
    await databases.drop(dsn)


@pytest.fixture
async def empty_postgres_dsn(databases: Databases) -> AsyncIterator[str]:
    """A fresh database without a schema."""
    dsn = await databases.create(is_migrated=False)
    yield dsn
    await databases.drop(dsn)


@pytest.fixture
async def redis_url(servers: Addresses) -> str:
    """The shared Redis, swept for secrets that the tests before have left, and emptied."""
    assert servers.redis_url is not None
    async with redis.asyncio.Redis.from_url(servers.redis_url) as client:
        await check_redis(client)
        await client.flushall()
    return servers.redis_url


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A folder for servers of the test's own."""
    folder = Path(tempfile.mkdtemp(prefix="ostiary-test-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def own_postgres(own_folder: Path) -> AsyncIterator[OwnPostgres]:
    """A private, migrated Postgres that the test may pause, kill, stop and start."""
    server = OwnPostgres(own_folder / "own-postgres")
    await server.start()
    await migrate(server.dsn)
    yield server
    await server.stop()


@pytest.fixture
async def own_redis(own_folder: Path) -> AsyncIterator[OwnRedis]:
    """A private, empty Redis that the test may pause, kill, stop and start."""
    server = OwnRedis(own_folder / "own-redis")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def upstream() -> AsyncIterator[RecordingUpstream]:
    """An upstream that records what reaches it and echoes it as JSON."""
    async with RecordingUpstream() as server:
        yield server


class StartGateway(Protocol):
    """Starts a node: the base configuration with `changes` laid over it (None removes a name)."""

    def __call__(
        self,
        changes: Mapping[str, Any] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        is_ready_awaited: bool = True,
        workers: int = 1,
        options: Sequence[str] = (),
    ) -> Awaitable[GatewayProcess]:
        """Return the running node."""
        ...


@pytest.fixture
async def gateway(
    tmp_path: Path, postgres_dsn: str, redis_url: str, upstream: RecordingUpstream
) -> AsyncIterator[StartGateway]:
    """Starts any number of nodes on one database, one Redis and one upstream; stops them after the test.

    Routes: `/orders` and `/payments` want a key, `/public` does not.
    """
    nodes: list[GatewayProcess] = []
    base: dict[str, Any] = {
        "environment": "test",
        "postgres": {"dsn": postgres_dsn},
        "redis": {"url": redis_url},
        "upstreams": {"orders": {"targets": [upstream.url]}},
        "routes": [
            {"name": "orders", "paths": ["/orders"], "upstream": "orders"},
            {"name": "payments", "paths": ["/payments"], "upstream": "orders"},
            {"name": "public", "paths": ["/public"], "upstream": "orders", "auth": "none"},
        ],
        "plans": {"starter": {"tier": 1, "features": {"api_access": True}}},
    }

    async def start(
        changes: Mapping[str, Any] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        is_ready_awaited: bool = True,
        workers: int = 1,
        options: Sequence[str] = (),
    ) -> GatewayProcess:
        config = merged(base, changes or {})
        node = GatewayProcess(
            tmp_path / f"node-{len(nodes)}", config, environment=environment, workers=workers, options=options
        )
        nodes.append(node)
        await node.start(is_ready_awaited=is_ready_awaited)
        return node

    yield start
    for node in nodes:
        await node.stop()


@pytest.fixture
async def operator_token(postgres_dsn: str) -> str:
    """An operator's admin token for the database of this test."""
    return await make_operator_token(postgres_dsn)
