"""A raw connection, used on both sides of a proxy, and the origin that records what arrives."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from bench.behaviours.reading import Message, read_requests

PATIENCE_SECONDS = 1.5  # for an answer, below every proxy's limits of `LIMIT_SECONDS`
LIMIT_SECONDS = 2  # what the proxies' own waits are set to, where they have such a setting
_SETTLE_SECONDS = 0.5


class WireEndedError(Exception):
    """The connection ended before a whole request had come."""


class Wire(asyncio.Protocol):
    """One connection. `received` is all that came; it ends in order, or by a reset."""

    def __init__(self, on_open: Callable[["Wire"], None] | None = None) -> None:
        self.received = b""
        self.is_ended = False
        self.is_reset = False
        self.transport: Any = None  # asyncio.Transport, once connected
        self._on_open = on_open
        self._news = asyncio.Event()
        self._requests_taken = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self.transport = transport
        if self._on_open is not None:
            self._on_open(self)

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        self.received += data
        self._news.set()

    def eof_received(self) -> bool:
        """As asyncio.Protocol: our own side stays open until a case ends it."""
        self.is_ended = True
        self._news.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self.is_reset = self.is_reset or isinstance(exc, ConnectionError)
        self.is_ended = True
        self._news.set()

    async def until(self, is_enough: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
        """Wait until `is_enough()`, the end of the connection or of patience; return whether it is enough."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not is_enough() and not self.is_ended:
                    self._news.clear()
                    await self._news.wait()
        return is_enough()

    async def until_ended(self, seconds: float = PATIENCE_SECONDS) -> bool:
        """Wait for the other side to end the connection; return whether it did."""
        return await self.until(lambda: self.is_ended, seconds)

    async def request(self) -> Message:
        """The next whole request. Raises `WireEndedError`."""

        def whole() -> list[Message]:
            return [request for request in read_requests(self.received) if request.is_whole]

        if not await self.until(lambda: len(whole()) > self._requests_taken, 60):
            raise WireEndedError
        self._requests_taken += 1
        return whole()[self._requests_taken - 1]

    async def head(self) -> None:
        """Wait until a head has come, and leave the body where it is. Raises `WireEndedError`."""
        if not await self.until(lambda: b"\r\n\r\n" in self.received, 60):
            raise WireEndedError

    def send(self, data: bytes) -> None:
        """Send; a side that has hung up does not matter here."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def finish(self) -> None:
        """Send no more, and go on reading."""
        with contextlib.suppress(OSError):
            if not self.transport.is_closing():
                self.transport.write_eof()

    def reset(self) -> None:
        """Leave with a reset."""
        if not self.transport.is_closing():
            raw = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


Script = Callable[[Wire], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


async def answer_ok(wire: Wire) -> None:
    """Answer every request with 200, on a connection that lives on."""
    while True:
        await wire.request()
        wire.send(OK)


class Origin:
    """The upstream of one proxy: keeps the bytes of each connection, and does to it what `script` says."""

    def __init__(self) -> None:
        self.arrivals: list[Wire] = []
        self.script: Script = answer_ok
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> int:
        """Listen on a free loopback port; return it."""
        self._server = await asyncio.get_running_loop().create_server(lambda: Wire(self._arrived), "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def _arrived(self, wire: Wire) -> None:
        self.arrivals.append(wire)
        task = asyncio.ensure_future(self._serve(wire))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, wire: Wire) -> None:
        with contextlib.suppress(WireEndedError):
            await self.script(wire)

    @property
    def received(self) -> bytes:
        """All that came, connection after connection."""
        return b"".join(wire.received for wire in self.arrivals)

    @property
    def requests(self) -> list[Message]:
        """All requests, connection by connection."""
        return [request for wire in self.arrivals for request in read_requests(wire.received)]

    async def start_over(self) -> None:
        """Forget what came and answer 200 again. The proxy has seen every connection of before end."""
        for task in list(self._tasks):
            task.cancel()
        arrivals, self.arrivals, self.script = self.arrivals, [], answer_ok
        for wire in arrivals:
            wire.transport.resume_reading()
            wire.finish()
        await asyncio.gather(*(wire.until_ended(_SETTLE_SECONDS) for wire in arrivals))
        for wire in arrivals:
            wire.transport.abort()

    async def close(self) -> None:
        """Stop listening."""
        await self.start_over()
        assert self._server is not None
        self._server.close()
