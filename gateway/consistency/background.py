"""Tasks that live as long as their owner. What the death of one means is decided here, once.

They never end by themselves. One that does, or that raises, has a fault: it is reported with its traceback and started
again. Meanwhile the gateway fails closed: a view that nobody refreshes lapses, a change that nobody relays is pending.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

RESTART_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Background:
    """The background tasks of one owner, who starts and closes them."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run `loop`, which ends only by cancellation, until `close`."""
        self._tasks.append(asyncio.create_task(_keep(loop), name=loop.__qualname__))

    async def close(self) -> None:
        """Cancel all tasks and wait for them."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep(loop: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await loop()
            log.critical("background_task_ended", task=loop.__qualname__)
        except Exception:
            log.critical("background_task_died", task=loop.__qualname__, exc_info=True)
        await asyncio.sleep(RESTART_SECONDS)


async def woken(event: asyncio.Event, *, seconds: float) -> bool:
    """Whether `event` was set within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
