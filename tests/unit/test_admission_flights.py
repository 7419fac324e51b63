"""Lookups that are shared: one per secret however many ask, and nobody's leaving is felt by the others."""

import asyncio
import gc

import pytest

from gateway.auth.admission import Admitted
from gateway.auth.credentials import Credential
from gateway.auth.flights import LONGEST_QUEUE
from gateway.auth.questions import MOST_REPEATS
from gateway.auth.refusal import Refusal
from gateway.errors import Outage, StoreUnavailable
from tests.fixtures.admission_world import REQUIRED, World, credential, settle


def start(world: World, presented: Credential, count: int = 1) -> list[asyncio.Task[Admitted | Refusal]]:
    """So many requests, as tasks."""
    return [asyncio.create_task(world.decide(presented)) for _ in range(count)]


@pytest.fixture
def held() -> World:
    """A world whose truth does not answer until its gate is opened."""
    world = World(has_shared=False)
    world.truth.trouble.gate = asyncio.Event()
    return world


def open_gate(world: World) -> None:
    assert world.truth.trouble.gate is not None
    world.truth.trouble.gate.set()


# -- one lookup per secret


async def test_many_requests_with_one_key_are_one_lookup(held: World) -> None:
    """Fifty cold requests at once ask the truth once, and all get its answer. R048 R256."""
    requests = start(held, held.plant("a"), 50)
    await settle()
    open_gate(held)
    answers = await asyncio.gather(*requests)
    assert len(held.truth.questions) == 1
    assert all(answer is answers[0] for answer in answers)
    assert isinstance(answers[0], Admitted)


@pytest.mark.threat("flood of unknown keys")
async def test_many_requests_with_one_unknown_key_are_one_lookup(held: World) -> None:
    """So it is for a key that nobody has. R046 R048."""
    requests = start(held, credential("nobody"), 50)
    await settle()
    open_gate(held)
    assert {str(answer) for answer in await asyncio.gather(*requests)} == {str(await requests[0])}
    assert len(held.truth.questions) == 1


async def test_different_keys_do_not_wait_for_each_other(held: World) -> None:
    """N keys are N lookups, under way at the same time; each caller gets its own answer. R049."""
    names = [f"key {number}" for number in range(20)]
    requests = [start(held, held.plant(name))[0] for name in names]
    await settle()
    assert len(held.truth.questions) == 20
    open_gate(held)
    for name, answer in zip(names, await asyncio.gather(*requests), strict=True):
        assert isinstance(answer, Admitted)
        assert answer.principal is not None
        assert answer.principal.key_id == f"key-{name}"


async def test_a_failure_is_everybodys_and_is_over_then(held: World) -> None:
    """All who waited for a lookup that failed hear of the outage; the next one is a new lookup. R047 R049."""
    key = held.plant("a")
    held.truth.trouble.error = StoreUnavailable("away")
    requests = start(held, key, 50)
    await settle()
    open_gate(held)
    answers = await asyncio.gather(*requests, return_exceptions=True)
    assert all(isinstance(answer, Outage) for answer in answers)
    assert len(held.truth.questions) == 1
    assert held.counted("key", "postgres", "outage") == 50
    held.truth.trouble.error = None
    held.clock.now += 1
    assert await held.outcome(key) == "admitted key-a"
    assert len(held.truth.questions) == 2


# -- who leaves


async def test_the_first_to_ask_may_leave(held: World) -> None:
    """The client whose request began the lookup goes away; the others get their answer from it. R050."""
    key = held.plant("a")
    leader, *others = start(held, key, 10)
    await settle()
    leader.cancel()
    await settle()
    assert leader.cancelled()
    open_gate(held)
    assert all(isinstance(answer, Admitted) for answer in await asyncio.gather(*others))
    assert len(held.truth.questions) == 1


async def test_all_may_leave(held: World) -> None:
    """Then the lookup ends by itself, and its answer is kept. R049 R050."""
    key = held.plant("a")
    for request in start(held, key, 3):
        await settle()
        request.cancel()
    await settle()
    open_gate(held)
    await settle()
    assert isinstance(held.admission.admit(key, REQUIRED), Admitted)


async def test_a_failure_that_nobody_waits_for_is_no_complaint(held: World) -> None:
    """A lookup that fails after all who asked have left is not reported as an error that nobody saw. R050."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    held.truth.trouble.error = StoreUnavailable("away")
    (request,) = start(held, credential("a"))
    await settle()
    request.cancel()
    await settle()
    open_gate(held)
    await settle()
    gc.collect()
    assert len(held.truth.questions) == 1
    assert complaints == []


async def test_a_hung_lookup_hinders_no_other_key(held: World) -> None:
    """While one waits for an answer, a key that is known or answered goes through. R051."""
    known = held.plant("known")
    open_gate(held)
    await held.decide(known)
    held.truth.trouble.gate = asyncio.Event()
    (hung,) = start(held, held.plant("a"))
    await settle()
    held.truth.trouble.gate = None
    assert await held.outcome(known) == "admitted key-known"
    assert await held.outcome(held.plant("b")) == "admitted key-b"
    assert not hung.done()
    hung.cancel()
    await held.admission.close()


async def test_closing_ends_what_is_under_way(held: World) -> None:
    """Nothing of a closed admission is left running: neither lookups nor what they leave for others."""
    before = asyncio.all_tasks()
    start(held, held.plant("a"), 3)
    await settle()
    await held.admission.close()
    await settle()
    assert asyncio.all_tasks() == before


# -- how many may wait


@pytest.mark.threat("flood of unknown keys")
async def test_the_queue_has_an_end(held: World) -> None:
    """With so many secrets waiting, one more is told at once to come back; one of those may still be joined. R052."""
    waiting = [start(held, credential(f"unknown {number}"))[0] for number in range(LONGEST_QUEUE)]
    await settle()
    async with asyncio.timeout(5):
        assert await held.outcome(credential("one more")) == "outage"
    assert len(held.truth.questions) == LONGEST_QUEUE
    (joined,) = start(held, credential("unknown 0"))
    await settle()
    open_gate(held)
    assert all(isinstance(answer, Refusal) for answer in await asyncio.gather(joined, *waiting))
    assert await held.outcome(credential("one more")) == "invalid_api_key"


# -- overtaken by a change


@pytest.mark.threat("lookup against revocation")
async def test_a_lookup_that_was_overtaken_is_repeated(held: World) -> None:
    """The row was read, the key revoked, then the answer came: it counts for nothing, in no tier. R231."""
    world = World()
    world.truth.trouble.gate = asyncio.Event()
    key = world.plant("a")
    requests = start(world, key, 5)
    await settle()
    world.change("a", is_revoked=True)
    open_gate(world)
    answers = await asyncio.gather(*requests)
    assert {answer.reason.value for answer in answers if isinstance(answer, Refusal)} == {"key_revoked"}
    assert len(world.truth.questions) == 2
    await settle()
    assert [finding.revision for _, finding, _ in world.shared.puts] == [2]


async def test_an_absence_that_was_overtaken_is_repeated(held: World) -> None:
    """The key was created while the answer that there is none was on its way. R061 R231."""
    (request,) = start(held, credential("a"))
    await settle()
    held.change("a")
    open_gate(held)
    assert isinstance(await request, Admitted)


@pytest.mark.threat("lookup against revocation")
async def test_an_answer_from_the_shared_cache_can_be_overtaken_too() -> None:
    """The entry was read, the key revoked, then it arrived: the truth is asked. R231."""
    world = World()
    key = world.plant("a")
    await world.decide(key)
    await settle()
    world.admission.forget_all()
    world.shared.on_get.gate = asyncio.Event()
    (request,) = start(world, key)
    await settle()
    world.change("a", is_revoked=True)
    world.shared.on_get.gate.set()
    answer = await request
    assert isinstance(answer, Refusal)
    assert answer.reason.value == "key_revoked"


@pytest.mark.threat("lookup against revocation")
async def test_a_change_between_the_answer_and_its_use_counts() -> None:
    """In the one moment between the lookup's end and the waiting request's turn, a change is still seen. R231."""
    world = World(has_shared=False)
    key = world.plant("a")

    def overtake() -> None:
        world.truth.before_answer = lambda: None
        asyncio.get_running_loop().call_soon(lambda: world.change("a", is_revoked=True))

    world.truth.before_answer = overtake
    assert await world.outcome(key) == "key_revoked"
    assert await world.outcome(key) == "key_revoked"


async def test_a_view_that_lapses_during_a_lookup_is_made_fresh_first() -> None:
    """An answer may only be used while the view is fresh, however new it is. R058."""
    world = World(has_shared=False)
    key = world.plant("a")

    def lapse() -> None:
        world.truth.before_answer = lambda: None
        world.view.fresh_until = world.clock.now

    async def refreshed() -> None:
        world.view.fresh_until = world.clock.now + 1

    world.truth.before_answer = lapse
    assert await world.outcome(key) == "outage"
    world.on_refresh = refreshed
    world.truth.before_answer = lapse
    world.view.fresh_until = world.clock.now + 1
    assert await world.outcome(key) == "admitted key-a"
    assert world.refreshes > 0


async def test_a_lookup_that_is_overtaken_for_ever_ends_as_an_outage() -> None:
    """Changes that never pause cost a bounded number of questions, and admit nobody. R051 R231."""
    world = World()
    key = world.plant("a")
    world.truth.before_answer = lambda: world.change("a")
    assert await world.outcome(key) == "outage"
    assert len(world.truth.questions) == MOST_REPEATS
    await settle()
    assert world.shared.puts == []
    world.truth.before_answer = lambda: None
    assert await world.outcome(key) == "admitted key-a"
