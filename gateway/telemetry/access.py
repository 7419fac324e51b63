"""The access log: a line for a request that has ended, of an allow-list of fields (R324, R325, R327).

What a client sends stands in it in three places: the path, without its query and with keys masked, the trace id, which
is 32 hexadecimal digits, and its own request id. No other header, no query and no body is ever in it.
"""

from collections.abc import Callable
from typing import Any, Final

from gateway.telemetry.logs import Level, RequestLines

# Everything that a line may say, beside `timestamp`, `level`, `event` and `worker`.
FIELDS: Final = (
    "request_id",
    "trace_id",
    "method",
    "path",
    "route",
    "status",
    "outcome",
    "code",
    "seconds",
    "upstream",
    "upstream_seconds",
    "received_bytes",
    "sent_bytes",
    "client",
    "auth",
    "key_id",
    "user_id",
    "tenant_id",
)
LONGEST_PATH: Final = 512
ALWAYS_PER_SECOND: Final = 100  # lines about failures beside the sample: an outage must not become a flood of lines


class AccessLog:
    """Writes lines: all of them (`share` is None), or a share of those that went well, and what failed.

    `chance` gives a random number from 0 to 1, `now` monotonic seconds.
    """

    def __init__(self, share: float | None, *, chance: Callable[[], float], now: Callable[[], float]) -> None:
        self._share = share
        self._chance = chance
        self._now = now
        self._second = 0
        self._told = 0  # in this second, about failures
        self._lines = RequestLines()

    def is_wanted(self, level: Level) -> bool:
        """Whether a request that ended at this level is to be written.

        A sample has all that failed on our side or the upstream's, up to a number a second. What clients do wrong is
        sampled like everything else: else anybody could fill the log.
        """
        if level not in self._lines.levels:
            return False
        if self._share is None or self._chance() < self._share:
            return True
        if level == "info":
            return False
        second = int(self._now())
        if second != self._second:
            self._second, self._told = second, 0
        self._told += 1
        return self._told <= ALWAYS_PER_SECOND

    def write(self, level: Level, fields: dict[str, Any]) -> None:
        """Write a line. `fields` are of `FIELDS`."""
        self._lines.write(level, fields)
