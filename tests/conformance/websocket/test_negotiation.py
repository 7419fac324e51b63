"""Extensions and subprotocols are between the ends: offered, chosen and used as if nothing stood in between."""

from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from tests.conformance.websocket.echo import digest
from tests.conformance.websocket.frames import ASKING, SWITCHING, Op, frame
from tests.conformance.websocket.world import Way, World
from tests.fixtures.edge import Edge
from tests.fixtures.raw_upstream import RawConnection

pytestmark = pytest.mark.asyncio(loop_scope="session")

OFFERS = [
    pytest.param({}, id="nothing special"),
    pytest.param({"server_no_context_takeover": True}, id="server forgets"),
    pytest.param({"client_no_context_takeover": True}, id="client forgets"),
    pytest.param({"server_no_context_takeover": True, "client_no_context_takeover": True}, id="both forget"),
    *(pytest.param({"server_max_window_bits": bits}, id=f"server window {bits}") for bits in (9, 12, 15)),
    *(pytest.param({"client_max_window_bits": bits}, id=f"client window {bits}") for bits in (9, 12, 15)),
    pytest.param({"client_max_window_bits": True}, id="any client window"),
    pytest.param({"server_max_window_bits": 9, "client_max_window_bits": 9}, id="smallest windows"),
]
MESSAGES: list[Any] = [
    *(f"a small one, the {number}th" for number in range(50)),
    "compressible " * 80_000,
    bytes(range(256)) * 4_000,
    "",
    b"",
    "é",
]


@pytest.mark.parametrize("server", ["plain", "deflate", "smallest-windows", "no-takeover"])
@pytest.mark.parametrize("offer", OFFERS)
async def test_compression_is_what_the_ends_agree_on(world: World, server: str, offer: dict[str, Any]) -> None:
    """Every offer meets every server: the same agreement, and every message, small and large."""

    async def act(way: Way) -> tuple[list[str], bool]:
        async with way.connect(compression=None, extensions=[ClientPerMessageDeflateFactory(**offer)]) as socket:
            for message in MESSAGES:
                await socket.send(message)
                assert await socket.recv() == message
            await socket.send([message for message in MESSAGES if isinstance(message, str)])
            is_whole = await socket.recv() == "".join(message for message in MESSAGES if isinstance(message, str))
            assert socket.response is not None
            return socket.response.headers.get_all("Sec-WebSocket-Extensions"), is_whole

    outcome = await world.outcome(server, act)
    agreed, is_whole = outcome.told
    assert is_whole
    assert len(agreed) == (server != "plain")
    assert outcome.seen.count == len(MESSAGES) + 1
    assert dict(outcome.seen.offered)["Sec-WebSocket-Extensions"].startswith("permessage-deflate")


async def test_ten_megabytes_compressed_come_back(world: World) -> None:
    """What is small on its way is large at both ends."""
    message = "all the same " * 800_000

    async def act(way: Way) -> bool:
        async with way.connect(compression="deflate") as socket:
            await socket.send(message)
            return bool(await socket.recv() == message)

    outcome = await world.outcome("deflate", act)
    assert outcome.told
    assert outcome.seen.messages == digest([message])


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["chat.v1"], "chat.v1"),
        (["chat.v1", "chat.v2"], "chat.v2"),
        (["other", "chat.v1"], "chat.v1"),
        ([], None),
    ],
)
async def test_the_server_chooses_the_subprotocol(world: World, offered: list[str], chosen: str | None) -> None:
    """From what the client has offered, in its order; the gateway neither adds nor removes."""

    async def act(way: Way) -> tuple[str | None, list[str]]:
        async with way.connect(subprotocols=offered or None) as socket:
            assert socket.response is not None
            return socket.subprotocol, socket.response.headers.get_all("Sec-WebSocket-Protocol")

    outcome = await world.outcome("protocols" if offered else "plain", act)
    assert outcome.told == (chosen, [] if chosen is None else [chosen])
    assert dict(outcome.seen.offered).get("Sec-WebSocket-Protocol") == (", ".join(offered) or None)


LINES = [
    b'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits , x-unknown;a="b; c, d"',
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10, permessage-deflate",
    b"sec-websocket-extensions: x-webkit-deflate-frame",
    b"Sec-WebSocket-Protocol: chat.v2,chat.v1",
    b"SEC-WEBSOCKET-PROTOCOL: superchat",
    b"Origin: https://example.com",
    b"Cookie: a=b; c=d",
]
ANSWERS = [
    b'Sec-WebSocket-Extensions: permessage-deflate;server_max_window_bits="10"',
    b"sec-websocket-extensions: x-unknown",
    b"Sec-WebSocket-Protocol: superchat",
    b"Set-Cookie: e=f",
]
HELLO = frame(Op.TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00", reserved=4)  # RFC 7692 7.2.3.1


async def test_the_lines_of_a_handshake_arrive_as_they_were_written(edge: Edge) -> None:
    """Both ways: names, values, order and repetitions; then compressed frames."""

    async def script(connection: RawConnection) -> None:
        await connection.head()
        await connection.send(SWITCHING + b"\r\n".join(ANSWERS) + b"\r\n\r\n" + HELLO)
        await connection.until_ended()

    edge.upstream.script = script
    async with edge.line() as line:
        await line.send(b"GET /socket HTTP/1.1\r\nHost: gw.test\r\n" + ASKING + b"\r\n".join(LINES) + b"\r\n\r\n")
        received = await line.until(lambda received: received.endswith(HELLO))
    assert [line for line in received.split(b"\r\n") if line in ANSWERS] == ANSWERS
    assert [line for line in edge.arrived()[0].split(b"\r\n") if line in LINES] == LINES
