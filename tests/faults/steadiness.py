"""Whether the machine let everybody run in time: this process, the nodes, and Redis. If not, a 503 says nothing.

The kernel tells how long a process was ready to run and did not come to it; what a process does to itself is not in it.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from tests.chaos.pulse import Pulse
from tests.fixtures import processes

LOOK_SECONDS: Final = 0.25
FAMILY_LOOKS: Final = 8  # after so many the processes are listed anew


class Steadiness:
    """Watches the processes that `pids` names, and their descendants."""

    def __init__(self, pids: Callable[[], Iterable[int]], *, bound_seconds: float) -> None:
        self._pids = pids
        self._bound_seconds = bound_seconds
        self._pulse = Pulse(bound_seconds=bound_seconds)
        self._waited: dict[int, float] = {}
        self._starved_at = 0.0

    async def watch(self) -> None:
        """To be run beside everything else."""
        beating = asyncio.create_task(self._pulse.beat_forever())
        try:
            looks = 0
            while True:
                if looks % FAMILY_LOOKS == 0:
                    family = [process.pid for pid in self._pids() for process in processes.family(pid)]
                looks += 1
                self._look(family)
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            beating.cancel()

    def _look(self, pids: Iterable[int]) -> None:
        waited: dict[int, float] = {}
        for pid in pids:
            with contextlib.suppress(OSError):  # it has ended
                waited[pid] = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
        if any(seconds - self._waited.get(pid, seconds) > self._bound_seconds / 16 for pid, seconds in waited.items()):
            self._starved_at = time.monotonic()
        self._waited = waited

    def was_steady_since(self, moment: float) -> bool:
        """Whether nobody was kept waiting since then, and for a bound before."""
        return self._starved_at + self._bound_seconds < moment and self._pulse.was_steady_since(moment)
