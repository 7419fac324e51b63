"""When a change may be answered: with all nodes well, with some silent, dead or cut off, and with nobody to publish."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from gateway.clock import SystemClock
from gateway.consistency.confirmation import Propagator, RevocationPending
from gateway.stores.postgres.changes import Change, Changes
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.revisions import NodeReport, RevisionLog
from gateway.stores.records import Finding
from gateway.stores.redis.channel import Channel
from gateway.stores.redis.connection import Redis
from gateway.stores.redis.seal import Seal
from gateway.telemetry.metrics import Metrics
from tests.fixtures import psql
from tests.fixtures.consistency import Member, member
from tests.fixtures.rows import CURRENT, plant
from tests.fixtures.stores import OwnPostgres, OwnRedis
from tests.fixtures.waiting import until

BOUND = 1.0
GHOST = "ghost"
NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
async def dsn(postgres_dsn: str) -> str:
    """A database with one key."""
    await plant(postgres_dsn)
    return postgres_dsn


async def nodes(stack: AsyncExitStack, dsn: str, url: str | None, count: int) -> list[Member]:
    """So many running nodes, subscribed where there is a Redis."""
    found = [await stack.enter_async_context(member(dsn, url, bound_seconds=BOUND)) for _ in range(count)]
    if url is not None:
        await until(lambda: all(node.is_subscribed for node in found))
    return found


async def haunt(node: Member, *, silent_seconds: float = 0.0) -> None:
    """Put a node on the list that is not there: it was killed so long ago."""
    await node.revisions.report(NodeReport(GHOST, "test", "1", 1, None))

    async def work(connection: Connection) -> None:
        await connection.execute(
            "UPDATE nodes SET seen_at = clock_timestamp() - make_interval(secs => $2) WHERE id = $1",
            GHOST,
            silent_seconds,
        )

    await node.postgres.run(work, seconds=1.0)


async def restore(dsn: str) -> None:
    """Make the key revocable again."""
    await psql.run(dsn, "UPDATE api_keys SET revoked_at = NULL")


async def test_three_nodes_confirm_in_milliseconds(dsn: str, redis_url: str) -> None:
    """The answer says that all three have it, and all three have. R221, R232, R244."""
    async with AsyncExitStack() as stack:
        writer, *others = await nodes(stack, dsn, redis_url, 3)
        fastest = 10.0
        for _ in range(5):
            await restore(dsn)
            change = await writer.revoke()
            began = time.monotonic()
            answer = await writer.propagator.propagate(change, is_narrowing=True)
            fastest = min(fastest, time.monotonic() - began)
            assert (answer.state, answer.revision) == ("confirmed", change.revision)
            assert (answer.nodes, answer.reported) == (3, 3)
            for node in (writer, *others):
                assert node.view.revision >= change.revision
                assert not node.view.is_usable(change.revision - 1, ("key:k1",))
        assert fastest < 0.1
        assert await writer.changes.count_pending() == 0
        assert writer.metric("ostiary_propagation_seconds_count") == 5


async def test_the_shared_entry_goes_with_the_change(dsn: str, redis_url: str) -> None:
    """What Redis held of the secret is deleted. R230, R231."""
    async with AsyncExitStack() as stack:
        writer, other = await nodes(stack, dsn, redis_url, 2)
        assert other.entries is not None
        await other.entries.put(CURRENT, Finding(other.view.revision, (CURRENT,), None), 60.0)
        assert await other.entries.get(CURRENT) is not None
        await writer.revoke_and_propagate()

        async def is_gone() -> bool:
            assert other.entries is not None
            return await other.entries.get(CURRENT) is None

        await until(is_gone)


async def test_without_redis_the_nodes_polls_confirm(dsn: str) -> None:
    """Each node says in Postgres that its poll has brought it. R232."""
    async with AsyncExitStack() as stack:
        writer, *_ = await nodes(stack, dsn, None, 3)
        answer = await writer.revoke_and_propagate()
        assert (answer.state, answer.nodes, answer.reported) == ("confirmed", 3, 3)
        assert answer.seconds < BOUND


async def test_redis_down_the_call_still_ends_well(dsn: str, own_redis: OwnRedis) -> None:
    """With Redis merely down and Postgres reachable from all nodes, polls confirm in place of pushes. R232."""
    async with AsyncExitStack() as stack:
        writer, *_ = await nodes(stack, dsn, own_redis.url, 3)
        await own_redis.kill()
        answer = await writer.revoke_and_propagate()
        assert (answer.state, answer.nodes, answer.reported) == ("confirmed", 3, 3)


async def test_redis_frozen_the_call_still_ends_well(dsn: str, own_redis: OwnRedis) -> None:
    """The same with a Redis that takes connections and says nothing. R232."""
    async with AsyncExitStack() as stack:
        writer, *_ = await nodes(stack, dsn, own_redis.url, 2)
        own_redis.pause()
        try:
            answer = await writer.revoke_and_propagate()
        finally:
            own_redis.resume()
        assert (answer.state, answer.reported) == ("confirmed", 2)


@pytest.mark.parametrize("has_redis", [True, False])
async def test_a_dead_node_is_waited_for_no_longer_than_the_bound(dsn: str, redis_url: str, has_redis: bool) -> None:
    """A node that never replies counts as not knowing, until it can trust nothing. R236."""
    async with AsyncExitStack() as stack:
        (writer,) = await nodes(stack, dsn, redis_url if has_redis else None, 1)
        await haunt(writer)
        answer = await writer.revoke_and_propagate()
        assert (answer.state, answer.nodes, answer.reported) == ("confirmed", 2, 1)
        assert BOUND <= answer.seconds < BOUND + 1.5


@pytest.mark.parametrize("has_redis", [True, False])
async def test_a_node_that_is_dead_for_long_is_counted_out(dsn: str, redis_url: str, has_redis: bool) -> None:
    """Silent on the list and through a whole confirmation: nobody waits for it any more. R236."""
    async with AsyncExitStack() as stack:
        (writer,) = await nodes(stack, dsn, redis_url if has_redis else None, 1)
        await haunt(writer, silent_seconds=60.0)
        first = await writer.revoke_and_propagate()
        assert (first.nodes, first.reported) == (2, 1)
        assert first.seconds >= BOUND

        async def is_alone() -> bool:
            await restore(dsn)
            answer = await writer.revoke_and_propagate()
            return answer.nodes == 1 and answer.seconds < BOUND

        await until(is_alone, seconds=8 * BOUND)
        assert [row.id for row in await writer.revisions.nodes("test")] == [writer.id]


async def test_a_node_on_the_list_that_reports_again_is_not_counted_out(dsn: str, redis_url: str) -> None:
    """Silence that ended is no reason any more. R232."""
    async with AsyncExitStack() as stack:
        (writer,) = await nodes(stack, dsn, redis_url, 1)
        await haunt(writer, silent_seconds=60.0)
        await writer.revoke_and_propagate()
        await haunt(writer, silent_seconds=1.0)
        deadline = time.monotonic() + 2.5 * BOUND
        while time.monotonic() < deadline:
            await restore(dsn)
            answer = await writer.revoke_and_propagate()
            assert answer.nodes == 2


async def cut_from_postgres(node: Member) -> None:
    """From here on the node lives on pushes alone."""
    await node.until_pongs_count()
    await node.postgres.close()
    await until(lambda: not node.postgres.is_up)


async def test_a_node_that_lives_on_pushes_alone_replies(dsn: str, redis_url: str) -> None:
    """Cut off from Postgres, it hears the change, says so, and is confirmed at once. R232."""
    async with AsyncExitStack() as stack:
        writer, islander = await nodes(stack, dsn, redis_url, 2)
        await cut_from_postgres(islander)
        answer = await writer.revoke_and_propagate()
        assert (answer.nodes, answer.reported) == (2, 2)
        assert answer.seconds < BOUND
        assert islander.view.is_fresh
        assert "key:k1" in islander.evicted


async def test_what_cannot_be_confirmed_is_pending_until_a_relay_confirms_it(dsn: str, redis_url: str) -> None:
    """A writer that cannot publish claims nothing while a node may live on pushes; a relay finishes it. R232, R234."""
    async with AsyncExitStack() as stack:
        (islander,) = await nodes(stack, dsn, redis_url, 1)
        await cut_from_postgres(islander)
        writer = await stack.enter_async_context(member(dsn, NOWHERE, bound_seconds=BOUND))
        writer.seal.unlock(await writer.revisions.seal_key())
        change = await writer.revoke()
        with pytest.raises(RevocationPending) as caught:
            await writer.propagator.propagate(change, is_narrowing=True)
        assert (caught.value.code, caught.value.status) == ("revocation_pending", 503)
        assert islander.id not in caught.value.public
        assert await writer.changes.pending("key:k1") == change
        assert "key:k1" not in islander.evicted
        assert not writer.view.is_usable(change.revision - 1, ("key:k1",)), "refused wherever it is known"

        relaying = await stack.enter_async_context(member(dsn, redis_url, bound_seconds=BOUND, has_relay=True))

        async def is_settled() -> bool:
            return await writer.changes.pending("key:k1") is None

        await until(is_settled)
        assert "key:k1" in islander.evicted
        assert relaying.metric("ostiary_propagation_seconds_count") == 1


async def test_repeating_a_pending_change_resumes_it(dsn: str, own_redis: OwnRedis) -> None:
    """The second call finishes what the first could not. R233."""
    url = own_redis.url
    async with AsyncExitStack() as stack:
        (writer,) = await nodes(stack, dsn, url, 1)
        await haunt(writer)
        await own_redis.kill()
        change = await writer.revoke()
        with pytest.raises(RevocationPending):
            await writer.propagator.propagate(change, is_narrowing=True)
        await own_redis.start()
        assert await writer.changes.pending("key:k1") == change

        async def is_finished() -> bool:
            again = await writer.changes.pending("key:k1")
            if again is not None:
                assert (await writer.propagator.propagate(again, is_narrowing=True)).state == "confirmed"
            return again is None

        await until(is_finished)


async def test_a_widening_change_is_never_pending(dsn: str) -> None:
    """That a silent node may not know a new key yet is no danger: the answer says `unconfirmed`."""
    async with AsyncExitStack() as stack:
        (writer,) = await nodes(stack, dsn, None, 1)
        await haunt(writer)
        nowhere = await stack.enter_async_context(member(dsn, NOWHERE, bound_seconds=BOUND))

        async def work(connection: Connection) -> None:
            await connection.execute("UPDATE api_keys SET expires_at = NULL, scopes = '{new}'")

        _, change = await nowhere.changes.commit(work, target="key:k1", is_narrowing=False)
        answer = await nowhere.propagator.propagate(change, is_narrowing=False)
        assert answer.state == "unconfirmed"
        assert answer.reported == 2


async def test_what_changed_nothing_is_confirmed_at_once(dsn: str) -> None:
    """No revision, no waiting."""
    async with AsyncExitStack() as stack:
        (writer,) = await nodes(stack, dsn, None, 1)
        answer = await writer.propagator.propagate(Change("key:k1", 0, ()), is_narrowing=True)
        assert answer.state == "confirmed"


async def test_a_change_left_by_a_dead_writer_is_finished_after_a_restart(dsn: str, redis_url: str) -> None:
    """Killed between commit and push: whoever runs next relays it. R234."""
    async with AsyncExitStack() as stack:
        (writer,) = await nodes(stack, dsn, redis_url, 1)
        await writer.revoke()
        assert await writer.changes.count_pending() == 1
    async with member(dsn, redis_url, bound_seconds=BOUND, has_relay=True) as next_one:

        async def is_settled() -> bool:
            return await next_one.changes.count_pending() == 0

        await until(is_settled)
        await until(lambda: next_one.metric("ostiary_pending_propagations") == 0)


async def test_environments_that_share_a_database_keep_apart(dsn: str, redis_url: str) -> None:
    """What one environment has pending is neither settled nor relayed by another, whose nodes are not asked. R234."""
    async with AsyncExitStack() as stack:
        (writer,) = await nodes(stack, dsn, redis_url, 1)
        await writer.revoke()
        other = await stack.enter_async_context(member(dsn, redis_url, environment="other", bound_seconds=BOUND))
        assert await other.changes.count_pending() == 0
        assert await other.changes.pending("key:k1") is None
        assert await other.changes.pending_older_than(0, 10) == []
        change = await writer.changes.pending("key:k1")
        assert change is not None
        await other.changes.settle(change)
        assert await writer.changes.count_pending() == 1


async def test_many_changes_propagate_at_once(dsn: str, redis_url: str) -> None:
    """No lock across the fan-out: with a dead node on the list, fifty changes wait together, not in line. R238."""
    async with AsyncExitStack() as stack:
        writer, other = await nodes(stack, dsn, redis_url, 2)
        await haunt(writer)
        changes = []
        for _ in range(50):
            await restore(dsn)
            changes.append(await writer.revoke())
        began = time.monotonic()
        answers = await asyncio.gather(*(writer.propagator.propagate(change, is_narrowing=True) for change in changes))
        assert time.monotonic() - began < len(changes) * BOUND / 5
        assert {(answer.state, answer.reported) for answer in answers} == {("confirmed", 2)}
        assert other.view.revision >= changes[-1].revision


async def test_postgres_dying_after_the_commit(own_postgres: OwnPostgres, redis_url: str) -> None:
    """Published is enough: who has not heard it trusts nothing once the bound has passed. R232."""
    await plant(own_postgres.dsn)
    async with AsyncExitStack() as stack:
        writer, other = await nodes(stack, own_postgres.dsn, redis_url, 2)
        change = await writer.revoke()
        own_postgres.pause()
        try:
            answer = await writer.propagator.propagate(change, is_narrowing=True)
            assert answer.state == "confirmed"
            assert answer.nodes == 0
            assert answer.seconds >= BOUND
            assert "key:k1" in other.evicted
        finally:
            own_postgres.resume()


@pytest.mark.parametrize("has_redis", [True, False])
async def test_a_command_without_a_node_confirms_too(dsn: str, redis_url: str, has_redis: bool) -> None:
    """A writer that has no view and no ear is told by the nodes' rows. R232."""
    url = redis_url if has_redis else None
    async with AsyncExitStack() as stack:
        found = await nodes(stack, dsn, url, 2)
        metrics, clock = Metrics(), SystemClock()
        postgres = Postgres(dsn, metrics=metrics)
        await postgres.open()
        stack.push_async_callback(postgres.close)
        changes, revisions, channel = Changes(postgres, environment="test"), RevisionLog(postgres), None
        if url is not None:
            seal = Seal()
            seal.unlock(await revisions.seal_key())
            redis = Redis(url, environment="test", metrics=metrics)
            await redis.open()
            stack.push_async_callback(redis.close)
            channel = Channel(redis, seal, writer="command", clock=clock, bound_seconds=BOUND, metrics=metrics)
        propagator = Propagator(
            changes,
            revisions,
            environment="test",
            bound_seconds=BOUND,
            clock=clock,
            metrics=metrics,
            channel=channel,
        )
        await propagator.start()
        stack.push_async_callback(propagator.close)
        change = await found[0].revoke()
        answer = await propagator.propagate(change, is_narrowing=True)
        assert (answer.state, answer.nodes, answer.reported) == ("confirmed", 2, 2)
        assert answer.seconds < (0.8 if has_redis else BOUND)
