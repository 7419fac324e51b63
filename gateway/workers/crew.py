"""The workers that run, and those that will: started, restarted, replaced and ended.

What happens to a worker is told by its process and its channel; `_attend` is the story of one. The crew touches no
request; the sockets are this process's (docs/running.md), so that what a dead worker had not accepted others accept.
"""

import asyncio
import contextlib
import signal
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from gateway import __version__
from gateway.errors import GatewayError
from gateway.running.sockets import Held, descriptors, share
from gateway.running.staff import LEAVING_LIMIT, READY_SECONDS, CutShort, NotReady
from gateway.settings import DrainSettings, Settings
from gateway.workers.backoff import Backoff
from gateway.workers.channel import Order
from gateway.workers.process import ANSWER_SECONDS, WorkerProcess
from gateway.workers.report import Report

log = structlog.get_logger(__name__)

READY_POLL_SECONDS: Final = 0.1
STORES_SECONDS: Final = 5.0  # for a worker to close its stores
# What is silent for so long hangs: no pause of a loaded machine lasts so long, and its callers have waited long enough.
# Counted in questions, not by the clock, so that a machine that was stopped as a whole finds nobody silent.
SILENT_QUESTIONS: Final = 15
SIGNALS: Final = {number.value: number.name for number in signal.Signals}


@dataclass(eq=False, slots=True)
class Slot:
    """The place of one worker: its number, and who has it now. `failure` is why the last one could not serve.

    `leaving` are those that had it, and finish.
    """

    number: int
    own: tuple[int, ...]  # its queues
    leaving: deque[WorkerProcess] = field(default_factory=deque)
    worker: WorkerProcess | None = None
    failure: str | None = None
    backoff: Backoff = field(default_factory=Backoff)


class WorkersFailed(GatewayError):
    """No worker can serve. The message is a worker's."""


class Crew:
    """As Staff: so many workers. `failed` completes with the reason when none of them can serve."""

    def __init__(self, settings: Settings, held: Held, count: int) -> None:
        self.failed: asyncio.Future[GatewayError] = asyncio.get_running_loop().create_future()
        self.serving = asyncio.Event()
        self._settings = settings  # of workers that are started from now on
        self._held = held
        self._open_queues = frozenset(range(held.open_count))
        self._slots = [Slot(number + 1, share(held.open_count, count, number)) for number in range(count)]
        self._running: set[WorkerProcess] = set()
        self._report = Report(self._slots, self._running)
        self._tasks: set[asyncio.Task[None]] = set()
        self._cutting = asyncio.Event()
        self._is_ending = False

    async def start(self, *, is_replacing: bool) -> None:
        """As Staff."""
        listen = self._settings.listen
        log.info(
            "supervising",
            version=__version__,
            workers=len(self._slots),
            environment=self._settings.environment,
            proxy=str(listen.proxy),
            admin=str(listen.admin),
            status=str(listen.status),
        )
        if not is_replacing:
            for slot in self._slots:
                self._spawn(self._fill(slot))
        elif not all(await asyncio.gather(*(self._replace(slot, self._settings) for slot in self._slots))):
            raise NotReady("not all workers have become ready; the log says why")

    def settle(self) -> None:
        """As Staff: where workers had to share queues, each listens on one of its own now."""
        self._open_queues = frozenset(range(len(self._held.proxy)))
        for number, slot in enumerate(self._slots):
            slot.own = share(len(self._open_queues), len(self._slots), number)
        self._share_out()

    async def exposition(self, *, is_open: bool) -> bytes:
        """As Staff."""
        return await self._report.exposition(is_open=is_open)

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """As Staff: while a worker is ready, and none that serves is not."""
        return await self._report.readiness()

    # -- the life of a worker

    async def _fill(self, slot: Slot) -> None:
        """Give an empty slot a worker."""
        before, slot.failure = slot.worker, None
        while slot.worker is before:
            try:
                worker = await self._launch(slot, self._settings, is_replacing=False)
            except OSError as error:
                log.error("worker_not_started", worker=slot.number, reason=str(error))
                await asyncio.sleep(slot.backoff.pause_after(0.0))
                continue
            if slot.worker is before:
                slot.worker = worker
            else:  # somebody else was put there meanwhile
                await _ended(worker)

    async def _launch(self, slot: Slot, settings: Settings, *, is_replacing: bool) -> WorkerProcess:
        """Start a worker for a slot, and follow it to its end. It does not have the slot yet."""
        proxy, admin = descriptors(self._held.proxy), descriptors(self._held.admin)
        order = Order(slot.number, settings, is_replacing, slot.own, proxy, admin)
        worker = await WorkerProcess.start(order, self._welcome)
        self._running.add(worker)
        log.info("worker_started", worker=slot.number, pid=worker.pid)
        self._spawn(self._attend(slot, worker))
        self._spawn(_watch_over(worker))
        return worker

    def _welcome(self) -> None:
        """A worker serves: the others need not mind its sockets any more, and it may mind theirs."""
        self.serving.set()
        self._share_out()

    async def _attend(self, slot: Slot, worker: WorkerProcess) -> None:
        """Wait for a worker's end; if it still had its slot then, start another."""
        code = await worker.ended
        self._running.remove(worker)
        self._report.bury(worker)
        if worker in slot.leaving:
            slot.leaving.remove(worker)
        how: dict[str, float | str] = {"exit_code": code} if code >= 0 else {"signal": SIGNALS.get(-code, -code)}
        if worker.hangs:
            how["silent_seconds"] = SILENT_QUESTIONS * ANSWER_SECONDS
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
            await self.serving.wait()  # until then it may be that none of them can
        await asyncio.sleep(pause)
        if slot.worker is worker and not self._is_ending:
            self._report.restarts.inc()
            await self._fill(slot)

    def _gives_up(self) -> bool:
        """Whether every worker has said that it cannot serve, as one process by itself would have, and ended."""
        failures = [slot.failure for slot in self._slots if slot.failure is not None]
        if len(failures) < len(self._slots):
            return False
        self._fail(WorkersFailed(failures[0]))
        return True

    def _share_out(self) -> None:
        """Have the workers that serve accept in the place of those that do not: nobody waits for a restart."""
        serving = [slot for slot in self._slots if slot.worker is not None and slot.worker.serves]
        absent = self._open_queues - {queue for slot in serving for queue in slot.own}
        for slot in serving:
            assert slot.worker is not None
            slot.worker.mind((absent | {*slot.own}) - slot.worker.own)

    # -- others in their places

    async def renew(self, settings: Settings) -> bool:
        """As Staff: worker by worker, for as long as that goes well."""
        for replaced, slot in enumerate(self._slots):
            if not await self._replace(slot, settings):
                log.error("workers_not_replaced", replaced=replaced, workers=len(self._slots))
                return False
            self._settings = settings
        return True

    async def _replace(self, slot: Slot, settings: Settings) -> bool:
        """Put a new worker in the place of the one in a slot, once it is ready; whether it came to be."""
        try:
            successor = await self._launch(slot, settings, is_replacing=True)
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
        if predecessor is not None and not predecessor.ended.done():
            slot.leaving.append(predecessor)
            self._spawn(_left(predecessor))
            if len(slot.leaving) > LEAVING_LIMIT:
                slot.leaving.popleft().terminate()
        return True

    # -- the end

    async def close(self) -> None:
        """As Staff."""
        self._is_ending = True
        workers = tuple(self._running)
        for worker in workers:
            worker.terminate()
        await self._end(workers, max((_stop_seconds(worker.drain) for worker in workers), default=0.0))

    async def leave(self) -> None:
        """As Staff."""
        self._is_ending = True
        workers = tuple(self._running)
        for worker in workers:
            worker.leave()
        await self._end(workers, max((_leave_seconds(worker.drain) for worker in workers), default=0.0))

    def hurry(self) -> None:
        """As Staff."""
        for worker in self._running:
            worker.terminate()

    def cut(self) -> None:
        """As Staff."""
        self._cutting.set()

    async def _end(self, workers: Sequence[WorkerProcess], seconds: float) -> None:
        """Wait for all of them for so long, or until `cut`, and kill the rest."""
        cut = asyncio.ensure_future(self._cutting.wait())
        all_ended = asyncio.gather(*(worker.ended for worker in workers))
        await asyncio.wait((cut, all_ended), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        cut.cancel()
        late = [worker for worker in workers if not worker.ended.done()]
        for worker in {*late, *self._running}:  # one may have been started as we were told to stop
            worker.kill()
        await all_ended
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if late:
            raise CutShort(f"{len(late)} of {len(self._slots)} workers were killed before they had finished")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("supervision_failed", exc_info=error)
            self._fail(WorkersFailed("a worker cannot be looked after; the log says why"))

    def _fail(self, failure: GatewayError) -> None:
        if not self.failed.done():
            self.failed.set_result(failure)


def _stop_seconds(drain: DrainSettings) -> float:
    return 2 * drain.finish_seconds + STORES_SECONDS  # callers, then the operators' side, then the stores


def _leave_seconds(drain: DrainSettings) -> float:
    return drain.replaced_seconds + _stop_seconds(drain)


async def _ended(worker: WorkerProcess) -> None:
    """Have a worker finish, within the bound."""
    worker.terminate()
    await asyncio.wait([worker.ended], timeout=_stop_seconds(worker.drain))
    worker.kill()


async def _left(worker: WorkerProcess) -> None:
    """Have a worker finish that was replaced, streams and sockets as well, within the bound."""
    worker.leave()
    await asyncio.wait([worker.ended], timeout=_leave_seconds(worker.drain))
    worker.kill()


async def _watch_over(worker: WorkerProcess) -> None:
    """Kill a worker that hangs: its callers, and those that come to its queue, would wait for ever."""
    silent = 0
    while not worker.ended.done() and silent < SILENT_QUESTIONS:
        answer = await worker.ask(is_with_metrics=False)
        if answer is not None or not worker.has_answered:  # one that starts has not said anything yet
            silent = 0
            await asyncio.sleep(ANSWER_SECONDS)
        else:
            silent += 1
    if not worker.ended.done():
        worker.hangs = True
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
