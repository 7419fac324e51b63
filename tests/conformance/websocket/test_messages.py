"""Messages of every size, and very many: they come back as they went, and the gateway holds next to nothing of them."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import psutil
import pytest

from tests.conformance.websocket.echo import digest
from tests.conformance.websocket.frames import ASKING, SWITCHING
from tests.conformance.websocket.world import Way, World
from tests.fixtures.edge import Edge
from tests.fixtures.raw_upstream import OK, End, RawConnection
from tests.fixtures.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

MB = 1_000_000
HEAD = b"GET /socket HTTP/1.1\r\nHost: gw.test\r\n" + ASKING + b"\r\n"
# Of a gateway's: what both transports may hold back for an end that does not read, and what an allocator keeps of it.
BOUND_BYTES = 8 * MB
FLOOD_BYTES = 48 * MB
STANDING_SECONDS = 0.4
SIZES = (0, 1, 125, 126, 127, 128, 1_000, 65_535, 65_536, 1_000_000)


@contextlib.asynccontextmanager
async def bounded_memory(pid: int) -> AsyncIterator[None]:
    """Fails if the process is, at any time in the block, larger by more than BOUND_BYTES."""
    process = psutil.Process(pid)
    before = highest = process.memory_info().rss
    is_over = asyncio.Event()

    async def watch() -> None:
        nonlocal highest
        while not is_over.is_set():
            highest = max(highest, process.memory_info().rss)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(is_over.wait(), 0.02)

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        is_over.set()
        await watcher
    assert highest - before < BOUND_BYTES, f"{(highest - before) / MB:.1f} MB more"


def content(size: int) -> bytes:
    """Bytes that do not repeat: what is lost, doubled or exchanged shows."""
    return hashlib.shake_128(b"%d" % size).digest(size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("parts", [1, 2, 7], ids=["whole", "2 fragments", "7 fragments"])
@pytest.mark.parametrize("kind", ["text", "binary"])
async def test_a_message_comes_back(world: World, kind: str, parts: int, size: int) -> None:
    """Text as text and binary as binary, in one frame or in several, with a ping between the fragments."""
    message: Any = content(size) if kind == "binary" else content(size).hex()[:size]
    step = size // parts + 1
    fragments = [message[i : i + step] for i in range(0, size, step)] or [message]

    async def act(way: Way) -> bool:
        async with way.connect(compression=None) as socket:

            async def sent() -> AsyncIterator[Any]:
                for fragment in fragments:
                    yield fragment
                    await asyncio.wait_for(await socket.ping(), 10)

            await socket.send(message if parts == 1 else sent())
            return bool(await socket.recv() == message)

    outcome = await world.outcome("plain", act)
    assert outcome.told is True
    assert outcome.seen.messages == digest([message])


async def test_pings_of_every_size_are_answered(world: World) -> None:
    """By the server, with the same payload, in their order; pongs that nobody asked for disturb nothing."""
    payloads = [content(size) for size in range(126)]

    async def act(way: Way) -> bool:
        async with way.connect(compression=None) as socket:
            answers = [await socket.ping(payload) for payload in payloads]
            await socket.pong(b"nobody asked")
            await asyncio.wait_for(asyncio.gather(*answers), 10)
            await socket.send("still here")
            return await socket.recv() == "still here"

    outcome = await world.outcome("plain", act)
    assert outcome.told
    assert outcome.seen.count == 1


@pytest.mark.parametrize("fragment", [100 * MB, 200_000], ids=["whole", "500 fragments"])
async def test_a_hundred_megabytes_come_back(world: World, fragment: int) -> None:
    """Byte for byte, with little of it in the gateway at any time."""
    message = content(100 * MB)
    way = world.through("plain")
    async with bounded_memory(world.gateway.pid), way.connect(compression=None) as socket:
        fragments = [message[i : i + fragment] for i in range(0, len(message), fragment)]
        await socket.send(message if len(fragments) == 1 else fragments)
        assert await socket.recv() == message
    assert (await world.servers["plain"].seen(way.path)).messages == digest([message])


async def test_a_hundred_sockets_keep_apart(world: World) -> None:
    """Each gets the echo of its own messages, in their order."""

    async def talk(number: int) -> None:
        way = world.through("plain")
        async with way.connect(compression=None) as socket:
            messages = [f"{number}: {message} " + "x" * message * 100 for message in range(20)]
            for message in messages:
                await socket.send(message)
            assert [await socket.recv() for _ in messages] == messages
        assert (await world.servers["plain"].seen(way.path)).messages == digest(messages)

    await asyncio.gather(*(talk(number) for number in range(100)))


async def until_standing(count: Callable[[], int]) -> None:
    """Return once `count` has grown, and then not for a while."""
    last, since = 0, time.monotonic()

    def is_standing() -> bool:
        nonlocal last, since
        if count() != last:
            last, since = count(), time.monotonic()
        return last > 0 and time.monotonic() - since > STANDING_SECONDS

    await until(is_standing, what="the flood to stand still")


def numbered(total: int) -> Iterable[bytes]:
    """`total` bytes in pieces that differ."""
    for number in range(total // 60_000):
        yield (b"%06d" % number) * 10_000


async def test_an_upstream_waits_for_a_client_that_does_not_read(edge: Edge) -> None:
    """A flood stands still while the client takes nothing of it; then all of it arrives."""
    sent = 0

    async def script(connection: RawConnection) -> None:
        nonlocal sent
        await connection.head()
        if not connection.received.startswith(b"GET /socket "):
            await connection.send(OK)
            return
        await connection.send(SWITCHING + b"\r\n")
        for piece in numbered(FLOOD_BYTES):
            await connection.send(piece)
            sent += len(piece)
        await connection.close()

    edge.upstream.script = script
    async with bounded_memory(edge.gateway.pid):
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.gateway.proxy_port, limit=1_000)
        writer.write(HEAD)
        await until_standing(lambda: sent)
        assert 0 < sent < FLOOD_BYTES / 2, "it has to wait"
        await edge.assert_answered()
        await reader.readuntil(b"\r\n\r\n")
        received = hashlib.sha256()
        while data := await reader.read(1_000_000):
            received.update(data)
        writer.close()
        await writer.wait_closed()
    assert received.digest() == hashlib.sha256(b"".join(numbered(FLOOD_BYTES))).digest()


async def test_a_client_waits_for_an_upstream_that_does_not_read(edge: Edge) -> None:
    """The same, the other way."""
    may_read = asyncio.Event()

    async def script(connection: RawConnection) -> None:
        await connection.head()
        await connection.send(SWITCHING + b"\r\n")
        await may_read.wait()
        await connection.until_ended()

    edge.upstream.script = script
    sent = 0
    async with bounded_memory(edge.gateway.pid):
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.gateway.proxy_port)
        writer.write(HEAD)
        await reader.readuntil(b"\r\n\r\n")

        async def flood() -> None:
            nonlocal sent
            for piece in numbered(FLOOD_BYTES):
                writer.write(piece)
                await writer.drain()
                sent += len(piece)

        flooding = asyncio.create_task(flood())
        await until_standing(lambda: sent)
        assert 0 < sent < FLOOD_BYTES / 2, "it has to wait"
        may_read.set()
        await flooding
        writer.close()
        await writer.wait_closed()
        await edge.upstream.until_quiet()
    (connection,) = edge.upstream.connections
    assert connection.end is End.CLOSED
    assert connection.received.partition(b"\r\n\r\n")[2] == b"".join(numbered(FLOOD_BYTES))
