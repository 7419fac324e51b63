"""Upstreams that answer nonsense, stop in the middle, or hang up: no client is told something untrue."""

import asyncio

import pytest

from tests.fixtures.edge import OURS, Edge
from tests.fixtures.exposition import scraped
from tests.fixtures.raw_upstream import OK, RawConnection, Script, reply
from tests.fixtures.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

GET = b"GET /a HTTP/1.1\r\nHost: gw.test\r\n\r\n"
GET_ARRIVED = b"GET /a HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 4\r\n\r\nbody"
KEPT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

NONSENSE = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\r\n\r\n", id="empty lines"),
    pytest.param(b"hello\r\n\r\n", id="a word"),
    pytest.param(b"<html>\r\n\r\n</html>", id="HTML (HTTP/0.9)"),
    pytest.param(b"HTTP/1.1 200 OK\r\n", id="half a head"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", id="a head without its end"),
    pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", id="LF alone"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\n\r\n\r\nok", id="a bare LF"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\rZ: w\r\n\r\nok", id="a bare CR"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n folded\r\n\r\nok", id="obs-fold"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", id="a blank before the colon"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: \x00\r\n\r\nok", id="NUL"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nno colon\r\n\r\nok", id="no colon"),
    pytest.param(b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", id="HTTP/2.0"),
    pytest.param(b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok", id="HTTP/0.9"),
    pytest.param(b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nok", id="ICY"),
    pytest.param(b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", id="two digits"),
    pytest.param(b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", id="four digits"),
    pytest.param(b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok", id="000"),
    pytest.param(b"HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nok", id="999"),
    pytest.param(b"HTTP/1.1 two OK\r\nContent-Length: 2\r\n\r\nok", id="a word for a status"),
    pytest.param(b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", id="an empty line in front"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", id="two lengths"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", id="a list of lengths"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", id="a negative length"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="CL.TE"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", id="an unknown coding"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="two codings"),
    pytest.param(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="chunks in 1.0"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", id="a chunk line that is none"),
    pytest.param(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + KEPT,
        id="a 101 that nobody asked for",
    ),
    pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50 + KEPT, id="interim replies without end"),
    pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2000 + b"Content-Length: 0\r\n\r\n", id="very many lines"),
    pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000, id="an endless line"),
]


@pytest.mark.threat("broken replies", "cached refusals")
@pytest.mark.parametrize("answer", NONSENSE)
@pytest.mark.parametrize("sent", [GET, POST], ids=["GET", "POST"])
async def test_nonsense_becomes_a_502(edge: Edge, answer: bytes, sent: bytes) -> None:
    """Told as the upstream's fault, asked once, on a connection that is not used again; the next is clean. R340."""
    edge.upstream.script = reply(answer)
    async with edge.line() as line:
        await line.send(sent)
        (told,) = [r for r in await line.replies(sent.split(b" ")[0]) if r.status >= 200]
        assert told.status == 502
        assert b'"code": "upstream_error"' in told.body
        assert told.all(b"Cache-Control") == [b"no-store"]
        assert len(edge.upstream.requests) == 1
        edge.upstream.script = reply(OK)
        await line.send(GET)
        assert [r.status for r in await line.replies(b"GET", b"GET") if r.status >= 200] == [502, 200]
    assert len(edge.upstream.connections) == 2


CUT = [
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", b"hello", id="short of its length"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b"", id="no body at all"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"hello", id="no last chunk"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello", b"hello", id="inside a chunk"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", b"hello", id="no last line"
    ),
]


@pytest.mark.threat("broken replies")
@pytest.mark.parametrize(("part", "body"), CUT)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_cut_reply_is_cut_for_the_client_too(edge: Edge, part: bytes, body: bytes, version: bytes) -> None:
    """What is incomplete never looks complete: short of its length, without a last chunk, or reset. R193, R340."""
    edge.upstream.script = reply(part)
    async with edge.line() as line:
        await line.send(b"GET /a HTTP/%b\r\nHost: gw.test\r\n\r\n" % version)
        await line.until_ended()
        assert line.is_reset
        for told in await line.replies(b"GET"):
            is_chunked = bool(told.all(b"Transfer-Encoding"))
            assert told.status == 200
            assert is_chunked is (b"chunked" in part and version == b"1.1")
            assert told.body.replace(b"5\r\nhello\r\n", b"hello") in (b"", body)
            assert told.is_cut or not (is_chunked or told.all(b"Content-Length"))
    assert len(edge.upstream.requests) == 1
    await edge.assert_serving()


async def test_malformed_chunks_in_the_middle_cut_the_reply(edge: Edge) -> None:
    """Once the reply has begun, an error can only cut. R340."""
    gate = asyncio.Event()

    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await gate.wait()
        await connection.send(b"5\nworld\r\n0\r\n\r\n")
        await connection.until_ended()

    edge.upstream.script = script
    async with edge.line() as line:
        await line.send(GET)
        await line.until(lambda received: received.endswith(b"hello\r\n"))
        gate.set()
        (told,) = await line.replies(b"GET")
        assert (told.body, told.is_cut) != (b"hello", False)
    await edge.upstream.until_quiet()


LEFT_OVER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Poison: yes\r\n\r\npoison"


@pytest.mark.threat("broken replies", "answer of another request")
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(KEPT + LEFT_OVER, id="length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + LEFT_OVER, id="chunked"
        ),
        pytest.param(KEPT + b"!", id="one byte"),
    ],
)
async def test_bytes_behind_a_reply_reach_nobody(edge: Edge, answer: bytes) -> None:
    """A connection that says more than it was asked is dropped; the next client gets its own reply. RFC 9112 9.2."""

    async def talkative(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(answer)
        await connection.until_ended()

    edge.upstream.script = talkative
    async with edge.line() as line:
        await line.send(GET)
        await line.replies(b"GET")
        edge.upstream.script = reply(OK)
        await line.send(GET)
        replies = await line.replies(b"GET", b"GET")
    assert [(r.status, r.body) for r in replies] == [(200, b"ok"), (200, b"ok")]
    assert len(edge.upstream.connections) == 2
    await edge.upstream.until_quiet()


@pytest.mark.threat("broken replies")
async def test_bytes_on_an_idle_connection_end_it(edge: Edge) -> None:
    """Also when they come later: nobody asked for them. RFC 9112 9.2."""
    gate = asyncio.Event()

    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(KEPT)
        await gate.wait()
        await connection.send(LEFT_OVER)
        await connection.until_ended()

    edge.upstream.script = script
    async with edge.line() as line:
        await line.send(GET)
        await line.replies(b"GET")
        gate.set()
        await edge.upstream.until_quiet()
        edge.upstream.script = reply(OK)
        await line.send(GET)
        assert [r.body for r in await line.replies(b"GET", b"GET")] == [b"ok", b"ok"]
    assert len(edge.upstream.connections) == 2


def once(ending: Script) -> Script:
    """The first connection answers one request, keeps the connection, and does `ending` with the second request."""

    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(KEPT)
        await ending(connection)

    return script


async def hang_up(connection: RawConnection) -> None:
    await connection.head()
    await connection.close()


async def hang_up_hard(connection: RawConnection) -> None:
    await connection.head()
    connection.abort()


async def hang_up_inside_a_reply(connection: RawConnection) -> None:
    await connection.head()
    await connection.send(b"HTTP/1.1 200 O")
    await connection.close()


async def answer_nonsense(connection: RawConnection) -> None:
    await connection.head()
    await connection.send(b"nonsense\r\n\r\n")
    await connection.close()


async def reuse(edge: Edge, sent: bytes, ending: Script) -> list[int]:
    """The statuses of a first request and of `sent`, which meets a kept connection that does `ending`."""
    edge.upstream.script = once(ending)
    async with edge.line() as line:
        await line.send(GET)
        await line.replies(b"GET")
        edge.upstream.script = reply(OK)
        await line.send(sent)
        replies = await line.replies(b"GET", sent.split(b" ")[0])
    return [r.status for r in replies]


@pytest.mark.threat("repeated writes")
@pytest.mark.parametrize("ending", [hang_up, hang_up_hard])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
async def test_a_safe_request_is_repeated_once_on_a_fresh_connection(edge: Edge, method: bytes, ending: Script) -> None:
    """A kept connection that dies before any answer costs a safe request nothing. RFC 9110 9.2.2."""
    sent = method + b" /again HTTP/1.1\r\nHost: gw.test\r\n\r\n"
    assert await reuse(edge, sent, ending) == [200, 200]
    assert len(edge.upstream.connections) == 2
    again = method + b" /again HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"\r\n"
    assert edge.arrived() == [GET_ARRIVED + again, again]


@pytest.mark.threat("repeated writes")
@pytest.mark.parametrize("ending", [hang_up, hang_up_hard])
@pytest.mark.parametrize(
    "sent",
    [POST, b"DELETE /a HTTP/1.1\r\nHost: gw.test\r\n\r\n", POST.replace(b"POST", b"GET")],
    ids=["POST", "DELETE", "GET with a body"],
)
async def test_another_request_is_not_repeated(edge: Edge, sent: bytes, ending: Script) -> None:
    """It may have had its effect: 502, and the upstream has seen it once. RFC 9110 9.2.2."""
    assert await reuse(edge, sent, ending) == [200, 502]
    assert len(edge.upstream.connections) == 1


@pytest.mark.threat("repeated writes")
@pytest.mark.parametrize("ending", [hang_up, hang_up_hard])
async def test_a_clients_first_write_meets_no_dying_connection(edge: Edge, ending: Script) -> None:
    """A client that begins with a POST gets a new connection: a kept one may die, and then nobody could tell him."""
    edge.upstream.script = once(ending)
    async with edge.line() as first, edge.line() as second:
        await first.send(GET)
        await first.replies(b"GET")
        edge.upstream.script = reply(OK)
        await second.send(POST)
        assert [r.status for r in await second.replies(b"POST")] == [200]
    assert len(edge.upstream.connections) == 2


@pytest.mark.threat("repeated writes")
@pytest.mark.parametrize("ending", [hang_up_inside_a_reply, answer_nonsense])
async def test_a_request_that_was_answered_is_not_repeated(edge: Edge, ending: Script) -> None:
    """Once a byte of a reply has come, the upstream has taken the request. RFC 9110 9.2.2."""
    assert await reuse(edge, GET, ending) == [200, 502]
    assert len(edge.upstream.connections) == 1


@pytest.mark.threat("repeated writes")
async def test_a_request_is_repeated_only_once(edge: Edge) -> None:
    """An upstream that always hangs up is asked twice, and then the client is told. R340."""
    edge.upstream.script = once(hang_up)
    async with edge.line() as line:
        await line.send(GET)
        await line.replies(b"GET")
        edge.upstream.script = hang_up
        await line.send(GET)
        assert [r.status for r in await line.replies(b"GET", b"GET")] == [200, 502]
    assert len(edge.upstream.connections) == 2


async def test_a_connection_that_closed_while_idle_is_not_used(edge: Edge) -> None:
    """Once the gateway has seen the close, a POST goes on a new connection. RFC 9112 9.5."""
    edge.upstream.script = reply(KEPT)
    async with edge.line() as line:
        await line.send(GET)
        await line.replies(b"GET")
        await edge.upstream.until_quiet()

        async def is_forgotten() -> bool:
            samples = await scraped(edge.gateway)
            return samples.by_labels("ostiary_connections")[frozenset({("side", "upstream"), ("state", "idle")})] == 0

        await until(is_forgotten, what="the gateway to forget the closed connection")
        await line.send(POST)
        assert [r.status for r in await line.replies(b"GET", b"POST")] == [200, 200]


async def test_a_kept_connection_is_used_again(edge: Edge) -> None:
    """Requests of several clients, one after another, share a connection. RFC 9112 9.3."""

    async def keep(connection: RawConnection) -> None:
        while True:
            await connection.request()
            await connection.send(KEPT)

    edge.upstream.script = keep
    for _ in range(3):
        async with edge.line() as line:
            await line.send(GET + POST)
            assert [r.status for r in await line.replies(b"GET", b"POST")] == [200, 200]
    assert len(edge.upstream.connections) == 1


async def test_an_upstream_that_is_away_is_a_502_at_once(edge: Edge) -> None:
    """Nobody listens: told, not waited for. R340."""
    async with edge.line() as line:
        await line.send(b"GET /dead HTTP/1.1\r\nHost: gw.test\r\n\r\n")
        (told,) = await line.replies(b"GET")
    assert told.status == 502
    assert str(edge.upstream.port).encode() not in told.body
    assert b"127.0.0.1" not in told.body


async def test_an_upstream_that_says_nothing_is_a_504(edge: Edge) -> None:
    """One try, one deadline, and the upstream is let go; a reply that stands still is cut. R340, R194."""

    async def silence(connection: RawConnection) -> None:
        await connection.request()
        await connection.until_ended()

    async def half(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await connection.until_ended()

    edge.upstream.script = silence
    async with edge.line() as get, edge.line() as post, edge.line() as stalled:
        await get.send(GET)
        await post.send(POST)
        await edge.upstream.until(lambda: len(edge.upstream.requests) == 2)
        edge.upstream.script = half
        await stalled.send(GET)
        for line, method in ((get, b"GET"), (post, b"POST")):
            (told,) = await line.replies(method)
            assert told.status == 504
            assert b'"code": "upstream_timeout"' in told.body
        await stalled.until_ended()
        (told,) = await stalled.replies(b"GET")
        assert (told.status, told.body, told.is_cut) == (200, b"hello", True)
    await edge.upstream.until_quiet()
    assert len(edge.upstream.requests) == 3


async def test_a_head_with_bare_line_feeds_is_not_waited_for(edge: Edge) -> None:
    """A head whose lines end otherwise never ends as a head does: a 502 at once, not at the timeout. RFC 9112 2.2."""

    async def bare(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\nContent-Type: text/plain\nContent-Length: 2\n\nok")
        await connection.until_ended()

    edge.upstream.script = bare
    async with edge.line() as line:
        await line.send(GET)
        (told,) = await line.replies(b"GET")
        assert told.status == 502


@pytest.mark.parametrize("size", [65_000, 66_000], ids=["just not", "just"])
async def test_a_head_is_too_large_however_it_comes(edge: Edge, size: int) -> None:
    """The size alone decides, not in how many pieces a head is read. R345."""

    async def large(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: %b\r\n\r\n" % (b"x" * size))
        await connection.until_ended()

    edge.upstream.script = large
    async with edge.line() as line:
        await line.send(GET)
        (told,) = await line.replies(b"GET")
        assert told.status == (200 if size < 65_536 else 502)
        assert told.is_cut is False


async def test_a_route_may_be_quicker_than_its_upstream(edge: Edge) -> None:
    """The same silent upstream is given up where the route says so, while others still wait for it. R340."""

    async def silence(connection: RawConnection) -> None:
        await connection.request()
        await connection.until_ended()

    edge.upstream.script = silence
    async with edge.line() as patient, edge.line() as quick:
        await patient.send(GET)
        await edge.upstream.until(lambda: len(edge.upstream.requests) == 1)
        await quick.send(GET.replace(b"GET /", b"GET /quick/", 1))
        (told,) = await quick.replies(b"GET")
        assert told.status == 504
        assert not patient.received
        (told,) = await patient.replies(b"GET")
        assert told.status == 504


async def test_a_reply_streams_through(edge: Edge) -> None:
    """Each part reaches the client before the upstream sends the next. R190."""
    gates = [asyncio.Event() for _ in range(3)]

    async def drip(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number, gate in enumerate(gates):
            await connection.send(b"data: %d\n\n" % number)
            await gate.wait()

    edge.upstream.script = drip
    async with edge.line() as line:
        await line.send(GET)
        for number, gate in enumerate(gates):
            await line.until(lambda received, number=number: b"data: %d\n\n" % number in received)  # type: ignore[misc]
            assert not line.is_ended
            gate.set()
        (told,) = await line.replies(b"GET")
    assert (told.body, told.is_cut) == (b"data: 0\n\ndata: 1\n\ndata: 2\n\n", False)
