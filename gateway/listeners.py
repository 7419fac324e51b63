"""Sockets that are listened on: bound, served, and closed in order."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web, web_app

from gateway.errors import GatewayError
from gateway.settings import Address, Listen

LAST_REQUEST_SECONDS: Final = 2.0  # for one more request on a connection that is kept open, where others go on
LAST_MOMENT_SECONDS: Final = 0.5  # the same where nobody does: for a request that is already on its way
LAST_REQUEST_POLL_SECONDS: Final = 0.05
BACKLOG: Final = 1024

Sockets = tuple[socket.socket, ...]  # one for each address that a listener's name stands for


class ListenerFailed(GatewayError):
    """A listener's address cannot be bound."""

    def __init__(self, address: Address, error: OSError) -> None:
        super().__init__(f"cannot listen on {address}: {error.strerror or error}")


@dataclass(frozen=True, slots=True)
class Bound:
    """A listener whose sockets somebody else has bound, and given away.

    Of `others`, by their numbers, it serves those that `Listeners.mind` says.
    """

    address: Address
    own: Sockets
    others: Mapping[int, Sockets] = field(default_factory=dict)


Place = Address | Bound
SitesOf = Callable[[web.BaseRunner, Address, Sockets | None], Sequence[web.BaseSite]]


@dataclass(frozen=True, slots=True)
class Places:
    """Where a node listens. Its health and metrics are told by whoever has started it."""

    proxy: Place
    admin: Place

    @classmethod
    def configured(cls, listen: Listen) -> "Places":
        """At the configured addresses."""
        return cls(listen.proxy, listen.admin)


class Ending:
    """Kept connections of an aiohttp application that is about to stop: each may ask once more, and is told so.

    aiohttp by itself closes them at once, and with them those on which a request is already on its way.
    """

    def __init__(self, runner: web.BaseRunner) -> None:
        self._runner = runner
        self._timer: asyncio.TimerHandle | None = None

    async def tell(self, request: web.Request, response: web.StreamResponse) -> None:
        """As a signal before every reply."""
        if self._timer is not None:
            response.headers["Connection"] = "close"
            response.force_close()

    def begin(self, seconds: float) -> None:
        """Give the connections there are so long, and then close those that are idle."""
        server = self._runner.server
        if server is None:  # it has ended already, half-way through a start
            return
        self._timer = asyncio.get_running_loop().call_later(seconds, server.pre_shutdown)

    async def wait(self) -> None:
        """Wait for them, if they were given time."""
        if self._timer is None:
            return
        loop, server = asyncio.get_running_loop(), self._runner.server
        while server is not None and server.connections and loop.time() < self._timer.when():  # noqa: ASYNC110
            await asyncio.sleep(LAST_REQUEST_POLL_SECONDS)  # nobody tells
        self._timer.cancel()


class Listeners:
    """Listeners that accept connections from `open` to `refuse`; what closes them goes onto `stack`."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self._listeners: list[tuple[Place, web.BaseRunner, SitesOf]] = []
        self._endings: list[Ending] = []
        self._given: list[Sockets] = []
        self._minding: dict[int, list[web.BaseSite]] = {}
        self._has_ended = False

    def take(self, place: Place) -> None:
        """Be the one who closes the sockets of a place, served or not."""
        if isinstance(place, Bound):
            for sockets in (place.own, *place.others.values()):
                self._given.append(sockets)
                self._stack.callback(_close, sockets)

    async def serve(self, app: web.Application, place: Place, *, finish_seconds: float) -> None:
        """Have an application of the operators' side served; its last replies may take `finish_seconds`."""
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=finish_seconds)
        ending = Ending(runner)
        app.on_response_prepare.append(ending.tell)
        await self.add(runner, place, tcp_sites)
        self._endings.append(ending)
        self._stack.push_async_callback(ending.wait)

    async def add(self, runner: web.BaseRunner, place: Place, sites_of: SitesOf) -> None:
        """Have a runner serve at a place."""
        self._listeners.append((place, runner, sites_of))
        self._stack.callback(_forget_handlers)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)

    async def open(self) -> None:
        """Accept connections. Raises ListenerFailed."""
        for place, runner, sites_of in self._listeners:
            if isinstance(place, Bound):
                address, sites = place.address, sites_of(runner, place.address, place.own)
            else:
                address, sites = place, sites_of(runner, place, None)
            try:
                for site in sites:
                    await site.start()
            except OSError as error:
                raise ListenerFailed(address, error) from error

    async def mind(self, numbers: frozenset[int]) -> None:
        """Accept connections on these sockets of others as well, and no longer on any other of theirs."""
        if self._has_ended:
            return
        for number in self._minding.keys() - numbers:
            for site in self._minding.pop(number):
                await site.stop()
        for number in numbers - self._minding.keys():
            sites = self._minding[number] = []
            for place, runner, sites_of in self._listeners:
                assert isinstance(place, Bound)
                # Duplicates: a site closes its socket when it stops, and this worker may have to mind it again.
                sockets = tuple(sock.dup() for sock in place.others[number])
                sites.extend(sites_of(runner, place.address, sockets))
            for site in sites:
                await site.start()

    async def refuse(self, last_seconds: float) -> None:
        """Accept no more, on any of them; operators' idle connections have so long for one more request."""
        self._has_ended = True
        for ending in self._endings:
            ending.begin(last_seconds)
        for _, runner, _ in self._listeners:
            for site in tuple(runner.sites):
                await site.stop()
        for sockets in self._given:  # whoever comes is refused, if this was the last to hold them
            _close(sockets)


def _forget_handlers() -> None:
    """Have aiohttp let go of those that have ended.

    It keeps the last 1,024 handlers that were called through middlewares, and with each its application and all that
    is behind it: of a gateway that was replaced, every cache.
    """
    web_app._cached_build_middleware.cache_clear()


def _close(sockets: Sockets) -> None:
    for sock in sockets:
        sock.close()


def tcp_sites(runner: web.BaseRunner, address: Address, sockets: Sockets | None) -> Sequence[web.BaseSite]:
    """Plain listeners."""
    if sockets is None:
        return [web.TCPSite(runner, address.host, address.port, backlog=BACKLOG)]
    return [web.SockSite(runner, sock, backlog=BACKLOG) for sock in sockets]
