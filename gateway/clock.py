"""The only source of time inside the gateway. Must not know: what it is used for."""

import time
from typing import Protocol


class Clock(Protocol):
    """Time that a test can move."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start, never going back (the same clock as the event loop's)."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    monotonic = staticmethod(time.monotonic)
