"""How often an administrator may call, on a clock that is moved by hand."""

import pytest

from gateway.control.call_rate import CallRate, TooManyCalls
from tests.fixtures.admission_world import MovedClock


def taken(rate: CallRate, caller: str = "adm_a") -> int | None:
    """None where the call is let through, else the seconds of Retry-After."""
    try:
        rate.take(caller)
    except TooManyCalls as error:
        return error.retry_after_seconds
    return None


@pytest.mark.parametrize("per_minute", [1, 7, 60, 6000])
def test_so_many_at_once_and_then_one_by_one(per_minute: int) -> None:
    """A whole minute's calls at once, then one for each part of the minute that has gone by. R277."""
    clock = MovedClock()
    rate = CallRate(per_minute, clock.monotonic)
    assert [taken(rate) for _ in range(per_minute)] == [None] * per_minute
    for _ in range(5):
        wait_seconds = taken(rate)
        assert wait_seconds == max(1, -(-60 // per_minute))
        clock.now += 60 / per_minute
        assert taken(rate) is None
    clock.now += 3600
    assert [taken(rate) for _ in range(per_minute)] == [None] * per_minute
    assert taken(rate) is not None


def test_what_is_refused_is_not_counted() -> None:
    """Who goes on trying waits no longer for it."""
    clock = MovedClock()
    rate = CallRate(1, clock.monotonic)
    assert [taken(rate) for _ in range(3)] == [None, 60, 60]
    clock.now += 60
    assert taken(rate) is None


def test_each_caller_has_its_own() -> None:
    """One administrator takes nothing from another."""
    rate = CallRate(1, MovedClock().monotonic)
    assert [taken(rate, caller) for caller in ("adm_a", "adm_b", "adm_a")] == [None, None, 60]
