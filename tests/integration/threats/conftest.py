"""Stores that may be hurt, and an eye on what they are asked. All of it lives on the session's loop."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fixtures.stand import Stand


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def shared_stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    """Private stores and an upstream, shared by the tests of this package; each starts the nodes that it needs."""
    stand = Stand(tmp_path_factory.mktemp("threats"), cache={})
    try:
        await stand.start()
        yield stand
    finally:
        await stand.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def stand(shared_stand: Stand) -> AsyncIterator[Stand]:
    """The same, with both stores whole, no node running, and an upstream that has seen nothing."""
    await shared_stand.repair()
    shared_stand.upstream.requests.clear()
    yield shared_stand
    await shared_stand.repair()
    await asyncio.gather(*(node.stop() for node in shared_stand.nodes))
    for node in shared_stand.nodes:
        assert "Traceback" not in node.log, node.log
    shared_stand.nodes.clear()
