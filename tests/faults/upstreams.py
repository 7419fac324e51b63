"""What is behind the gateway: it counts each request by its number, and may be told to misbehave."""

import asyncio
import contextlib
import json
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import urlsplit

from websockets import ConnectionClosed
from websockets.asyncio.server import Server, ServerConnection, serve

from gateway.embedded.server_process import HOST
from tests.fixtures.connections import closed
from tests.fixtures.ports import free_port
from tests.fixtures.upstream import RecordedRequest, Reply, encode, read_request

TICK_SECONDS = 0.1
NOBODYS = 0  # the number of all requests that no judge asks about
LARGE = "/orders/large/"  # answered at length
LARGE_BYTES = 20_000_000
MOST_TICKS = 3_000  # no stream lasts longer

Behaviour = Callable[["Visit"], Awaitable[None]]
Arrival = Callable[[int, str], None]


def number_of(target: str) -> int:
    """The number of a request: its path ends with it."""
    return int(target.rpartition("/")[2])


class Visit:
    """One request that has come, on its connection."""

    def __init__(
        self, upstream: "Upstream", request: RecordedRequest, writer: asyncio.StreamWriter, *, nth: int
    ) -> None:
        self.request = request
        self.number = number_of(request.target)
        self.nth = nth  # of its connection, from 1
        self.who = request.header("X-Key-Id") or ""
        self._upstream = upstream
        self._writer = writer

    def whole(self) -> bytes:
        """The answer that is due: the number of the request, and whose it is."""
        body = json.dumps({"number": self.number, "who": self.who, "length": len(self.request.body)}).encode()
        return encode(Reply(body=body, headers={"Content-Type": "application/json"}), is_head=False)

    async def send(self, data: bytes) -> None:
        """Send a part of an answer."""
        self._writer.write(data)
        await self._writer.drain()

    def note_answer(self) -> None:
        """Count an answer to it, which may be any."""
        self._upstream.answered[self.number] += 1

    async def answer(self) -> None:
        """Answer as is due."""
        self.note_answer()
        await self.send(self.whole())

    def close(self) -> None:
        """End the connection in order."""
        self._writer.close()

    def reset(self) -> None:
        """Break the connection off."""
        self._writer.transport.abort()


async def well(visit: Visit) -> None:
    """An upstream that does what it should."""
    if not visit.request.target.startswith(LARGE):
        await visit.answer()
        return
    await visit.send(f"HTTP/1.1 200 OK\r\nContent-Length: {LARGE_BYTES}\r\n\r\n".encode())
    for _ in range(0, LARGE_BYTES, 100_000):
        await visit.send(bytes(100_000))


async def well_once(visit: Visit) -> None:
    """The same, on a connection for each request."""
    visit.note_answer()
    await visit.send(visit.whole().replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
    visit.close()


class Upstream:
    """An HTTP/1.1 server on a port of its own, and on another with TLS. `behave` may be replaced at any time."""

    def __init__(self) -> None:
        self.port = free_port()
        self.secure_url = f"https://{HOST}:{free_port()}"
        self.behave: Behaviour = well
        self.on_arrival: Arrival = lambda number, who: None
        self.received: Counter[int] = Counter()
        self.answered: Counter[int] = Counter()
        self._server: asyncio.Server | None = None
        self._secure: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()
        self._secure_handlers: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where the gateway finds it."""
        return f"http://{HOST}:{self.port}"

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(partial(self._accept, self._handlers), HOST, self.port)

    async def secure(self, tls: ssl.SSLContext | None) -> None:
        """Listen at `secure_url` with this certificate from now on, or not any more; every connection ends."""
        server, self._secure = self._secure, None
        if server is not None:
            server.close()
            await _ended(self._secure_handlers)
            await server.wait_closed()
        if tls is not None:
            port = urlsplit(self.secure_url).port
            accept = partial(self._accept, self._secure_handlers)
            self._secure = await asyncio.start_server(accept, HOST, port, ssl=tls)

    async def stop(self) -> None:
        """Stop listening, and break every connection. No-op when it does not listen."""
        await self.secure(None)
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        await _ended(self._handlers)
        await server.wait_closed()

    def _accept(
        self, handlers: set[asyncio.Task[None]], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        handler = asyncio.ensure_future(self._serve(reader, writer))
        handlers.add(handler)
        handler.add_done_callback(handlers.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nth = 0
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                while not writer.is_closing():
                    request = await read_request(reader)
                    nth += 1
                    visit = Visit(self, request, writer, nth=nth)
                    self.received[visit.number] += 1
                    self.on_arrival(visit.number, visit.who)
                    await self.behave(visit)
        finally:
            await closed(writer)


async def _ended(handlers: set[asyncio.Task[None]]) -> None:
    for handler in list(handlers):
        handler.cancel()
    await asyncio.gather(*handlers, return_exceptions=True)


class Live:
    """Streams that tick, and sockets that give back what they are sent: a server for each."""

    def __init__(self) -> None:
        self.on_arrival: Arrival = lambda number, who: None
        self.streams = Upstream()
        self.streams.behave = _tick
        self.streams.on_arrival = lambda number, who: self.on_arrival(number, who)
        self.sockets_port = free_port()
        self.sockets_received: Counter[int] = Counter()
        self._sockets: Server | None = None

    @property
    def sockets_url(self) -> str:
        """Where the gateway finds the sockets."""
        return f"http://{HOST}:{self.sockets_port}"

    async def start(self) -> None:
        """Listen."""
        await self.streams.start()
        self._sockets = await serve(self._echo, HOST, self.sockets_port)

    async def stop(self) -> None:
        """End all of it."""
        await self.streams.stop()
        if self._sockets is not None:
            self._sockets.close()
            await self._sockets.wait_closed()

    async def _echo(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        number = number_of(connection.request.path)
        self.sockets_received[number] += 1
        self.on_arrival(number, connection.request.headers.get("X-Key-Id", ""))
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(message)


async def _tick(visit: Visit) -> None:
    visit.note_answer()
    await visit.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for tick in range(MOST_TICKS):
        event = f"data: {visit.number}:{tick}\n\n".encode()
        await visit.send(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        await asyncio.sleep(TICK_SECONDS)
