"""One proxy and its origin, and the common ways to play a case."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from bench.behaviours import verdicts
from bench.behaviours.reading import Message, read_replies
from bench.behaviours.verdicts import Word
from bench.behaviours.wire import PATIENCE_SECONDS, Origin, Script, Wire, answer_ok
from bench.workload import USER_ID

MOMENT_SECONDS = 0.1  # for what was sent to have been read
CLOSE_SECONDS = 0.3  # for a proxy to close behind a reply, and for its upstream's side to follow
KEY_LINE = b"Authorization: Bearer @KEY@\r\n"
GET = b"GET /orders HTTP/1.1\r\nHost: api.test\r\n" + KEY_LINE
POST = b"POST /orders HTTP/1.1\r\nHost: api.test\r\n" + KEY_LINE
GOOD = GET + b"\r\n"


@dataclass(frozen=True, repr=False)
class Stage:
    """Where the cases of one proxy are played."""

    port: int
    secret: str
    origin: Origin

    @contextlib.asynccontextmanager
    async def line(self) -> AsyncIterator[Wire]:
        """A connection to the proxy, as a client's."""
        _, wire = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", self.port)
        try:
            yield wire
        finally:
            wire.transport.abort()

    def filled(self, data: bytes) -> bytes:
        """`data` with the good key in place of `@KEY@`."""
        return data.replace(b"@KEY@", self.secret.encode())

    async def replies(
        self, line: Wire, *methods: bytes, seconds: float = PATIENCE_SECONDS, is_close_awaited: bool = True
    ) -> list[Message]:
        """What the client has been told, once there are as many whole replies as `methods`, or it will be no more."""

        def read() -> list[Message]:
            return read_replies(line.received, methods, ends_well=line.is_ended and not line.is_reset)

        def is_enough() -> bool:
            return sum(reply.is_whole and verdicts.is_final(reply) for reply in read()) >= len(methods)

        await line.until(is_enough, seconds)
        if is_close_awaited and not (is_enough() and read()[-1].closes):
            await line.until_ended(CLOSE_SECONDS)
        return read()

    async def begun(self) -> str:
        """What became of a request of which the upstream has seen the beginning alone; empty where it saw nothing."""
        begun = [wire for wire in self.origin.arrivals if wire.received]
        if not begun:
            return ""
        return f", {Word.CUT if await begun[-1].until_ended(CLOSE_SECONDS) else Word.BEGUN}"


Play = Callable[[Stage], Awaitable[str]]


@dataclass(frozen=True)
class Case:
    """One row: `play` says what the proxy did, in words of the closed set."""

    title: str
    play: Play


def request(
    title: str, sent: bytes, doubt: bytes | None = None, *, body: bytes | None = None, then: bytes = b""
) -> Case:
    """One request, sent in one piece, or in two, so that the first has been forwarded when `then` comes.

    `doubt` is a pattern of what must not arrive, `body` what its body must be read as.
    """

    async def play(stage: Stage) -> str:
        async with stage.line() as line:
            line.send(stage.filled(sent))
            if then:
                await line.until_ended(MOMENT_SECONDS)
                line.send(then)
            replies = await stage.replies(line, sent.split(b" ")[0])
            told = verdicts.answer(replies, is_ended=line.is_ended)
            origin = stage.origin
            seen = verdicts.forwarding(origin.requests, origin.received, doubt=doubt, body=body)
            if seen is None:
                return told + await stage.begun()
            return seen if told.startswith("200") else f"{seen}, {told}"

    return Case(title, play)


def spoof(title: str, sent: bytes) -> Case:
    """A request that tries to be somebody else, or nobody."""

    async def play(stage: Stage) -> str:
        async with stage.line() as line:
            line.send(stage.filled(sent))
            replies = await stage.replies(line, b"GET")
            whole = [request for request in stage.origin.requests if request.is_whole]
            if whole:
                return verdicts.identity(whole[0], USER_ID.encode())
            return verdicts.answer(replies, is_ended=line.is_ended) + await stage.begun()

    return Case(title, play)


def saying(raw: bytes, *, then: bytes = b"", ends: str = "") -> Script:
    """A script: read a request, say `raw` and, a moment later, `then`.

    It ends the connection in order (`finish`), by a `reset`, or goes on answering 200. What was said first has been
    read by then.
    """

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(raw)
        if then:
            await asyncio.sleep(MOMENT_SECONDS)
            wire.send(then)
        if ends == "reset":
            await asyncio.sleep(MOMENT_SECONDS)
            wire.reset()
        elif ends:
            wire.finish()
        else:
            await answer_ok(wire)

    return script


def told_of(replies: Sequence[Message], line: Wire, *, doubt: bytes | None, body: bytes, status: int = 200) -> str:
    """How a reply of the upstream reached the client."""
    finals = [reply for reply in replies if verdicts.is_final(reply)]
    if not finals:
        return Word.CLOSE if line.is_ended else Word.WAITS
    reply = finals[0]
    if reply.status not in (status, 0):
        return str(reply.status)
    if doubt is not None and re.search(doubt, line.received, re.IGNORECASE):
        return Word.RELAYED_AS_IS
    if not reply.is_whole:
        return Word.CUT if line.is_ended else Word.WAITS
    if reply.body != body:
        return Word.LOOKS_WHOLE if body.startswith(reply.body) else Word.RELAYED_ALTERED
    return Word.RELAYED if doubt is None else Word.CLEANED


def reply(
    title: str,
    raw: bytes,
    doubt: bytes | None = None,
    *,
    then: bytes = b"",
    body: bytes = b"ok",
    ends: str = "",
    status: int = 200,
    sent: bytes = GOOD,
) -> Case:
    """A good request, answered as `saying` does; `doubt` is a pattern of what must not reach the client."""

    async def play(stage: Stage) -> str:
        stage.origin.script = saying(raw, then=then, ends=ends)
        async with stage.line() as line:
            line.send(stage.filled(sent))
            replies = await stage.replies(line, sent.split(b" ")[0])
            return told_of(replies, line, doubt=doubt, body=body, status=status)

    return Case(title, play)


async def read_on(stage: Stage, line: Wire, method: bytes, seconds: float) -> str:
    """What the client is told within `seconds`, and what became of the request at the upstream."""
    replies = await stage.replies(line, method, seconds=seconds)
    return verdicts.answer(replies, is_ended=line.is_ended) + await stage.begun()
