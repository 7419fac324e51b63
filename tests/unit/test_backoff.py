"""How soon a dead worker is started again."""

from gateway.workers.backoff import LONGEST_PAUSE_SECONDS, SHORT_LIFE_SECONDS, Backoff


def test_pauses_double_while_workers_die_young() -> None:
    """The first time at once; then a second, two, four, and half a minute at most."""
    backoff = Backoff()
    assert [backoff.pause_after(0.1) for _ in range(8)] == [0, 1, 2, 4, 8, 16, LONGEST_PAUSE_SECONDS, 30]


def test_a_long_life_forgives() -> None:
    """One that has served for a while is replaced at once, and so is the first young one after it."""
    backoff = Backoff()
    for _ in range(5):
        backoff.pause_after(0.1)
    assert [backoff.pause_after(seconds) for seconds in (SHORT_LIFE_SECONDS, 0.1, 0.1)] == [0, 0, 1]
