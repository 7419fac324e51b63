"""Chunked bodies: decoded strictly, encoded anew; nothing of the client's coding travels."""

import pytest

from tests.fixtures.edge import OURS, Edge
from tests.fixtures.raw_upstream import End

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEAD = b"POST /a HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
ARRIVED = b"POST /a HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"Transfer-Encoding: chunked\r\n\r\n"

GOOD = [
    pytest.param(b"0\r\n\r\n", b"", id="empty"),
    pytest.param(b"5\r\nhello\r\n0\r\n\r\n", b"hello", id="one chunk"),
    pytest.param(b"5\r\nhello\r\n1\r\n \r\n00005\r\nworld\r\n000\r\n\r\n", b"hello world", id="leading zeros"),
    pytest.param(b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2, id="hex digits of both cases"),
    pytest.param(b"5;a\r\nhello\r\n0;b=c\r\n\r\n", b"hello", id="extensions"),
    pytest.param(b'5;a="b;\\"c"\r\nhello\r\n0\r\n\r\n', b"hello", id="a quoted extension"),
    pytest.param(b"5 ;a\r\nhello\r\n0\r\n\r\n", b"hello", id="a blank before an extension"),
    pytest.param(b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", id="CRLF is payload"),
    pytest.param(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n", id="the payload is a last chunk"),
    pytest.param(b"0\r\nX-Sum: 1\r\n\r\n", b"", id="a trailer"),
    pytest.param(b"1\r\na\r\n0\r\nX-User-Id: root\r\nContent-Length: 9\r\n\r\n", b"a", id="forged fields as trailers"),
    pytest.param(b"1\r\na\r\n" * 500 + b"0\r\n\r\n", b"a" * 500, id="many small chunks"),
]


@pytest.mark.threat("chunk lines", "trailers")
@pytest.mark.parametrize(("coded", "payload"), GOOD)
@pytest.mark.parametrize("is_bytewise", [False, True], ids=["whole", "bytewise"])
async def test_a_chunked_body_arrives_as_the_same_payload(
    edge: Edge, coded: bytes, payload: bytes, is_bytewise: bool
) -> None:
    """The payload arrives byte for byte, in chunks of the gateway's own, without extensions and trailers. R025."""
    replies = await edge.line_says(HEAD + coded, is_bytewise=is_bytewise)
    assert [reply.status for reply in replies] == [200]
    (request,) = edge.upstream.requests
    assert edge.plain(request.raw).startswith(ARRIVED)
    assert request.body == payload
    if not is_bytewise:
        whole = b"%x\r\n%b\r\n0\r\n\r\n" % (len(payload), payload) if payload else b"0\r\n\r\n"
        assert edge.arrived() == [ARRIVED + whole]


BAD = [
    pytest.param(b"x\r\nhello\r\n0\r\n\r\n", id="no number"),
    pytest.param(b"\r\nhello\r\n0\r\n\r\n", id="no size"),
    pytest.param(b"0x5\r\nhello\r\n0\r\n\r\n", id="0x"),
    pytest.param(b"-5\r\nhello\r\n0\r\n\r\n", id="negative"),
    pytest.param(b"+5\r\nhello\r\n0\r\n\r\n", id="plus"),
    pytest.param(b" 5\r\nhello\r\n0\r\n\r\n", id="blank before the size"),
    pytest.param(b"5 \r\nhello\r\n0\r\n\r\n", id="blank behind the size"),
    pytest.param(b"5\nhello\r\n0\r\n\r\n", id="LF behind the size"),
    pytest.param(b"5\rXhello\r\n0\r\n\r\n", id="CR behind the size"),
    pytest.param(b"5\r\nhello\n0\r\n\r\n", id="LF behind the data"),
    pytest.param(b"5\r\nhelloX\r\n0\r\n\r\n", id="data longer than said"),
    pytest.param(b"6\r\nhello\r\n0\r\n\r\n", id="data shorter than said"),
    pytest.param(b"5;a\nb\r\nhello\r\n0\r\n\r\n", id="LF in an extension"),
    pytest.param(b"5;a\rb\r\nhello\r\n0\r\n\r\n", id="CR in an extension"),
    pytest.param(b"5;=\r\nhello\r\n0\r\n\r\n", id="an extension without a name"),
    pytest.param(b"5;\x00\r\nhello\r\n0\r\n\r\n", id="NUL in an extension"),
    pytest.param(b"FFFFFFFFFFFFFFFF5\r\nhello\r\n0\r\n\r\n", id="more than 64 bits"),
    pytest.param(b"5;" + b"a" * 5000 + b"\r\nhello\r\n0\r\n\r\n", id="a very long extension"),
    pytest.param(b"1;aaaaaaaa\r\na\r\n" * 3000 + b"0\r\n\r\n", id="very many extensions"),
    pytest.param(b"0\r\nX: y\nZ: w\r\n\r\n", id="LF in a trailer"),
    pytest.param(b"0\r\n folded\r\n\r\n", id="a folded trailer"),
    pytest.param(b"0\r\nno colon\r\n\r\n", id="a trailer without a colon"),
    pytest.param(b"0\r\nX : y\r\n\r\n", id="a trailer with a blank before its colon"),
    pytest.param(b"0\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", id="a very long trailer"),
    pytest.param(b"0\r\n" + b"X: y\r\n" * 4000 + b"\r\n", id="very many trailers"),
    pytest.param(b"5\r\nhello\r\n0\r\n\n", id="LF ends the body"),
]


@pytest.mark.threat("chunk lines", "size bombs")
@pytest.mark.parametrize("coded", BAD)
@pytest.mark.parametrize("is_bytewise", [False, True], ids=["whole", "bytewise"])
async def test_a_malformed_chunked_body_never_completes(edge: Edge, coded: bytes, is_bytewise: bool) -> None:
    """The client gets 400, the upstream an unfinished request and a close, and nothing behind it is served. R341."""
    hidden = b"GET /hidden HTTP/1.1\r\nHost: gw.test\r\n\r\n"
    replies = await edge.line_says(HEAD + coded + hidden, is_bytewise=is_bytewise and len(coded) < 1000)
    assert [reply.status for reply in replies] == [400]
    assert replies[0].closes
    await edge.upstream.until_quiet()
    assert edge.upstream.requests == []
    for connection in edge.upstream.connections:
        assert connection.end is not End.OPEN
        assert b"hidden" not in connection.received
    await edge.assert_serving()


async def test_an_unfinished_chunked_body_never_completes(edge: Edge) -> None:
    """A client that leaves inside a chunk leaves an unfinished request. R193."""
    async with edge.line() as line:
        await line.send(HEAD + b"5\r\nhel")
        await edge.upstream.until(lambda: any(c.received.endswith(b"hel\r\n") for c in edge.upstream.connections))
    await edge.upstream.until_quiet()
    assert edge.upstream.requests == []


async def test_chunks_stream_through(edge: Edge) -> None:
    """A chunk arrives before the next one is sent. R190."""
    async with edge.line() as line:
        await line.send(HEAD)
        for part in (b"one", b"two", b"three"):
            await line.send(b"%x\r\n%b\r\n" % (len(part), part))
            await edge.upstream.until(
                lambda part=part: any(c.received.endswith(part + b"\r\n") for c in edge.upstream.connections)  # type: ignore[misc]
            )
        await line.send(b"0\r\n\r\n")
        assert [reply.status for reply in await line.replies(b"POST")] == [200]
    assert [request.body for request in edge.upstream.requests] == [b"onetwothree"]
