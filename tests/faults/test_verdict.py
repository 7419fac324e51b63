"""The checker itself: what it lets pass, and everything that it must not."""

import pytest

from tests.faults.permitted import permitted
from tests.faults.verdict import Heard, Verdict

HURT, UNDONE, WELL, LATER = 10.0, 15.0, 17.0, 20.0
PERMITS = permitted(cold="200 | 503 auth_unavailable", bad="401 | 503 auth_unavailable")


def heard(kind: str, outcome: str, *, at: float = 12.0, node: int = 0, is_good: bool = True) -> Heard:
    return Heard(kind, node, at, at + 0.1, outcome, is_good, "a request")


@pytest.fixture
def verdict() -> Verdict:
    made = Verdict(PERMITS, frozenset({0}))
    made.hurt_at, made.undone_at, made.well_at, made.whole_at = HURT, UNDONE, WELL, WELL
    return made


@pytest.mark.parametrize(
    "one",
    [
        heard("known", "200"),
        heard("cold", "503 auth_unavailable"),
        heard("cold", "503 auth_unavailable", at=UNDONE + 1),
        heard("cold", "503 auth_unavailable", at=HURT - 0.05),
        heard("bad", "503 auth_unavailable", is_good=False),
        heard("bad", "401", is_good=False),
        heard("live", "200"),
    ],
)
def test_what_is_permitted(verdict: Verdict, one: Heard) -> None:
    """What the fault permits, where and while it is felt, and what is due anyway."""
    verdict.judge(one)
    assert not verdict.violations


@pytest.mark.parametrize(
    "one",
    [
        heard("known", "503 auth_unavailable"),
        heard("known", "401"),
        heard("cold", "401"),
        heard("cold", "403 insufficient_scope"),
        heard("cold", "503 auth_unavailable", at=5.0),
        heard("cold", "503 auth_unavailable", at=LATER),
        heard("cold", "503 auth_unavailable", node=1),
        heard("cold", "silent"),
        heard("bad", "200", is_good=False),
        heard("bad", "503 auth_unavailable", at=5.0, is_good=False),
        heard("live", "cut"),
    ],
)
def test_what_is_not(verdict: Verdict, one: Heard) -> None:
    """Another outcome, another time, another node; a good key refused and a bad one admitted at any time."""
    verdict.judge(one)
    assert verdict.violations


def test_a_busy_machine_excuses_lateness_and_nothing_else(verdict: Verdict) -> None:
    """A 503 may mean that a poll came late; nothing makes a good key a bad one."""
    verdict.judge(heard("known", "503 auth_unavailable"), is_steady=False)
    assert (verdict.violations, verdict.unsteady) == ([], 1)
    verdict.judge(heard("known", "401"), is_steady=False)
    verdict.judge(heard("bad", "200", is_good=False), is_steady=False)
    assert len(verdict.violations) == 2


@pytest.mark.parametrize(
    ("times", "answered", "is_repeatable", "is_wrong"),
    [(1, 1, False, False), (0, 0, False, False), (2, 1, True, False), (2, 1, False, True), (2, 2, True, True)],
)
def test_what_an_upstream_may_have(
    verdict: Verdict, times: int, answered: int, is_repeatable: bool, is_wrong: bool
) -> None:
    """A request without a body comes again if it was left without an answer. Nothing is answered twice."""
    verdict.received(1, times=times, answered=answered, is_repeatable=is_repeatable)
    assert bool(verdict.violations) == is_wrong


@pytest.mark.parametrize(("counted", "is_wrong"), [(100, False), (105, False), (106, True), (99, True), (95, True)])
def test_the_books(verdict: Verdict, counted: int, is_wrong: bool) -> None:
    """No fewer than were answered, no more than came."""
    verdict.metered(counted, answered=100, received=105, lost_at_most=0)
    assert bool(verdict.violations) == is_wrong


def test_how_long_it_took(verdict: Verdict) -> None:
    """The longest time without the due answer, and the last answer of another kind after it was undone."""
    for at in (11.0, 12.0, 13.0, 15.5):
        verdict.judge(heard("cold", "503 auth_unavailable", at=at))
    assert verdict.seconds_since_wrong(16.0) == 0.0
    verdict.judge(heard("cold", "200", at=16.0))
    assert verdict.lanes["cold", 0].longest_seconds == pytest.approx(4.6)
    assert verdict.recovery_seconds == pytest.approx(0.6)
    assert verdict.seconds_since_wrong(17.0) == pytest.approx(1.4)
