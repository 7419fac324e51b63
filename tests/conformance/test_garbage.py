"""Bytes that are no HTTP/1.1: told at once, or dropped; never forwarded, never fatal."""

import random

import pytest

from tests.fixtures.edge import OURS, Edge

pytestmark = pytest.mark.asyncio(loop_scope="session")

GARBAGE = [
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)), id="a TLS client hello"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", id="an HTTP/2 preface"),
    pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", id="an SSH banner"),
    pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n\r\n", id="a PROXY header"),
    pytest.param(b"\r\n\r\n\x00\r\nQUIT\n", id="a PROXY header of version 2"),
    pytest.param(b"\x00" * 100, id="NULs"),
    pytest.param(b"\xff" * 100, id="ones"),
    pytest.param(b"\n" * 100, id="newlines"),
    pytest.param(b"   \r\n\r\n", id="blanks"),
    pytest.param(b"{}\r\n\r\n", id="JSON"),
    pytest.param(b"<html></html>\r\n\r\n", id="HTML"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", id="a reply"),
    pytest.param(b"GET /a\r\n\r\n", id="HTTP/0.9"),
    pytest.param(b"GET /a\r\n", id="HTTP/0.9, one line"),
    pytest.param(b"GET /a HTTP/0.9\r\nHost: gw.test\r\n\r\n", id="HTTP/0.9, said"),
    pytest.param(b"GET /a HTTP/1.2\r\nHost: gw.test\r\n\r\n", id="HTTP/1.2"),
    pytest.param(b"GET /a HTTP/2.0\r\nHost: gw.test\r\n\r\n", id="HTTP/2.0"),
    pytest.param(b"GET /a HTTP/11\r\nHost: gw.test\r\n\r\n", id="HTTP/11"),
    pytest.param(b"GET /a http/1.1\r\nHost: gw.test\r\n\r\n", id="http/1.1"),
    pytest.param(b"OPTIONS /a RTSP/1.0\r\nHost: gw.test\r\n\r\n", id="RTSP"),
    pytest.param(b"get /a HTTP/1.1\r\nHost: gw.test\r\n\r\n", id="a method in lower case"),
    pytest.param(b"GE T /a HTTP/1.1\r\nHost: gw.test\r\n\r\n", id="a method of two words"),
    pytest.param(b"G\x00T /a HTTP/1.1\r\nHost: gw.test\r\n\r\n", id="NUL in the method"),
    pytest.param(b"GET  /a HTTP/1.1\r\nHost: gw.test\r\n\r\n", id="two spaces"),
    pytest.param(b"GET\t/a HTTP/1.1\r\nHost: gw.test\r\n\r\n", id="a tab for a space"),
    pytest.param(b"GET /a b HTTP/1.1\r\nHost: gw.test\r\n\r\n", id="a space in the target"),
    pytest.param(b"GET /a HTTP/1.1 \r\nHost: gw.test\r\n\r\n", id="a space behind the version"),
    pytest.param(b" GET /a HTTP/1.1\r\nHost: gw.test\r\n\r\n", id="a space in front"),
    pytest.param(b"GET /\xc3\xa9 HTTP/1.1\r\nHost: gw.test\r\n\r\n", id="UTF-8 in the target"),
    pytest.param(b"GET /a\x7f HTTP/1.1\r\nHost: gw.test\r\n\r\n", id="DEL in the target"),
    pytest.param(b"GET /a\x00 HTTP/1.1\r\nHost: gw.test\r\n\r\n", id="NUL in the target"),
]


@pytest.mark.threat("methods in disguise")
@pytest.mark.parametrize("sent", GARBAGE)
async def test_what_is_no_request_is_told_at_once(edge: Edge, sent: bytes) -> None:
    """400 and a close, without waiting for more. R340."""
    await edge.assert_refused(sent, 400, "bad_request")


@pytest.mark.parametrize("seed", range(20))
async def test_noise_neither_passes_nor_kills(edge: Edge, seed: int) -> None:
    """Random bytes reach nobody, and the next client is served. R075."""
    noise = random.Random(seed)
    data = noise.randbytes(noise.randrange(1, 3000))
    if seed % 2:  # noise behind a good beginning
        data = b"POST /a HTTP/1.1\r\nHost: gw.test\r\n" + data
    async with edge.line() as line:
        await line.send(data)
        await line.finish()
        await line.until_ended()
    assert edge.upstream.requests == []
    await edge.assert_serving()


HEAD = b"POST /a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize("size", range(1, len(HEAD), 3))
async def test_a_truncated_head_reaches_nobody(edge: Edge, size: int) -> None:
    """A client that leaves inside its head gets no reply, and no upstream hears of it. R193."""
    async with edge.line() as line:
        await line.send(HEAD[:size])
        await line.finish()
        assert await line.until_ended() == b""
    assert edge.upstream.received == []


@pytest.mark.parametrize("size", range(5))
async def test_a_truncated_body_never_completes(edge: Edge, size: int) -> None:
    """A body shorter than its length is an unfinished request for the upstream too. R193."""
    async with edge.line() as line:
        await line.send(HEAD + b"hello"[:size])
        await edge.upstream.until(
            lambda: any(c.received.endswith(b"\r\n" + b"hello"[:size]) for c in edge.upstream.connections)
        )
        await line.finish()
        await line.until_ended()
    await edge.upstream.until_quiet()
    assert edge.upstream.requests == []


async def test_a_body_longer_than_its_length_is_the_next_request(edge: Edge) -> None:
    """What is behind the body is read as a request, and refused as what it is. RFC 9112 6.3."""
    await edge.assert_refused(
        HEAD + b"hello, world\r\n\r\n",
        400,
        "bad_request",
        before=[b"POST /a HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"Content-Length: 5\r\n\r\nhello"],
    )
