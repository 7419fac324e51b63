"""The wire between one node and one store: it can be cut, fall silent, or fall silent in one direction.

What is held back while it is silent waits in the kernel, and arrives late, or never when the wire is cut instead.
"""

import asyncio

from gateway.embedded.server_process import HOST
from tests.fixtures.ports import free_port


class Wire:
    """A TCP proxy on loopback in front of `server_port`; nodes connect to `port`."""

    def __init__(self, server_port: int) -> None:
        self.port = free_port()
        self._server_port = server_port
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.has_requests = True
        self.has_replies = True

    async def start(self) -> None:
        """Listen. No-op while it does."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: _Link(self).client, HOST, self.port)

    def cut(self) -> None:
        """Break every connection and refuse new ones."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.break_links()

    def break_links(self) -> None:
        """Break every connection; what was held back is lost."""
        for link in list(self._links):
            link.abort()

    def silence(self, *, requests: bool, replies: bool) -> None:
        """Let nothing pass any more in these directions. Connections stand, and new ones seem to."""
        self.has_requests, self.has_replies = not requests, not replies
        self._turn()

    async def mend(self) -> None:
        """Undo all of it: what was held back arrives now."""
        self.has_requests = self.has_replies = True
        self._turn()
        await self.start()

    async def stop(self) -> None:
        """Cut it for good."""
        self.cut()
        await asyncio.gather(*(link.task for link in self._links), return_exceptions=True)

    def _turn(self) -> None:
        if self.has_requests and self.has_replies:
            self._flows.set()
        else:
            self._flows.clear()
        for link in self._links:
            link.turn()

    def opened(self, link: "_Link") -> None:
        """A client has connected."""
        self._links.add(link)

    def closed(self, link: "_Link") -> None:
        """The connection has ended on both sides."""
        self._links.discard(link)

    async def connect(self, link: "_Link") -> None:
        """Reach the server, once a handshake would come through."""
        await self._flows.wait()
        await asyncio.get_running_loop().create_connection(lambda: link.server, HOST, self._server_port)


class _Side(asyncio.Protocol):
    """One end of a link: what it reads goes out at the other end."""

    def __init__(self, link: "_Link") -> None:
        self._link = link
        self.transport: asyncio.Transport | None = None
        self._is_reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._link.made(self)

    def data_received(self, data: bytes) -> None:
        other = self._link.other(self).transport
        if other is not None:
            other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.lost(self, is_broken=exc is not None)

    def read(self, *, is_reading: bool) -> None:
        """Read on, or no more."""
        if self.transport is None or self.transport.is_closing() or is_reading == self._is_reading:
            return
        self._is_reading = is_reading
        if is_reading:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()


class _Link:
    """One connection through the wire."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.client = _Side(self)
        self.server = _Side(self)
        self.task: asyncio.Future[None]
        self._is_over = False

    def other(self, side: _Side) -> _Side:
        """The end that is not this one."""
        return self.server if side is self.client else self.client

    def made(self, side: _Side) -> None:
        """One end stands: the client's first, which waits for the server's."""
        if side is self.client:
            self._wire.opened(self)
            self.task = asyncio.ensure_future(self._wire.connect(self))
            self.task.add_done_callback(self._reached)
        elif self._is_over and side.transport is not None:
            side.transport.abort()
        self.turn()

    def _reached(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.abort()

    def turn(self) -> None:
        """Read what the wire carries."""
        self.client.read(is_reading=self._wire.has_requests and self.server.transport is not None)
        self.server.read(is_reading=self._wire.has_replies)

    def lost(self, side: _Side, *, is_broken: bool) -> None:
        """One end has gone: so does the other, after all that was read by then."""
        other = self.other(side).transport
        if other is None or is_broken:
            self.abort()
        else:
            self._is_over = True
            other.close()
            self._wire.closed(self)

    def abort(self) -> None:
        """Break both ends."""
        self._is_over = True
        self.task.cancel()
        for side in (self.client, self.server):
            if side.transport is not None:
                side.transport.abort()
        self._wire.closed(self)
