"""The gateway's own close frame stands between two frames of the upstream's, or it is not sent. RFC 6455 5.5.1."""

import asyncio
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import pytest
import pytest_asyncio

from tests.conformance.conftest import TIMEOUT_SECONDS
from tests.conformance.websocket.frames import ASKING, MASK, SWITCHING, Op, close, frame
from tests.fixtures.edge import Edge
from tests.fixtures.raw_upstream import RawConnection

pytestmark = pytest.mark.asyncio(loop_scope="session")

GOING_AWAY: Final = close(1001)
FRAMES: Final = (
    frame(Op.TEXT, b"Hello"),
    frame(Op.TEXT),
    frame(Op.TEXT, b"a", is_final=False, reserved=4),
    frame(Op.PING, b"?" * 125),
    frame(Op.CONTINUATION, b"b" * 126),
    frame(Op.BINARY, b"c", width=2),
    frame(Op.BINARY, b"d", width=8),
    frame(Op.BINARY, b"e", mask=MASK),
    frame(Op.BINARY, b"f" * 300, mask=MASK),
    frame(Op.BINARY, b"g" * 65_536),
)
STREAM: Final = b"".join(FRAMES)
ENDS: Final = [0, *accumulate(map(len, FRAMES))]
# Each frame's end, and the bytes around it: every byte of the next one's head, and the first of its payload.
CUTS: Final = sorted({end + step for end in ENDS for step in range(-1, 12) if 0 <= end + step <= len(STREAM)})


@dataclass(frozen=True)
class Left:
    """What clients had received when the gateway had ended their silent tunnels."""

    by_cut: dict[int, bytes]
    by_cut_in_pieces: dict[int, bytes]
    of_the_awake: bytes


async def silent_tunnel(edge: Edge, target: str) -> bytes:
    """What a client receives behind the 101."""
    async with edge.line() as line:
        await line.send(f"GET {target} HTTP/1.1\r\nHost: gw.test\r\n".encode() + ASKING + b"\r\n")
        return (await line.until_ended()).partition(b"\r\n\r\n")[2]


async def waking_tunnel(edge: Edge) -> bytes:
    """The same of a client that says a byte now and then, for longer than a silent tunnel lives; then it ends."""
    async with edge.line() as line:
        await line.send(b"GET /cut/0 HTTP/1.1\r\nHost: gw.test\r\n" + ASKING + b"\r\n")
        for byte in frame(Op.PING, mask=MASK):
            await asyncio.sleep(TIMEOUT_SECONDS / 4)
            await line.send(bytes([byte]))
        await line.finish()
        return (await line.until_ended()).partition(b"\r\n\r\n")[2]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def left(shared_edge: Edge) -> Left:
    """Tunnels whose upstreams stop somewhere in STREAM, until the gateway ends them for their silence."""

    async def script(connection: RawConnection) -> None:
        await connection.head()
        _, how, cut = connection.received.split(b" ")[1].decode().split("/")
        sent = STREAM[: int(cut)]
        await connection.send(SWITCHING + b"\r\n")
        for piece in [sent] if how == "cut" else [sent[i : i + 7] for i in range(0, len(sent), 7)]:
            await connection.send(piece)
            await asyncio.sleep(0)
        await connection.until_ended()

    await shared_edge.upstream.reset()
    shared_edge.upstream.script = script
    targets = [f"/{how}/{cut}" for how in ("cut", "chopped") for cut in CUTS]
    received = await asyncio.gather(
        waking_tunnel(shared_edge), *(silent_tunnel(shared_edge, target) for target in targets)
    )
    at_once, chopped = received[1 : len(CUTS) + 1], received[len(CUTS) + 1 :]
    return Left(dict(zip(CUTS, at_once, strict=True)), dict(zip(CUTS, chopped, strict=True)), received[0])


@pytest.mark.parametrize("cut", CUTS)
async def test_a_close_frame_never_lands_inside_a_frame(left: Left, cut: int) -> None:
    """A client of a silent tunnel gets whole frames and then close code 1001, or an unfinished frame and the end."""
    expected = STREAM[:cut] + (GOING_AWAY if cut in ENDS else b"")
    assert left.by_cut[cut] == expected, "sent at once"
    assert left.by_cut_in_pieces[cut] == expected, "sent in pieces"


async def test_a_byte_now_and_then_keeps_a_tunnel_open(left: Left) -> None:
    """Half a frame is no silence: this client ended the tunnel itself, so that nobody had to close it."""
    assert left.of_the_awake == b""
