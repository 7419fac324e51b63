"""A caller on a kept connection. One who gets no answer asks on, on another connection, and still wants the first."""

import asyncio
import json
from collections.abc import Callable

import httptools

from gateway.embedded.server_process import HOST

PATIENCE_SECONDS = 0.7
CONNECT_SECONDS = 1.0
# A connection left waiting is given up then: longer than any node is paused.
GIVE_UP_SECONDS = 15.0

Heard = Callable[[int, str], None]


class Caller:
    """Asks one port. `ask` calls `heard(status, code)` once, whenever the answer comes; 0 means that none will."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: _Connection | None = None
        self._left: set[_Connection] = set()

    async def ask(self, target: str, secret: str, heard: Heard) -> None:
        """Send one GET. Returns with the answer, or without one when patience is at its end."""
        connection = self._connection
        if connection is None or connection.is_closed:
            connection = await self._connect()
            if connection is None:
                heard(0, "unreachable")
                return
        self._connection = connection
        connection.send(target, secret, heard)
        await asyncio.wait({connection.done}, timeout=PATIENCE_SECONDS)
        if not connection.done.done():
            self._connection = None
            self._left.add(connection)
            connection.done.add_done_callback(lambda _: self._give_up(connection))
            asyncio.get_running_loop().call_later(GIVE_UP_SECONDS, self._give_up, connection)

    async def _connect(self) -> "_Connection | None":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(_Connection, HOST, self._port)
        except OSError:
            return None
        return connection

    def _give_up(self, connection: "_Connection") -> None:
        self._left.discard(connection)
        connection.tell(0, "no answer")
        connection.close()

    def close(self) -> None:
        """Close every connection."""
        for connection in (*self._left, *([self._connection] if self._connection else [])):
            connection.close()
        self._left.clear()


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.is_closed = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._heard: Heard | None = None
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, target: str, secret: str, heard: Heard) -> None:
        """Ask. The one before must have been answered."""
        assert self._transport is not None
        self.done = asyncio.get_running_loop().create_future()
        self._heard = heard
        self._transport.write(f"GET {target} HTTP/1.1\r\nHost: api\r\nX-Api-Key: {secret}\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """A reply begins."""
        self._body = b""

    def on_body(self, body: bytes) -> None:
        """A piece of it."""
        self._body += body

    def on_message_complete(self) -> None:
        """A reply is whole."""
        status = self._parser.get_status_code()
        self.is_closed = not self._parser.should_keep_alive()
        self.tell(status, "" if status == 200 else str(json.loads(self._body).get("code")))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self.tell(0, "broken")

    def tell(self, status: int, code: str) -> None:
        """Say what has come of the request under way, if there is one."""
        heard, self._heard = self._heard, None
        if heard is not None:
            heard(status, code)
            self.done.set_result(None)

    def close(self) -> None:
        """End it; nobody is told any more."""
        self._heard = None
        if self._transport is not None:
            self._transport.close()
