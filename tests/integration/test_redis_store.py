"""The shared cache on a real Redis that is stopped, frozen, filled with garbage, and brought back."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio

from gateway.errors import StoreUnavailable
from gateway.stores.redis.connection import DEADLINE_SECONDS, Redis
from gateway.stores.redis.entries import RedisEntries
from gateway.stores.redis.names import entry_name
from gateway.stores.redis.seal import Seal
from gateway.telemetry.metrics import Metrics
from tests.fixtures.stores import OwnRedis
from tests.fixtures.waiting import until
from tests.unit.test_redis_format import ABSENT, DIGEST, FOUND

KEY = b"k" * 32
# For tests that are not about the deadline: a busy machine may take longer than the gateway would wait.
UNHURRIED_SECONDS = 5.0


class Store:
    """One process's way to Redis."""

    def __init__(
        self,
        url: str,
        environment: str = "test",
        *,
        key: bytes | None = KEY,
        deadline_seconds: float = UNHURRIED_SECONDS,
    ) -> None:
        self.metrics = Metrics()
        self.redis = Redis(url, environment=environment, metrics=self.metrics, deadline_seconds=deadline_seconds)
        self.seal = Seal()
        if key is not None:
            self.seal.unlock(key)
        self.entries = RedisEntries(self.redis, self.seal, metrics=self.metrics)

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    @property
    def dropped(self) -> float:
        return self.metric("ostiary_dropped_calls_total", dependency="redis")

    @property
    def up(self) -> float:
        return self.metric("ostiary_dependency_up", dependency="redis")


@asynccontextmanager
async def opened(
    url: str, environment: str = "test", *, key: bytes | None = KEY, deadline_seconds: float = UNHURRIED_SECONDS
) -> AsyncIterator[Store]:
    store = Store(url, environment, key=key, deadline_seconds=deadline_seconds)
    await store.redis.open()
    try:
        yield store
    finally:
        await store.redis.close()


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    async with opened(redis_url) as store:
        yield store


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator[Any]:
    """A plain client beside the gateway's."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


async def test_what_one_node_leaves_another_finds(redis_url: str, store: Store) -> None:
    """A record and an absence come back as they were."""
    async with opened(redis_url) as other:
        assert await store.entries.get(DIGEST) is None
        await store.entries.put(DIGEST, FOUND, 5.0)
        assert await other.entries.get(DIGEST) == FOUND
        await other.entries.put(DIGEST, ABSENT, 5.0)
        assert await store.entries.get(DIGEST) == ABSENT
        await store.entries.delete([DIGEST, bytes(32)])
        assert await other.entries.get(DIGEST) is None


async def test_a_value_is_never_without_its_lifetime(store: Store, raw: Any) -> None:
    """Value and lifetime are set by one command. R063."""
    await store.entries.put(DIGEST, FOUND, 5.0)
    assert 4000 < await raw.pttl(entry_name("test", DIGEST)) <= 5000
    stats = await raw.info("commandstats")
    assert "cmdstat_expire" not in stats
    assert "cmdstat_pexpire" not in stats
    await store.entries.put(bytes(32), FOUND, 0.0)
    assert await raw.dbsize() == 1


async def test_two_environments_never_meet(redis_url: str, store: Store, raw: Any) -> None:
    """On one Redis, with one seal key even, each sees its own entries only. R053."""
    async with opened(redis_url, "other") as other:
        await store.entries.put(DIGEST, FOUND, 5.0)
        assert await other.entries.get(DIGEST) is None
        value = await raw.get(entry_name("test", DIGEST))
        await raw.set(entry_name("other", DIGEST), value)
        assert await other.entries.get(DIGEST) is None
        await other.entries.delete([DIGEST])
        assert await store.entries.get(DIGEST) == FOUND
    assert all(name.startswith(b"ostiary:") for name in await raw.keys())


async def test_without_the_seal_key_nothing_is_read_or_written(redis_url: str, raw: Any) -> None:
    """Until Postgres has told the key, everything is a miss."""
    async with opened(redis_url, key=None) as locked:
        await locked.entries.put(DIGEST, FOUND, 5.0)
        assert await raw.dbsize() == 0
        assert await locked.entries.get(DIGEST) is None


def sealed(value: bytes) -> Callable[[str], bytes]:
    def make(name: str) -> bytes:
        seal = Seal()
        seal.unlock(KEY)
        return seal.close(name, value)

    return make


@pytest.mark.threat("poisoned cache entry")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda _: b"", id="nothing"),
        pytest.param(lambda _: b"{}", id="JSON, unsealed"),
        pytest.param(lambda _: os.urandom(500), id="noise"),
        pytest.param(lambda _: b"o1" + os.urandom(500), id="noise with the right beginning"),
        pytest.param(sealed(b"{}"), id="sealed, but no finding"),
        pytest.param(sealed(b'{"version":0}'), id="sealed, of an old version"),
        pytest.param(lambda _: sealed(b"x")(entry_name("test", bytes(32))), id="sealed for another name"),
        pytest.param(lambda _: b"x" * 5_000_000, id="huge"),
    ],
)
async def test_garbage_is_a_miss(store: Store, raw: Any, make: Callable[[str], bytes]) -> None:
    """Whatever stands under the name: no identity, no error, and it is counted. R055."""
    name = entry_name("test", DIGEST)
    await raw.set(name, make(name))
    assert await store.entries.get(DIGEST) is None
    assert store.metric("ostiary_cache_events_total", layer="redis", event="refused") == 1
    await store.entries.put(DIGEST, FOUND, 5.0)
    assert await store.entries.get(DIGEST) == FOUND


async def test_another_type_is_a_miss(store: Store, raw: Any) -> None:
    """A list under the name is an error of Redis: a miss here, and not held against Redis. R055."""
    name = entry_name("test", DIGEST)
    await raw.rpush(name, "a", "b")
    for _ in range(5):
        assert await store.entries.get(DIGEST) is None
    assert store.redis.is_up
    await store.entries.put(DIGEST, FOUND, 5.0)
    assert await store.entries.get(DIGEST) == FOUND


@pytest.mark.threat("poisoned cache entry")
async def test_another_deployments_record_is_a_miss(redis_url: str, store: Store) -> None:
    """Whoever does not have this database's seal key cannot make an identity. R055."""
    async with opened(redis_url, key=b"l" * 32) as stranger:
        await stranger.entries.put(DIGEST, FOUND, 5.0)
        assert await stranger.entries.get(DIGEST) == FOUND
        assert await store.entries.get(DIGEST) is None


async def test_a_full_redis_goes_on_being_read(own_redis: OwnRedis) -> None:
    """Writes are refused, which is counted; reads go on, and the breaker stays closed. R056."""
    async with opened(own_redis.url) as store, redis.asyncio.Redis.from_url(own_redis.url) as raw:
        await store.entries.put(DIGEST, FOUND, 5.0)
        await raw.config_set("maxmemory-policy", "noeviction")
        await raw.config_set("maxmemory", "1")
        for _ in range(5):
            await store.entries.put(bytes(32), FOUND, 5.0)
        assert store.metric("ostiary_cache_events_total", layer="redis", event="failed") == 5
        assert await store.entries.get(DIGEST) == FOUND
        assert store.redis.is_up


async def put(store: Store) -> bool:
    """Leave an entry, and say whether it is there."""
    await store.entries.put(DIGEST, FOUND, 60.0)
    return await store.entries.get(DIGEST) == FOUND


async def test_a_frozen_redis_costs_one_deadline(own_redis: OwnRedis) -> None:
    """The first call waits our deadline, later ones nothing; thawed, it is used again by itself. R056, R057."""
    async with opened(own_redis.url, deadline_seconds=DEADLINE_SECONDS) as store:
        await until(lambda: put(store), what="a first entry")
        own_redis.pause()
        try:
            began = time.monotonic()
            assert await store.entries.get(DIGEST) is None
            assert time.monotonic() - began < DEADLINE_SECONDS + 0.5
            assert store.dropped >= 1
            assert not store.redis.is_up
            assert store.up == 0
            began = time.monotonic()
            for _ in range(100):
                assert await store.entries.get(DIGEST) is None
                await store.entries.put(DIGEST, FOUND, 60.0)
            assert time.monotonic() - began < 100 * DEADLINE_SECONDS / 4
        finally:
            own_redis.resume()
        await until(lambda: put(store))
        assert store.up == 1


async def test_many_calls_into_a_frozen_redis(own_redis: OwnRedis) -> None:
    """A thousand lookups at once all end at the deadline, and leave no task behind. R051."""
    async with opened(own_redis.url, deadline_seconds=DEADLINE_SECONDS) as store:
        before = len(asyncio.all_tasks())
        own_redis.pause()
        try:
            began = time.monotonic()
            findings = await asyncio.gather(*(store.entries.get(DIGEST) for _ in range(1000)))
            assert time.monotonic() - began < 3.0
            assert set(findings) == {None}
        finally:
            own_redis.resume()
        await until(lambda: store.redis.is_up, seconds=5)
        await until(lambda: len(asyncio.all_tasks()) <= before, what="the dropped tasks to end")
        await until(lambda: put(store))


@pytest.mark.threat("answer of another request")
async def test_answers_never_cross_after_cancellations(redis_url: str, store: Store) -> None:
    """A connection whose call was cancelled is never used again: each digest gets its own record."""
    digests = [bytes([number]) * 32 for number in range(20)]
    for number, digest in enumerate(digests):
        finding = replace(ABSENT, revision=number, digests=(digest,))
        await store.entries.put(digest, finding, 60.0)

    async def read(number: int, *, is_cut: bool) -> None:
        task = asyncio.create_task(store.entries.get(digests[number]))
        if is_cut:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return
        finding = await task
        assert finding is None or finding.revision == number

    for _ in range(20):
        await asyncio.gather(*(read(number % 20, is_cut=number % 3 == 0) for number in range(60)))


async def test_a_killed_redis_is_a_miss_and_comes_back(own_redis: OwnRedis) -> None:
    """Dead: misses at once. Restarted: used again within two seconds, with no restart of ours. R056, R057."""
    async with opened(own_redis.url) as store:
        await own_redis.kill()
        began = time.monotonic()
        for _ in range(20):
            assert await store.entries.get(DIGEST) is None
            await store.entries.put(DIGEST, FOUND, 60.0)
            await store.entries.delete([DIGEST])
        assert time.monotonic() - began < 2.0
        assert not store.redis.is_up
        await own_redis.start()
        await until(lambda: put(store), seconds=5)


async def test_redis_may_be_away_at_the_start(own_redis: OwnRedis) -> None:
    """Opening does not fail, and the first answer later is enough. R056."""
    url = own_redis.url
    await own_redis.stop()
    async with opened(url) as store:
        assert not store.redis.is_up
        with pytest.raises(StoreUnavailable):
            await store.redis.run(lambda client: client.get("x"))
        await own_redis.start()
        await until(lambda: store.redis.is_up, seconds=3)


async def test_a_url_that_is_none_is_refused_without_showing_it() -> None:
    """The password in a URL stands in no error and in no repr."""
    unknown = ("ftp://u:hunter2@h", "redis+what://u:hunter2@h", "redis+sentinel://u:hunter2@h", "redis+cluster://:x@")
    unread = ("redis://u:hunter2/x@h", "redis://u:hunter2\u2100@h", "redis+cluster://u:hunter2/x@h", "redis://[hunter2")
    for url in (*unknown, *unread):
        store = Store(url)
        assert "hunter2" not in repr(store.redis)
        with pytest.raises(ValueError, match="URL") as caught:
            await store.redis.open()
        assert "hunter2" not in str(caught.value)


async def test_closing_leaves_no_connection(own_redis: OwnRedis) -> None:
    """All connections end with the store."""
    async with redis.asyncio.Redis.from_url(own_redis.url) as raw:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(opened(own_redis.url))
            await asyncio.gather(*(store.entries.get(DIGEST) for _ in range(20)))
            assert len(await raw.client_list()) > 2
        assert len(await raw.client_list()) == 1
