"""Expectations, upgrades, pipelines, and clients or upstreams that end early."""

import asyncio
import base64
import hashlib

from bench.behaviours import verdicts
from bench.behaviours.reading import read_replies
from bench.behaviours.stage import GET, GOOD, KEY_LINE, POST, Case, Stage, read_on, request, saying, told_of
from bench.behaviours.verdicts import Word
from bench.behaviours.wire import OK, PATIENCE_SECONDS, Script, Wire

_KEY = base64.b64encode(bytes(16))
_ACCEPT = base64.b64encode(hashlib.sha1(_KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest())
_UPGRADE = (
    GET
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    + _KEY
    + b"\r\n\r\n"
)
_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)
_FRAME = b"\x81\x05hello"
_KEYLESS = b"GET /orders/second HTTP/1.1\r\nHost: api.test\r\n\r\n"
_UNREAD = GOOD.replace(b"/orders", b"/hidden", 1)


def _expecting(expectation: bytes) -> bytes:
    return POST + b"Content-Length: 5\r\nExpect: " + expectation + b"\r\n\r\n"


async def _continue(stage: Stage) -> str:
    """100-continue: the body follows once the client has been told to go on."""

    async def script(wire: Wire) -> None:
        await wire.head()
        if b"100-continue" in wire.received:
            wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await wire.request()
        wire.send(OK)

    stage.origin.script = script
    async with stage.line() as line:
        line.send(stage.filled(_expecting(b"100-continue")))
        if not await line.until(lambda: line.received.startswith(b"HTTP/1.1 100"), PATIENCE_SECONDS):
            return await read_on(stage, line, b"POST", PATIENCE_SECONDS)
        line.send(b"hello")
        await stage.replies(line, b"POST")
        origin = stage.origin
        seen = verdicts.forwarding(origin.requests, origin.received, doubt=rb"\nexpect:", body=b"hello")
        return seen or Word.WAITS


async def _refused_expectation(stage: Stage) -> str:
    async with stage.line() as line:
        line.send(_expecting(b"100-continue").replace(KEY_LINE, b""))
        return await read_on(stage, line, b"POST", PATIENCE_SECONDS)


def _switching(raw: bytes) -> Script:
    """Say `raw`, then what a WebSocket would."""

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(raw)
        await asyncio.sleep(0.1)  # so that the frame is no part of what the switch is read with
        wire.send(_FRAME)

    return script


def _switch(title: str, sent: bytes, raw: bytes) -> Case:
    """The upstream switches protocols. A tunnel is what carries bytes both ways afterwards."""

    async def play(stage: Stage) -> str:
        stage.origin.script = _switching(raw)
        async with stage.line() as line:
            line.send(stage.filled(sent))
            await line.until(lambda: b"\r\n\r\n" in line.received)
            if line.received.startswith(b"HTTP/1.1 101"):
                line.send(b"\x81\x85\x00\x00\x00\x00there")
                arrived = await stage.origin.arrivals[-1].until(lambda: b"there" in stage.origin.received)
                is_tunnel = arrived and await line.until(lambda: _FRAME in line.received)
                return Word.TUNNEL if is_tunnel else Word.RELAYED
            replies = await stage.replies(line, b"GET")
            return verdicts.answer(replies, is_ended=line.is_ended)

    return Case(title, play)


async def _no_switch(stage: Stage) -> str:
    """The upstream answers an upgrade by 200; what the client sends next is an ordinary request, without a key."""
    stage.origin.script = saying(OK)
    async with stage.line() as line:
        line.send(stage.filled(_UPGRADE))
        replies = await stage.replies(line, b"GET")
        told = told_of(replies, line, doubt=None, body=b"ok")
        line.send(_KEYLESS)
        replies = await stage.replies(line, b"GET", b"GET")
        if b"/orders/second" in stage.origin.received:
            return f"{told}, then {Word.TUNNEL}"
        return f"{told}, then {verdicts.answer(replies, is_ended=line.is_ended, position=1)}"


async def _pipelined(stage: Stage) -> str:
    """Three requests in one segment, the second without a key."""
    async with stage.line() as line:
        line.send(stage.filled(GOOD + _KEYLESS + GOOD))
        replies = await stage.replies(line, b"GET", b"GET", b"GET")
        return ", ".join(str(reply.status) for reply in replies) or Word.WAITS


async def _half_closed(stage: Stage) -> str:
    """The client sends no more, but waits for its reply."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await asyncio.sleep(0.3)  # the proxy has seen the end by then
        wire.send(OK)

    stage.origin.script = script
    async with stage.line() as line:
        line.send(stage.filled(GOOD))
        line.finish()
        replies = await stage.replies(line, b"GET")
        return told_of(replies, line, doubt=None, body=b"ok")


async def _half_closed_body(stage: Stage) -> str:
    async with stage.line() as line:
        line.send(stage.filled(POST + b"Content-Length: 10\r\n\r\nhello"))
        await asyncio.sleep(0.2)
        line.finish()
        return await read_on(stage, line, b"POST", PATIENCE_SECONDS)


async def _reset_body(stage: Stage) -> str:
    async with stage.line() as line:
        line.send(stage.filled(POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"))
        await asyncio.sleep(0.2)
        line.reset()
        await asyncio.sleep(0.2)
        if any(request.is_whole for request in stage.origin.requests):
            return Word.LOOKS_WHOLE
        return (await stage.begun()).removeprefix(", ") or Word.UNSEEN


async def _gone(stage: Stage) -> str:
    """The client resets while its whole request waits for a reply."""

    async def script(wire: Wire) -> None:
        await wire.request()

    stage.origin.script = script
    async with stage.line() as line:
        line.send(stage.filled(GOOD))
        await asyncio.sleep(0.3)
        line.reset()
        arrival = stage.origin.arrivals[0]
        return Word.CUT if await arrival.until_ended(PATIENCE_SECONDS - 0.3) else Word.NOT_TOLD


async def _early(stage: Stage) -> str:
    """The upstream refuses a body before it has come."""

    async def script(wire: Wire) -> None:
        await wire.head()
        wire.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        wire.finish()

    stage.origin.script = script
    async with stage.line() as line:
        line.send(stage.filled(POST + b"Content-Length: 1000000\r\n\r\n" + bytes(1000)))
        replies = await stage.replies(line, b"POST")
        return told_of(replies, line, doubt=None, body=b"no", status=403)


def _unread(title: str, head: bytes) -> Case:
    """A refused request whose body looks like a request with a good key."""

    async def play(stage: Stage) -> str:
        async with stage.line() as line:
            line.send(stage.filled(head % len(stage.filled(_UNREAD)) + _UNREAD))
            replies = await stage.replies(line, b"POST")
            if any(b"/hidden" in request.start for request in stage.origin.requests):
                return Word.TWO
            return verdicts.answer(replies, is_ended=line.is_ended)

    return Case(title, play)


async def _dead(stage: Stage, method: bytes) -> str:
    """A kept connection to the upstream dies under its second request."""

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(OK)
        if len(stage.origin.arrivals) == 1:
            await wire.request()
            wire.transport.abort()

    stage.origin.script = script
    good = stage.filled(GOOD.replace(b"GET", method, 1).replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"))
    good = good if method == b"POST" else stage.filled(GOOD)
    async with stage.line() as line:
        line.send(good)
        await stage.replies(line, method, is_close_awaited=False)
        line.send(good)
        await stage.replies(line, method, method)
        replies = read_replies(line.received, [method, method], ends_well=False)
        told = verdicts.answer(replies, is_ended=line.is_ended, position=1)
        return Word.REPEATED if told.startswith("200") else told


async def _dead_get(stage: Stage) -> str:
    return await _dead(stage, b"GET")


async def _dead_post(stage: Stage) -> str:
    return await _dead(stage, b"POST")


EXPECT = [
    Case("`Expect: 100-continue`", _continue),
    Case("the same, without a key", _refused_expectation),
    request("an unknown expectation", _expecting(b"200-ok") + b"hello", rb"\nexpect:"),
]

UPGRADES = [
    _switch("WebSocket, answered by 101", _UPGRADE, _SWITCH % _ACCEPT),
    _switch("WebSocket, answered by 101 with a wrong `Sec-WebSocket-Accept`", _UPGRADE, _SWITCH % b"AAAA"),
    Case("WebSocket, answered by 200; then a request without a key", _no_switch),
    request(
        "`Upgrade: h2c`",
        GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        rb"\nupgrade: *h2c",
    ),
    _switch("a 101 that nobody asked for", GOOD, _SWITCH % _ACCEPT),
]

CONNECTIONS = [
    Case("three pipelined requests, the second without a key", _pipelined),
    _unread("401, and a body with a request in it", POST.replace(KEY_LINE, b"") + b"Content-Length: %d\r\n\r\n"),
    _unread(
        "400, and a body with a request in it",
        POST + b"X-A : b\r\nContent-Length: %d\r\n\r\n",
    ),
    Case("the client half-closes behind its request (legal)", _half_closed),
    Case("the client half-closes in the middle of the body", _half_closed_body),
    Case("the client resets in the middle of a chunked body", _reset_body),
    Case("the client resets while it waits for the reply", _gone),
    Case("the upstream answers before it has read the body", _early),
    Case("a kept upstream connection dies under a `GET`", _dead_get),
    Case("a kept upstream connection dies under a `POST`", _dead_post),
]

GROUPS: dict[str, list[Case]] = {"Expectations": EXPECT, "Upgrades": UPGRADES, "Connections": CONNECTIONS}
