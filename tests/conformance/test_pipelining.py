"""Requests sent without waiting for replies: answered in order, one after another."""

import pytest

from tests.fixtures.edge import OURS, Edge
from tests.fixtures.raw_upstream import RawConnection
from tests.fixtures.strict import StrictRequest

pytestmark = pytest.mark.asyncio(loop_scope="session")


def get(target: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([b"GET %b HTTP/1.1" % target, b"Host: gw.test", *lines]) + b"\r\n\r\n"


def told(request: StrictRequest) -> bytes:
    body = request.method + b" " + request.target + b" " + request.body
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + (b"" if request.method == b"HEAD" else body)


async def tell(connection: RawConnection) -> None:
    """Answer each request with what it was, and keep the connection."""
    while True:
        await connection.send(told(await connection.request()))


async def test_replies_come_in_order(edge: Edge) -> None:
    """A pipeline of all kinds is answered in its order. RFC 9112 9.3.2."""
    edge.upstream.script = tell
    async with edge.line() as line:
        await line.send(
            get(b"/1")
            + b"POST /2 HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 5\r\n\r\nGET /"
            + b"HEAD /3 HTTP/1.1\r\nHost: gw.test\r\n\r\n"
            + b"POST /4 HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
            + get(b"/keyed")
            + b"DELETE /reading HTTP/1.1\r\nHost: gw.test\r\n\r\n"
            + get(b"/5", b"Connection: close")
            + get(b"/never")
        )
        replies = await line.replies(b"GET", b"POST", b"HEAD", b"POST", b"GET", b"DELETE", b"GET", b"GET")
        assert line.is_ended
    assert [reply.status for reply in replies] == [200, 200, 200, 200, 401, 405, 200]
    assert [reply.body for reply in replies if reply.status == 200] == [
        b"GET /1 ",
        b"POST /2 GET /",
        b"",
        b"POST /4 abc",
        b"GET /5 ",
    ]
    assert [request.target for request in edge.upstream.requests] == [b"/1", b"/2", b"/3", b"/4", b"/5"]


async def test_the_next_request_waits_for_the_reply_before_it(edge: Edge) -> None:
    """The upstream is asked one thing at a time, so no reply can overtake another. RFC 9112 9.3.2."""
    seen_while_waiting: list[int] = []

    async def slowly(connection: RawConnection) -> None:
        while True:
            request = await connection.request()
            if request.target == b"/slow":
                # Another client's exchange goes through and back meanwhile.
                async with edge.line() as other:
                    await other.send(get(b"/other"))
                    await other.replies(b"GET")
                seen_while_waiting.append(sum(r.target == b"/fast" for r in edge.upstream.requests))
            await connection.send(told(request))

    edge.upstream.script = slowly
    async with edge.line() as line:
        await line.send(get(b"/slow") + get(b"/fast"))
        assert [reply.body for reply in await line.replies(b"GET", b"GET")] == [b"GET /slow ", b"GET /fast "]
    assert seen_while_waiting == [0]


async def test_a_long_pipeline_is_answered_to_its_end(edge: Edge) -> None:
    """More requests than the gateway holds in memory wait in the socket, and none is lost. RFC 9112 9.3.2."""
    count = 2500
    edge.upstream.script = tell
    async with edge.line() as line:
        await line.send(b"".join(get(b"/%d" % number) for number in range(count)))
        replies = await line.until(lambda received: received.count(b"\r\n\r\n") >= count)
    assert replies.count(b"GET /%d " % (count - 1)) == 1
    assert [request.target for request in edge.upstream.requests] == [b"/%d" % number for number in range(count)]


@pytest.mark.parametrize("cut", range(1, len(get(b"/2")), 7))
async def test_a_pipeline_may_be_cut_anywhere(edge: Edge, cut: int) -> None:
    """How bytes are packed does not matter. RFC 9112 9.3.2."""
    edge.upstream.script = tell
    both = get(b"/1") + get(b"/2", b"Connection: close")
    async with edge.line() as line:
        await line.send(both[: len(get(b"/1")) + cut])
        await line.replies(b"GET")
        await line.send(both[len(get(b"/1")) + cut :])
        assert [reply.body for reply in await line.replies(b"GET", b"GET")] == [b"GET /1 ", b"GET /2 "]


async def test_an_empty_line_between_requests_is_forgiven(edge: Edge) -> None:
    """Some old clients send one after a body. RFC 9112 2.2."""
    edge.upstream.script = tell
    async with edge.line() as line:
        await line.send(b"POST /1 HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 1\r\n\r\nx\r\n" + get(b"/2"))
        assert [reply.status for reply in await line.replies(b"POST", b"GET")] == [200, 200]
        await line.send(b"\r\n")
        await line.send(get(b"/3"))
        assert [reply.status for reply in await line.replies(b"POST", b"GET", b"GET")] == [200] * 3


@pytest.mark.threat("answer of another request", "forged identity")
async def test_one_callers_identity_does_not_stay_on_the_connection(edge: Edge) -> None:
    """Each request of a connection is admitted by itself. R020."""
    edge.upstream.script = tell
    keyed = get(b"/keyed", b"X-Api-Key: " + edge.caller.secret.encode())
    async with edge.line() as line:
        await line.send(keyed + get(b"/open") + get(b"/keyed") + keyed)
        replies = await line.replies(b"GET", b"GET", b"GET", b"GET")
    assert [reply.status for reply in replies] == [200, 200, 401, 200]
    with_identity = [b"X-User-Id" in request.raw for request in edge.upstream.requests]
    assert with_identity == [True, False, True]
    assert edge.plain(edge.upstream.requests[1].raw) == b"GET /open HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"\r\n"
