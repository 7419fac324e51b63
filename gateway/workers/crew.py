"""The workers that run, and those that will: started, restarted, replaced and ended.

What happens to a worker is told by its process and its channel; `_attend` is the story of one.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from gateway.listeners import SHUTDOWN_SECONDS
from gateway.settings import Settings
from gateway.workers.backoff import Backoff
from gateway.workers.channel import Order
from gateway.workers.process import WorkerProcess
from gateway.workers.report import Report
from gateway.workers.sockets import OwnSockets, descriptors

log = structlog.get_logger(__name__)

READY_SECONDS: Final = 30.0  # for the successor of a worker that serves
READY_POLL_SECONDS: Final = 0.1
STOP_SECONDS: Final = 2 * SHUTDOWN_SECONDS + 5.0  # callers, then the operators' side, then the stores
SIGNALS: Final = {number.value: number.name for number in signal.Signals}


@dataclass(eq=False, slots=True)
class Slot:
    """The place of one worker: its number, and who has it now. `failure` is why the last one could not serve."""

    number: int
    worker: WorkerProcess | None = None
    failure: str | None = None
    backoff: Backoff = field(default_factory=Backoff)


class Crew:
    """One worker for each number of the sockets. `failed` completes with the reason when none of them can serve.

    `settings` are those of workers that are started from now on.
    """

    def __init__(self, settings: Settings, proxy: OwnSockets, admin: OwnSockets) -> None:
        self.settings = settings
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.slots = [Slot(number) for number in proxy]
        self._running: set[WorkerProcess] = set()
        self.report = Report(self.slots, self._running)
        self._proxy = proxy
        self._admin = admin
        self._tasks: set[asyncio.Task[None]] = set()
        self._somebody_has_started = asyncio.Event()
        self._is_ending = False

    def start(self) -> None:
        """Start all of them."""
        for slot in self.slots:
            self._spawn(self._fill(slot))

    # -- the life of a worker

    async def _fill(self, slot: Slot) -> None:
        """Give an empty slot a worker."""
        before, slot.failure = slot.worker, None
        while slot.worker is before:
            try:
                worker = await self._launch(slot, self.settings)
            except OSError as error:
                log.error("worker_not_started", worker=slot.number, reason=str(error))
                await asyncio.sleep(slot.backoff.pause_after(0.0))
                continue
            if slot.worker is before:
                slot.worker = worker
            else:  # somebody else was put there meanwhile
                await _ended(worker)

    async def _launch(self, slot: Slot, settings: Settings) -> WorkerProcess:
        """Start a worker for a slot, and follow it to its end. It does not have the slot yet."""
        order = Order(slot.number, settings, descriptors(self._proxy), descriptors(self._admin))
        worker = await WorkerProcess.start(order, self._welcome)
        self._running.add(worker)
        log.info("worker_started", worker=slot.number, pid=worker.pid)
        self._spawn(self._attend(slot, worker))
        return worker

    def _welcome(self) -> None:
        """A worker serves: the others need not mind its sockets any more, and it may mind theirs."""
        self._somebody_has_started.set()
        self._share_out()

    async def _attend(self, slot: Slot, worker: WorkerProcess) -> None:
        """Wait for a worker's end; if it still had its slot then, start another."""
        code = await worker.ended
        self._running.remove(worker)
        self.report.bury(worker)
        how = {"exit_code": code} if code >= 0 else {"signal": SIGNALS.get(-code, -code)}
        if self._is_ending or slot.worker is not worker:
            log.info("worker_ended", worker=slot.number, pid=worker.pid, **how)
            return
        pause = slot.backoff.pause_after(time.monotonic() - worker.began)
        why = {} if worker.failure is None else {"reason": worker.failure}
        log.error("worker_died", worker=slot.number, pid=worker.pid, **how, **why, restart_in_seconds=pause)
        slot.failure = worker.failure
        self._share_out()
        if worker.failure is not None:
            if self._gives_up():
                return
            await self._somebody_has_started.wait()  # until then it may be that none of them can
        await asyncio.sleep(pause)
        if slot.worker is worker and not self._is_ending:
            self.report.restarts.inc()
            await self._fill(slot)

    def _gives_up(self) -> bool:
        """Whether every worker has said that it cannot serve, as one process by itself would have, and ended."""
        failures = [slot.failure for slot in self.slots if slot.failure is not None]
        if len(failures) < len(self.slots):
            return False
        self._fail(failures[0])
        return True

    def _share_out(self) -> None:
        """Have the workers that serve accept in the place of those that do not: nobody waits for a restart."""
        serving = [slot.worker for slot in self.slots if slot.worker is not None and slot.worker.serves]
        absent = {slot.number for slot in self.slots} - {worker.number for worker in serving}
        for worker in serving:
            worker.mind(absent)

    # -- others in their places

    async def replace(self, slot: Slot, settings: Settings) -> bool:
        """Put a new worker in the place of the one in a slot, once it is ready; whether it came to be."""
        try:
            successor = await self._launch(slot, settings)
        except OSError as error:
            log.error("worker_not_started", worker=slot.number, reason=str(error))
            return False
        if not await _becomes_ready(successor):
            late = "it has ended" if successor.ended.done() else f"it was not ready within {READY_SECONDS:g} s"
            reason = successor.failure or late
            log.error("worker_not_ready", worker=slot.number, pid=successor.pid, reason=reason)
            await _ended(successor)
            return False
        predecessor, slot.worker, slot.failure = slot.worker, successor, None
        self._share_out()
        if predecessor is not None:
            self._spawn(_ended(predecessor))
        return True

    # -- the end

    async def close(self, hurrying: asyncio.Event) -> int:
        """Have all of them finish: until the bound has passed, or `hurrying` is set. Returns how many were killed."""
        self._is_ending = True
        workers = tuple(self._running)
        for worker in workers:
            worker.terminate()
        hurried = asyncio.ensure_future(hurrying.wait())
        all_ended = asyncio.gather(*(worker.ended for worker in workers))
        await asyncio.wait((hurried, all_ended), timeout=STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        late = [worker for worker in workers if not worker.ended.done()]
        for worker in {*late, *self._running}:  # one may have been started as we were told to stop
            worker.kill()
        await all_ended
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return len(late)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("supervision_failed", exc_info=error)
            self._fail("a worker cannot be looked after; the log says why")

    def _fail(self, reason: str) -> None:
        if not self.failed.done():
            self.failed.set_result(reason)


async def _ended(worker: WorkerProcess) -> None:
    """Have a worker finish, within the bound."""
    worker.terminate()
    await asyncio.wait([worker.ended], timeout=STOP_SECONDS)
    worker.kill()


async def _becomes_ready(worker: WorkerProcess) -> bool:
    """Whether all its checks are well within the bound."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_SECONDS):
            while not worker.ended.done():
                checks = await worker.ask(is_with_metrics=False)
                if checks and all(checks.values()):
                    return True
                await asyncio.sleep(READY_POLL_SECONDS)
    return False
