"""One gateway and one raw upstream for all cases; each begins with an upstream that has seen nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.embedded.server_process import HOST
from tests.fixtures.edge import Edge
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import ENVIRONMENT, plant
from tests.fixtures.ports import free_port
from tests.fixtures.raw_upstream import RawUpstream
from tests.fixtures.stores import Databases

SMALL_BODY = 10
TIMEOUT_SECONDS = 2
RESPONSE_SECONDS = 8  # long beside the others: ten uploads at once take their time on a busy machine
QUICK_SECONDS = 0.5


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_edge(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> AsyncIterator[Edge]:
    """The gateway in front of the raw upstream. `/` is open to all, `/keyed` wants a key, `/small` bounds bodies."""
    dsn = await databases.create(is_migrated=True)
    caller = await plant(dsn)
    folder: Path = tmp_path_factory.mktemp("conformance")
    async with RawUpstream() as upstream:
        config = {
            "environment": ENVIRONMENT,
            "postgres": {"dsn": dsn},
            "client": {
                "head_timeout_seconds": TIMEOUT_SECONDS,
                "body_timeout_seconds": TIMEOUT_SECONDS,
                "idle_timeout_seconds": TIMEOUT_SECONDS,
            },
            "upstreams": {
                "raw": {
                    "targets": [upstream.url],
                    "timeouts": {"response": RESPONSE_SECONDS, "idle": TIMEOUT_SECONDS},
                },
                "dead": {"targets": [f"http://{HOST}:{free_port()}"]},
            },
            "routes": [
                {"name": "open", "paths": ["/"], "upstream": "raw", "auth": "none"},
                {"name": "keyed", "paths": ["/keyed"], "upstream": "raw"},
                {
                    "name": "small",
                    "paths": ["/small"],
                    "upstream": "raw",
                    "auth": "none",
                    "body_limit_bytes": SMALL_BODY,
                },
                {"name": "reading", "paths": ["/reading"], "upstream": "raw", "auth": "none", "methods": ["GET"]},
                {
                    "name": "quick",
                    "paths": ["/quick"],
                    "upstream": "raw",
                    "auth": "none",
                    "timeouts": {"response": QUICK_SECONDS},
                },
                {"name": "dead", "paths": ["/dead"], "upstream": "dead", "auth": "none"},
            ],
        }
        gateway = GatewayProcess(folder, config)
        await gateway.start()
        yield Edge(gateway, upstream, caller)
        assert await gateway.stop() == 0
    await databases.drop(dsn)


@pytest_asyncio.fixture(loop_scope="session")
async def edge(shared_edge: Edge) -> AsyncIterator[Edge]:
    """The shared gateway, alive before and after; nothing dirty has reached its upstream."""
    await shared_edge.upstream.reset()
    yield shared_edge
    assert shared_edge.gateway.is_running(), shared_edge.gateway.log
    shared_edge.check_upstream()
    assert "Traceback" not in shared_edge.gateway.log, shared_edge.gateway.log
