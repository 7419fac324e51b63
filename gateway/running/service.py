"""A process as its operator meets it: its sockets, its status listener, its signals, and what happens on each.

What serves is the staff's: a gateway in this process, or workers. This is the story of both.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from enum import Enum, auto
from typing import Any

import structlog

from gateway.control.status import status_of
from gateway.listeners import LAST_MOMENT_SECONDS, Listeners
from gateway.running.configuration_file import ConfigurationFile
from gateway.running.handover import Handover, Predecessor, TakeOverFailed
from gateway.running.sockets import Held, whole
from gateway.running.staff import NotReady, Staff
from gateway.running.system_manager import SystemManager
from gateway.settings import Settings
from gateway.telemetry.lines import Lines
from gateway.telemetry.logs import write_logs

log = structlog.get_logger(__name__)


class Stage(Enum):
    """How far it is; it moves down this list."""

    SERVING = auto()
    DELAYING = auto()  # told to stop, not ready any more, and serving as before
    LEAVING = auto()  # another process has taken its place
    CLOSING = auto()


class Service:
    """`staff_of` makes what serves, of settings and sockets. `queues` are those of each listener, where they are bound.

    `lines` is where the log goes, in the form that the settings say; without them it stays as it is.

    `watches`: the file is read again when it has changed. `takes_over`: the place of the process at `listen.handover`.
    """

    def __init__(
        self,
        file: ConfigurationFile,
        settings: Settings,
        staff_of: Callable[[Settings, Held], Staff],
        lines: Lines | None = None,
        *,
        queues: int = 1,
        watches: bool = False,
        takes_over: bool = False,
    ) -> None:
        self._file = file
        self._settings = settings
        self._staff_of = staff_of
        self._lines = lines
        self._queues = queues
        self._watches = watches
        self._takes_over = takes_over
        self._system_manager = SystemManager(os.environ)
        self._stage = Stage.SERVING
        self._stopping = asyncio.Event()
        self._undelayed = asyncio.Event()
        self._is_reload_wanted = asyncio.Event()
        self._staff: Staff
        self._handover: Handover | None = None

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or until another process has taken over. Raises as `running` and `wait`."""
        async with self.running():
            await self.wait()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve while the block runs, and end as it has been told to.

        Raises what makes starting impossible, and CutShort and kin where something was cut at the end.
        """
        self._form_log()
        async with contextlib.AsyncExitStack() as stack:
            predecessor = Predecessor.met(self._settings.listen) if self._takes_over else None
            if predecessor is not None:
                stack.callback(predecessor.close)
                held = predecessor.held.extended(self._settings.listen, self._queues)
            else:
                held = Held.bound(self._settings.listen, self._queues)
            stack.callback(held.close)
            self._staff = self._staff_of(self._settings, held)
            self._heed_signals()
            status = await stack.enter_async_context(self._status(held))
            tasks: list[asyncio.Task[None]] = []
            try:
                if predecessor is None:
                    await status.open()
                    await self._staff.start(is_replacing=False)
                else:
                    await self._start_beside_another()
                    await status.open()
                    await predecessor.relieve()
                    self._staff.settle()
                self._open_handover(held)
                tasks.append(asyncio.create_task(self._tell_once_ready()))
                tasks.append(asyncio.create_task(self._reload_when_wanted()))
                if self._watches:
                    tasks.append(asyncio.create_task(self._file.watch(self._is_reload_wanted.set)))
                yield
            except BaseException:
                self._undelayed.set()
                raise
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._end(held, status)

    async def wait(self, *others: asyncio.Future[Any]) -> None:
        """Return once told to stop, or once another process has taken over, or one of `others` is done.

        Raises what makes going on impossible.
        """
        stopped = asyncio.ensure_future(self._stopping.wait())
        taken = () if self._handover is None else (self._handover.taken,)
        ends = (stopped, self._staff.failed, *taken, *others)
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if self._staff.failed.done():
            raise self._staff.failed.result()

    async def _start_beside_another(self) -> None:
        """Raises NotReady as well if it is told to stop meanwhile: the other one serves, and nobody has to wait."""
        starting = asyncio.ensure_future(self._staff.start(is_replacing=True))
        stopped = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            raise NotReady("it was told to stop before it was ready")
        starting.result()

    # -- what is told

    @contextlib.asynccontextmanager
    async def _status(self, held: Held) -> AsyncIterator[Listeners]:
        async with contextlib.AsyncExitStack() as stack:
            listeners = Listeners(stack)
            place = whole(self._settings.listen.status, held.status)
            listeners.take(place)
            app = status_of(self._staff.exposition, self._readiness)
            await listeners.serve(app, place, finish_seconds=LAST_MOMENT_SECONDS)
            yield listeners

    async def _readiness(self) -> tuple[bool, dict[str, Any]]:
        is_ready, reasons = await self._staff.readiness()
        if self._stage is Stage.SERVING:
            return is_ready, reasons
        return False, {"stopping": True, **reasons}

    async def _tell_once_ready(self) -> None:
        await self._staff.serving.wait()
        self._system_manager.ready()

    # -- signals

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._stop_at_once)
        loop.add_signal_handler(signal.SIGHUP, self._is_reload_wanted.set)

    def _stop(self) -> None:
        """SIGTERM: each shortens what the one before has begun."""
        match self._stage:
            case Stage.SERVING if not self._stopping.is_set():
                self._stopping.set()
            case Stage.SERVING | Stage.DELAYING:
                self._undelayed.set()
            case Stage.LEAVING:
                self._stage = Stage.CLOSING
                self._staff.hurry()
            case Stage.CLOSING:
                self._staff.cut()

    def _stop_at_once(self) -> None:
        """SIGINT: at the keyboard is somebody who waits, and no balancer."""
        self._undelayed.set()
        self._stop()

    # -- new settings

    async def _reload_when_wanted(self) -> None:
        while True:
            await self._is_reload_wanted.wait()
            self._is_reload_wanted.clear()
            self._system_manager.reloading()
            try:
                await self._reload()
            except Exception:  # a fault of the gateway is no reason to end what serves
                log.exception("reload_failed")
            self._system_manager.ready()

    async def _reload(self) -> None:
        """Read the settings again, and serve by them if they can be used (R077)."""
        settings = await self._file.read_again(self._settings)
        if settings is None:
            return
        log.info("reloading")
        if await self._staff.renew(settings):
            self._settings = settings
            self._form_log()
            log.info("reloaded")
        else:
            log.error("reload_given_up")

    def _form_log(self) -> None:
        if self._lines is not None:
            form = self._settings.log
            write_logs(self._lines, level=form.level, is_json=form.format == "json")

    # -- the end

    def _open_handover(self, held: Held) -> None:
        listen = self._settings.listen
        if listen.handover is None:
            return
        self._handover = Handover(listen.handover, listen, held)
        try:
            self._handover.open()
        except TakeOverFailed as error:
            if not self._takes_over:
                raise
            log.error("handover_not_open", reason=str(error))  # the old one has left: better served than replaceable

    async def _end(self, held: Held, status: Listeners) -> None:
        successor = None
        if self._handover is not None:
            await self._handover.close()
            if self._handover.taken.done():
                successor = self._handover.taken.result()
        if successor is None:
            self._system_manager.stopping()
            await self._delay()
            self._stage = Stage.CLOSING
            log.info("stopping")
            held.close()  # whoever comes now is refused, and not kept waiting
            await self._staff.close()
        else:
            self._system_manager.replaced(successor)
            await status.refuse(LAST_MOMENT_SECONDS)  # the successor's is asked
            self._stage = Stage.LEAVING
            log.info("leaving")
            held.close()
            await self._staff.leave()

    async def _delay(self) -> None:
        """Serve on for a while, not ready any more: whoever sends callers here has to notice first."""
        self._stage = Stage.DELAYING
        seconds = self._settings.drain.delay_seconds
        if seconds and not self._undelayed.is_set():
            log.info("not_ready_any_more", stops_in_seconds=seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._undelayed.wait()
