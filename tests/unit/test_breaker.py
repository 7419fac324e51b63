"""When a dependency is not asked any more."""

from gateway.stores.redis.breaker import ERRORS_TO_OPEN, Breaker


def test_one_timeout_opens() -> None:
    """A frozen Redis costs one caller the deadline, not everybody. R057."""
    breaker = Breaker()
    assert breaker.timed_out()
    assert breaker.is_open
    assert not breaker.timed_out()


def test_errors_in_a_row_open() -> None:
    """A single broken connection does not open it; a Redis that is gone does. R057."""
    breaker = Breaker()
    for _ in range(ERRORS_TO_OPEN - 1):
        assert not breaker.failed()
    assert not breaker.answered()
    for _ in range(ERRORS_TO_OPEN - 1):
        assert not breaker.failed()
    assert breaker.failed()
    assert breaker.is_open


def test_an_answer_closes() -> None:
    """The first answer ends it, and says so once."""
    breaker = Breaker()
    breaker.timed_out()
    assert breaker.answered()
    assert not breaker.is_open
    assert not breaker.answered()


def test_more_than_one_timeout_may_be_let_pass() -> None:
    """Where a timeout costs little it opens after several in a row; an answer between them begins anew."""
    breaker = Breaker(timeouts_to_open=2)
    assert not breaker.timed_out()
    breaker.answered()
    assert not breaker.timed_out()
    assert not breaker.is_open
    assert breaker.timed_out()
    assert breaker.is_open
