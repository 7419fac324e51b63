"""The limiter over accounts in memory: leases of several nodes, the shadow, and a ledger that is away."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.auth.principal import AuthKind, Principal
from gateway.errors import LimitsUnavailable
from gateway.limits.calendar import Calendar
from gateway.limits.ledger import Ledger
from gateway.limits.limit import Allowance, limits_of
from gateway.limits.limiter import Denied, Limiter, Verdict
from gateway.limits.rules import By, RouteLimits, Rule
from gateway.stores.records import SecretState
from gateway.telemetry.metrics import Metrics
from tests.fixtures.shelf import Shelf
from tests.fixtures.simulated_time import FakeClock
from tests.fixtures.waiting import until

EPOCH = 1_780_000_000.0
NOTHING = RouteLimits()


def caller(counts: dict[str, int]) -> Principal:
    allowance = Allowance(limits_of(counts, "plan")) if counts else None
    none: frozenset[str] = frozenset()
    kind, state = AuthKind.KEY, SecretState.CURRENT
    return Principal(kind, "t1", "u1", "k1", state, none, none, 1, b"", "starter", allowance)


class Node:
    """One node's limiter, with a ledger on the shelf if there is one."""

    def __init__(self, clock: FakeClock, shelf: Shelf | None = None, *, is_exact: bool = False) -> None:
        self.metrics = Metrics()
        calendar = Calendar(lambda now: EPOCH + now)
        self.ledger = None
        if shelf is not None:
            self.ledger = Ledger(
                shelf, is_exact=is_exact, patience_seconds=1.0, calendar=calendar, monotonic=clock.monotonic
            )
        self.limiter = Limiter(
            plan=Rule("plan", "plan", By.USER),
            calendar=calendar,
            monotonic=clock.monotonic,
            metrics=self.metrics,
            ledger=self.ledger,
        )

    async def ask(self, principal: Principal | None, limits: RouteLimits = NOTHING) -> Verdict:
        verdict = self.limiter.check(limits, principal, "10.0.0.1")
        return await self.limiter.resolve(limits, principal, "10.0.0.1") if verdict is None else verdict

    def limited(self, limiter: str, mode: str) -> float:
        return self.metrics.limited.cell(limiter, mode)[0]


HISTORY = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.0, 0.0, 0.05, 0.9, 7.0, 70.0]), st.integers(1, 4)),
    min_size=1,
    max_size=150,
)


@settings(max_examples=60)
@given(count=st.sampled_from([3, 10, 60, 400]), history=HISTORY, is_exact=st.booleans())
def test_nodes_together_stay_within_the_bound(count: int, history: Any, is_exact: bool) -> None:
    """In no interval is more let through than burst, rate and the leases that were out; nothing more if exact. R291."""

    async def play() -> None:
        clock = FakeClock()
        shelf = Shelf(clock.monotonic)
        nodes = [Node(clock, shelf, is_exact=is_exact) for _ in range(4)]
        for node in nodes:
            assert node.ledger is not None
            await node.ledger.start()
        principal = caller({"per_minute": count, "per_day": 5 * count})
        let: list[float] = []
        for number, pause, requests in history:
            clock.now += pause
            verdicts = [await nodes[number].ask(principal) for _ in range(requests)]
            let += [clock.now for verdict in verdicts if not isinstance(verdict, Denied)]
            await asyncio.sleep(0)  # the leases in the background
        bound = 0 if is_exact else 4 * max(1, count // 50)
        for first, start in enumerate(let):
            for last, end in enumerate(let[first:], first):
                assert last - first + 1 <= count + (end - start) * count / 60 + bound + 1e-6
        days = Counter(int((EPOCH + moment) // 86_400) for moment in let)
        assert max(days.values(), default=0) <= 5 * count
        for node in nodes:
            assert node.ledger is not None
            await node.ledger.close()

    asyncio.run(play())


async def test_what_is_leased_is_used_without_asking() -> None:
    """A warm request asks nobody: a lease of 20 lets 20 requests through with one call, but for the refill."""
    clock = FakeClock()
    shelf = Shelf(clock.monotonic)
    node = Node(clock, shelf)
    principal = caller({"per_minute": 1000})
    assert isinstance(await node.ask(principal), list)
    assert shelf.calls == 1
    for _ in range(20):
        assert isinstance(node.limiter.check(NOTHING, principal, ""), list)
    assert shelf.calls == 1


async def test_an_idle_lease_goes_back() -> None:
    """What a node that stops holds, another may use."""
    clock = FakeClock()
    shelf = Shelf(clock.monotonic)
    one, other = Node(clock, shelf), Node(clock, shelf)
    principal = caller({"per_hour": 100})
    assert isinstance(await one.ask(principal), list)
    assert one.ledger is not None
    await one.ledger.close()
    served = [isinstance(await other.ask(principal), list) for _ in range(110)]
    assert served.count(True) == 99


async def test_a_lease_that_nobody_uses_goes_back_while_its_node_runs() -> None:
    """After a second in which its node had no use for it, it is there for others."""
    clock = FakeClock()
    shelf = Shelf(clock.monotonic)
    one, other = Node(clock, shelf), Node(clock, shelf)
    principal = caller({"per_hour": 1000})
    assert one.ledger is not None
    await one.ledger.start()
    try:
        assert isinstance(await one.ask(principal), list)
        calls = shelf.calls
        clock.now += 1.5
        await until(lambda: shelf.calls > calls, what="the lease to be given back")
    finally:
        await one.ledger.close()
    served = [isinstance(await other.ask(principal), list) for _ in range(1010)]
    assert served.count(True) == 999


async def test_leases_that_were_out_are_all_that_is_exceeded_by() -> None:
    """Every node takes one, all of the budget comes back, and all is asked for at once. R291."""
    clock = FakeClock()
    shelf = Shelf(clock.monotonic)
    nodes = [Node(clock, shelf) for _ in range(4)]
    principal = caller({"per_hour": 400})
    for node in nodes:
        assert isinstance(await node.ask(principal), list)
    clock.now += 3600.0
    served = 0
    for number in range(600):
        served += isinstance(await nodes[number % 4].ask(principal), list)
    assert 400 <= served <= 400 + len(nodes) * (400 // 50)


async def test_what_was_leased_of_a_day_is_worth_nothing_the_day_after() -> None:
    """Nothing is exceeded of a quota, whatever was out at midnight. R291, R293."""
    clock = FakeClock()
    shelf = Shelf(clock.monotonic)
    nodes = [Node(clock, shelf) for _ in range(4)]
    principal = caller({"per_day": 400})
    for node in nodes:
        assert isinstance(await node.ask(principal), list)
    clock.now += 86_400.0
    served = 0
    for number in range(600):
        served += isinstance(await nodes[number % 4].ask(principal), list)
    assert served == 400


async def test_what_is_given_back_after_midnight_is_no_part_of_the_new_day() -> None:
    """A node that has been idle over midnight gives nothing back of the day before. R293."""
    clock = FakeClock()
    shelf = Shelf(clock.monotonic)
    idle, busy, late = Node(clock, shelf), Node(clock, shelf), Node(clock, shelf)
    principal = caller({"per_day": 400})
    assert isinstance(await idle.ask(principal), list)
    clock.now += 86_400.0
    served = [isinstance(await busy.ask(principal), list) for _ in range(410)].count(True)
    assert served == 400
    assert idle.ledger is not None
    await idle.ledger.close()
    assert [isinstance(await late.ask(principal), list) for _ in range(20)].count(True) == 0


async def test_without_the_ledger_each_node_goes_on_by_itself() -> None:
    """At the full limit, with a metric; a rule that is closed lets nobody pass. R296."""
    clock = FakeClock()
    shelf = Shelf(clock.monotonic)
    shelf.is_up = False
    nodes = [Node(clock, shelf), Node(clock, shelf, is_exact=True)]
    principal = caller({"per_minute": 3})
    for node in nodes:
        assert [isinstance(await node.ask(principal), list) for _ in range(4)] == [True] * 3 + [False]
        assert node.metrics.limits_degraded.cell("plan")[0] == 4
        dear = RouteLimits(
            (Rule("route", "dear", By.KEY, Allowance(limits_of({"per_day": 9}, "dear")), is_closed=True),)
        )
        with pytest.raises(LimitsUnavailable):
            await node.ask(principal, dear)


@pytest.mark.parametrize("shared", [None, False, True])
async def test_the_shadow_counts_once_and_refuses_nobody(shared: bool | None) -> None:
    """However budgets are counted: each request over a limit in the shadow is counted, once, and served. R294."""
    clock = FakeClock()
    node = Node(clock, None if shared is None else Shelf(clock.monotonic), is_exact=bool(shared))
    if node.ledger is not None:
        await node.ledger.start()
    shadow = Rule("route", "new", By.USER, Allowance(limits_of({"per_hour": 4}, "new")), is_shadow=True)
    for _ in range(10):
        assert isinstance(await node.ask(caller({"per_hour": 100}), RouteLimits((shadow,))), list)
        await asyncio.sleep(0.001)  # the leases in the background
    assert node.limited("route", "shadow") == 6
    assert node.limited("plan", "enforced") == 0
    if node.ledger is not None:
        await node.ledger.close()


async def test_who_is_refused_by_one_limit_is_charged_by_none() -> None:
    """A route's limit refuses: the plan's account is as it was. R293."""
    clock = FakeClock()
    node = Node(clock)
    busy = RouteLimits((Rule("route", "busy", By.ADDRESS, Allowance(limits_of({"per_minute": 2}, "busy"))),), cost=2)
    principal = caller({"per_minute": 10})
    assert isinstance(await node.ask(principal, busy), list)
    for _ in range(5):
        verdict = await node.ask(principal, busy)
        assert isinstance(verdict, Denied)
        assert (verdict.rule.name, verdict.shortage.retry_seconds) == ("busy", 60)
        assert verdict.accounts[0].remaining(0) == 8
    assert node.limited("route", "enforced") == 5
