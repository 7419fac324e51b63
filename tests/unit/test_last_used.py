"""Notes of use: once in an interval, soon, and without end of memory."""

from collections.abc import AsyncIterator, Sequence

import pytest

from gateway.auth.last_used import INTERVAL_SECONDS, LastUsed
from gateway.errors import StoreUnavailable
from tests.fixtures.admission_world import MovedClock
from tests.fixtures.waiting import until


class Store:
    """What has been written, a list a call; fails while told to."""

    def __init__(self) -> None:
        self.writes: list[list[str]] = []
        self.is_away = False

    async def write(self, uses: Sequence[str], *, interval_seconds: float) -> None:
        assert interval_seconds == INTERVAL_SECONDS
        if self.is_away:
            raise StoreUnavailable("away")
        self.writes.append(list(uses))


class Desk:
    """The notes, what is written of them, and the requests that make them."""

    def __init__(self) -> None:
        self.clock = MovedClock()
        self.store = Store()
        self.notes = LastUsed(self.store, self.clock)

    def use(self, key_id: str) -> None:
        """As an exchange does."""
        now = self.clock.now
        if now >= self.notes.due_at.get(key_id, 0.0):
            self.notes.note(key_id, now)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    await desk.notes.start()
    yield desk
    await desk.notes.close()


async def test_the_first_use_is_written_and_then_one_an_interval(desk: Desk) -> None:
    """A hundred uses are one write, and so are those of the next interval. R310, R313."""
    for _ in range(100):
        desk.use("a")
    desk.use("b")
    await until(lambda: desk.store.writes == [["a", "b"]])
    desk.clock.now += INTERVAL_SECONDS - 1
    desk.use("a")
    desk.clock.now += 1
    desk.use("a")
    desk.use("c")
    await until(lambda: desk.store.writes == [["a", "b"], ["a", "c"]])


async def test_what_cannot_be_written_waits(desk: Desk) -> None:
    """While the store is away nothing is lost and nobody notices; closing writes what is left. R312."""
    desk.store.is_away = True
    desk.use("a")
    await until(lambda: desk.notes.due_at["a"] > 0)
    desk.store.is_away = False
    await desk.notes.close()
    assert desk.store.writes == [["a"]]


async def test_keys_that_are_not_used_any_more_are_forgotten(desk: Desk) -> None:
    """Memory is for the keys of the last intervals."""
    for number in range(1000):
        desk.use(f"old-{number}")
    await until(lambda: bool(desk.store.writes))
    desk.clock.now += INTERVAL_SECONDS
    desk.use("new")
    await until(lambda: set(desk.notes.due_at) == {"new"})
