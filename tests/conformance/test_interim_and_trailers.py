"""What comes before and after a reply's body: interim replies, and trailers."""

import pytest

from tests.fixtures.edge import Edge
from tests.fixtures.raw_upstream import reply

pytestmark = pytest.mark.asyncio(loop_scope="session")

GET = b"GET /x HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n"


async def test_early_hints_are_relayed(edge: Edge) -> None:
    """A 103 reaches the client before the reply does (RFC 8297)."""
    edge.upstream.script = reply(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    said = await edge.converse(GET)
    assert said.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_early_hints_are_not_for_http_10(edge: Edge) -> None:
    """HTTP/1.0 knows no interim replies (RFC 9110 15.2)."""
    edge.upstream.script = reply(
        b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    said = await edge.converse(b"GET /x HTTP/1.0\r\nHost: gw.test\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_endless_interim_replies_are_cut(edge: Edge) -> None:
    """An upstream that never comes to its reply is a 502."""
    edge.upstream.script = reply(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000)
    assert b"HTTP/1.1 502 Bad Gateway\r\n" in await edge.converse(GET)


async def test_trailers_are_relayed(edge: Edge) -> None:
    """A reply's trailer section comes behind its last chunk."""
    edge.upstream.script = reply(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n"
    )
    assert (await edge.converse(GET)).endswith(b"5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n")


@pytest.mark.threat("trailers")
@pytest.mark.parametrize(
    "trailer",
    [
        pytest.param(b"Content-Length: 7", id="framing"),
        pytest.param(b"Transfer-Encoding: chunked", id="coding"),
        pytest.param(b"Connection: close", id="hop-by-hop"),
        pytest.param(b"Set-Cookie: a=b", id="cookie"),
        pytest.param(b"X-User-Id: eve", id="identity"),
        pytest.param(b"x_user_id: eve", id="identity-twin"),
    ],
)
async def test_trailers_that_mean_too_much_go(edge: Edge, trailer: bytes) -> None:
    """No trailer frames, routes, authenticates, or says what only the gateway may say (RFC 9110 6.5.1)."""
    edge.upstream.script = reply(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n"
    )
    assert (await edge.converse(GET)).endswith(b"5\r\nhello\r\n0\r\n\r\n")
