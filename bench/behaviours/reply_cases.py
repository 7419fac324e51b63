"""What an upstream may say, and what its clients are told."""

from bench.behaviours import verdicts
from bench.behaviours.stage import GOOD, Case, Stage, reply, saying, told_of
from bench.behaviours.verdicts import Word
from bench.behaviours.wire import OK, Wire, answer_ok

_LINE = b"HTTP/1.1 200 OK\r\n"
_SOUND = _LINE + b"Content-Length: 2\r\n"
_CHUNKED = _LINE + b"Transfer-Encoding: chunked\r\n\r\n"
_EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
_BODY = bytes(50)
_MANY = rb"(?s)(?:HTTP/1\.1 103(?:(?!HTTP/).)*){100}"


def _line(line: bytes) -> bytes:
    return _SOUND + line + b"\r\n\r\nok"


def _poison(
    title: str, raw: bytes, doubt: bytes, *, then: bytes = b"", method: bytes = b"GET", status: int = 200
) -> Case:
    """A reply with bytes too many, at once or a moment later. `doubt` is a pattern of them; a second client follows."""

    async def play(stage: Stage) -> str:
        poisonous = saying(raw, then=then)

        async def script(wire: Wire) -> None:
            await (poisonous if wire is stage.origin.arrivals[0] else answer_ok)(wire)

        stage.origin.script = script
        body = b"ok" if method == b"GET" and status == 200 else b""
        async with stage.line() as line, stage.line() as second:
            line.send(stage.filled(GOOD.replace(b"GET", method, 1)))
            replies = await stage.replies(line, method)
            told = told_of(replies, line, doubt=doubt, body=body, status=status)
            second.send(stage.filled(GOOD))
            bodies = [reply.body for reply in await stage.replies(second, b"GET")]
            return told if bodies == [b"ok"] else f"{told}, {Word.MISLED}"

    return Case(title, play)


HEADS = [
    reply("`HTTP/1.1 abc OK`", OK.replace(b"200", b"abc", 1), rb" abc ", ends="finish"),
    reply("`HTTP/1.1 2000 OK`", OK.replace(b"200", b"2000", 1), rb" 2000 ", ends="finish"),
    reply("`HTTP/1.1 099 OK`", OK.replace(b"200", b"099", 1), rb" 099 ", ends="finish"),
    reply("`HTTP/2.0 200 OK`", OK.replace(b"HTTP/1.1", b"HTTP/2.0", 1), rb"HTTP/2"),
    reply("no head at all (HTTP/0.9)", b"ok", rb"^ok", ends="finish"),
    reply("bare LF at every line's end", OK.replace(b"\r\n", b"\n"), rb"[^\r]\n"),
    reply("bare CR in a value", _line(b"X-A: b\rX-Hidden: 1"), rb"b\rx-hidden"),
    reply("NUL in a value", _line(b"X-A: b\x00c"), rb"\x00"),
    reply("obs-fold", _line(b"X-A: b\r\n folded"), rb"\n[ \t]+folded"),
    reply("space before a colon", _line(b"X-A : b"), rb"x-a +:"),
    reply("a line without a colon", _line(b"nothing"), rb"nothing"),
    reply("head of 20 KB (legal)", _line(b"\r\n".join(b"X-%d: " % number + b"b" * 1000 for number in range(20)))),
    reply("head of 1 MB", _line(b"\r\n".join(b"X-%d: " % number + b"b" * 1000 for number in range(1000)))),
    reply("`Connection: X-A` takes `X-A` away", _line(b"X-A: b\r\nConnection: X-A"), rb"\nx-a:"),
]

BODIES = [
    reply(
        "`Content-Length` and `Transfer-Encoding`",
        _SOUND + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        rb"content-length: 2",
    ),
    reply(
        "two `Content-Length`, different",
        _SOUND + b"Content-Length: 3\r\n\r\nok!",
        rb"content-length(?s:.*)content-length",
    ),
    reply(
        "two `Content-Length`, the same",
        _SOUND + b"Content-Length: 2\r\n\r\nok",
        rb"content-length(?s:.*)content-length",
    ),
    reply("`Content-Length: 2x`", _LINE + b"Content-Length: 2x\r\n\r\nok", rb"2x", ends="finish"),
    reply("`Transfer-Encoding: gzip`", _LINE + b"Transfer-Encoding: gzip\r\n\r\nok", rb"gzip", ends="finish"),
    _poison("a whole reply more behind the body", OK + _EVIL, rb"evil"),
    _poison("the same, 0.1 s later", OK, rb"evil", then=_EVIL),
    _poison("a body to `HEAD`", OK, rb"ok$", method=b"HEAD"),
    _poison("a body behind 204", b"HTTP/1.1 204 No Content\r\n\r\n" + _EVIL, rb"evil", status=204),
    _poison("a body behind 304", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nno", rb"no$", status=304),
    reply(
        "body shorter than its length, then the end",
        _LINE + b"Content-Length: 100\r\n\r\n" + _BODY,
        body=bytes(100),
        ends="finish",
    ),
    reply(
        "chunks without the last one, then the end",
        _CHUNKED + b"32\r\n" + _BODY + b"\r\n",
        body=bytes(100),
        ends="finish",
    ),
    reply("a body until close, by a reset", _LINE + b"\r\n" + _BODY, body=bytes(100), ends="reset"),
    reply("a body until close (legal)", _LINE + b"\r\nok", ends="finish"),
    reply("chunk size `zz`", _CHUNKED, rb"zz", then=b"2\r\nok\r\nzz\r\n\r\n", ends="finish"),
    reply("chunk size `0x2`", _CHUNKED, rb"0x2", then=b"0x2\r\nok\r\n0\r\n\r\n", ends="finish"),
    reply("bare LF behind a chunk size", _CHUNKED, rb"2\nok", then=b"2\nok\r\n0\r\n\r\n", ends="finish"),
]


def _part(title: str, raw: bytes, part: bytes) -> Case:
    """A legal reply of which one `part` may be left out on the way."""

    async def play(stage: Stage) -> str:
        stage.origin.script = saying(raw)
        async with stage.line() as line:
            line.send(stage.filled(GOOD))
            replies = await stage.replies(line, b"GET")
            told = told_of(replies, line, doubt=None, body=b"ok")
            return told if told != Word.RELAYED or part in line.received.lower() else Word.DROPPED

    return Case(title, play)


async def _no_reply(stage: Stage) -> str:
    async def script(wire: Wire) -> None:
        await wire.request()
        wire.finish()

    stage.origin.script = script
    async with stage.line() as line:
        line.send(stage.filled(GOOD))
        return verdicts.answer(await stage.replies(line, b"GET"), is_ended=line.is_ended)


INTERIM = [
    _part("103 before the reply (legal)", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, b"http/1.1 103"),
    _part("100 that nobody waits for (legal)", b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"http/1.1 100"),
    reply("a thousand 103", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000 + OK, _MANY),
    _part("trailers (legal)", _CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n", b"x-sum: 1"),
    reply(
        "a trailer `Content-Length`",
        _CHUNKED + b"2\r\nok\r\n0\r\nContent-Length: 1\r\n\r\n",
        rb"\ncontent-length: *1\r\n",
    ),
    Case("the end without a reply", _no_reply),
]

GROUPS: dict[str, list[Case]] = {
    "Head of a reply": HEADS,
    "Body of a reply": BODIES,
    "Interim replies, trailers, none": INTERIM,
}
