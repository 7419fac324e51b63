"""How connections arrive where something comes before the first request: a PROXY header, TLS, or one and the other.

The event loop's own server tells of a connection with TLS once its handshake is over: of a silent one, never. Here each
is counted from its accept to its end, whatever that is; no limit would hold otherwise.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import Counter

from gateway.proxy.crowd import Visit
from gateway.proxy.edge import IpAddress, TrustedProxies, address_of
from gateway.proxy.proxy_protocol import BadHeader, header_of
from gateway.proxy.server import ProxyServer
from gateway.settings import Address

log = structlog.get_logger(__name__)

ACCEPTS_AT_ONCE: Final = 32  # before others have their turn
ACCEPT_PAUSE_SECONDS: Final = 1.0  # after an accept that failed, for want of file descriptors most likely


class ArrivalSite(web.BaseSite):
    """The site of a `ProxyServer` with TLS, or behind balancers that speak the PROXY protocol, version 1 or 2, or both.

    It binds `address`, or serves `sockets` that are bound to it. Only `balancers`, if there are any, may speak the
    protocol, and they must: a connection of anybody else, or without a header, is closed and counted as `refused`.
    A header must be complete `seconds` after the connection, and TLS as long after that.
    """

    def __init__(
        self,
        runner: web.BaseRunner,
        address: Address,
        sockets: Sequence[socket.socket] | None,
        *,
        tls: ssl.SSLContext | None,
        balancers: TrustedProxies | None,
        seconds: float,
        refused: Counter,
        backlog: int,
    ) -> None:
        super().__init__(runner, ssl_context=tls, backlog=backlog)
        assert isinstance(runner.server, ProxyServer)
        self._proxy_server = runner.server
        self._address = address
        self._scheme = "http" if tls is None else "https"
        self._balancers = balancers
        self._seconds = seconds
        self._refused = refused
        self._is_bound = sockets is not None
        self._sockets = list(sockets or ())
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}

    @property
    def name(self) -> str:
        """As BaseSite."""
        return f"{self._scheme}://{self._address}"

    async def start(self) -> None:
        """As BaseSite. Raises OSError where the address cannot be bound."""
        await super().start()
        if not self._is_bound:
            await self._bind()
        for listener in self._sockets:
            listener.listen(self._backlog)
            listener.setblocking(False)
            self._watch(listener)

    async def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            self._address.host, self._address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, *_, address in found:
            self._sockets.append(socket.create_server(address, family=family, backlog=self._backlog))

    async def stop(self) -> None:
        """As BaseSite: accept no more. Those that are on their way go on: they are the server's."""
        loop = asyncio.get_running_loop()
        for pause in self._pauses.values():
            pause.cancel()
        for listener in self._sockets:
            loop.remove_reader(listener)
            listener.close()
        await super().stop()

    def _watch(self, listener: socket.socket) -> None:
        self._pauses.pop(listener, None)
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        """Take those who wait. Not a task that waits for them: cancelled in time, that would lose what it has taken."""
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                connection, peer = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return  # that was all, or another process was quicker, or the client has left
            except OSError as error:
                log.error("accept_failed", error=str(error))
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener)
                self._pauses[listener] = loop.call_later(ACCEPT_PAUSE_SECONDS, self._watch, listener)
                return
            self._welcome(connection, address_of(peer))

    # -- one connection

    def _welcome(self, connection: socket.socket, address: IpAddress | None) -> None:
        """Count a connection that has been accepted, and have it arrive; or close it."""
        if self._balancers is not None and not self._balancers.trusts(address):
            self._refuse("not a trusted proxy")
            connection.close()
            return
        visit = self._proxy_server.crowd.enter()
        if visit is None:
            connection.close()
        elif self._balancers is None and not visit.identify(self._proxy_server.edge(address, self._scheme)):
            visit.end()
            connection.close()
        else:
            connection.setblocking(False)
            self._proxy_server.receive(self._arrive(connection, visit, address))

    async def _arrive(self, connection: socket.socket, visit: Visit, address: IpAddress | None) -> None:
        """Make a connection. Once it is made it ends its visit by itself; if it never is, that ends here."""
        client = self._proxy_server(visit)
        try:
            if self._balancers is not None and not await self._is_introduced(connection, visit, address):
                return
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: client,
                connection,
                ssl=self._ssl_context,
                ssl_handshake_timeout=None if self._ssl_context is None else self._seconds,
            )
        except OSError as error:
            log.debug("handshake_failed", error=str(error))
        finally:
            if client.transport is None:
                visit.end()
                connection.close()

    async def _is_introduced(self, connection: socket.socket, visit: Visit, address: IpAddress | None) -> bool:
        """Whether its header says who it is, and that one may stay; a balancer may speak for itself."""
        try:
            async with asyncio.timeout(self._seconds):
                source = await header_of(connection)
        except (BadHeader, OSError) as error:
            self._refuse(str(error))
            return False
        return visit.identify(self._proxy_server.edge(source or address, self._scheme))

    def _refuse(self, error: str) -> None:
        self._refused.labels("proxy_header").inc()
        log.debug("proxy_header_refused", error=error)
