"""The wire does what it is told: a partition that parts nobody would prove nothing."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from gateway.embedded.server_process import HOST
from tests.fixtures.connections import closed
from tests.fixtures.ports import free_port
from tests.fixtures.waiting import until
from tests.fixtures.wire import Side, Wire

NOTHING_SECONDS = 0.1


@dataclass
class Line:
    """A connection through the wire to a server that sends everything back, and what the server has read."""

    wire: Wire
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    arrived: list[bytes]

    async def is_silent(self) -> bool:
        """Whether nothing comes back for a while."""
        try:
            async with asyncio.timeout(NOTHING_SECONDS):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


class Echo(asyncio.Protocol):
    """Sends everything back."""

    def __init__(self, arrived: list[bytes], standing: set[asyncio.BaseTransport]) -> None:
        self._arrived = arrived
        self._standing = standing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._standing.add(transport)

    def data_received(self, data: bytes) -> None:
        self._arrived.append(data)
        self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._standing.discard(self._transport)


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    """Such a connection, which has been used."""
    arrived: list[bytes] = []
    standing: set[asyncio.BaseTransport] = set()
    port = free_port()
    server = await asyncio.get_running_loop().create_server(lambda: Echo(arrived, standing), HOST, port)
    wire = Wire(f"tcp://{HOST}:{port}")
    await wire.start()
    reader, writer = await asyncio.open_connection(HOST, wire.port)
    writer.write(b"first")
    assert await reader.readexactly(5) == b"first"
    yield Line(wire, reader, writer, arrived)
    await closed(writer)
    await wire.stop()
    server.close()
    await until(lambda: not standing, what="the server's connections to end")


async def test_silence_holds_back_both_ways(line: Line) -> None:
    """Nothing reaches the server until it is mended; then all of it does."""
    line.wire.silence()
    line.writer.write(b"held")
    assert await line.is_silent()
    assert line.arrived == [b"first"]
    await line.wire.mend()
    assert await line.reader.readexactly(4) == b"held"


async def test_silence_one_way_lets_the_other_through(line: Line) -> None:
    """The server hears, and is not heard."""
    line.wire.silence(requests=False, replies=True)
    line.writer.write(b"heard")
    await until(lambda: line.arrived == [b"first", b"heard"], what="the request")
    assert await line.is_silent()
    await line.wire.mend()
    assert await line.reader.readexactly(5) == b"heard"


async def test_new_connections_seem_to_stand_and_do_not(line: Line) -> None:
    """As through a network that swallows everything: nobody is refused, and nobody served."""
    line.wire.silence(requests=True, replies=False)
    _, writer = await asyncio.open_connection(HOST, line.wire.port)
    writer.write(b"new")
    assert await line.is_silent()
    assert line.arrived == [b"first"]
    await line.wire.mend()
    await until(lambda: line.arrived == [b"first", b"new"], what="the request")
    await closed(writer)


async def test_what_was_held_back_can_be_lost(line: Line) -> None:
    """It never arrives, and the connection is broken."""
    line.wire.silence(requests=True, replies=False)
    line.writer.write(b"lost")
    assert await line.is_silent()
    line.wire.break_links()
    await line.wire.mend()
    with contextlib.suppress(ConnectionError):
        assert await line.reader.read(1) == b""
    assert line.arrived == [b"first"]


async def test_a_cut_breaks_and_refuses(line: Line) -> None:
    """Until it is mended."""
    line.wire.cut()
    with contextlib.suppress(ConnectionError):
        assert await line.reader.read(1) == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(HOST, line.wire.port)
    await line.wire.mend()
    reader, writer = await asyncio.open_connection(HOST, line.wire.port)
    writer.write(b"again")
    assert await reader.readexactly(5) == b"again"
    await closed(writer)


async def test_an_end_is_passed_on(line: Line) -> None:
    """When the client leaves, so does the wire, after what it had said."""
    line.writer.write(b"last")
    line.writer.close()
    await until(lambda: line.arrived == [b"first", b"last"], what="the last words")


async def test_an_end_is_passed_on_one_way(line: Line) -> None:
    """A client that will say no more still hears what it is told."""
    line.writer.write(b"last")
    line.writer.write_eof()
    assert await line.reader.read(4) == b"last"


async def test_what_is_marked_is_held_and_let_go(line: Line) -> None:
    """A request that is waited for goes no further, nor what follows it, until it is released."""
    held = line.wire.hold_request(b"here")
    line.writer.write(b"it is here")
    await held.wait_until_caught()
    line.writer.write(b", and more")
    assert await line.is_silent()
    assert line.arrived == [b"first"]
    held.release()
    assert await line.reader.readexactly(20) == b"it is here, and more"


async def test_what_is_held_arrives_though_its_client_has_left(line: Line) -> None:
    """It was sent already."""
    held = line.wire.hold_request(b"here")
    line.writer.write(b"it is here")
    await held.wait_until_caught()
    await closed(line.writer)
    held.release()
    await until(lambda: line.arrived == [b"first", b"it is here"], what="the request")


async def test_an_answer_is_held_and_lost(line: Line) -> None:
    """The request has arrived, and nobody hears what came of it."""
    held = line.wire.hold_reply(b"here")
    line.writer.write(b"it is here")
    await until(lambda: line.arrived == [b"first", b"it is here"], what="the request")
    assert await line.is_silent()
    held.lose()
    with contextlib.suppress(ConnectionError):
        assert await line.reader.read(1) == b""


async def test_replies_are_late_and_in_order(line: Line) -> None:
    """Each comes later by the delay; what comes when there is none any more does not overtake."""
    line.wire.delay_seconds = 2 * NOTHING_SECONDS
    line.writer.write(b"one")
    assert await line.is_silent()
    line.wire.delay_seconds = 0.0
    line.writer.write(b"two")
    assert await line.reader.readexactly(6) == b"onetwo"


@pytest.mark.parametrize("side", ["requests", "replies"])
async def test_it_breaks_behind_a_byte(line: Line, side: Side) -> None:
    """An armed wire carries so many bytes of each connection that way, and remembers them; then it breaks."""
    line.wire.arm(side, 3)
    line.writer.write(b"breaks")
    arrived = b""
    with contextlib.suppress(ConnectionError):
        while data := await line.reader.read(16):
            arrived += data
    assert line.wire.cuts == 1
    assert arrived == (b"" if side == "requests" else b"bre")
    assert line.arrived == ([b"first", b"bre"] if side == "requests" else [b"first", b"breaks"])
    line.wire.disarm()
    reader, writer = await asyncio.open_connection(HOST, line.wire.port)
    writer.write(b"whole")
    assert await reader.readexactly(5) == b"whole"
    assert (line.wire.longest(side), line.wire.cuts) == (b"whole", 1)
    await closed(writer)


async def test_who_is_accepted_as_it_is_cut_is_closed() -> None:
    """Nothing of the connection stays: accepted in one step of the loop, cut before the next."""
    wire = Wire(f"tcp://{HOST}:{free_port()}")
    await wire.start()
    cutter, signal = socket.socketpair()
    asyncio.get_running_loop().add_reader(cutter, wire.cut)
    with cutter, signal, socket.create_connection((HOST, wire.port)) as client:
        signal.send(b"x")  # both are read after the same wait
        await asyncio.sleep(0.01)
        asyncio.get_running_loop().remove_reader(cutter)
        client.setblocking(False)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    await wire.stop()
    gc.collect()
