"""When a connection lives on, when it ends, and how the client is told."""

import pytest

from tests.fixtures.edge import OURS, Edge
from tests.fixtures.raw_upstream import reply

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    b"1;x\r\no\r\n01\r\nk\r\n0\r\nT: u\r\n\r\n"
)
ENDLESS = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"
OLD = b"HTTP/1.0 200 OK\r\n\r\nok"

RULES = [
    pytest.param(b"1.1", b"", SIZED, True, id="1.1"),
    pytest.param(b"1.1", b"Connection: keep-alive\r\n", SIZED, True, id="1.1 keep-alive"),
    pytest.param(b"1.1", b"Connection: close\r\n", SIZED, False, id="1.1 close"),
    pytest.param(b"1.1", b"Connection: CLOSE\r\n", SIZED, False, id="1.1 CLOSE"),
    pytest.param(b"1.1", b"Connection: keep-alive, close\r\n", SIZED, False, id="1.1 both"),
    pytest.param(b"1.1", b"Connection: x\r\nConnection: close\r\n", SIZED, False, id="1.1 close in a second field"),
    pytest.param(b"1.1", b"Proxy-Connection: close\r\n", SIZED, True, id="1.1 Proxy-Connection"),
    pytest.param(b"1.1", b"", CHUNKED, True, id="1.1 a chunked reply"),
    pytest.param(b"1.1", b"", ENDLESS, True, id="1.1 a reply without a length"),
    pytest.param(b"1.1", b"", OLD, True, id="1.1 a reply in 1.0"),
    pytest.param(b"1.0", b"", SIZED, False, id="1.0"),
    pytest.param(b"1.0", b"Connection: keep-alive\r\n", SIZED, True, id="1.0 keep-alive"),
    pytest.param(b"1.0", b"Connection: Keep-Alive\r\n", SIZED, True, id="1.0 Keep-Alive"),
    pytest.param(b"1.0", b"Connection: keep-alive, close\r\n", SIZED, False, id="1.0 both"),
    pytest.param(b"1.0", b"Connection: keep-alive\r\n", CHUNKED, False, id="1.0 keep-alive, a chunked reply"),
    pytest.param(b"1.0", b"Connection: keep-alive\r\n", ENDLESS, False, id="1.0 keep-alive, no length"),
]


@pytest.mark.parametrize(("version", "line", "answer", "lives"), RULES)
async def test_a_connection_lives_on_or_ends(
    edge: Edge, version: bytes, line: bytes, answer: bytes, lives: bool
) -> None:
    """Version, Connection and framing decide, and the reply says it. RFC 9112 9.3."""
    edge.upstream.script = reply(answer)
    async with edge.line() as client:
        await client.send(b"GET /a HTTP/%b\r\nHost: gw.test\r\n%b\r\n" % (version, line))
        (first,) = await client.replies(b"GET")
        assert first.body == b"ok" or not lives
        assert first.closes is not lives
        if version == b"1.0":
            assert not first.all(b"Transfer-Encoding"), "HTTP/1.0 knows no chunks"
            assert first.all(b"Connection") == [b"keep-alive" if lives else b"close"]
        if lives:
            await client.send(b"GET /b HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n")
        replies = await client.replies(b"GET", b"GET", b"GET")
        assert client.is_ended
    assert [(r.status, r.body, r.is_cut) for r in replies] == [(200, b"ok", False)] * (2 if lives else 1)
    assert edge.arrived()[0] == b"GET /a HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"\r\n"


async def test_a_client_of_http_10_need_not_name_a_host(edge: Edge) -> None:
    """The upstream gets its own Host, and no empty X-Forwarded-Host, also on a connection that named one. R024."""
    async with edge.line() as client:
        await client.send(b"GET /a HTTP/1.0\r\nHost: gw.test\r\nConnection: keep-alive\r\n\r\n")
        await client.replies(b"GET")
        await client.send(b"GET /b HTTP/1.0\r\n\r\n")
        await client.until_ended()
    assert edge.arrived()[1] == (
        b"GET /b HTTP/1.1\r\nHost: upstream\r\n" + OURS.replace(b"X-Forwarded-Host: gw.test\r\n", b"") + b"\r\n"
    )


async def test_hop_by_hop_fields_of_a_reply_stay_behind(edge: Edge) -> None:
    """What was said between the upstream and the gateway is not said to the client. R024."""
    edge.upstream.script = reply(
        b"HTTP/1.1 200 OK\r\n"
        b"Connection: close, X-Hop\r\n"
        b"Keep-Alive: timeout=5\r\n"
        b"X-Hop: 1\r\n"
        b"Proxy-Authenticate: Basic\r\n"
        b"Trailer: T\r\n"
        b"Upgrade: h2c\r\n"
        b"X-Stays: 2\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    async with edge.line() as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n")
        (answer,) = await client.replies(b"GET")
    names = [name for name, _ in answer.fields]
    assert names == [b"X-Stays", b"Content-Length", b"X-Request-Id"]


@pytest.mark.parametrize(
    ("request_line", "status"),
    [(b"GET /keyed", 401), (b"DELETE /reading", 405), (b"GET /dead", 502)],
)
async def test_a_refusal_without_a_body_leaves_the_connection(edge: Edge, request_line: bytes, status: int) -> None:
    """A refused request that is read to its end costs no connection. RFC 9112 9.3."""
    async with edge.line() as client:
        await client.send(request_line + b" HTTP/1.1\r\nHost: gw.test\r\n\r\n")
        (refusal,) = await client.replies(request_line.split()[0])
        assert refusal.status == status
        assert not refusal.closes
        await client.send(b"GET / HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n")
        assert [r.status for r in await client.replies(request_line.split()[0], b"GET")] == [status, 200]


async def test_an_idle_connection_is_closed_without_a_word(edge: Edge) -> None:
    """Between requests there is nothing to complain about. RFC 9112 9.5."""
    async with edge.line() as fresh, edge.line() as used:
        await used.send(b"GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n")
        (answer,) = await used.replies(b"GET")
        assert len(await fresh.until_ended()) == 0
        assert await used.replies(b"GET", b"GET") == [answer]
