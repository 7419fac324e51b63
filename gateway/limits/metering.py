"""Metering: who used which route how much, and how it ended; counted in memory, and written now and then.

To count is to add to plain cells that one look into a dict finds. What has been counted is sealed at the end of a
minute and of an interval, and written in numbered batches: one whose fate is not known is sent again as it was, and
counts once. Never in the way of a request: while nothing can be written it is kept, the oldest minutes merged as it
gets more. Must not know: HTTP, sockets, SQL.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Final, NamedTuple, Protocol

import structlog

from gateway.clock import Clock
from gateway.consistency.background import Background
from gateway.errors import StoreUnavailable
from gateway.stores.records import UsedRow
from gateway.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

MINUTE: Final = 60.0
BATCH_ROWS: Final = 5_000  # of one transaction, which holds the rows of other nodes up
MOST_CELLS: Final = 100_000  # that are sealed, and as many that are not: some 25 MB each
UPKEEP_SECONDS: Final = 3_600.0
RETRY_SECONDS: Final = 0.2  # of the last writing
CLOSE_SECONDS: Final = 5.0


class Owner(Protocol):
    """Whose a request is."""

    @property
    def key_id(self) -> str: ...  # noqa: D102

    @property
    def tenant_id(self) -> str: ...  # noqa: D102

    @property
    def user_id(self) -> str: ...  # noqa: D102


class _Nobody(NamedTuple):
    key_id: str = ""
    tenant_id: str = ""
    user_id: str = ""


NOBODY: Final[Owner] = _Nobody()


class Store(Protocol):
    """Where it is written (gateway.stores.postgres.usage)."""

    async def add(self, batch: int, age_seconds: float, rows: Sequence[UsedRow]) -> None:
        """Add these to the minute of so long ago, unless this batch was added. Raises StoreUnavailable."""
        ...

    async def keep_partitions(self) -> None:
        """See to it that there is room, and that what is too old goes. Raises StoreUnavailable."""
        ...


CellName = tuple[str, str, str, int | str]  # key, route, outcome; status, or a code


class _Cell:
    __slots__ = ("owner", "received_bytes", "requests", "sent_bytes")

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.requests = self.received_bytes = self.sent_bytes = 0

    def add(self, other: "_Cell") -> None:
        self.requests += other.requests
        self.received_bytes += other.received_bytes
        self.sent_bytes += other.sent_bytes


@dataclass(slots=True)
class _Lot:
    """What was counted from `began` to `ended` (monotonic seconds), no longer than a minute unless it was merged."""

    cells: dict[CellName, _Cell]
    began: float
    ended: float

    def absorb(self, later: "_Lot") -> None:
        self.ended = later.ended
        for name, cell in later.cells.items():
            known = self.cells.setdefault(name, cell)
            if known is not cell:
                known.add(cell)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is sent, again and again until it is known to be there. Its minute is that of `at` (monotonic seconds)."""

    number: int
    began: float
    at: float
    rows: Sequence[UsedRow] = field(repr=False)


class Meter:
    """Counts the usage of one node. `interval_seconds` is what a node that is killed may lose at most.

    `to_database` tells a moment of the monotonic clock in database time, where the minutes end.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        *,
        interval_seconds: float,
        to_database: Callable[[float], float],
        most_cells: int = MOST_CELLS,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        self._store = store
        self._monotonic = clock.monotonic
        self._interval_seconds = interval_seconds
        self._to_database = to_database
        self._most_cells = most_cells
        self._close_seconds = close_seconds
        self._cells: dict[CellName, _Cell] = {}
        self._overflow = _Cell(NOBODY)  # what found no room
        self._began = clock.monotonic()
        self._lots: list[_Lot] = []  # sealed, the oldest first
        self._batch: _Batch | None = None  # the one that may have been added or not
        self._number = 0
        self._upkeep_at = self._due_at = self._began
        self._is_failing = False
        self._background = Background()
        self._lost = metrics.metering_lost
        metrics.metering_rows.set_function(lambda: self.unwritten_rows)
        metrics.metering_seconds.set_function(lambda: self.unwritten_seconds)

    # -- counting

    def ended(
        self, owner: Owner, route: str, outcome: str, code: int | str, received_bytes: int, sent_bytes: int
    ) -> None:
        """A request has ended so, and so many bytes have passed since the last `passed`. Hot.

        `code`: the status of the upstream's reply, or a code.
        """
        cell = self._cells.get((owner.key_id, route, outcome, code))
        if cell is None:
            cell = self._opened(owner, route, outcome, code)
        cell.requests += 1
        cell.received_bytes += received_bytes
        cell.sent_bytes += sent_bytes

    def passed(
        self, owner: Owner, route: str, outcome: str, code: int | str, received_bytes: int, sent_bytes: int
    ) -> None:
        """So many bytes have passed of a request that goes on."""
        cell = self._cells.get((owner.key_id, route, outcome, code)) or self._opened(owner, route, outcome, code)
        cell.received_bytes += received_bytes
        cell.sent_bytes += sent_bytes

    def _opened(self, owner: Owner, route: str, outcome: str, code: int | str) -> _Cell:
        if len(self._cells) >= self._most_cells:
            return self._overflow
        cell = self._cells[owner.key_id, route, outcome, code] = _Cell(owner)
        return cell

    # -- what is not written yet

    @property
    def unwritten_rows(self) -> int:
        """How much is held in memory."""
        sealed = sum(len(lot.cells) for lot in self._lots)
        return len(self._cells) + sealed + (0 if self._batch is None else len(self._batch.rows))

    @property
    def unwritten_seconds(self) -> float:
        """How long ago the oldest of it was counted that should have been written."""
        waiting = [lot.began for lot in self._lots] if self._batch is None else [self._batch.began]
        return self._monotonic() - waiting[0] if waiting else 0.0

    def _seal(self) -> None:
        now = self._monotonic()
        cells, began = self._cells, self._began
        self._cells, self._began = {}, now
        if cells:
            self._lots.append(_Lot(cells, began, now))
        overflow, self._overflow = self._overflow, _Cell(NOBODY)
        self._lose(overflow.requests)
        self._make_room()

    def _make_room(self) -> None:
        """Merge the oldest minutes where there are too many: better told coarsely than not at all."""
        while len(self._lots) > 1 and sum(len(lot.cells) for lot in self._lots) > self._most_cells:
            oldest = self._lots[0]
            oldest.absorb(self._lots.pop(1))
            surplus = [oldest.cells.popitem()[1].requests for _ in range(len(oldest.cells) - self._most_cells)]
            self._lose(sum(surplus))

    def _lose(self, requests: int) -> None:
        if requests:
            self._lost.inc(requests)
            log.error("usage_lost", requests=requests)

    # -- writing

    async def start(self) -> None:
        """Begin to write."""
        self._background.start(self._write_forever)

    async def close(self) -> None:
        """Write what is left; try for a few seconds."""
        await self._background.close()
        last = asyncio.create_task(self._write_the_last())
        await asyncio.wait({last}, timeout=self._close_seconds)
        last.cancel()
        await asyncio.gather(last, return_exceptions=True)
        lots, self._lots = self._lots, []
        batch, self._batch = self._batch, None
        in_doubt = 0 if batch is None else sum(row.requests for row in batch.rows)
        self._lose(in_doubt + sum(cell.requests for lot in lots for cell in lot.cells.values()))

    async def _write_the_last(self) -> None:
        while True:
            try:
                await self._write()
                return
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS)

    async def _write_forever(self) -> None:
        while True:
            now = self._monotonic()
            if now >= self._due_at:
                self._due_at = now + self._interval_seconds
                await self._tried()
            await asyncio.sleep(max(0.0, min(self._due_at - self._monotonic(), self._minute_left())))
            self._seal()

    def _minute_left(self) -> float:
        moment = self._to_database(self._monotonic())
        return MINUTE - moment % MINUTE if isfinite(moment) else MINUTE  # before the first poll nobody knows

    async def _tried(self) -> None:
        try:
            await self._write()
        except StoreUnavailable as error:
            if not self._is_failing:
                log.warning("usage_not_written", rows=self.unwritten_rows, error=str(error))
            self._is_failing = True
            self._upkeep_at = self._monotonic()  # it may be the room that is missing
        else:
            self._is_failing = False

    async def _write(self) -> None:
        self._seal()
        if self._monotonic() >= self._upkeep_at:
            await self._keep_partitions()
        while (batch := self._batch or self._next_batch()) is not None:
            self._batch = batch
            await self._store.add(batch.number, self._monotonic() - batch.at, batch.rows)
            self._batch = None

    async def _keep_partitions(self) -> None:
        try:
            await self._store.keep_partitions()
            self._upkeep_at = self._monotonic() + UPKEEP_SECONDS
        except StoreUnavailable as error:  # there is room ahead for a month
            if not self._is_failing:
                log.warning("usage_partitions_not_kept", error=str(error))

    def _next_batch(self) -> _Batch | None:
        while self._lots and not self._lots[0].cells:
            self._lots.pop(0)
        if not self._lots:
            return None
        lot = self._lots[0]
        taken: dict[tuple[str, str, str, str], _Cell] = {}
        for _ in range(min(BATCH_ROWS, len(lot.cells))):
            (key_id, route, outcome, code), cell = lot.cells.popitem()
            name = key_id, route, str(outcome), f"{code // 100}xx" if isinstance(code, int) else code
            known = taken.setdefault(name, cell)
            if known is not cell:
                known.add(cell)
        rows = [_row(name, cell) for name, cell in taken.items()]
        self._number += 1
        return _Batch(self._number, lot.began, (lot.began + lot.ended) / 2, rows)


def _row(name: tuple[str, str, str, str], cell: _Cell) -> UsedRow:
    key_id, route, outcome, code = name
    owner = cell.owner
    return UsedRow(
        key_id,
        owner.tenant_id,
        owner.user_id,
        route,
        outcome,
        code,
        cell.requests,
        cell.received_bytes,
        cell.sent_bytes,
    )
