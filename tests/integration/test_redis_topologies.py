"""The same behind a Sentinel and on a Cluster, each told by its URL."""

from pathlib import Path

import pytest

from gateway.stores.records import Finding
from gateway.stores.redis.connection import Redis, UrlUnreadable
from gateway.telemetry.metrics import Metrics
from tests.fixtures.consistency import member
from tests.fixtures.ports import free_port
from tests.fixtures.redis_servers import cluster, running
from tests.fixtures.rows import CURRENT, plant
from tests.fixtures.waiting import until


async def works(dsn: str, url: str) -> None:
    """Entries, pushes, replies."""
    await plant(dsn)
    async with member(dsn, url) as writer, member(dsn, url) as reader:
        await until(lambda: writer.is_subscribed and reader.is_subscribed)
        assert writer.entries is not None
        assert reader.entries is not None
        await writer.entries.put(CURRENT, Finding(7, (CURRENT,), None), 60.0)
        await writer.entries.put(bytes(32), Finding(7, (bytes(32),), None), 60.0)
        assert await reader.entries.get(CURRENT) == Finding(7, (CURRENT,), None)
        answer = await writer.revoke_and_propagate()
        assert (answer.state, answer.reported) == ("confirmed", 2)
        assert answer.seconds < 0.5
        assert "key:k1" in reader.evicted

        async def is_gone() -> bool:
            assert reader.entries is not None
            return await reader.entries.get(CURRENT) is None

        await until(is_gone)
        await reader.entries.delete([CURRENT, bytes(32)])
        assert await reader.entries.get(bytes(32)) is None
        await reader.until_pongs_count()
        moment = reader.view.fresh_until
        await reader.postgres.close()
        await until(lambda: reader.view.fresh_until > moment + 2.5, what="pongs that keep the view fresh")


async def test_a_cluster(postgres_dsn: str, own_folder: Path) -> None:
    """On a Cluster the channel is a sharded one, so that ping and message share a node. R221."""
    async with cluster(own_folder / "cluster") as url:
        await works(postgres_dsn, url)


async def test_a_cluster_that_comes_and_goes(postgres_dsn: str, own_folder: Path) -> None:
    """No Cluster at the start, or none any more, is a miss; one that is back is used again. R056 R057."""
    port = free_port()
    async with member(postgres_dsn, f"redis+cluster://127.0.0.1:{port}") as node:
        entries = node.entries
        assert entries is not None
        finding = Finding(7, (CURRENT,), None)

        async def is_kept() -> bool:
            await entries.put(CURRENT, finding, 60.0)
            return await entries.get(CURRENT) == finding

        for number in range(2):
            for _ in range(20):
                assert not await is_kept()
            async with cluster(own_folder / str(number), port):
                await until(lambda: node.is_subscribed)
                await until(is_kept)
            await until(lambda: not node.is_subscribed)


async def test_a_sentinel(postgres_dsn: str, own_folder: Path) -> None:
    """Behind a Sentinel the master is asked for by name. R221."""
    port, sentinel_port = free_port(), free_port()
    configuration = f"sentinel monitor main 127.0.0.1 {port} 1\n"
    async with (
        running(own_folder / "redis", [], port),
        running(own_folder / "sentinel", ["--sentinel"], sentinel_port, configuration),
    ):
        await works(postgres_dsn, f"redis+sentinel://127.0.0.1:{sentinel_port}/main/0")


async def test_an_option_that_nobody_knows(redis_url: str) -> None:
    """A URL with one is refused at the start, and nothing of it is told but that."""
    redis = Redis(f"{redis_url}?nonsense=hunter2", environment="test", metrics=Metrics())
    try:
        with pytest.raises(UrlUnreadable) as caught:
            await redis.open()
    finally:
        await redis.close()
    assert str(caught.value) == "the URL of Redis has an option that is not known"
