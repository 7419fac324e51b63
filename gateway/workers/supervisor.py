"""Keeps N workers running on one set of ports: starts, restarts, replaces and ends them. It touches no request.

What happens to a worker is told by its process and its channel; `_attend` is the story of one. The sockets are the
supervisor's: connections that a dead worker had not accepted are accepted by another (docs/workers.md).
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from gateway import __version__
from gateway.configuration import ConfigurationError, warnings_of
from gateway.control.status import status_of
from gateway.errors import GatewayError
from gateway.listeners import SHUTDOWN_SECONDS, Listeners
from gateway.settings import Settings
from gateway.workers import sockets
from gateway.workers.backoff import Backoff
from gateway.workers.channel import Order
from gateway.workers.process import WorkerProcess
from gateway.workers.report import Report

log = structlog.get_logger(__name__)

READY_SECONDS: Final = 30.0  # for the successor of a worker that serves
READY_POLL_SECONDS: Final = 0.1
STOP_SECONDS: Final = 2 * SHUTDOWN_SECONDS + 5.0  # callers, then the operators' side, then the stores


class WorkersFailed(GatewayError):
    """No worker can serve. The message is a worker's."""


class WorkersKilled(GatewayError):
    """Workers were ended before they had finished."""


@dataclass(eq=False, slots=True)
class Slot:
    """The place of one worker: its number, and who has it now. `failure` is why the last one could not serve."""

    number: int
    worker: WorkerProcess | None = None
    failure: str | None = None
    backoff: Backoff = field(default_factory=Backoff)


class Supervisor:
    """`count` workers with `settings`; `read` reads them again, and raises ConfigurationError."""

    def __init__(self, settings: Settings, read: Callable[[], Settings], count: int) -> None:
        self._settings = settings
        self._read = read
        self._slots = [Slot(number) for number in range(1, count + 1)]
        self._sockets = contextlib.ExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: set[WorkerProcess] = set()
        self._somebody_has_started = asyncio.Event()
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reloading: asyncio.Task[None] | None = None
        self._is_reload_wanted = False
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._report = Report(self._slots, self._running)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises ListenerFailed, WorkersFailed, WorkersKilled."""
        listen, numbers = self._settings.listen, range(1, len(self._slots) + 1)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._sockets)
            self._proxy = sockets.listen(listen.proxy, numbers, self._sockets)
            self._admin = sockets.listen(listen.admin, numbers, self._sockets)
            await Listeners(stack).serve(status_of(self._report.exposition, self._report.readiness), listen.status)
            self._watch_signals()
            try:
                await self._supervise()
            finally:
                await self._close()

    async def _supervise(self) -> None:
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
        for slot in self._slots:
            await self._fill(slot)
        stopped = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((stopped, self._failed), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if self._failed.done():
            raise WorkersFailed(self._failed.result())
        log.info("stopping")

    # -- signals

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon)

    def _stop(self) -> None:
        (self._hurrying if self._stopping.is_set() else self._stopping).set()

    def _reload_soon(self) -> None:
        if self._stopping.is_set():
            return
        self._is_reload_wanted = True
        if self._reloading is None or self._reloading.done():
            self._reloading = self._spawn(self._reload_while_wanted())

    # -- the life of a worker

    async def _launch(self, slot: Slot, settings: Settings) -> WorkerProcess:
        """Start a worker for a slot, and follow it to its end. It does not have the slot yet."""
        order = Order(slot.number, settings, sockets.descriptors(self._proxy), sockets.descriptors(self._admin))
        worker = await WorkerProcess.start(order, self._welcome)
        self._running.add(worker)
        log.info("worker_started", worker=slot.number, pid=worker.pid)
        self._spawn(self._attend(slot, worker))
        return worker

    async def _fill(self, slot: Slot) -> None:
        """Give an empty slot a worker."""
        before, slot.failure = slot.worker, None
        while slot.worker is before:
            try:
                worker = await self._launch(slot, self._settings)
            except OSError as error:
                log.error("worker_not_started", worker=slot.number, reason=str(error))
                await asyncio.sleep(slot.backoff.pause_after(0.0))
                continue
            if slot.worker is before:
                slot.worker = worker
            else:  # a reload was quicker
                await self._end(worker)

    def _welcome(self) -> None:
        """A worker serves: the others need not mind its sockets any more, and it may mind theirs."""
        self._somebody_has_started.set()
        self._share_out()

    async def _attend(self, slot: Slot, worker: WorkerProcess) -> None:
        """Wait for a worker's end; if it still had its slot then, start another."""
        code = await worker.ended
        self._running.remove(worker)
        self._report.bury(worker)
        if self._stopping.is_set() or slot.worker is not worker:
            log.info("worker_ended", worker=slot.number, pid=worker.pid, **_end(code))
            return
        pause = slot.backoff.pause_after(time.monotonic() - worker.began)
        why = {} if worker.failure is None else {"reason": worker.failure}
        log.error("worker_died", worker=slot.number, pid=worker.pid, **_end(code), **why, restart_in_seconds=pause)
        slot.failure = worker.failure
        self._share_out()
        if worker.failure is not None:
            if self._give_up():
                return
            await self._somebody_has_started.wait()  # until then it may be that none of them can
        await asyncio.sleep(pause)
        if slot.worker is worker and not self._stopping.is_set():
            self._report.restarts.inc()
            await self._fill(slot)

    def _give_up(self) -> bool:
        """Whether every worker has said that it cannot serve, as one process by itself would have, and ended."""
        failures = [slot.failure for slot in self._slots if slot.failure is not None]
        if len(failures) < len(self._slots):
            return False
        if not self._failed.done():
            self._failed.set_result(failures[0])
        return True

    def _share_out(self) -> None:
        """Have the workers that serve accept in the place of those that do not: nobody waits for a restart."""
        serving = [slot.worker for slot in self._slots if slot.worker is not None and slot.worker.serves]
        absent = {slot.number for slot in self._slots} - {worker.number for worker in serving}
        for worker in serving:
            worker.mind(absent)

    # -- new settings

    async def _reload_while_wanted(self) -> None:
        while self._is_reload_wanted:
            self._is_reload_wanted = False
            try:
                await self._reload()
            except Exception:  # a fault of the gateway is no reason to end what serves
                log.exception("reload_failed")

    async def _reload(self) -> None:
        """Read the settings again, and replace the workers one by one; nothing changes where that fails (R077)."""
        settings = self._settings_read()
        if settings is None:
            return
        for warning in warnings_of(settings):
            log.warning("setting_without_effect", setting=warning)
        log.info("reloading")
        for slot in self._slots:
            if not await self._replace(slot, settings):
                log.error("reload_given_up", replaced=slot.number - 1, workers=len(self._slots))
                return
            self._settings = settings
        log.info("reloaded")

    def _settings_read(self) -> Settings | None:
        try:
            settings = self._read()
        except ConfigurationError as error:
            for mistake in error.mistakes:
                log.error("configuration_refused", mistake=str(mistake), line=mistake.line)
            return None
        old, new = self._settings.listen, settings.listen
        for name in ("proxy", "admin", "status"):
            if getattr(old, name) != getattr(new, name):
                log.error("configuration_refused", mistake=f"listen.{name}: a new address needs a restart")
                return None
        return settings

    async def _replace(self, slot: Slot, settings: Settings) -> bool:
        """Put a new worker in the place of the one in a slot, once it is ready; whether it came to be."""
        try:
            successor = await self._launch(slot, settings)
        except OSError as error:
            log.error("worker_not_started", worker=slot.number, reason=str(error))
            return False
        if not await _becomes_ready(successor):
            reason = successor.failure or f"it was not ready within {READY_SECONDS:g} s"
            log.error("worker_not_ready", worker=slot.number, pid=successor.pid, reason=reason)
            await self._end(successor)
            return False
        predecessor, slot.worker, slot.failure = slot.worker, successor, None
        self._share_out()
        if predecessor is not None:
            self._spawn(self._end(predecessor))
        return True

    async def _end(self, worker: WorkerProcess) -> None:
        """Have a worker finish, within the bound."""
        worker.terminate()
        await asyncio.wait([worker.ended], timeout=STOP_SECONDS)
        worker.kill()

    # -- the end

    async def _close(self) -> None:
        """End every worker: gracefully, until the bound has passed or somebody loses patience. Raises WorkersKilled."""
        self._stopping.set()
        if self._reloading is not None:
            self._reloading.cancel()
        self._sockets.close()  # whoever comes now is refused, and not kept waiting
        workers = tuple(self._running)
        for worker in workers:
            worker.terminate()
        hurrying = asyncio.ensure_future(self._hurrying.wait())
        all_ended = asyncio.gather(*(worker.ended for worker in workers))
        await asyncio.wait((hurrying, all_ended), timeout=STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        late = [worker for worker in workers if not worker.ended.done()]
        for worker in {*late, *self._running}:  # one may have been started as we were told to stop
            worker.kill()
        await all_ended
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if late:
            raise WorkersKilled(f"{len(late)} of {len(workers)} workers were killed before they had finished")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("supervision_failed", exc_info=error)
            if not self._failed.done():
                self._failed.set_result("a worker cannot be looked after; the log says why")


def _end(code: int) -> dict[str, object]:
    return {"exit_code": code} if code >= 0 else {"signal": signal.Signals(-code).name}


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
