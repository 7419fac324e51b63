"""HEAD, 204 and 304: replies that have no body, whatever their fields say."""

import contextlib

import pytest

from tests.fixtures.edge import Edge
from tests.fixtures.raw_upstream import OK, ConnectionEndedError, RawConnection, reply

pytestmark = pytest.mark.asyncio(loop_scope="session")

NEXT = b"GET /next HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n"

BODILESS = [
    pytest.param(b"HEAD", b"200 OK\r\nContent-Length: 5", [b"5"], id="HEAD with a length"),
    pytest.param(b"HEAD", b"200 OK", [], id="HEAD without one"),
    pytest.param(b"HEAD", b"200 OK\r\nTransfer-Encoding: chunked", [], id="HEAD, chunked"),
    pytest.param(b"HEAD", b"404 Not Found\r\nContent-Length: 5", [b"5"], id="HEAD, 404"),
    pytest.param(b"GET", b"204 No Content", [], id="204"),
    pytest.param(b"GET", b"204 No Content\r\nContent-Length: 0", [], id="204 with a length"),
    pytest.param(b"DELETE", b"204 No Content", [], id="204 to DELETE"),
    pytest.param(b"GET", b"304 Not Modified", [], id="304"),
    pytest.param(b"GET", b'304 Not Modified\r\nETag: "a"\r\nContent-Length: 5', [b"5"], id="304 with a length"),
]


@pytest.mark.parametrize(("method", "answer", "lengths"), BODILESS)
@pytest.mark.parametrize("extra", [b"", b"hello"], ids=["clean", "a body all the same"])
async def test_a_bodiless_reply_leaves_the_connection_in_step(
    edge: Edge, method: bytes, answer: bytes, lengths: list[bytes], extra: bytes
) -> None:
    """The next reply on the connection is the next request's; bytes an upstream adds are dropped. RFC 9112 6.3."""
    edge.upstream.script = reply(b"HTTP/1.1 " + answer + b"\r\n\r\n" + extra)
    async with edge.line() as line:
        await line.send(method + b" /a HTTP/1.1\r\nHost: gw.test\r\n\r\n")
        (first,) = await line.replies(method)
        edge.upstream.script = reply(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
        await line.send(NEXT)
        replies = await line.replies(method, b"GET", b"GET")
        assert line.is_ended
    assert first.status == int(answer[:3])
    assert first.all(b"Content-Length") == lengths
    assert not first.all(b"Transfer-Encoding")
    assert [r.body for r in replies] == [b"", b"next"]


@pytest.mark.parametrize("field", [b"Content-Length: 5", b"Transfer-Encoding: chunked"], ids=["length", "chunked"])
async def test_a_body_that_is_announced_where_none_may_be_is_not_waited_for(edge: Edge, field: bytes) -> None:
    """What comes later on that connection answers nobody: the next request goes out on another one. RFC 9110 15.3.5."""

    async def announcing(connection: RawConnection) -> None:
        await connection.request()
        if len(edge.upstream.connections) > 1:
            await connection.send(OK)
            return
        await connection.send(b"HTTP/1.1 204 No Content\r\n" + field + b"\r\n\r\n")
        with contextlib.suppress(ConnectionEndedError):
            await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")

    edge.upstream.script = announcing
    async with edge.line() as line:
        await line.send(b"GET /a HTTP/1.1\r\nHost: gw.test\r\n\r\n")
        await line.replies(b"GET")
        await line.send(NEXT)
        replies = await line.replies(b"GET", b"GET")
    assert [(reply.status, reply.body) for reply in replies] == [(204, b""), (200, b"ok")]


@pytest.mark.parametrize("target", [b"/keyed", b"/dead"])
async def test_the_gateways_own_replies_to_head_have_no_body(edge: Edge, target: bytes) -> None:
    """A refusal of HEAD is a head. RFC 9110 9.3.2."""
    async with edge.line() as line:
        await line.send(b"HEAD %b HTTP/1.1\r\nHost: gw.test\r\n\r\n" % target + NEXT)
        refusal, good = await line.replies(b"HEAD", b"GET")
    assert refusal.status in (401, 502)
    assert int(refusal.all(b"Content-Length")[0]) > 0
    assert good.status == 200
