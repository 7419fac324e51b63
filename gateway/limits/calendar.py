"""Days and months in UTC, on a monotonic clock: when one begins, and which it is. Must not know: what is counted.

A clock that is stepped must not make a new day. So the time of day is read once, goes on with the monotonic clock, and
follows what its source says later by one part in a hundred at most (R293).
"""

from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from typing import Final

from gateway.limits.limit import Unit

DAY_SECONDS: Final = 86_400
SLEW: Final = 0.01  # of the time gone by: how fast a wrong time of day is put right, in either direction


class Calendar:
    """The current day and month. `epoch` tells the time (seconds since the epoch, UTC) of a monotonic moment.

    `began` and `ends` are monotonic moments, by `Unit`; `index` numbers the days and months. All hold until `turns_at`.
    """

    def __init__(self, epoch: Callable[[float], float]) -> None:
        self._epoch = epoch
        self._read_at = -inf
        self._read = 0.0
        self.turns_at = -inf
        self.began = [-inf, -inf, -inf]
        self.ends = [inf, inf, inf]
        self.index = [0, 0, 0]

    def turn(self, now: float) -> None:
        """Go on to `now` (monotonic). Needed once `turns_at` has come, and harmless before."""
        epoch = self._now(now)
        self._read_at, self._read = now, epoch
        day = int(epoch // DAY_SECONDS)
        moment = datetime.fromtimestamp(epoch, UTC)
        month = moment.year * 12 + moment.month - 1
        following = datetime((month + 1) // 12, (month + 1) % 12 + 1, 1, tzinfo=UTC).timestamp()
        for unit, index, end in ((Unit.DAY, day, (day + 1.0) * DAY_SECONDS), (Unit.MONTH, month, following)):
            if index > self.index[unit]:
                self.index[unit], self.began[unit] = index, now
            self.ends[unit] = now + (end - epoch)
        self.turns_at = min(self.ends[Unit.DAY], self.ends[Unit.MONTH])

    def _now(self, now: float) -> float:
        told = self._epoch(now)
        if self._read_at == -inf:
            return told
        gone_by = now - self._read_at
        return min(max(told, self._read + gone_by * (1 - SLEW)), self._read + gone_by * (1 + SLEW))
