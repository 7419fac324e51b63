"""What one subject has used of an allowance, and where accounts are kept. Pure. Must not know: whose they are, time.

Two steps, so that a request which is refused consumes nothing, whichever limit refused it (R293): first every account
is settled up to now and asked whether it is short, then every one is charged.
"""

from dataclasses import dataclass
from math import ceil
from typing import Final, Generic, TypeVar

from gateway.limits.calendar import Calendar
from gateway.limits.limit import Allowance, Limit

MOST_ACCOUNTS: Final = 1_000_000  # of a rule, that are kept at the least: the least recently used ones go
DRAINED: Final = 4  # of those that go, with every account that comes: letting half a million go at once stops the loop


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a request cannot be let through now. Times are whole seconds; `retry_seconds` is at least 1 (R292)."""

    limit: Limit
    remaining: int
    reset_seconds: int
    retry_seconds: int


class Account:
    """Levels of an allowance's limits: what is used of each, as of `at` (monotonic). All are charged together."""

    __slots__ = ("allowance", "at", "levels")

    def __init__(self, allowance: Allowance, now: float) -> None:
        self.allowance = allowance
        self.at = now
        self.levels = [0.0] * len(allowance.limits)

    def settle(self, allowance: Allowance, now: float, began: list[float]) -> None:
        """Let what time gives back be given back. `began`: of the current day and month, by `Unit`. Hot."""
        if allowance is not self.allowance:
            self._change(allowance)
        elapsed = now - self.at
        if elapsed <= 0.0:
            return
        levels = self.levels
        for index, limit in enumerate(allowance.limits):
            rate = limit.rate
            if rate:
                level = levels[index] - elapsed * rate
                levels[index] = level if level > 0.0 else 0.0
            elif self.at < began[limit.unit]:
                levels[index] = 0.0
        self.at = now

    def is_short(self, cost: int) -> bool:
        """Whether a request of this cost must wait. One that costs more than a burst waits for an unused one. Hot."""
        levels = self.levels
        for index, limit in enumerate(self.allowance.limits):
            level = levels[index]
            if level + cost > limit.burst and level > 0.0:
                return True
        return False

    def charge(self, cost: int) -> None:
        """Take from every limit. Hot."""
        levels = self.levels
        for index in range(len(levels)):
            levels[index] += cost

    def refund(self, cost: int) -> None:
        """Give back what was charged, where time has not done so."""
        self.levels = [max(0.0, level - cost) for level in self.levels]

    def remaining(self, index: int) -> int:
        """How much is left of a limit; never below 0 (R292)."""
        return max(0, int(self.allowance.limits[index].burst - self.levels[index]))

    def reset_seconds(self, index: int, calendar: Calendar) -> int:
        """In how many seconds all of a limit is there again."""
        limit = self.allowance.limits[index]
        if limit.rate:
            return ceil(self.levels[index] / limit.rate)
        return max(1, ceil(calendar.ends[limit.unit] - self.at))

    def standing(self, calendar: Calendar) -> tuple[int, ...]:
        """What is left of each limit, and in how many seconds all of it is there again, one after the other. Hot."""
        return self._standing(calendar.ends, (), 0)

    def _standing(self, ends: list[float], known: tuple[int, ...], leased: int) -> tuple[int, ...]:
        """`known` is left elsewhere of each limit, and `leased` here; nothing is known where all is counted here."""
        levels, at, numbers = self.levels, self.at, []
        for index, limit in enumerate(self.allowance.limits):
            level, rate = levels[index], limit.rate
            left = int(limit.burst - level)
            if known and known[index] + leased < left:
                left = known[index] + leased
            numbers.append(left if left > 0 else 0)
            numbers.append(ceil(level / rate) if rate else int(ends[limit.unit] - at) + 1)
        return tuple(numbers)

    def shortage(self, cost: int, calendar: Calendar) -> Shortage:
        """What keeps a request of this cost waiting for longest. Only where `is_short`."""
        return max(
            (
                Shortage(
                    limit, self.remaining(index), reset, max(1, min(reset, self._wait_seconds(index, cost, reset)))
                )
                for index, limit in enumerate(self.allowance.limits)
                if self.levels[index] + cost > limit.burst and self.levels[index] > 0.0
                for reset in (max(1, self.reset_seconds(index, calendar)),)
            ),
            key=lambda shortage: shortage.retry_seconds,
        )

    def _wait_seconds(self, index: int, cost: int, reset_seconds: int) -> int:
        limit = self.allowance.limits[index]
        if not limit.rate:
            return reset_seconds
        return ceil((self.levels[index] + min(cost, limit.burst) - limit.burst) / limit.rate)

    def _change(self, allowance: Allowance) -> None:
        """Another plan, or other limits: what has been used of a window stays used."""
        used = {limit.window: level for limit, level in zip(self.allowance.limits, self.levels, strict=True)}
        self.levels = [used.get(limit.window, 0.0) for limit in allowance.limits]
        self.allowance = allowance


A = TypeVar("A", bound=Account)


class Accounts(Generic[A]):
    """Accounts by subject: the `most` most recently used ones at least, and never more than three times as many.

    Two generations instead of a list in the order of use: a hit costs one look-up. An account that goes forgets what
    was used, so `most` is far above what is expected; whoever comes from ever new addresses fills a table of addresses.
    """

    def __init__(self, most: int = MOST_ACCOUNTS) -> None:
        self._most = most
        self._young: dict[str, A] = {}
        self._old: dict[str, A] = {}
        self._going: dict[str, A] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, subject: str) -> A | None:
        """The account of a subject, if it has one. Hot."""
        account = self._young.get(subject)
        if account is None and self._old:
            account = self._old.pop(subject, None)
            if account is not None:
                self.put(subject, account)
        return account

    def put(self, subject: str, account: A) -> None:
        """Keep an account."""
        going = self._going
        for _ in range(DRAINED):
            if not going:
                break
            going.popitem()
        if len(self._young) >= self._most:
            self._going, self._old, self._young = self._old, self._young, {}
        self._young[subject] = account
