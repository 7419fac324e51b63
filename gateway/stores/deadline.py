"""Our own deadline around a library's call. Must not know: which library.

A library that waits for its peer before it gives up makes a frozen peer ours to wait for. So a call is a task of its
own, and at the deadline nobody waits for it any longer, not even for its clean-up.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from gateway.errors import StoreUnavailable
from gateway.telemetry.metrics import Metrics

# Dropped tasks end within a turn of the loop; so many at once mean that something in them waits for ever.
DROPPED_LIMIT = 100
LATE_SECONDS = 0.01

T = TypeVar("T")


class CallDropped(StoreUnavailable):
    """The dependency did not answer within our deadline. What was asked may still have been done."""


class BoundedCalls:
    """Calls to one dependency, each with a deadline; what is dropped at it is counted and limited in number."""

    def __init__(self, dependency: str, metrics: Metrics) -> None:
        self._dependency = dependency
        self._counter = metrics.dropped_calls.labels(dependency)
        self._dropped: set[asyncio.Task[Any]] = set()

    async def run(self, call: Coroutine[Any, Any, T], *, seconds: float) -> T:
        """The call's result, or its exception. Raises CallDropped after `seconds`, or when too many have been dropped.

        `call` is cancelled when dropped, also where the caller is cancelled: it must leave nothing half-used behind.
        """
        if len(self._dropped) >= DROPPED_LIMIT:
            call.close()
            raise CallDropped(f"{self._dependency}: too many dropped calls have not ended")
        task = asyncio.ensure_future(call)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        try:
            await asyncio.wait({task}, timeout=seconds)
            if not task.done() and loop.time() > deadline + LATE_SECONDS:
                # It was our loop that was late: the answer may lie there unread.
                await asyncio.wait({task}, timeout=LATE_SECONDS)
            if not task.done():
                self._counter.inc()
                raise CallDropped(f"{self._dependency} did not answer within {seconds} s")
            return task.result()
        finally:
            if not task.done():
                self._drop(task)

    async def close(self, *, seconds: float) -> None:
        """Give what was dropped a last moment to end."""
        if self._dropped:
            await asyncio.wait(self._dropped, timeout=seconds)

    def _drop(self, task: asyncio.Task[Any]) -> None:
        task.cancel()
        self._dropped.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._dropped.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that the loop does not report it
