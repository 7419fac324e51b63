"""A gigabyte down and a gigabyte up: it arrives byte for byte, and the gateway keeps none of it."""

import asyncio
import contextlib
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import BinaryIO

import pytest

from gateway.embedded.server_process import HOST
from tests.conftest import StartGateway
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.waiting import until
from tests.integration.httpbin.memory import PeakMemory

MIB = 1 << 20
BLOCK = random.Random(1).randbytes(MIB - 3)  # of an odd length, so that a part in a wrong place is a wrong part
TWO_BLOCKS = BLOCK * 2
GIGABYTE = 1_000_000_000 // len(BLOCK) + 1  # blocks
SLOW_BLOCKS = 200
GROWTH_LIMIT_BYTES = 8 * MIB
HELD_LIMIT_BYTES = 64 * MIB  # on their way to a client who does not read: the kernel keeps up to 32 MiB of a connection
PATIENCE_SECONDS = 60
LAST_CHUNK = b"0\r\n\r\n"
CODED_BLOCK = b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK)
FRAMINGS = pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])


def framing(blocks: int, *, is_chunked: bool) -> bytes:
    """The header line for a body of so many blocks."""
    return b"Transfer-Encoding: chunked\r\n" if is_chunked else b"Content-Length: %d\r\n" % (blocks * len(BLOCK))


class Progress:
    """How many bytes of the body have been handed to the kernel, or taken from it and found right."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0

    def send(self, sock: socket.socket, blocks: int, *, is_chunked: bool) -> None:
        """Send the body: so many blocks, piece by piece, so that `sent` can be followed."""
        part = CODED_BLOCK if is_chunked else BLOCK
        for _ in range(blocks):
            sock.sendall(part)
            self.sent += len(BLOCK)
        if is_chunked:
            sock.sendall(LAST_CHUNK)

    def take(self, piece: bytes) -> None:
        """The next piece of the body has come. Raises AssertionError where it is not what was sent."""
        assert TWO_BLOCKS.startswith(piece, self.received % len(BLOCK)), f"wrong after {self.received} bytes"
        self.received += len(piece)

    def take_all(self, pieces: Iterator[bytes]) -> None:
        """Take every piece."""
        for piece in pieces:
            self.take(piece)


def read_head(stream: BinaryIO) -> bytes:
    """Everything up to the empty line."""
    return b"".join(iter(stream.readline, b"\r\n"))


def pieces_of(stream: BinaryIO, head: bytes) -> Iterator[bytes]:
    """The body that follows this head, as it comes; ends early where the connection does."""
    if b"\r\nTransfer-Encoding: chunked\r\n" in head:
        while size := int(stream.readline() or b"0", 16):
            while size:
                piece = stream.read(min(size, len(BLOCK)))
                size -= len(piece)
                yield piece
            assert stream.readline() == b"\r\n"
        return
    left = int(head.partition(b"\r\nContent-Length: ")[2].partition(b"\r\n")[0])
    while left and (piece := stream.read(min(left, MIB // 4))):
        left -= len(piece)
        yield piece


class Upstream:
    """Takes one request: says `reply_blocks` to a GET, and reads a POST to its end. `progress` is how far it is."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.reply_blocks = GIGABYTE
        self.is_chunked = False
        self._listener = socket.create_server((HOST, 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """`http://host:port`."""
        return f"http://{HOST}:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # closed before anybody came
        with sock, contextlib.suppress(ConnectionError), sock.makefile("rb") as stream:
            head = read_head(stream)
            if head.startswith(b"GET "):
                framed = framing(self.reply_blocks, is_chunked=self.is_chunked)
                sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + framed + b"\r\n")
                self.progress.send(sock, self.reply_blocks, is_chunked=self.is_chunked)
            else:
                self.progress.take_all(pieces_of(stream, head))
                told = b"%d" % self.progress.received
                sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(told) + told)

    def close(self) -> None:
        """Wait for the end of what is under way."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_SECONDS)
        self._listener.close()


@pytest.fixture
async def firehose() -> AsyncIterator[Upstream]:
    server = Upstream()
    yield server
    await asyncio.to_thread(server.close)


@pytest.fixture
async def node(gateway: StartGateway, firehose: Upstream) -> GatewayProcess:
    """A gateway in front of it."""
    return await gateway({"upstreams": {"orders": {"targets": [firehose.url]}}})


def connect(node: GatewayProcess, *, receive_bytes: int | None = None) -> socket.socket:
    """A connection to the gateway."""
    sock = socket.socket()
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.settimeout(PATIENCE_SECONDS)
    sock.connect((HOST, node.proxy_port))
    return sock


GET = b"GET /public/large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@FRAMINGS
async def test_a_gigabyte_down_in_constant_memory(node: GatewayProcess, firehose: Upstream, is_chunked: bool) -> None:
    """Each byte arrives, and the gateway's memory grows by its buffers alone. R060, R190."""
    firehose.is_chunked = is_chunked
    client = Progress()

    def download() -> None:
        with connect(node) as sock, sock.makefile("rb") as stream:
            sock.sendall(GET)
            head = read_head(stream)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert (b"\r\nTransfer-Encoding: chunked\r\n" in head) is is_chunked
            client.take_all(pieces_of(stream, head))

    peak = PeakMemory(node.pid)
    await asyncio.to_thread(download)
    assert client.received == firehose.progress.sent == GIGABYTE * len(BLOCK)
    assert peak.growth_bytes < GROWTH_LIMIT_BYTES, f"{peak.growth_bytes / MIB:.1f} MiB"


@FRAMINGS
async def test_a_gigabyte_up_in_constant_memory(node: GatewayProcess, firehose: Upstream, is_chunked: bool) -> None:
    """Each byte arrives, and the gateway's memory grows by its buffers alone. R025, R060."""
    client = Progress()

    def upload() -> bytes:
        with connect(node) as sock, sock.makefile("rb") as stream:
            head = b"POST /public/large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            sock.sendall(head + framing(GIGABYTE, is_chunked=is_chunked) + b"\r\n")
            client.send(sock, GIGABYTE, is_chunked=is_chunked)
            assert read_head(stream).startswith(b"HTTP/1.1 200 ")
            return stream.read()

    peak = PeakMemory(node.pid)
    told = await asyncio.to_thread(upload)
    assert int(told) == firehose.progress.received == client.sent == GIGABYTE * len(BLOCK)
    assert peak.growth_bytes < GROWTH_LIMIT_BYTES, f"{peak.growth_bytes / MIB:.1f} MiB"


async def settled(count: Callable[[], int], *, seconds: float) -> int:
    """The number, once it has stood still for so long."""
    last, since = count(), time.monotonic()

    def stands_still() -> bool:
        nonlocal last, since
        now = count()
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > seconds

    await until(stands_still, seconds=PATIENCE_SECONDS, what="the upstream to be held back")
    return last


@FRAMINGS
async def test_a_slow_reader_holds_the_upstream_back(
    node: GatewayProcess, firehose: Upstream, is_chunked: bool
) -> None:
    """What the client has not read yet is with the upstream, all the way; then it comes whole. R060, R190."""
    firehose.is_chunked, firehose.reply_blocks = is_chunked, SLOW_BLOCKS
    client = Progress()
    peak = PeakMemory(node.pid)
    with connect(node, receive_bytes=65_536) as sock, sock.makefile("rb") as stream:
        sock.sendall(GET)
        pieces = pieces_of(stream, await asyncio.to_thread(read_head, stream))
        await settled(lambda: firehose.progress.sent, seconds=0.5)
        for _ in range(10):
            wanted = client.received + 2 * MIB
            while client.received < wanted:
                client.take(await asyncio.to_thread(next, pieces))
            sent = await settled(lambda: firehose.progress.sent, seconds=0.05)
            assert sent - client.received < HELD_LIMIT_BYTES, f"{(sent - client.received) / MIB:.1f} MiB on their way"
        assert firehose.progress.sent < SLOW_BLOCKS * len(BLOCK), "the upstream has more to say"
        await asyncio.to_thread(client.take_all, pieces)
    assert client.received == SLOW_BLOCKS * len(BLOCK)
    assert peak.growth_bytes < GROWTH_LIMIT_BYTES, f"{peak.growth_bytes / MIB:.1f} MiB"
