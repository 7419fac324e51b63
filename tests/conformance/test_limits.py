"""Bounds on what a client may send, and on how slowly."""

import asyncio

import pytest

from tests.conformance.conftest import TIMEOUT_SECONDS
from tests.fixtures.edge import OURS, Edge, Line

pytestmark = pytest.mark.asyncio(loop_scope="session")

LINE = 8192
HEAD = 32_768
FIELDS = 100
GET = b"GET /a HTTP/1.1\r\nHost: gw.test\r\n"


def get_of(size: int) -> bytes:
    """A GET whose request line has `size` bytes."""
    return b"GET /%b HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n" % (b"a" * (size - len("GET / HTTP/1.1")))


def line_of(size: int) -> bytes:
    """A header line of `size` bytes, and its CRLF."""
    return b"X: " + b"a" * (size - 3) + b"\r\n"


def many(count: int) -> bytes:
    """A GET with `count` header lines."""
    return GET + b"Connection: close\r\n" + b"X: y\r\n" * (count - 2) + b"\r\n"


def head_of(size: int) -> bytes:
    """A GET of `size` bytes, without its empty line, in short header lines."""
    start = GET + b"Connection: close\r\n"
    lines = line_of(4094) * ((size - len(start)) // 4096)
    return start + lines + line_of(size - len(start) - len(lines)) + b"\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(get_of(LINE), id="a request line of the limit"),
        pytest.param(GET + b"Connection: close\r\n" + line_of(LINE) + b"\r\n", id="a header line of the limit"),
        pytest.param(many(FIELDS), id="as many header lines as the limit"),
        pytest.param(head_of(HEAD), id="a head of the limit"),
    ],
)
async def test_the_limits_themselves_are_allowed(edge: Edge, sent: bytes) -> None:
    """A request that is just not too large is served. R345."""
    replies = await edge.line_says(sent)
    assert [reply.status for reply in replies] == [200]


@pytest.mark.threat("size bombs")
@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        pytest.param(get_of(LINE + 1), 414, "uri_too_long", id="a request line over the limit"),
        pytest.param(get_of(HEAD + 100), 414, "uri_too_long", id="a request line over the head's limit"),
        pytest.param(b"GET /" + b"a" * 100_000, 414, "uri_too_long", id="an endless request line"),
        pytest.param(b"GET /" + b"a" * 1_000_000, 414, "uri_too_long", id="a megabyte of request line"),
        pytest.param(GET + line_of(LINE + 3) + b"\r\n", 431, "headers_too_large", id="a header line over the limit"),
        pytest.param(many(FIELDS + 1), 431, "headers_too_large", id="one header line too many"),
        pytest.param(many(5000), 431, "headers_too_large", id="very many header lines"),
        pytest.param(head_of(HEAD + 1), 431, "headers_too_large", id="a head over the limit"),
        pytest.param(GET + b"X: " + b"a" * 100_000, 431, "headers_too_large", id="an endless header line"),
        pytest.param(GET + b"X: y\r\n" * 100_000, 431, "headers_too_large", id="an endless head"),
        pytest.param(GET + line_of(1_000_000) + b"\r\n", 431, "headers_too_large", id="a megabyte in one header"),
        pytest.param(GET + line_of(1000) * 1000 + b"\r\n", 431, "headers_too_large", id="a megabyte of headers"),
    ],
)
async def test_too_large_heads_are_refused(edge: Edge, sent: bytes, status: int, code: str) -> None:
    """Said in one reply, counted before anything is kept, and the connection ends. R340, R345."""
    await edge.assert_refused(sent, status, code)


async def test_a_large_head_is_measured_the_same_in_pieces(edge: Edge) -> None:
    """The limits do not depend on how the bytes arrive. R345."""
    for sent, status in ((head_of(HEAD), 200), (head_of(HEAD + 1), 431)):
        for missing in (1, 2, 3, 4, 5000):
            async with edge.line() as line:
                await line.send(sent[:-missing])
                await edge.settle()
                await line.send(sent[-missing:])
                assert [reply.status for reply in await line.replies(b"GET")] == [status], missing


SLOW = [
    pytest.param(b"G", 408, id="one byte"),
    pytest.param(b"GET /a HTTP/1.1\r\n", 408, id="a request line"),
    pytest.param(GET, 408, id="a head without its end"),
    pytest.param(GET + b"\r", 408, id="half of the end"),
    pytest.param(b"POST /a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 10\r\n\r\nhello", 408, id="half a body"),
    pytest.param(b"POST /a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 10\r\n\r\n", 408, id="no body"),
    pytest.param(
        b"POST /a HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", 408, id="half a chunk"
    ),
]


@pytest.mark.threat("slow clients")
async def test_slow_clients_are_told_and_dropped(edge: Edge) -> None:
    """408 once the time is over, nothing complete upstream, and every connection ends. R340, R345."""

    async def stall(line: Line, sent: bytes) -> list[int]:
        await line.send(sent)
        replies = await line.replies(b"POST")
        await line.until_ended()
        assert all(reply.closes for reply in replies)
        return [reply.status for reply in replies]

    async def talk(sent: bytes) -> list[int]:
        async with edge.line() as line:
            return await stall(line, sent)

    begun = asyncio.get_running_loop().time()
    seen = await asyncio.gather(*(talk(case.values[0]) for case in SLOW))  # type: ignore[arg-type]
    assert dict(zip((case.id for case in SLOW), seen, strict=True)) == {case.id: [408] for case in SLOW}
    assert asyncio.get_running_loop().time() - begun >= TIMEOUT_SECONDS - 0.5
    await edge.upstream.until_quiet()
    assert edge.upstream.requests == []
    await edge.assert_serving()


@pytest.mark.threat("slow clients")
async def test_a_head_has_one_deadline_however_it_drips(edge: Edge) -> None:
    """A byte now and then does not keep a head open (slowloris). R345."""
    loop = asyncio.get_running_loop()
    async with edge.line() as line:
        await line.send(GET)
        begun = loop.time()
        dripped = 0
        while not line.is_ended and loop.time() - begun < 4 * TIMEOUT_SECONDS:
            await line.send(b"X: y\r\n")
            dripped += 1
            await asyncio.sleep(0.05)
        assert [reply.status for reply in await line.replies(b"GET")] == [408]
    assert loop.time() - begun < 2 * TIMEOUT_SECONDS + 1
    assert dripped > 5
    assert edge.upstream.received == []


async def test_a_slow_but_steady_body_is_served(edge: Edge) -> None:
    """Between two pieces there is a deadline, and for the whole a rate: a long upload may take its time. R345."""
    pieces, piece = 2 * TIMEOUT_SECONDS + 1, b"x" * 2000
    async with edge.line() as line:
        head = b"POST /a HTTP/1.1\r\nHost: %b\r\n" + b"%b"
        length = b"Content-Length: %d\r\n\r\n" % (pieces * len(piece))
        await line.send(head % (b"gw.test", length))
        for _ in range(pieces):
            await asyncio.sleep(0.6)
            await line.send(piece)
        assert [reply.status for reply in await line.replies(b"POST")] == [200]
    assert edge.arrived()[0] == head % (b"upstream", OURS + length) + pieces * piece


@pytest.mark.threat("slow clients")
async def test_a_body_has_a_rate_however_it_drips(edge: Edge) -> None:
    """A byte now and then does not keep a request open (slow POST). R345."""
    loop = asyncio.get_running_loop()
    async with edge.line() as line:
        await line.send(b"POST /a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 1000000\r\n\r\n")
        begun = loop.time()
        while not line.is_ended and loop.time() - begun < 4 * TIMEOUT_SECONDS:
            await line.send(b"x")
            await asyncio.sleep(0.05)
        assert [reply.status for reply in await line.replies(b"POST")] == [408]
    assert loop.time() - begun < 2 * TIMEOUT_SECONDS + 1
    await edge.upstream.until_quiet()
    assert edge.upstream.requests == []
