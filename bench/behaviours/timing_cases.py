"""Sides that are slow, silent, or do not read."""

import asyncio

from bench.behaviours import verdicts
from bench.behaviours.stage import GET, GOOD, MOMENT_SECONDS, POST, Case, Stage, read_on, told_of
from bench.behaviours.verdicts import Word
from bench.behaviours.wire import LIMIT_SECONDS, Wire

_LONG_SECONDS = 2.5 * LIMIT_SECONDS
_BIG_BYTES = 64_000_000
_KEPT_BYTES = 32_000_000  # more than sockets and buffers hold, less than everything
_TOO_SLOW = (b"HTTP/1.1 408", b"HTTP/1.1 504")  # said behind a standstill, if we looked late
_STILL_SECONDS = 0.8  # below the proxies' limits


def _slow(title: str, first: bytes, *, trickle: bytes = b"") -> Case:
    """A client that stops behind `first`, or goes on with `trickle` a byte at a time."""

    async def play(stage: Stage) -> str:
        async with stage.line() as line:
            line.send(stage.filled(first))
            deadline = asyncio.get_running_loop().time() + _LONG_SECONDS
            while trickle and asyncio.get_running_loop().time() < deadline and not line.received:
                line.send(trickle)
                await line.until_ended(0.25)
                if line.is_ended:
                    break
            return await read_on(stage, line, b"POST", 0.3 if trickle else _LONG_SECONDS)

    return Case(title, play)


async def _silent(stage: Stage) -> str:
    async def script(wire: Wire) -> None:
        await wire.request()

    stage.origin.script = script
    async with stage.line() as line:
        line.send(stage.filled(GOOD))
        replies = await stage.replies(line, b"GET", seconds=_LONG_SECONDS)
        return verdicts.answer(replies, is_ended=line.is_ended)


async def _stalled(stage: Stage) -> str:
    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + bytes(50))

    stage.origin.script = script
    async with stage.line() as line:
        line.send(stage.filled(GOOD))
        replies = await stage.replies(line, b"GET", seconds=_LONG_SECONDS)
        return told_of(replies, line, doubt=None, body=bytes(100))


async def _is_taken(wire: Wire) -> bool:
    """Whether the proxy takes what `wire` has to send, though nobody reads it at the other end."""
    now = asyncio.get_running_loop().time
    left, moved_at = _BIG_BYTES, now()
    while now() - moved_at < _STILL_SECONDS and left > _BIG_BYTES - _KEPT_BYTES and not wire.is_ended:
        await asyncio.sleep(0.05)
        before, left = left, wire.transport.get_write_buffer_size()
        if left != before:
            moved_at = now()
    return left <= _BIG_BYTES - _KEPT_BYTES and not wire.is_ended


async def _unread_reply(stage: Stage) -> str:
    """A client that does not read a large reply."""

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % _BIG_BYTES + bytes(_BIG_BYTES))

    stage.origin.script = script
    async with stage.line() as line:
        line.transport.pause_reading()
        line.send(stage.filled(GOOD))
        await asyncio.sleep(0.3)
        [arrival] = stage.origin.arrivals
        is_taken = await _is_taken(arrival)
        arrival.transport.abort()
        return Word.TAKEN if is_taken else Word.HELD_BACK


async def _unread_body(stage: Stage) -> str:
    """An upstream that does not read a large body."""

    async def script(wire: Wire) -> None:
        wire.transport.pause_reading()

    stage.origin.script = script
    async with stage.line() as line:
        line.send(stage.filled(POST + b"Content-Length: %d\r\n\r\n" % _BIG_BYTES) + bytes(_BIG_BYTES))
        is_taken = await _is_taken(line)
        if line.received and not line.received.startswith(_TOO_SLOW):
            return await read_on(stage, line, b"POST", MOMENT_SECONDS)
        return Word.TAKEN if is_taken else Word.HELD_BACK


TIMING = [
    _slow("half a head, then nothing", GET),
    _slow("a head, a byte every 0.25 s", GET + b"X-A: ", trickle=b"b"),
    _slow("half a body, then nothing", POST + b"Content-Length: 1000\r\n\r\nhello"),
    _slow("a body, a byte every 0.25 s", POST + b"Content-Length: 1000\r\n\r\nhello", trickle=b"b"),
    Case("the upstream says nothing", _silent),
    Case("the upstream stops in the middle of the body", _stalled),
    Case("the client does not read a reply of 64 MB", _unread_reply),
    Case("the upstream does not read a body of 64 MB", _unread_body),
]

GROUPS: dict[str, list[Case]] = {"Slowness": TIMING}
