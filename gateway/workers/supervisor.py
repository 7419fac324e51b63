"""The process that keeps N workers running on one set of ports, and touches no request.

The sockets are its own: connections that a dead worker had not accepted are accepted by another (docs/workers.md).
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable

import structlog

from gateway import __version__
from gateway.configuration import ConfigurationError
from gateway.control.status import status_of
from gateway.errors import GatewayError
from gateway.listeners import Listeners
from gateway.settings import Settings
from gateway.workers.crew import Crew
from gateway.workers.sockets import listen

log = structlog.get_logger(__name__)


class WorkersFailed(GatewayError):
    """No worker can serve. The message is a worker's."""


class WorkersKilled(GatewayError):
    """Workers were ended before they had finished."""


class Supervisor:
    """`count` workers with `settings`; `read` reads them again, and raises ConfigurationError."""

    def __init__(self, settings: Settings, read: Callable[[], Settings], count: int) -> None:
        self._settings = settings
        self._read = read
        self._count = count
        self._reloading: asyncio.Task[None] | None = None
        self._is_reload_wanted = False
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises ListenerFailed, WorkersFailed, WorkersKilled."""
        places, numbers = self._settings.listen, range(1, self._count + 1)
        async with contextlib.AsyncExitStack() as stack:
            sockets = stack.enter_context(contextlib.ExitStack())
            crew = Crew(self._settings, listen(places.proxy, numbers, sockets), listen(places.admin, numbers, sockets))
            await Listeners(stack).serve(status_of(crew.report.exposition, crew.report.readiness), places.status)
            self._watch_signals(crew)
            try:
                await self._supervise(crew)
            finally:
                self._stopping.set()
                if self._reloading is not None:
                    self._reloading.cancel()
                sockets.close()  # whoever comes now is refused, and not kept waiting
                killed = await crew.close(self._hurrying)
        if killed:
            raise WorkersKilled(f"{killed} of {self._count} workers were killed before they had finished")

    async def _supervise(self, crew: Crew) -> None:
        places = self._settings.listen
        log.info(
            "supervising",
            version=__version__,
            workers=self._count,
            environment=self._settings.environment,
            proxy=str(places.proxy),
            admin=str(places.admin),
            status=str(places.status),
        )
        crew.start()
        stopped = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((stopped, crew.failed), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if crew.failed.done():
            raise WorkersFailed(crew.failed.result())
        log.info("stopping")

    # -- signals

    def _watch_signals(self, crew: Crew) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon, crew)

    def _stop(self) -> None:
        (self._hurrying if self._stopping.is_set() else self._stopping).set()

    def _reload_soon(self, crew: Crew) -> None:
        if self._stopping.is_set():
            return
        self._is_reload_wanted = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._reload_while_wanted(crew))

    # -- new settings

    async def _reload_while_wanted(self, crew: Crew) -> None:
        while self._is_reload_wanted:
            self._is_reload_wanted = False
            try:
                await self._reload(crew)
            except Exception:  # a fault of the gateway is no reason to end what serves
                log.exception("reload_failed")

    async def _reload(self, crew: Crew) -> None:
        """Read the settings again, and replace the workers one by one, for as long as that goes well (R077)."""
        settings = self._settings_read()
        if settings is None:
            return
        log.info("reloading")
        for replaced, slot in enumerate(crew.slots):
            if not await crew.replace(slot, settings):
                log.error("reload_given_up", replaced=replaced, workers=self._count)
                return
            crew.settings = settings
        log.info("reloaded")

    def _settings_read(self) -> Settings | None:
        """The settings as they are now; None, and in the log why, where they cannot be used."""
        try:
            settings = self._read()
        except ConfigurationError as error:
            for mistake in error.mistakes:
                log.error("configuration_refused", mistake=str(mistake), line=mistake.line)
            return None
        moved = [
            name
            for name in ("proxy", "admin", "status")
            if getattr(self._settings.listen, name) != getattr(settings.listen, name)
        ]
        for name in moved:
            log.error("configuration_refused", mistake=f"listen.{name}: a new address needs a restart")
        return None if moved else settings
