"""The meter: what is counted is written once, late rather than never, and within its memory."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

import pytest

from gateway.errors import StoreUnavailable
from gateway.limits import metering
from gateway.limits.metering import NOBODY, Meter
from gateway.stores.records import UsedRow
from gateway.telemetry.metrics import Metrics
from tests.fixtures.admission_world import EPOCH, MovedClock
from tests.fixtures.waiting import until

INTERVAL_SECONDS = 0.02


class Somebody(NamedTuple):
    key_id: str
    tenant_id: str = "acme"
    user_id: str = "ada"


class Database:
    """Adds batches as the real one does: each once. Fails while told to, before or after it has committed."""

    def __init__(self) -> None:
        self.batches: dict[int, tuple[float, Sequence[UsedRow]]] = {}
        self.calls = 0
        self.upkeeps = 0
        self.fails: Callable[[], None] = lambda: None
        self.fails_afterwards: Callable[[], None] = lambda: None

    async def add(self, batch: int, age_seconds: float, rows: Sequence[UsedRow]) -> None:
        self.calls += 1
        self.fails()
        if batch not in self.batches:
            assert len(self.batches) + 1 == batch, "in order, without a gap"
            self.batches[batch] = age_seconds, rows
        self.fails_afterwards()

    async def keep_partitions(self) -> None:
        self.upkeeps += 1
        self.fails()

    @property
    def totals(self) -> Counter[str]:
        """Requests by key."""
        sums: Counter[str] = Counter()
        for _, rows in self.batches.values():
            for row in rows:
                sums[row.key_id] += row.requests
        return sums


def away() -> None:
    raise StoreUnavailable("away")


class Desk:
    """A meter whose clock is moved, and what its database has."""

    def __init__(self, **bounds: Any) -> None:
        self.clock = MovedClock()
        self.database = Database()
        self.metrics = Metrics()
        self.meter = Meter(
            self.database,
            self.clock,
            self.metrics,
            interval_seconds=INTERVAL_SECONDS,
            to_database=lambda moment: EPOCH + moment,
            **bounds,
        )

    def use(self, key_id: str, *, code: int | str = 200, requests: int = 1, route: str = "orders") -> None:
        for _ in range(requests):
            self.meter.ended(Somebody(key_id), route, "forwarded", code, 10, 20)

    @property
    def lost(self) -> float | None:
        return self.metrics.registry.get_sample_value("ostiary_metering_lost_requests_total")


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    yield desk
    await desk.meter.close()


async def written(desk: Desk) -> None:
    """Wait until all that was counted is written; time passes meanwhile."""

    def is_written() -> bool:
        desk.clock.now += INTERVAL_SECONDS
        return desk.meter.unwritten_rows == 0

    await until(is_written)


async def test_counts_are_added_up(desk: Desk) -> None:
    """A row for each key, route, outcome and class of status, with its owner; those without a key have no owner."""
    await desk.meter.start()
    for code in (200, 201, 200, 404):
        desk.use("key_1", code=code)
    desk.meter.ended(NOBODY, "orders", "refused", "invalid_api_key", 0, 0)
    await written(desk)
    rows = sorted(row for _, rows in desk.database.batches.values() for row in rows)
    assert rows == [
        UsedRow("", "", "", "orders", "refused", "invalid_api_key", 1, 0, 0),
        UsedRow("key_1", "acme", "ada", "orders", "forwarded", "2xx", 3, 30, 60),
        UsedRow("key_1", "acme", "ada", "orders", "forwarded", "4xx", 1, 10, 20),
    ]
    assert desk.lost == 0


async def test_a_batch_is_sent_until_it_is_known_to_be_there(desk: Desk) -> None:
    """One that was committed and whose answer was lost is sent again as it was; later counts are apart."""
    await desk.meter.start()
    desk.database.fails_afterwards = away
    desk.use("key_1")
    await until(lambda: _later(desk) and desk.database.calls >= 3)
    assert len(desk.database.batches) == 1
    desk.use("key_1", requests=5)
    desk.database.fails_afterwards = lambda: None
    await written(desk)
    assert desk.database.totals == {"key_1": 6}
    assert desk.lost == 0


def _later(desk: Desk) -> bool:
    desk.clock.now += INTERVAL_SECONDS
    return True


async def test_an_outage_keeps_minutes_apart(desk: Desk) -> None:
    """What was counted in different minutes is written as such, however late; each with the age of its middle."""
    await desk.meter.start()
    desk.database.fails = away
    await until(lambda: desk.database.upkeeps > 0)
    for requests in (1, 2, 3):
        desk.use("key_1", requests=requests)
        desk.clock.now += 60.0
        sealed = desk.database.calls
        await until(lambda before=sealed: _later(desk) and desk.database.calls > before)
    assert desk.meter.unwritten_seconds > 120
    desk.database.fails = lambda: None
    await written(desk)
    found = [(rows[0].requests, age) for age, rows in desk.database.batches.values()]
    assert [requests for requests, _ in found] == [1, 2, 3]
    ages = [age for _, age in found]
    assert ages[0] - ages[1] == pytest.approx(60, abs=20)
    assert ages[1] - ages[2] == pytest.approx(60, abs=20)
    assert desk.meter.unwritten_seconds == 0


async def test_a_long_outage_merges_the_oldest_and_loses_nothing() -> None:
    """Beyond the bound the oldest minutes become one: coarse, and complete."""
    small = 20
    desk = Desk(most_cells=small)
    desk.database.fails = away
    await desk.meter.start()
    for _ in range(20):
        for number in range(small // 2):
            desk.use(f"key_{number}")
        before = desk.database.upkeeps + desk.database.calls
        await until(lambda before=before: _later(desk) and desk.database.upkeeps + desk.database.calls > before)
    assert desk.meter.unwritten_rows <= 2 * small
    desk.database.fails = lambda: None
    await written(desk)
    await desk.meter.close()
    assert desk.database.totals == {f"key_{number}": 20 for number in range(small // 2)}
    assert desk.lost == 0


async def test_what_finds_no_room_is_told() -> None:
    """Only more different things than there is room for are lost, and each request of them is counted as lost."""
    small = 20
    desk = Desk(most_cells=small)
    for number in range(small + 7):
        desk.use(f"key_{number}", requests=2)
    await desk.meter.close()
    assert sum(desk.database.totals.values()) == 2 * small
    assert desk.lost == 14


async def test_large_lots_are_several_batches(desk: Desk) -> None:
    """No transaction is without bounds."""
    for number in range(2 * metering.BATCH_ROWS + 1):
        desk.use(f"key_{number}")
    await desk.meter.close()
    sizes = [len(rows) for _, rows in desk.database.batches.values()]
    assert sizes == [metering.BATCH_ROWS, metering.BATCH_ROWS, 1]
    assert len(desk.database.totals) == 2 * metering.BATCH_ROWS + 1


async def test_closing_writes_what_is_left(desk: Desk) -> None:
    """Also where the database is away for a moment just then."""
    await desk.meter.start()
    await until(lambda: desk.database.upkeeps > 0)
    fails = iter([True, True, False])
    desk.database.fails = lambda: away() if next(fails, False) else None
    desk.use("key_1")
    await desk.meter.close()
    assert desk.database.totals == {"key_1": 1}
    assert desk.lost == 0


async def test_what_cannot_be_written_at_the_end_is_told() -> None:
    """What a node takes along is counted and logged, once."""
    desk = Desk(close_seconds=0.05)
    desk.database.fails = away
    desk.use("key_1", requests=3)
    await desk.meter.close()
    assert desk.lost == 3
