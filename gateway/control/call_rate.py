"""How often an administrator may make a call that could be used for guessing. Must not know: which call."""

import math
from collections.abc import Callable
from typing import Final

from cachetools import LRUCache

from gateway.control.problems import Problem

WINDOW_SECONDS: Final = 60.0
MOST_CALLERS: Final = 10_000  # remembered at once; far more than there are administrators


class TooManyCalls(Problem):
    """The administrator has made as many of these calls as allowed."""

    code = "rate_limited"
    status = 429
    public = "Too many of these calls in a minute. Try again after Retry-After."
    retry_after_seconds = 1

    def __init__(self, reason: str, *, wait_seconds: float) -> None:
        super().__init__(reason)
        self.retry_after_seconds = max(1, math.ceil(wait_seconds))


class CallRate:
    """Lets `per_minute` calls of one caller through at once, and then one at a time as the minute goes by.

    It counts in this process: with several nodes a caller has that many on each.
    """

    def __init__(self, per_minute: int, monotonic: Callable[[], float]) -> None:
        self._interval = WINDOW_SECONDS / per_minute
        self._monotonic = monotonic
        self._used_up_to: LRUCache[str, float] = LRUCache(MOST_CALLERS)

    def take(self, caller_id: str) -> None:
        """Count one call. Raises TooManyCalls; a call that is refused is not counted."""
        now = self._monotonic()
        used_up_to = max(self._used_up_to.get(caller_id, now), now)
        wait_seconds = used_up_to + self._interval - now - WINDOW_SECONDS
        if wait_seconds > 1e-6:  # below that it is the arithmetic of floats
            raise TooManyCalls(f"{caller_id} has to wait {wait_seconds:.1f} s", wait_seconds=wait_seconds)
        self._used_up_to[caller_id] = used_up_to + self._interval
