"""How nodes learn of changes, on real stores that are cut, frozen and killed."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest
import redis.asyncio

from gateway.stores.redis.names import changes_channel
from tests.fixtures import psql
from tests.fixtures.consistency import BOUND_SECONDS, member
from tests.fixtures.rows import plant
from tests.fixtures.stores import OwnPostgres, OwnRedis
from tests.fixtures.waiting import until


@pytest.fixture
async def dsn(postgres_dsn: str) -> str:
    """A database with one key."""
    await plant(postgres_dsn)
    return postgres_dsn


async def test_a_node_is_fresh_when_it_has_started(dsn: str, redis_url: str) -> None:
    """The first answer makes it fresh and puts it on the list."""
    async with member(dsn, redis_url) as node:
        assert node.view.is_fresh
        assert node.view.revision > 1
        assert [row.id for row in await node.revisions.nodes("test")] == [node.id]
        assert 0 <= node.view.to_monotonic(time.time()) - time.monotonic() + 1 < 2
        assert node.metric("ostiary_revision") == node.view.revision
        assert node.metric("ostiary_view_age_seconds") < BOUND_SECONDS
    async with member(dsn, None) as other:
        assert [row.id for row in await other.revisions.nodes("test")] == [other.id], "the first has left the list"


async def test_a_push_reaches_another_node_in_milliseconds(dsn: str, redis_url: str) -> None:
    """Long before the next poll, and memory is evicted with it. R221, R244."""
    async with member(dsn, redis_url) as writer, member(dsn, redis_url) as reader:
        await until(lambda: writer.is_subscribed and reader.is_subscribed)
        fastest = 1.0
        for _ in range(5):
            await psql.run(dsn, "UPDATE api_keys SET revoked_at = NULL")
            await until(lambda: writer.view.revision == reader.view.revision)
            change = await writer.revoke()
            assert writer.channel is not None
            began = time.monotonic()
            await writer.channel.publish(change.revision, change.invalidations)
            while reader.view.revision < change.revision:
                await asyncio.sleep(0)
            fastest = min(fastest, time.monotonic() - began)
        assert fastest < 0.05
        assert "key:k1" in reader.evicted
        assert not reader.view.is_usable(change.revision - 1, ("key:k1",))


@pytest.mark.threat("missed revocation")
@pytest.mark.parametrize("has_redis", [True, False])
async def test_a_poll_alone_brings_what_nobody_published(dsn: str, redis_url: str, has_redis: bool) -> None:
    """A change typed into psql is known within the bound, with Redis and without. R237."""
    async with member(dsn, redis_url if has_redis else None) as node:
        began = time.monotonic()
        await psql.run(dsn, "DELETE FROM api_keys")
        await until(lambda: "key:k1" in node.evicted)
        assert time.monotonic() - began < BOUND_SECONDS
        row = (await node.revisions.nodes("test"))[0]
        assert row.seen_seconds_ago < 5.0


async def test_a_gap_is_polled_for_at_once(dsn: str, redis_url: str) -> None:
    """A push that leaves a hole brings the poll forward: nobody waits for its turn. R237."""
    async with member(dsn, redis_url) as writer, member(dsn, redis_url) as reader:
        await reader.until_pongs_count()
        waits = []
        for _ in range(10):
            await psql.run(dsn, "UPDATE users SET status = 'suspended'")
            await psql.run(dsn, "UPDATE api_keys SET revoked_at = NULL")
            change = await writer.revoke()
            assert writer.channel is not None
            began = time.monotonic()
            await writer.channel.publish(change.revision, change.invalidations)
            await until(lambda: reader.view.revision >= change.revision)  # noqa: B023
            waits.append(time.monotonic() - began)
        assert sorted(waits)[6] < 0.15, "most would have waited longer for the next poll"
        assert not reader.view.wants_poll


async def test_stores_may_be_away_at_the_start(own_postgres: OwnPostgres, own_redis: OwnRedis) -> None:
    """The node starts, trusts nothing, and becomes fresh by itself when they come."""
    dsn, url = own_postgres.dsn, own_redis.url
    await own_postgres.stop()
    await own_redis.stop()
    async with member(dsn, url) as node:
        assert not node.view.is_fresh
        began = time.monotonic()
        await asyncio.gather(*(node.feed.refresh() for _ in range(100)))
        assert time.monotonic() - began < 2.0
        await own_postgres.start()
        await until(lambda: node.view.is_fresh)
        assert not node.is_subscribed
        await own_redis.start()
        await until(lambda: node.is_subscribed)


async def test_postgres_frozen_pushes_keep_the_view_fresh(own_postgres: OwnPostgres, redis_url: str) -> None:
    """Known keys are served on while Redis proves that nothing was missed. R059."""
    async with member(own_postgres.dsn, redis_url) as node:
        await node.until_pongs_count()
        own_postgres.pause()
        try:
            end = time.monotonic() + 2 * BOUND_SECONDS
            while time.monotonic() < end:
                assert node.view.is_fresh
                await asyncio.sleep(0.02)
        finally:
            own_postgres.resume()


@pytest.mark.parametrize("has_redis", [True, False])
async def test_without_any_source_the_view_lapses(
    own_postgres: OwnPostgres, own_redis: OwnRedis, has_redis: bool
) -> None:
    """Both gone for longer than the bound: nothing is trusted, and polls revive it. R058, R237."""
    async with member(own_postgres.dsn, own_redis.url if has_redis else None) as node:
        if has_redis:
            await node.until_pongs_count()
        own_postgres.pause()
        own_redis.pause()
        began = time.monotonic()
        try:
            await until(lambda: not node.view.is_fresh)
            assert time.monotonic() - began <= BOUND_SECONDS + 0.3
            own_redis.resume()
            if has_redis:
                await until(lambda: node.is_subscribed)
            # Pongs alone do not revive it.
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                assert not node.view.is_fresh
                await asyncio.sleep(0.02)
        finally:
            own_redis.resume()
            own_postgres.resume()
        await until(lambda: node.view.is_fresh)


@pytest.mark.threat("missed revocation")
async def test_redis_frozen_polls_keep_the_view_fresh(own_postgres: OwnPostgres, own_redis: OwnRedis) -> None:
    """A frozen Redis is noticed by its silence; afterwards the subscription is made anew. R237."""
    async with member(own_postgres.dsn, own_redis.url) as node:
        await node.until_pongs_count()
        own_redis.pause()
        try:
            end = time.monotonic() + 1.5 * BOUND_SECONDS
            while time.monotonic() < end:
                assert node.view.is_fresh
                await asyncio.sleep(0.02)
            assert not node.is_subscribed
        finally:
            own_redis.resume()
        await until(lambda: node.is_subscribed)


@pytest.mark.threat("missed revocation")
async def test_redis_killed_and_restarted(own_postgres: OwnPostgres, own_redis: OwnRedis) -> None:
    """What changed while nobody could push is known all the same, and pushes come again. R237."""
    await plant(own_postgres.dsn)
    async with member(own_postgres.dsn, own_redis.url) as writer, member(own_postgres.dsn, own_redis.url) as reader:
        await until(lambda: writer.is_subscribed and reader.is_subscribed)
        await own_redis.kill()
        await until(lambda: not reader.is_subscribed)
        await writer.revoke()
        await until(lambda: "key:k1" in reader.evicted, seconds=BOUND_SECONDS)
        await own_redis.start()
        await until(lambda: writer.is_subscribed and reader.is_subscribed)
        reader.evicted.clear()
        await psql.run(own_postgres.dsn, "UPDATE api_keys SET revoked_at = NULL")
        await until(lambda: writer.view.revision == reader.view.revision)
        reader.evicted.clear()
        answer = await writer.revoke_and_propagate()
        assert answer.reported == 2
        assert "key:k1" in reader.evicted


@pytest.mark.threat("missed revocation")
async def test_a_killed_subscriber_subscribes_again_and_has_missed_nothing(dsn: str, redis_url: str) -> None:
    """CLIENT KILL of the subscription: noticed at once, and its pongs count only after another poll. R237."""
    async with member(dsn, redis_url) as node, redis.asyncio.Redis.from_url(redis_url) as raw:
        await node.until_pongs_count()
        assert node.channel is not None
        first = node.channel.subscription
        await raw.client_kill_filter(_type="pubsub")
        await psql.run(dsn, "DELETE FROM api_keys")
        await until(lambda: node.is_subscribed and node.channel is not None and node.channel.subscription != first)
        await until(lambda: "key:k1" in node.evicted, seconds=BOUND_SECONDS)
        assert node.view.is_fresh


async def test_garbage_on_the_channel_is_counted_and_harmless(dsn: str, redis_url: str) -> None:
    """Unsealed, foreign and odd messages change nothing. R055."""
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(member(dsn, redis_url))
        raw = await stack.enter_async_context(redis.asyncio.Redis.from_url(redis_url))
        await until(lambda: node.is_subscribed)
        name = changes_channel("test")
        revision = node.view.revision
        odd = [
            b"",
            b"{}",
            b'{"last":999999,"invalidations":[[999999,"all:"]],"writer":null}',
            node.seal.close(name, b"{}"),
            node.seal.close(name, b"[]"),
            node.seal.close(name, b'{"last":"x","invalidations":[],"writer":null}'),
            node.seal.close("another name", b'{"last":999999,"invalidations":[],"writer":null}'),
        ]
        for message in odd:
            await raw.publish(name, message)
        await until(
            lambda: node.metric("ostiary_cache_events_total", layer="channel", event="refused") == len(odd),
            what="the odd messages to be counted",
        )
        assert node.view.revision == revision
        assert not node.view.wants_poll
        assert node.resets == 1
        assert node.view.is_fresh


async def test_two_environments_do_not_hear_each_other(dsn: str, redis_url: str) -> None:
    """On one Redis, a push in one environment is none in the other. R053."""
    async with member(dsn, redis_url) as node, member(dsn, redis_url, environment="other") as other:
        await until(lambda: node.is_subscribed and other.is_subscribed)
        heard: list[int] = []
        assert node.channel is not None
        assert other.channel is not None

        class Ear:
            def subscribed(self, at: float) -> None: ...
            def unsubscribed(self) -> None: ...
            def ponged(self, ping_sent_at: float) -> None: ...
            def replied(self, node_id: str, revision: int) -> None: ...
            def pushed(self, batch: object) -> None:
                heard.append(1)

        other.channel.listeners.append(Ear())
        change = await node.revoke()
        await node.channel.publish(change.revision, change.invalidations)
        moment = time.monotonic()
        await until(lambda: other.channel is not None and other.channel.heard_until > moment, what="a pong after it")
        assert heard == []
        assert [row.id for row in await node.revisions.nodes("other")] == [other.id]


async def test_a_revision_that_went_backwards_is_healed(dsn: str, redis_url: str) -> None:
    """A database that lost commits: every node forgets everything, and old entries are void for good. R237."""
    async with member(dsn, redis_url) as one, member(dsn, redis_url) as two:
        await until(lambda: one.view.revision == two.view.revision)
        lost = one.view.revision
        await psql.run(dsn, "UPDATE revision SET value = value - 3")
        await psql.run(dsn, f"DELETE FROM invalidations WHERE revision > {lost - 3}")
        await until(lambda: one.view.revision > lost and two.view.revision == one.view.revision)
        await until(lambda: one.view.is_fresh and two.view.is_fresh)
        for node in (one, two):
            assert node.resets >= 2
            assert not node.view.is_usable(lost, ("key:anything",))
            assert node.view.is_usable(node.view.revision, ("key:anything",))
        await asyncio.gather(one.feed.refresh(), two.feed.refresh())
        assert one.view.revision < lost + 1_500_000, "it was skipped once"


async def test_a_node_that_starts_knows_the_recent_past(dsn: str, redis_url: str) -> None:
    """What Redis holds stays usable for it, but for what has changed."""
    async with member(dsn, redis_url) as old:
        before = old.view.revision
        change = await old.revoke()
        async with member(dsn, redis_url) as new:
            assert new.view.revision == change.revision
            assert new.view.is_usable(before, ("key:other",))
            assert not new.view.is_usable(before, ("key:k1",))


async def test_a_stale_node_is_refreshed_for_all_who_ask(own_postgres: OwnPostgres) -> None:
    """Cold lookups that find the view stale wait for one poll together, and go on."""
    async with member(own_postgres.dsn, None) as node:
        own_postgres.pause()
        try:
            await until(lambda: not node.view.is_fresh)
        finally:
            own_postgres.resume()

        async def refreshed() -> bool:
            await asyncio.gather(*(node.feed.refresh() for _ in range(50)))
            return node.view.is_fresh

        await until(refreshed)
