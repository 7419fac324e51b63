"""Whether this process itself comes to run in time. It carries every byte between nodes and stores."""

import asyncio
import time

BEAT_SECONDS = 0.02


class Pulse:
    """Beats all the time. When a beat is late by an eighth of the bound, polls may be late by all of it.

    Then nodes do right not to trust what they know, and nothing follows from a 503.
    """

    def __init__(self, *, bound_seconds: float) -> None:
        self._bound_seconds = bound_seconds
        self._due = time.monotonic() + BEAT_SECONDS
        self._late_until = 0.0
        self.late_seconds = 0.0

    async def beat_forever(self) -> None:
        """To be run beside everything else."""
        while True:
            self._due = time.monotonic() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            now = time.monotonic()
            if self._is_late(now):
                self._late_until = now
                self.late_seconds += now - self._due

    def was_steady_since(self, moment: float) -> bool:
        """Whether no beat has been late since then, and for a bound before."""
        return self._late_until + self._bound_seconds < moment and not self._is_late(time.monotonic())

    def _is_late(self, now: float) -> bool:
        return now > self._due + self._bound_seconds / 8
