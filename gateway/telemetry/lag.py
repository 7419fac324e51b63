"""How late the event loop comes to what is due: what every request waits for, whatever it asks."""

from typing import Final

import structlog
from prometheus_client import Histogram

log = structlog.get_logger(__name__)

BLOCKED_SECONDS: Final = 1.0  # late enough to say so: something has held up every caller for that long


class Lag:
    """Told by whoever has slept on the loop and woken too late."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    def woke(self, seconds_late: float) -> None:
        """A sleep took so much longer than it should have."""
        self._histogram.observe(max(0.0, seconds_late))
        if seconds_late >= BLOCKED_SECONDS:
            log.warning("event_loop_blocked", seconds=round(seconds_late, 3))
