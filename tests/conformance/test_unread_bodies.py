"""Replies that come before the request has been read: the rest of its body is never taken for a request."""

import pytest

from tests.conformance.conftest import SMALL_BODY
from tests.fixtures.edge import OURS, Edge
from tests.fixtures.raw_upstream import End, RawConnection

pytestmark = pytest.mark.asyncio(loop_scope="session")

INSIDE = b"GET /keyed HTTP/1.1\r\nHost: gw.test\r\nX-Api-Key: @KEY@\r\n\r\n"

REFUSALS = [
    pytest.param(b"POST /keyed", b"", 401, id="no key"),
    pytest.param(b"POST /keyed", b"X-Api-Key: ost_test_nonsense\r\n", 401, id="a malformed key"),
    pytest.param(b"POST /keyed", b"X-Api-Key: @KEY@\r\nX-Api-Key: other\r\n", 400, id="two keys"),
    pytest.param(b"POST /reading", b"", 405, id="wrong method"),
    pytest.param(b"POST /a%2fb", b"", 400, id="bad path"),
    pytest.param(b"POST /small", b"", 413, id="too large"),
    pytest.param(b"POST /dead", b"", 502, id="upstream away"),
    pytest.param(b"TRACE /a", b"", 405, id="TRACE"),
    pytest.param(b"POST /a", b"Expect: miracles\r\n", 417, id="an expectation that cannot be met"),
]


@pytest.mark.threat("unread body after an early answer")
@pytest.mark.parametrize(("line", "field", "status"), REFUSALS)
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_a_good_request_inside_a_refused_body_is_not_served(
    edge: Edge, line: bytes, field: bytes, status: int, is_chunked: bool
) -> None:
    """One refusal, then the connection ends: what is inside the body has no voice. R345."""
    inside = edge.filled(INSIDE)
    head = line + b" HTTP/1.1\r\nHost: gw.test\r\n" + edge.filled(field)
    if is_chunked:
        sent = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(inside), inside) + inside
    else:
        sent = head + b"Content-Length: %d\r\n\r\n" % len(inside) + inside + inside
    replies = await edge.line_says(sent)
    assert [reply.status for reply in replies] == [status]
    assert replies[0].closes
    await edge.upstream.until_quiet()
    assert edge.upstream.requests == []
    assert all(b"X-Api-Key" not in connection.received for connection in edge.upstream.connections)
    await edge.assert_serving()


async def test_a_refusal_gets_through_while_a_large_body_is_on_its_way(edge: Edge) -> None:
    """The client reads its 401 although it was still sending. RFC 9112 9.6."""
    replies = await edge.line_says(
        b"POST /keyed HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000
    )
    assert [reply.status for reply in replies] == [401]
    assert edge.upstream.received == []


@pytest.mark.threat("unread body after an early answer")
async def test_an_early_reply_ends_the_connection(edge: Edge) -> None:
    """The upstream answers at once: the client gets the answer, then the end; the rest goes nowhere. RFC 9112 9.6."""

    async def early(connection: RawConnection) -> None:
        await connection.head()
        await connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await connection.until_ended()

    edge.upstream.script = early
    inside = edge.filled(INSIDE)
    async with edge.line() as line:
        await line.send(b"POST /a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: %d\r\n\r\n" % (len(inside) + 4))
        (reply,) = await line.replies(b"POST")
        await line.send(b"body" + inside)
        await line.until_ended()
        assert await line.replies(b"POST", b"GET") == [reply]
    assert (reply.status, reply.body, reply.closes) == (403, b"no", True)
    (connection,) = edge.upstream.connections
    await edge.assert_serving()  # at once: the connection that waits for a body is not given to the next client
    await edge.upstream.until(lambda: connection.end is not End.OPEN)
    assert connection.requests == []
    assert b"keyed" not in connection.received


async def test_an_early_reply_to_a_request_that_is_then_finished(edge: Edge) -> None:
    """The upstream answers before the body, and goes on reading: both come through. RFC 9110 7.7."""

    async def early(connection: RawConnection) -> None:
        await connection.head()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await connection.request()
        await connection.send(b"cd")
        await connection.until_ended()

    edge.upstream.script = early
    async with edge.line() as line:
        await line.send(b"POST /a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 4\r\n\r\n12")
        await line.until(lambda received: received.endswith(b"ab"))
        await line.send(b"34")
        (reply,) = await line.replies(b"POST")
        await line.until_ended()
    assert (reply.body, reply.is_cut) == (b"abcd", False)
    assert edge.arrived() == [b"POST /a HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"Content-Length: 4\r\n\r\n1234"]


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_a_body_of_just_the_limit_passes(edge: Edge, is_chunked: bool) -> None:
    """The limit itself is allowed. R195."""
    body = b"x" * SMALL_BODY
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % SMALL_BODY
    coded = b"4\r\nxxxx\r\n6\r\nxxxxxx\r\n0\r\n\r\n" if is_chunked else body
    replies = await edge.line_says(
        b"POST /small HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n" + framing + b"\r\n\r\n" + coded
    )
    assert [reply.status for reply in replies] == [200]
    assert [request.body for request in edge.upstream.requests] == [body]


@pytest.mark.threat("unread body after an early answer")
async def test_a_body_that_grows_over_the_limit_never_completes(edge: Edge) -> None:
    """Chunks are counted as they come: 413, and the upstream sees an unfinished request. R195."""
    async with edge.line() as line:
        await line.send(b"POST /small HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await edge.upstream.until(lambda: any(c.received.endswith(b"hello\r\n") for c in edge.upstream.connections))
        await line.send(b"6\r\nworld!\r\n0\r\n\r\n")
        (reply,) = await line.replies(b"POST")
        await line.until_ended()
    assert reply.status == 413
    assert reply.closes
    await edge.upstream.until_quiet()
    assert edge.upstream.requests == []
    assert [connection.end for connection in edge.upstream.connections if connection.end is End.OPEN] == []
