"""A listener whose connections begin with a PROXY protocol header: a load balancer's word on who its client is.

The header is read from the bare socket, before TLS, to its last byte and no further; then the connection is made as any
other. Only trusted proxies may speak it: a connection of anybody else is closed. Reading the header is a library's.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import Counter
from proxyprotocol import ProxyProtocolIncompleteError
from proxyprotocol.detect import ProxyProtocolDetect
from proxyprotocol.result import is_ipv4, is_ipv6

from gateway.proxy.edge import IpAddress, TrustedProxies, address_in, address_of
from gateway.proxy.server import ProxyServer

log = structlog.get_logger(__name__)

LONGEST_LINE: Final = 107  # of version 1, CRLF included
LONGEST_HEADER: Final = 4096  # of version 2: addresses, and a certificate's worth of extras
LAST_HEADER_SECONDS: Final = 0.5  # for the headers of connections that were accepted before the end
ACCEPT_PAUSE_SECONDS: Final = 1.0  # after an accept that failed, for want of file descriptors most likely


class BadHeader(Exception):
    """What came is no PROXY header."""


class ProxyProtocolSite(web.BaseSite):
    """The site of a `ProxyServer` behind balancers that speak the PROXY protocol, version 1 or 2.

    It binds `host` and `port`, or serves `sockets` that are bound to them.
    A header must be complete `header_seconds` after the connection, and TLS as long after that; `refused` counts those
    that were closed without.
    """

    def __init__(
        self,
        runner: web.BaseRunner,
        host: str,
        port: int,
        sockets: Sequence[socket.socket] | None,
        *,
        proxies: TrustedProxies,
        header_seconds: float,
        refused: Counter,
        backlog: int,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        super().__init__(runner, ssl_context=ssl_context, backlog=backlog)
        assert isinstance(runner.server, ProxyServer)
        self._proxy_server = runner.server
        self._host = host
        self._port = port
        self._proxies = proxies
        self._header_seconds = header_seconds
        self._refused = refused
        self._sockets = list(sockets or ())
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._receiving: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """As BaseSite."""
        return f"proxy://{self._host}:{self._port}"

    async def start(self) -> None:
        """As BaseSite. Raises OSError where the address cannot be bound."""
        await super().start()
        if not self._sockets:
            await self._bind()
        for listener in self._sockets:
            listener.listen(self._backlog)
            listener.setblocking(False)
            self._watch(listener)

    async def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, *_, address in found:
            self._sockets.append(socket.create_server(address[:2], family=family, backlog=self._backlog))

    async def stop(self) -> None:
        """As BaseSite: accept no more; connections whose header does not come in a moment are closed."""
        loop = asyncio.get_running_loop()
        for pause in self._pauses.values():
            pause.cancel()
        for listener in self._sockets:
            loop.remove_reader(listener)
            listener.close()
        if self._receiving:
            await asyncio.wait(self._receiving, timeout=LAST_HEADER_SECONDS)
        for task in self._receiving:
            task.cancel()
        await asyncio.gather(*self._receiving, return_exceptions=True)
        await super().stop()

    def _watch(self, listener: socket.socket) -> None:
        self._pauses.pop(listener, None)
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        """Take one connection. Not a task that waits for it: cancelled in time, that would lose what it has taken."""
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # another process was quicker, or the client has left
        except OSError as error:
            log.error("accept_failed", error=str(error))
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            self._pauses[listener] = loop.call_later(ACCEPT_PAUSE_SECONDS, self._watch, listener)
            return
        task = asyncio.create_task(self._receive(connection))
        self._receiving.add(task)
        task.add_done_callback(self._receiving.discard)

    async def _receive(self, connection: socket.socket) -> None:
        """Read the header of a connection, then hand it to the server with the address that it names."""
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        try:
            source = await self._source(connection)
            await loop.connect_accepted_socket(
                partial(self._proxy_server, source),
                connection,
                ssl=self._ssl_context,
                ssl_handshake_timeout=None if self._ssl_context is None else self._header_seconds,
            )
        except (BadHeader, TimeoutError, OSError) as error:
            connection.close()
            self._refused.labels("proxy_header").inc()
            log.debug("proxy_header_refused", error=str(error))
        except asyncio.CancelledError:
            connection.close()
            raise

    async def _source(self, connection: socket.socket) -> IpAddress | None:
        if not self._proxies.trusts(address_of(connection.getpeername())):
            raise BadHeader("not a trusted proxy")
        async with asyncio.timeout(self._header_seconds):
            return await read_header(partial(_receive_some, connection))


async def _receive_some(connection: socket.socket, most: int, is_line: bool) -> bytes:
    """At least one byte of a header, `most` at most, and nothing behind the end of a line if it is one."""
    loop = asyncio.get_running_loop()
    if not is_line:
        return await loop.sock_recv(connection, most)
    data = await loop.sock_recv(connection, 1)
    if data in (b"", b"\n") or most == 1:
        return data
    try:
        seen = connection.recv(most - 1, socket.MSG_PEEK)
        return data + connection.recv(seen.find(b"\n") + 1 or len(seen))
    except BlockingIOError:
        return data


async def read_header(receive: Callable[[int, bool], Awaitable[bytes]]) -> IpAddress | None:
    """The client's address in a header; None where the balancer speaks for itself, or of no Internet address.

    `receive` gives some bytes: so many at most, and nothing behind the end of a line if told so. Raises BadHeader.
    """
    protocol, data = ProxyProtocolDetect(), b""
    while True:
        try:
            result = protocol.unpack(data)
            break
        except ProxyProtocolIncompleteError as error:
            is_line = error.want_read.want_bytes is None
            most = LONGEST_LINE - len(data) if is_line else error.want_read.want_bytes or 0
        except (ValueError, struct.error) as error:
            raise BadHeader(str(error)) from error
        if most <= 0 or len(data) + most > LONGEST_HEADER:
            raise BadHeader("too long")
        received = await receive(most, is_line)
        if not received:
            raise BadHeader("the connection ended inside the header")
        data += received
    if is_ipv4(result) or is_ipv6(result):
        return address_in(str(result.source[0]).encode())
    return None
