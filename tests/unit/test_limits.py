"""The arithmetic of limits, against a model that remembers every request."""

from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.account import Account, Accounts
from gateway.limits.calendar import Calendar
from gateway.limits.limit import FLOW_SECONDS, Allowance, Unit, allowance_of, limits_of

NOON = datetime(2026, 2, 27, 12, tzinfo=UTC).timestamp()
DAY = 86_400
TICKS = 1024  # a second, in parts that a float holds exactly


def calendar(epoch: float = NOON, started: float = 0.0) -> Calendar:
    made = Calendar(lambda now: epoch + now - started)
    made.turn(started)
    return made


class Caller:
    """Asks for requests at moments of its own; `let` says whether one was let through."""

    def __init__(self, counts: dict[str, int], burst: int | None = None, epoch: float = NOON) -> None:
        self.allowance = Allowance(limits_of(counts, "plan", burst))
        self.calendar = calendar(epoch)
        self.account = Account(self.allowance, 0.0)

    def let(self, now: float, cost: int = 1) -> bool:
        self.settle(now)
        if self.account.is_short(cost):
            return False
        self.account.charge(cost)
        return True

    def settle(self, now: float) -> None:
        if now >= self.calendar.turns_at:
            self.calendar.turn(now)
        self.account.settle(self.allowance, now, self.calendar.began)


HISTORIES = st.lists(st.tuples(st.integers(0, 40 * TICKS), st.integers(1, 3)), max_size=80)


@given(
    window=st.sampled_from(sorted(FLOW_SECONDS)),
    count=st.sampled_from([1, 2, 5, 16, 60, 1000]),
    burst=st.none() | st.integers(1, 20),
    history=HISTORIES,
)
def test_a_window_is_a_bucket_that_leaks(window: str, count: int, burst: int | None, history: Any) -> None:
    """What is let through is what an exact bucket lets through, but for the last billionth of a request. R291."""
    caller = Caller({window: count}, burst)
    rate, size = Fraction(count, FLOW_SECONDS[window]), burst or count
    level, ticks, before = Fraction(0), 0, 0
    for pause, cost in history:
        ticks += pause
        level = max(Fraction(0), level - Fraction(ticks - before, TICKS) * rate)
        before = ticks
        is_let = caller.let(ticks / TICKS, cost)
        room = size - level - cost
        if abs(room) > Fraction(1, 10**9) and level > Fraction(1, 10**9):
            assert is_let == (room >= 0)
        if is_let:
            level += cost


@given(count=st.integers(1, 50), burst=st.none() | st.integers(1, 20), history=HISTORIES)
def test_no_interval_holds_more_than_was_sold(count: int, burst: int | None, history: Any) -> None:
    """Between any two moments: no more than the burst and what the rate gives in between. R291."""
    caller = Caller({"per_minute": count}, burst)
    now, let = 0.0, []
    for pause, _ in history:
        now += pause / TICKS
        if caller.let(now):
            let.append(now)
    for first, start in enumerate(let):
        for last, end in enumerate(let[first:], first):
            assert last - first + 1 <= (burst or count) + (end - start) * count / 60 + 1e-6


@given(count=st.integers(1, 30), history=st.lists(st.tuples(st.integers(0, DAY), st.integers(1, 3)), max_size=80))
def test_a_quota_is_a_count_since_midnight(count: int, history: Any) -> None:
    """A day's quota is what was let through since 00:00 UTC, whatever was refused in between. R293."""
    caller = Caller({"per_day": count})
    now, used, day = 0, 0, int(NOON // DAY)
    for pause, cost in history:
        now += pause
        if int((NOON + now) // DAY) != day:
            used, day = 0, int((NOON + now) // DAY)
        is_let = caller.let(float(now), cost)
        assert is_let == (used + cost <= count or used == 0)
        used += cost * is_let


@given(history=st.lists(st.tuples(st.integers(0, 20 * TICKS), st.booleans()), min_size=1, max_size=60))
def test_what_is_told_is_true(history: Any) -> None:
    """Who waits for as long as told is let through; who comes a second earlier is not; nothing is negative. R292."""
    caller = Caller({"per_minute": 7, "per_hour": 31})
    now = 0.0
    for pause, _ in history:
        now += pause / TICKS
        if caller.let(now):
            continue
        short = caller.account.shortage(1, caller.calendar)
        assert short.retry_seconds >= 1
        assert short.retry_seconds <= short.reset_seconds
        assert short.remaining >= 0
        if short.retry_seconds > 1:
            assert not caller.let(now + short.retry_seconds - 1.001)
        now += short.retry_seconds + 1e-6
        assert caller.let(now)


def test_a_refused_request_consumes_nothing() -> None:
    """However often a caller is refused by the day, its minutes stay full, and the day's count as it was. R293."""
    caller = Caller({"per_minute": 60, "per_day": 3})
    assert [caller.let(1.0) for _ in range(50)] == [True] * 3 + [False] * 47
    assert caller.account.levels == [3.0, 3.0]
    short = caller.account.shortage(1, caller.calendar)
    assert (short.limit.window, short.remaining, short.retry_seconds) == ("per_day", 0, 12 * 3600 - 1)
    assert caller.let(12 * 3600.0)


def test_a_month_ends_with_its_last_day() -> None:
    """Quotas of a month begin again on the first, at 00:00 UTC; those of a day in between have gone by. R293."""
    caller = Caller({"per_day": 2, "per_month": 3})
    assert [caller.let(0.0) for _ in range(3)] == [True, True, False]
    assert [caller.let(12 * 3600.0 + DAY / 2) for _ in range(2)] == [True, False]  # the 28th; the month is used up
    assert not caller.let(1.5 * DAY - 1.0)
    assert [caller.let(1.5 * DAY) for _ in range(3)] == [True, True, False]  # the first of March


@pytest.mark.parametrize("step", [40 * 3600.0, 400 * DAY, -40 * 3600.0, -400 * DAY])
def test_a_stepped_clock_makes_no_new_day(step: float) -> None:
    """A clock that jumps while a day is under way gives no quota twice, in either direction. R293."""
    epoch = NOON
    days = Calendar(lambda now: epoch + now)
    days.turn(0.0)
    assert days.ends[Unit.DAY] == DAY / 2
    epoch += step
    days.turn(100.0)
    assert days.began[Unit.DAY] == 0.0
    assert abs(days.ends[Unit.DAY] - DAY / 2) <= 2.0
    now, begun = 100.0, 0
    while now < 20 * DAY:
        now = days.turns_at
        before = days.index[Unit.DAY]
        days.turn(now)
        begun += days.index[Unit.DAY] - before
        assert days.index[Unit.DAY] - before in (0, 1)
    assert begun <= 21


def test_allowances_of_plans() -> None:
    """-1 is unlimited, 0 and what nobody mentions limit nothing; a user's own limits go before the plan's. R295."""
    assert allowance_of({}, {}) is None
    assert allowance_of({"per_minute": -1, "per_day": 0}, {"per_minute": 5}) is None
    allowance = allowance_of({"per_day": 1000, "per_minute": 60}, {"per_minute": 5})
    assert allowance is not None
    assert [(limit.window, limit.count) for limit in allowance.limits] == [("per_minute", 60), ("per_day", 1000)]
    assert allowance.policy == b'"plan.per_minute";q=60;w=60, "plan.per_day";q=1000;w=86400'
    assert allowance_of({"per_minute": 60, "per_day": 1000}, {}) is allowance


@pytest.mark.parametrize("nonsense", ["60", 1.5, None, True, -2, [60], {"per_minute": 60}])
def test_an_override_that_makes_no_sense_leaves_the_plans(nonsense: Any) -> None:
    """The plan's value stands, and that it does is told; without one there is no limit. R300."""
    allowance = allowance_of({"per_minute": nonsense, "per_day": 10}, {"per_minute": 5, "per_day": 20})
    assert allowance is not None
    assert [(limit.window, limit.count) for limit in allowance.limits] == [("per_minute", 5), ("per_day", 10)]
    assert allowance.malformed == ("per_minute",)
    bare = allowance_of({"per_minute": nonsense}, {})
    assert bare is not None
    assert (bare.limits, bare.malformed) == ((), ("per_minute",))


def test_a_changed_plan_keeps_what_was_used() -> None:
    """A change of plan is no new budget: what has been used of a window counts against its new limit."""
    caller = Caller({"per_minute": 5})
    assert [caller.let(0.0) for _ in range(6)].count(True) == 5
    caller.allowance = Allowance(limits_of({"per_minute": 8, "per_day": 100}, "plan"))
    assert [caller.let(0.0) for _ in range(6)].count(True) == 3


def test_a_request_that_costs_more_than_a_burst_waits_for_an_unused_one() -> None:
    """It is let through once nothing is used, and is paid for afterwards."""
    caller = Caller({"per_minute": 60}, burst=3)
    assert caller.let(0.0, 5)
    assert not caller.let(4.9, 5)
    assert caller.let(5.0, 5)


def test_accounts_are_bounded() -> None:
    """The most recently used are kept, and never more than three times as many."""
    accounts: Accounts[Account] = Accounts(100)
    allowance = Allowance(limits_of({"per_minute": 5}, "plan"))
    for number in range(10_000):
        accounts.put(f"user-{number}", Account(allowance, 0.0))
        assert accounts.get("user-0") is not None
        assert accounts.get(f"user-{max(0, number - 45)}") is not None
        assert len(accounts) <= 200
    assert accounts.get("user-5000") is None
