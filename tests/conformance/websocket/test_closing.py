"""How a connection ends is for its ends to say: codes, reasons and losses are the same behind the gateway."""

import asyncio
import contextlib
from typing import Any

import pytest
from websockets import ConnectionClosed
from websockets.asyncio.client import ClientConnection

from tests.conformance.websocket.frames import MASK, Op, frame
from tests.conformance.websocket.world import Way, World

pytestmark = pytest.mark.asyncio(loop_scope="session")

CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
REASONS = ["", "bye", "é" * 61 + "!"]  # the last one is as long as a reason can be
HELLO = frame(Op.TEXT, b"hello", mask=MASK)
Ending = tuple[int | None, str | None, bool]  # code and reason that the client got, and whether it answered first


async def until_closed(socket: ClientConnection) -> list[str | bytes]:
    """What still comes."""
    messages: list[str | bytes] = []
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(10):
            async for message in socket:
                messages.append(message)  # noqa: PERF401 - what came before the end is kept
    return messages


def ending(socket: ClientConnection) -> Ending:
    received = socket.protocol.close_rcvd
    is_answer = bool(socket.protocol.close_rcvd_then_sent)
    return (None, None, is_answer) if received is None else (received.code, received.reason, is_answer)


@pytest.mark.parametrize("reason", REASONS, ids=["no reason", "a reason", "a long reason"])
@pytest.mark.parametrize("code", CODES)
async def test_a_client_closes(world: World, code: int, reason: str) -> None:
    """The server gets code and reason, and the client its answer."""

    async def act(way: Way) -> Ending:
        async with way.connect() as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
            await socket.close(code, reason)
            return ending(socket)

    outcome = await world.outcome("plain", act)
    assert outcome.told[0] == code
    assert not outcome.told[2]
    assert (outcome.seen.count, outcome.seen.code, outcome.seen.reason) == (1, code, reason)


@pytest.mark.parametrize("reason", REASONS, ids=["no reason", "a reason", "a long reason"])
@pytest.mark.parametrize("code", CODES)
async def test_a_server_closes(world: World, code: int, reason: str) -> None:
    """The client gets code and reason, and the server its answer."""

    async def act(way: Way) -> Ending:
        async with way.connect() as socket:
            await socket.send(f"!close {code} {reason}")
            assert await until_closed(socket) == []
            return ending(socket)

    outcome = await world.outcome("plain", act)
    assert outcome.told == (code, reason, True)
    assert outcome.seen.code == code


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        pytest.param(b"", b"", id="none"),
        *((number.to_bytes(2), 1002) for number in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535)),
        pytest.param(b"\x03", 1002, id="half a code"),
        pytest.param(b"\x03\xe8\xce\xba\xff", 1007, id="a reason that is no UTF-8"),
        pytest.param(b"\x03\xe8" + b"x" * 124, 1002, id="a reason that is too long"),
    ],
)
async def test_a_client_closes_with_a_code_that_is_none(world: World, payload: bytes, code: int | bytes) -> None:
    """The server's judgement, byte for byte, reaches the client."""

    async def act(way: Way) -> bytes:
        async with way.line() as line:
            await line.send(frame(Op.CLOSE, payload, mask=MASK))
            return (await line.until_ended()).partition(b"\r\n\r\n")[2]

    outcome = await world.outcome("plain", act)
    assert outcome.told[:1] == b"\x88"
    assert outcome.told[2:4] == (code if isinstance(code, bytes) else code.to_bytes(2))


LOSSES: list[Any] = [
    pytest.param(HELLO, id="between frames"),
    pytest.param(HELLO + frame(Op.BINARY, b"x" * 1_000, mask=MASK)[:500], id="inside a frame"),
    pytest.param(HELLO + frame(Op.TEXT, b"x", mask=MASK, is_final=False), id="inside a message"),
]


@pytest.mark.parametrize("said", LOSSES)
@pytest.mark.parametrize("how", ["reset", "end"])
async def test_a_client_is_lost(world: World, said: bytes, how: str) -> None:
    """The server learns at once that its client is gone, and that it did not take its leave."""

    async def act(way: Way) -> bytes:
        async with way.line() as line:
            await line.send(said)
            await line.until(lambda received: received.endswith(b"\x81\x05hello"))
            received = line.received.partition(b"\r\n\r\n")[2]
            if how == "reset":
                line.abort()
            return received

    outcome = await world.outcome("plain", act)
    assert outcome.told == b"\x81\x05hello"
    assert (outcome.seen.count, outcome.seen.code) == (1, None)


@pytest.mark.parametrize("order", ["!drop", "!reset"])
@pytest.mark.parametrize("before", [0, 1, 100])
async def test_a_server_is_lost(world: World, order: str, before: int) -> None:
    """The client has what was said until then, and learns at once that the server is gone: close code 1006."""

    async def act(way: Way) -> tuple[list[str | bytes], int | None]:
        async with way.connect() as socket:
            echoed = []
            for number in range(before):
                await socket.send(str(number))
                echoed.append(await socket.recv())
            await socket.send(order)
            return echoed + await until_closed(socket), socket.close_code

    outcome = await world.outcome("plain", act)
    assert outcome.told == ([str(number) for number in range(before)], 1006)
    assert (outcome.seen.count, outcome.seen.code) == (before + 1, None)


async def test_a_close_behind_much_does_not_overtake_it(world: World) -> None:
    """Five megabytes, and the close right behind them: the server has all of them, and the client their echo."""
    messages = [bytes([number]) * 500_000 for number in range(10)]

    async def act(way: Way) -> tuple[bool, Ending]:
        async with way.connect() as socket:
            for message in messages:
                await socket.send(message)
            await socket.send("!close 4000 that was it")
            return await until_closed(socket) == messages, ending(socket)

    outcome = await world.outcome("plain", act)
    assert outcome.told == (True, (4000, "that was it", True))
    assert outcome.seen.count == len(messages) + 1
