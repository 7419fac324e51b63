"""One process: a gateway, and the one with newer settings that takes its place.

Both are in this process while the old one finishes, on sockets that are neither's: no connection finds nobody.
"""

import asyncio
from typing import Any, Final

import structlog

from gateway import __version__
from gateway.app import Gateway
from gateway.errors import GatewayError
from gateway.listeners import Places
from gateway.running.sockets import Held, whole
from gateway.running.staff import LEAVING_LIMIT, READY_SECONDS, CutShort, NotReady
from gateway.settings import Settings
from gateway.telemetry.lines import Lines
from gateway.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

LATE: Final = f"it was not ready within {READY_SECONDS:g} s"


class Alone:
    """As Staff: a gateway in this process, on sockets that are `held` for it. `lines` is where its log goes."""

    def __init__(self, settings: Settings, held: Held, lines: Lines | None = None) -> None:
        self.failed: asyncio.Future[GatewayError] = asyncio.get_running_loop().create_future()
        self.serving = asyncio.Event()
        self._held = held
        self._lines = lines
        self._settings = settings
        self._leaving: dict[Gateway, asyncio.Task[None]] = {}
        self._was_cut = False
        self._gateway = self._made(settings, Metrics())

    def _made(self, settings: Settings, metrics: Metrics) -> Gateway:
        listen = settings.listen
        places = Places(whole(listen.proxy, self._held.proxy), whole(listen.admin, self._held.admin))
        return Gateway(settings, places=places, metrics=metrics, lines=self._lines)

    async def start(self, *, is_replacing: bool) -> None:
        """As Staff."""
        await self._gateway.prepare()
        if is_replacing:
            try:
                await _wait_until_well(self._gateway)
            except BaseException:
                await self._gateway.close()
                raise
        await self._gateway.listen()
        self._gateway.failure.add_done_callback(self._fail)
        listen = self._settings.listen
        log.info(
            "serving",
            version=__version__,
            environment=self._settings.environment,
            proxy=str(listen.proxy),
            admin=str(listen.admin),
            status=str(listen.status),
        )
        self.serving.set()

    def settle(self) -> None:
        """As Staff: it serves all queues already."""

    def _fail(self, failure: asyncio.Future[GatewayError]) -> None:
        if not failure.cancelled() and not self.failed.done():
            self.failed.set_result(failure.result())

    # -- what is told

    async def exposition(self, *, is_open: bool) -> bytes:
        """As Staff."""
        return self._gateway.metrics.exposition(is_open=is_open)

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """As Staff."""
        answers = {name: is_well() for name, is_well in self._gateway.checks.items()}
        return bool(answers) and all(answers.values()), {"checks": answers}

    # -- another in its place

    async def renew(self, settings: Settings) -> bool:
        """As Staff: by a second gateway in this process, which first has to be ready."""
        successor = self._made(settings, self._gateway.metrics.successor())
        try:
            await successor.prepare()
            await _wait_until_well(successor)
            await successor.listen()
        except GatewayError as error:
            log.error("successor_not_ready", reason=str(error))
            await successor.close()
            return False
        except BaseException:
            await successor.close()
            raise
        predecessor, self._gateway, self._settings = self._gateway, successor, settings
        successor.metrics.show()
        successor.failure.add_done_callback(self._fail)
        predecessor.failure.remove_done_callback(self._fail)
        self._part_with(predecessor)
        for oldest in list(self._leaving)[:-LEAVING_LIMIT]:
            oldest.hurry()
        return True

    def _part_with(self, gateway: Gateway) -> asyncio.Task[None]:
        leaving = self._leaving[gateway] = asyncio.create_task(self._see_off(gateway))
        return leaving

    async def _see_off(self, gateway: Gateway) -> None:
        try:
            await gateway.leave()
        except Exception:  # it serves nobody any more, so that nobody else is to suffer
            log.exception("leaving_failed")
        finally:
            del self._leaving[gateway]

    # -- the end

    async def close(self) -> None:
        """As Staff."""
        leaving = tuple(self._leaving.values())
        self.hurry()
        await asyncio.gather(self._gateway.close(), *leaving)
        self._tell_of_cut()

    async def leave(self) -> None:
        """As Staff."""
        self._part_with(self._gateway)
        await asyncio.gather(*self._leaving.values())
        self._tell_of_cut()

    def hurry(self) -> None:
        """As Staff."""
        for gateway in self._leaving:
            gateway.hurry()

    def cut(self) -> None:
        """As Staff."""
        self._was_cut = True
        for gateway in (self._gateway, *self._leaving):
            gateway.cut()

    def _tell_of_cut(self) -> None:
        if self._was_cut:
            raise CutShort("what was under way was cut before it had finished")


async def _wait_until_well(gateway: Gateway) -> None:
    """Raises NotReady, and what makes going on impossible."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            await gateway.wait_until_well()
    except TimeoutError:
        raise NotReady(LATE) from None
