"""The tunnel does not read: whatever either end says behind a 101, the other one gets those bytes. RFC 9110 7.8."""

import asyncio

import pytest

from tests.conformance.websocket.frames import ASKING, MASK, SWITCHING, Op, close, frame
from tests.fixtures.edge import OURS, Edge, assert_same
from tests.fixtures.raw_upstream import End, RawConnection, Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEAD = b"GET /socket HTTP/1.1\r\nHost: gw.test\r\n" + ASKING + b"\r\n"
WHOLE = 1 << 30
SIZES = (0, 1, 125, 126, 127, 128, 65_535, 65_536)


def text(size: int) -> bytes:
    return (b"*\xc3\xa9" * (size // 3 + 1))[:size]


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def talks(down: bytes, size: int) -> Script:
    """An upstream that switches, sends `down` in pieces while it reads, and closes when the client has."""

    async def speak(connection: RawConnection) -> None:
        await connection.send(SWITCHING + b"\r\n")
        for piece in pieces(down, size):
            await connection.send(piece)
            await asyncio.sleep(0)

    async def script(connection: RawConnection) -> None:
        await connection.head()
        await asyncio.gather(speak(connection), connection.until_ended())

    return script


async def assert_crossing(edge: Edge, up: bytes, down: bytes, size: int) -> None:
    """`up` and `down`, sent at the same time in pieces of `size`, arrive as they went; so does the client's end."""
    edge.upstream.script = talks(down, size)
    async with edge.line() as line:
        await line.send(HEAD)
        await line.until(lambda received: b"\r\n\r\n" in received)
        for piece in pieces(up, size):
            await line.send(piece)
            await asyncio.sleep(0)
        await line.finish()
        received = await line.until_ended()
        assert not line.is_reset
    await edge.upstream.until_quiet()
    (connection,) = edge.upstream.connections
    assert connection.end is End.CLOSED
    assert_same(connection.received.partition(b"\r\n\r\n")[2], up, "what reached the upstream")
    assert_same(received.partition(b"\r\n\r\n")[2], down, "what reached the client")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("piece", [1, 2, 61, 997, WHOLE])
@pytest.mark.parametrize("op", [Op.TEXT, Op.BINARY], ids=["text", "binary"])
async def test_messages_of_every_length_cross(edge: Edge, op: Op, size: int, piece: int) -> None:
    """At the edges of the three forms of a length, whole and chopped."""
    payload = text(size) if op is Op.TEXT else bytes(range(256)) * (size // 256) + bytes(size % 256)
    piece = max(piece, size // 1_000)  # a hundred thousand pieces would show no more
    ending = close(1000, b"done")
    await assert_crossing(edge, frame(op, payload, mask=MASK) + ending, frame(op, payload) + ending, piece)


MISBEHAVING = [
    *(pytest.param(frame(Op.TEXT, b"Hello", reserved=bits), id=f"reserved bits {bits:03b}") for bits in range(1, 8)),
    *(pytest.param(frame(op, b"??"), id=f"opcode {op}") for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    *(pytest.param(frame(op, b"x" * 126), id=f"oversize {op.name}") for op in (Op.PING, Op.PONG, Op.CLOSE)),
    *(pytest.param(frame(op, b"x" * 70_000), id=f"huge {op.name}") for op in (Op.PING, Op.PONG, Op.CLOSE)),
    *(pytest.param(frame(op, b"x", is_final=False), id=f"fragment of a {op.name}") for op in (Op.PING, Op.CLOSE)),
    *(pytest.param(frame(Op.TEXT, b"x", width=width), id=f"length in {width} bytes without need") for width in (2, 8)),
    pytest.param(b"\x82\xff" + b"\xff" * 8 + MASK + b"few", id="a length of 2**64 - 1, and three bytes"),
    pytest.param(b"\x82\x7f\x80" + b"\x00" * 7, id="a length of 2**63, and nothing"),
    pytest.param(frame(Op.CONTINUATION, b"of nothing"), id="a continuation of nothing"),
    pytest.param(frame(Op.TEXT, b"1", is_final=False) + frame(Op.TEXT, b"2"), id="a message inside a message"),
    pytest.param(frame(Op.TEXT, b"1", is_final=False) + frame(Op.PING, b"?") + frame(0, b"2"), id="a ping inside"),
    pytest.param(frame(Op.TEXT, b"1", is_final=False) * 100, id="a message without end"),
    pytest.param(frame(Op.TEXT, b"\xce\xba\xed\xa0\x80edited"), id="text that is no UTF-8"),
    pytest.param(frame(Op.TEXT, b"\xf4\x90\x80\x80"), id="text beyond Unicode"),
    pytest.param(frame(Op.CLOSE, b"\x03"), id="half a close code"),
    pytest.param(close(1005), id="a close code that nobody sends"),
    pytest.param(close(0), id="close code 0"),
    pytest.param(close(1000, b"\xff\xfe"), id="a reason that is no UTF-8"),
    pytest.param(close(1000) + frame(Op.TEXT, b"afterthought"), id="a message behind the close"),
    pytest.param(close(1000) * 2, id="two closes"),
    pytest.param(frame(Op.PONG, b"nobody asked"), id="an unsolicited pong"),
    pytest.param(frame(Op.PING) * 1_000, id="a thousand pings"),
    pytest.param(frame(Op.TEXT, b"x")[:1], id="half a head"),
    pytest.param(b"GET /keyed HTTP/1.1\r\nHost: gw.test\r\n\r\n", id="a request"),
    pytest.param(b"X-Api-Key: ost_test_nonsense\r\nX-User-Id: root\r\n\r\n", id="lines that would be removed"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", id="a reply"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="TLS"),
    pytest.param(b"\r\n\r\n\x00\xff" * 50, id="garbage"),
]


@pytest.mark.parametrize("said", MISBEHAVING)
@pytest.mark.parametrize("piece", [1, WHOLE], ids=["bytewise", "whole"])
async def test_what_is_wrong_is_for_the_ends_to_judge(edge: Edge, said: bytes, piece: int) -> None:
    """Frames that one end must fail the connection for, and bytes that are no frames, arrive untouched. RFC 6455 7.1.7.

    Unmasked by the client and masked by the server as well, both wrong.
    """
    unmasked, masked = frame(Op.TEXT, b"from a client"), frame(Op.TEXT, b"from a server", mask=MASK)
    piece = max(piece, len(said) // 1_000)
    await assert_crossing(edge, unmasked + said, masked + said, piece)


async def test_what_was_sent_with_the_handshake_arrives_behind_it(edge: Edge) -> None:
    """Frames in the packet of the request wait for the 101; frames in the packet of the 101 come behind it."""
    early, answer = frame(Op.TEXT, b"early", mask=MASK), frame(Op.TEXT, b"at once")
    between: list[bytes] = []

    async def script(connection: RawConnection) -> None:
        await connection.head()
        await edge.settle()
        between.append(connection.received)
        await connection.send(SWITCHING + b"\r\n" + answer)
        await connection.until_ended()

    edge.upstream.script = script
    async with edge.line() as line:
        await line.send(HEAD + early)
        await line.until(lambda received: received.endswith(answer))
        await line.finish()
        await line.until_ended()
    await edge.upstream.until_quiet()
    expected = b"GET /socket HTTP/1.1\r\nHost: upstream\r\n" + ASKING.replace(
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b""
    )
    expected += OURS + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert_same(edge.plain(between[0]), expected, "before the 101")
    assert_same(edge.arrived()[-1], expected + early, "in the end")


async def test_a_client_may_end_before_the_handshake_is_answered(edge: Edge) -> None:
    """What it sent until then arrives, and it gets what the upstream says to that."""
    said, answer = frame(Op.PING, mask=MASK) + close(1000, mask=MASK), frame(Op.PONG) + close(1000)

    async def script(connection: RawConnection) -> None:
        await connection.head()
        await connection.send(SWITCHING + b"\r\n")
        await connection.until_ended()
        await connection.send(answer)

    edge.upstream.script = script
    async with edge.line() as line:
        await line.send(HEAD + said)
        await line.finish()
        assert (await line.until_ended()).endswith(b"\r\n\r\n" + answer)
    await edge.upstream.until_quiet()
    assert edge.upstream.connections[0].received.endswith(b"\r\n\r\n" + said)
