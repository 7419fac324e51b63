"""Stores that are away, late or wrong: who is known is served while that is safe, and nobody else is let in."""

import asyncio
import contextlib
from math import inf

import pytest

from gateway.auth.admission import Admitted
from gateway.auth.questions import BACK_OFF_SECONDS
from gateway.auth.refusal import Refusal
from gateway.consistency.view import View
from gateway.errors import Outage, StoreUnavailable
from gateway.stores.postgres.revisions import PollAnswer
from gateway.stores.records import Finding, Invalidation
from tests.fixtures.admission_world import EPOCH, REQUIRED, TTL_SECONDS, MovedClock, World, credential, settle

AWAY = StoreUnavailable("Postgres: refused by db-7.internal")


# -- the truth is away


@pytest.mark.threat("failure taken for admission")
async def test_an_outage_is_an_outage_and_leaves_nothing_behind() -> None:
    """A lookup that fails is no verdict on the caller, and nothing of it is remembered anywhere. R047 R070."""
    world = World()
    key = world.plant("a")
    world.truth.trouble.error = AWAY
    assert await world.outcome(key) == "outage"
    assert await world.outcome(credential("nobody")) == "outage"
    await settle()
    assert world.shared.puts == []
    world.truth.trouble.error = None
    world.clock.now += BACK_OFF_SECONDS
    assert await world.outcome(key) == "admitted key-a"
    assert await world.outcome(credential("nobody")) == "invalid_api_key"


async def test_the_truth_is_left_alone_for_a_moment_after_a_failure() -> None:
    """During an outage not every request asks: the first after the pause does, and succeeds. R052 R071."""
    world = World(has_shared=False)
    keys = [world.plant(f"{number}") for number in range(20)]
    world.truth.trouble.error = AWAY
    for key in keys:
        assert await world.outcome(key) == "outage"
    assert len(world.truth.questions) == 1
    world.clock.now += BACK_OFF_SECONDS - 0.001
    world.truth.trouble.error = None
    assert await world.outcome(keys[0]) == "outage"
    world.clock.now += 0.001
    assert await world.outcome(keys[0]) == "admitted key-0"


async def test_the_pause_ends_with_an_answered_poll() -> None:
    """Who is known to be back is asked at once; a poll that was under way at the failure proves nothing. R071."""
    world = World(has_shared=False)
    key = world.plant("a")
    world.truth.trouble.error = AWAY
    assert await world.outcome(key) == "outage"
    world.truth.trouble.error = None
    world.view.polled_at = world.clock.now
    assert await world.outcome(key) == "outage"
    world.clock.now += 0.001
    world.view.polled_at = world.clock.now
    assert await world.outcome(key) == "admitted key-a"


def test_who_comes_back_when_told_to_finds_the_pause_over() -> None:
    """The pause is shorter than what callers are told to wait. R052 R072."""
    assert Outage.retry_after_seconds is not None
    assert 0 < BACK_OFF_SECONDS < Outage.retry_after_seconds


async def test_the_shared_cache_answers_while_the_truth_is_away() -> None:
    """What another node has found is good under a fresh view, also while the truth is silent. R059."""
    world = World()
    key = world.plant("a")
    world.shared.findings[key.digest] = Finding(1, (key.digest,), world.truth.records[key.digest])
    world.truth.trouble.error = AWAY
    assert await world.outcome(key) == "admitted key-a"


async def test_a_known_key_is_served_past_its_time_while_nobody_can_tell() -> None:
    """A fresh view proves that nothing was revoked unseen, so a warm entry serves on; an unknown key does not. R059."""
    world = World(has_shared=False)
    key = world.plant("a")
    await world.decide(key)
    await world.decide(credential("nobody"))
    world.truth.trouble.error = AWAY
    for _ in range(50):
        world.clock.now += TTL_SECONDS
        assert await world.outcome(key) == "admitted key-a"
        assert await world.outcome(credential("nobody")) == "invalid_api_key"
        assert await world.outcome(credential("never seen")) == "outage"
    world.truth.trouble.error = None
    world.clock.now += BACK_OFF_SECONDS
    world.truth.questions.clear()
    assert await world.outcome(key) == "admitted key-a"
    assert len(world.truth.questions) == 1


async def test_serving_on_ends_with_a_deadline_a_change_or_the_view() -> None:
    """What serves on is still refused at its end, after a change, and when the view has lapsed. R045 R058 R059."""
    world = World(has_shared=False)
    ending = world.plant("ending", key_expires_at=EPOCH + world.clock.now + TTL_SECONDS + 5)
    changed, known = world.plant("changed"), world.plant("known")
    for key in (ending, changed, known):
        await world.decide(key)
    world.truth.trouble.error = AWAY
    world.clock.now += TTL_SECONDS + 1
    for key in (ending, changed, known):
        assert (await world.outcome(key)).startswith("admitted")
    world.clock.now += 4
    world.change("changed", is_revoked=True)
    assert await world.outcome(ending) == "key_expired"
    assert await world.outcome(changed) == "outage"
    world.view.fresh_until = world.clock.now
    assert await world.outcome(known) == "outage"


async def test_a_known_key_does_not_wait_for_a_truth_that_hangs() -> None:
    """Past its time an entry waits for its refresh a moment at most, then serves on while that goes on. R051 R059."""
    world = World(has_shared=False)
    key = world.plant("a", key_expires_at=EPOCH + world.clock.now + 2 * TTL_SECONDS)
    await world.decide(key)
    world.truth.trouble.gate = asyncio.Event()
    world.clock.now += TTL_SECONDS
    for _ in range(3):
        async with asyncio.timeout(1):
            assert await asyncio.gather(*(world.outcome(key) for _ in range(10))) == ["admitted key-a"] * 10
        assert world.admission.admit(key, REQUIRED) is not None
        world.clock.now += BACK_OFF_SECONDS
    assert len(world.truth.questions) == 2, "one lookup is under way for all of them"
    world.truth.trouble.gate.set()
    await settle()
    world.clock.now += TTL_SECONDS - 2
    assert world.admission.admit(key, REQUIRED) is not None, "its answer has been taken when it came"
    world.clock.now += 2
    assert await world.outcome(key) == "key_expired"


async def test_waiting_for_a_hung_truth_hides_no_change() -> None:
    """An entry that is changed while it waits for its refresh does not serve on. R231."""
    world = World(has_shared=False)
    key = world.plant("a")
    await world.decide(key)
    world.truth.trouble.gate = asyncio.Event()
    world.clock.now += TTL_SECONDS
    request = asyncio.create_task(world.outcome(key))
    await settle()
    world.change("a", is_revoked=True)
    world.truth.trouble.gate.set()
    assert await request == "key_revoked"


async def test_nobody_waits_twice() -> None:
    """A view that lapses while the truth fails to answer is an outage then, not another question. R051 R058."""
    world = World(has_shared=False)
    key = world.plant("a")
    await world.decide(key)
    world.truth.trouble.gate = asyncio.Event()
    world.truth.trouble.error = AWAY
    world.clock.now += TTL_SECONDS
    request = asyncio.create_task(world.outcome(key))
    await settle()
    world.view.fresh_until = world.clock.now
    world.truth.trouble.gate.set()
    assert await request == "outage"
    assert world.refreshes == 0


async def test_old_news_of_others_do_not_end_serving_on() -> None:
    """A node cut off from Postgres hears pushes for long: what nobody has changed is still served. R059."""
    clock = MovedClock()
    view = View(clock, bound_seconds=2.0, retention_seconds=2 * TTL_SECONDS)
    world = World(has_shared=False, view=view, clock=clock)
    view.listen(on_invalidated=lambda subjects, _: world.admission.evict(subjects), on_reset=world.admission.forget_all)
    view.registered(clock.now)
    view.push_confirmed(clock.now)
    view.apply_start(PollAnswer(1, 1, EPOCH + clock.now, ()), view.ask())
    key = world.plant("a")
    await world.decide(key)
    world.truth.trouble.error = AWAY
    for revision in range(2, 12):
        clock.now += 1.0
        view.apply_pong(clock.now)
        view.apply_push(revision, [Invalidation(revision, f"key:other-{revision}")])
    while clock.now < 1000.0 + 4 * TTL_SECONDS:
        clock.now += 1.0
        view.apply_pong(clock.now)
        assert await world.outcome(key) == "admitted key-a"
    view.apply_push(12, [Invalidation(12, "key:yet another")])
    assert view.floor > 1, "the view has forgotten what was before"
    clock.now += 1.0
    view.apply_pong(clock.now)
    assert await world.outcome(key) == "admitted key-a"
    clock.now += TTL_SECONDS
    view.apply_pong(clock.now)
    assert await world.outcome(key) == "outage", "the view has lapsed meanwhile"


# -- the view is stale


async def test_a_stale_view_admits_nobody() -> None:
    """Both sources of news gone for longer than the bound: known or not, the answer is an outage. R058."""
    world = World()
    key = world.plant("a")
    await world.decide(key)
    world.view.fresh_until = world.clock.now
    assert await world.outcome(key) == "outage"
    assert await world.outcome(credential("nobody")) == "outage"
    assert world.refreshes == 2
    assert len(world.truth.questions) == 1


async def test_a_view_that_can_be_refreshed_is() -> None:
    """The first request that finds the view stale asks for news, and is served with them. R071."""
    world = World()
    key = world.plant("a")
    await world.decide(key)
    world.view.fresh_until = world.clock.now

    async def refreshed() -> None:
        world.view.fresh_until = inf

    world.on_refresh = refreshed
    assert await world.outcome(key) == "admitted key-a"
    assert world.refreshes == 1


async def test_known_keys_in_isolation() -> None:
    """Where the operator has chosen so, known keys are served for so long without news, and counted. R058."""
    world = World(isolated_seconds=30)
    key, revoked = world.plant("a"), world.plant("b", is_revoked=True)
    for known in (key, revoked):
        await world.decide(known)
    world.view.fresh_until = world.clock.now
    world.clock.now += 29
    assert await world.outcome(key) == "admitted key-a"
    assert await world.outcome(revoked) == "key_revoked"
    assert await world.outcome(credential("nobody")) == "outage"
    assert world.metrics.registry.get_sample_value("ostiary_served_isolated_total") == 2
    world.clock.now += 1
    assert await world.outcome(key) == "outage"


async def test_isolation_ends_with_the_first_news() -> None:
    """News that can be had are waited for before anybody is served without; a key that they void is refused. R071."""
    world = World(isolated_seconds=30)
    key = world.plant("a")
    await world.decide(key)
    world.view.fresh_until = world.clock.now

    async def refreshed() -> None:
        world.view.fresh_until = inf
        world.change("a", is_revoked=True)

    world.on_refresh = refreshed
    assert await world.outcome(key) == "key_revoked"
    assert world.metrics.registry.get_sample_value("ostiary_served_isolated_total") == 0


# -- the shared cache fails


async def test_a_write_to_the_shared_cache_is_nobodys_business() -> None:
    """It may hang or fail: the caller has long been answered. R056 R076."""
    world = World()
    world.shared.on_put.gate = asyncio.Event()
    assert await world.outcome(world.plant("a")) == "admitted key-a"
    world.shared.on_put.gate.set()
    world.shared.on_put.error = RuntimeError("out of memory")
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    assert await world.outcome(world.plant("b")) == "admitted key-b"
    await settle()
    assert world.shared.puts == []


# -- anything may raise, anywhere

ERRORS = [
    StoreUnavailable("away"),
    TimeoutError(),
    OSError("broken pipe"),
    RuntimeError("never foreseen"),
    KeyError("digest"),
    MemoryError(),
    asyncio.CancelledError(),
    asyncio.InvalidStateError(),
]


@pytest.mark.threat("failure taken for admission")
@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "after a while"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["refresh", "get", "find", "put", "view"])
async def test_whatever_raises_nobody_is_let_in(place: str, error: BaseException, is_late: bool) -> None:
    """A revoked key, an unknown one and a stale copy: no failure of any part makes one of them an `Admitted`. R075."""
    world = World()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    revoked = world.plant("revoked")
    stale = Finding(1, (revoked.digest,), world.truth.records[revoked.digest])
    world.change("revoked", is_revoked=True)
    world.shared.findings[revoked.digest] = stale

    async def fail() -> None:
        if is_late:
            await asyncio.sleep(0)
        raise error

    match place:
        case "refresh":
            world.view.fresh_until = 0.0
            world.on_refresh = fail
        case "get":
            world.shared.on_get.error = error
        case "find":
            world.truth.trouble.error = error
        case "put":
            world.shared.on_put.error = error
        case "view":
            world.view.error = error
    for presented in (revoked, credential("nobody"), revoked, credential("nobody")):
        with contextlib.suppress(Outage, type(error)):
            assert isinstance(await world.decide(presented), Refusal)
    assert not any(
        isinstance(world.admission.admit(key, REQUIRED), Admitted) for key in (revoked, credential("nobody"))
    )
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}
