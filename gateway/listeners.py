"""Sockets that are listened on: bound, served, and closed in order."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gateway.errors import GatewayError
from gateway.settings import Address, Listen

SHUTDOWN_SECONDS: Final = 30.0  # for exchanges under way
LAST_REQUEST_SECONDS: Final = 2.0  # for one more request on a connection that is kept open
LAST_REQUEST_POLL_SECONDS: Final = 0.05
BACKLOG: Final = 1024

Sockets = tuple[socket.socket, ...]  # one for each address that a listener's name stands for


class ListenerFailed(GatewayError):
    """A listener's address cannot be bound."""

    def __init__(self, address: Address, error: OSError) -> None:
        super().__init__(f"cannot listen on {address}: {error.strerror or error}")


@dataclass(frozen=True, slots=True)
class Bound:
    """A listener whose sockets somebody else has bound, for this worker and for each of the others, by their numbers.

    Of the others' this one serves those that `Listeners.mind` says.
    """

    address: Address
    own: Sockets
    others: Mapping[int, Sockets]


Place = Address | Bound
SitesOf = Callable[[web.BaseRunner, Address, Sockets | None], Sequence[web.BaseSite]]


@dataclass(frozen=True, slots=True)
class Places:
    """Where a node listens. Without a status listener, whoever has started the node asks it in another way."""

    proxy: Place
    admin: Place
    status: Place | None

    @classmethod
    def configured(cls, listen: Listen) -> "Places":
        """At the configured addresses."""
        return cls(listen.proxy, listen.admin, listen.status)


class Ending:
    """Kept connections of an aiohttp application that is about to stop: each may ask once more, and is told so.

    aiohttp by itself closes them at once, and with them those on which a request is already on its way.
    """

    def __init__(self) -> None:
        self._is_near = False

    async def tell(self, request: web.Request, response: web.StreamResponse) -> None:
        """As a signal before every reply."""
        if self._is_near:
            response.headers["Connection"] = "close"
            response.force_close()

    async def begin(self, runner: web.BaseRunner) -> None:
        """Accept no more, and give the connections there are a moment."""
        self._is_near = True
        for site in runner.sites:
            await site.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_REQUEST_SECONDS):
                while runner.server is not None and runner.server.connections:  # noqa: ASYNC110  # nobody tells
                    await asyncio.sleep(LAST_REQUEST_POLL_SECONDS)


class Listeners:
    """Starts listeners; what closes them goes onto `stack`."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self._bound: list[tuple[Bound, web.BaseRunner, SitesOf]] = []
        self._minding: dict[int, list[web.BaseSite]] = {}

    async def serve(self, app: web.Application, place: Place) -> None:
        """Serve an application of the operators' side. Raises ListenerFailed."""
        ending = Ending()
        app.on_response_prepare.append(ending.tell)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await self.listen(runner, place, tcp_sites(None))
        if isinstance(place, Bound):  # another worker goes on: clients have no reason to notice that this one does not
            self._stack.push_async_callback(ending.begin, runner)

    async def listen(self, runner: web.BaseRunner, place: Place, sites_of: SitesOf) -> None:
        """Have a runner serve at a place. Raises ListenerFailed."""
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        if isinstance(place, Bound):
            self._bound.append((place, runner, sites_of))
            self._stack.callback(_close, place.others)  # before the cleanup: nobody is to queue where no worker is left
            address, sites = place.address, sites_of(runner, place.address, place.own)
        else:
            address, sites = place, sites_of(runner, place, None)
        try:
            for site in sites:
                await site.start()
        except OSError as error:
            raise ListenerFailed(address, error) from error

    async def mind(self, numbers: frozenset[int]) -> None:
        """Accept connections in the place of these workers as well, and no longer in that of any other."""
        for number in self._minding.keys() - numbers:
            for site in self._minding.pop(number):
                await site.stop()
        for number in numbers - self._minding.keys():
            sites = self._minding[number] = []
            for place, runner, sites_of in self._bound:
                # Duplicates: a site closes its socket when it stops, and this worker may have to mind it again.
                sockets = tuple(sock.dup() for sock in place.others[number])
                sites.extend(sites_of(runner, place.address, sockets))
            for site in sites:
                await site.start()


def _close(sockets: Mapping[int, Sockets]) -> None:
    for sock in (sock for theirs in sockets.values() for sock in theirs):
        sock.close()


def tcp_sites(tls: ssl.SSLContext | None) -> SitesOf:
    """Plain listeners, with TLS where there is a context."""

    def sites(runner: web.BaseRunner, address: Address, sockets: Sockets | None) -> Sequence[web.BaseSite]:
        if sockets is None:
            return [web.TCPSite(runner, address.host, address.port, backlog=BACKLOG, ssl_context=tls)]
        return [web.SockSite(runner, sock, backlog=BACKLOG, ssl_context=tls) for sock in sockets]

    return sites
