"""A real gateway between a raw client and a raw upstream, and the ways to compare what went in with what came out."""

import asyncio
import contextlib
import difflib
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from gateway.embedded.server_process import HOST
from tests.conformance.strict import StrictReply, next_request, read_replies
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import Caller
from tests.fixtures.raw_upstream import OK, RawUpstream, reply

PATIENCE_SECONDS = 10.0  # for what must happen at once, on a busy machine
REQUEST_ID = re.compile(rb"X-Request-Id: [0-9a-f]{16}-[0-9a-f]+\r\n")

# What the gateway adds to a request for the host `gw.test`; the generated id reads as `*`.
OURS = (
    b"X-Forwarded-For: 127.0.0.1\r\n"
    b"X-Forwarded-Proto: http\r\n"
    b"X-Forwarded-Host: gw.test\r\n"
    b"X-Request-Id: *\r\n"
)
# A request that must be served, whatever happened before it, and how it arrives.
GOOD = b"GET /good HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n"
GOOD_ARRIVED = b"GET /good HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"\r\n"


def assert_same(seen: bytes, expected: bytes, what: str) -> None:
    """Fail with a diff, line by line, every byte visible."""
    if seen != expected:
        diff = difflib.unified_diff(_visible(expected), _visible(seen), "expected", "seen", lineterm="", n=100)
        raise AssertionError(f"{what}:\n" + "\n".join(diff))


def _visible(data: bytes) -> list[str]:
    return [repr(line)[2:-1] for line in data.splitlines(keepends=True)]


class Line:
    """A client's connection, raw. `received` is all that came; `is_ended` once the gateway has closed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._news = asyncio.Event()
        self._pump = asyncio.create_task(self._read())
        self.received = b""
        self.is_ended = False
        self.is_reset = False

    async def _read(self) -> None:
        # All the time: a gateway that hangs up in the middle of a long request must not take its reply with it.
        try:
            while data := await self._reader.read(65_536):
                self.received += data
                self._news.set()
        except ConnectionError:
            self.is_reset = True
        self.is_ended = True
        self._news.set()

    async def send(self, data: bytes, *, is_bytewise: bool = False) -> None:
        """Send `data`, in one piece or byte by byte. A gateway that has hung up does not matter here."""
        with contextlib.suppress(ConnectionError):
            for piece in [data[i : i + 1] for i in range(len(data))] if is_bytewise else [data]:
                self._writer.write(piece)
                await self._writer.drain()
                if is_bytewise:
                    await asyncio.sleep(0)

    async def finish(self) -> None:
        """Send no more, and go on reading."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    async def until(self, is_enough: Callable[[bytes], bool]) -> bytes:
        """What has been received, as soon as it is enough or the connection has ended."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not self.is_ended and not is_enough(self.received):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"the gateway neither answers nor hangs up; so far: {self.received!r}") from None
        return self.received

    async def until_ended(self) -> bytes:
        """Everything up to the end of the connection."""
        return await self.until(lambda received: False)

    async def replies(self, *methods: bytes) -> list[StrictReply]:
        """As many final replies as there are `methods` (those of the requests); fewer where the connection ends."""

        def read() -> list[StrictReply]:
            return read_replies(self.received, list(methods), is_ended=self.is_ended)

        await self.until(lambda received: sum(reply.status >= 200 for reply in read()) >= len(methods))
        return read()

    def abort(self) -> None:
        """Leave with a reset."""
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    async def close(self) -> None:
        """Leave."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        await self._pump


@dataclass(frozen=True)
class Edge:
    """The gateway, the upstream behind it, and a caller whom it knows."""

    gateway: GatewayProcess
    upstream: RawUpstream
    caller: Caller

    @contextlib.asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        """A connection to the gateway."""
        reader, writer = await asyncio.open_connection(HOST, self.gateway.proxy_port)
        line = Line(reader, writer)
        try:
            yield line
        finally:
            await line.close()

    async def converse(self, sent: bytes, *, is_bytewise: bool = False) -> bytes:
        """Send `sent`, read until the gateway closes, and return what it said."""
        async with self.line() as line:
            await line.send(sent, is_bytewise=is_bytewise)
            return await line.until_ended()

    async def line_says(self, sent: bytes, *, is_bytewise: bool = False) -> list[StrictReply]:
        """The replies to `sent` (one request), on a connection of its own, up to its end."""
        said = await self.converse(sent, is_bytewise=is_bytewise)
        return read_replies(said, [sent.split(b" ")[0]], is_ended=True)

    def arrived(self) -> list[bytes]:
        """The bytes that reached the upstream, a connection each; what differs from run to run made equal."""
        return [self.plain(received) for received in self.upstream.received]

    def plain(self, data: bytes) -> bytes:
        """`data` with the upstream's address as `upstream` and generated request ids as `*`."""
        authority = f"{HOST}:{self.upstream.port}".encode()
        return REQUEST_ID.sub(b"X-Request-Id: *\r\n", data.replace(b"Host: " + authority, b"Host: upstream"))

    def filled(self, sent: bytes) -> bytes:
        """`sent` with the caller's secret in place of `@KEY@`."""
        return sent.replace(b"@KEY@", self.caller.secret.encode())

    async def assert_serving(self) -> None:
        """The process lives, and the next client gets its answer; the upstream has seen that request alone since."""
        assert self.gateway.is_running(), self.gateway.log
        self.upstream.connections.clear()
        self.upstream.script = reply(OK)
        replies = read_replies(await self.converse(GOOD), [b"GET"], is_ended=True)
        assert [answer.status for answer in replies] == [200], replies
        assert_same(b"".join(self.arrived()), GOOD_ARRIVED, "the request of the next client")

    async def assert_answered(self) -> None:
        """Another client, on a connection of its own, gets its 200."""
        async with self.line() as line:
            await line.send(b"GET /good HTTP/1.1\r\nHost: gw.test\r\n\r\n")
            assert [answer.status for answer in await line.replies(b"GET")] == [200]

    async def assert_refused(
        self, sent: bytes, status: int, code: str | None, *, before: Sequence[bytes] = (), is_bytewise: bool = False
    ) -> None:
        """`sent` is answered by one problem and a close, and nothing of it reaches the upstream.

        `before` are the good requests in front of it, as they arrive: they are served, each with 200.
        """
        replies = read_replies(
            await self.converse(self.filled(sent), is_bytewise=is_bytewise), [b"GET"] * (len(before) + 1), is_ended=True
        )
        seen = [reply.status for reply in replies]
        assert seen == [200] * len(before) + [status], replies
        if code is not None:
            assert f'"code": "{code}"'.encode() in replies[-1].body, replies[-1]
            assert replies[-1].all(b"Content-Type") == [b"application/problem+json"]
            assert replies[-1].all(b"Cache-Control") == [b"no-store"]
        assert replies[-1].closes
        assert_same(b"".join(self.arrived()), b"".join(before), "what reached the upstream")
        await self.assert_serving()

    async def assert_forwarded(self, sent: bytes, arrived: bytes, *, is_bytewise: bool = False) -> list[StrictReply]:
        """`sent` (one request that ends its connection) arrives as `arrived`, and nothing else does."""
        replies = await self.line_says(self.filled(sent), is_bytewise=is_bytewise)
        assert_same(b"".join(self.arrived()), arrived, "what reached the upstream")
        return replies

    async def settle(self) -> None:
        """Return once the gateway has read what has been sent to it by now."""
        # It is one thread: when a later client has its answer, the bytes of earlier ones have been read.
        async with self.line() as line:
            await line.send(b"GET /keyed HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n")
            await line.until_ended()

    def check_upstream(self) -> None:
        """Nothing has reached the upstream that a strict reader would remark on; only cut requests may be unfinished."""
        for connection in self.upstream.connections:
            rest = connection.received
            while rest:
                found = next_request(rest)
                if found is None:
                    return
                rest = found[1]
