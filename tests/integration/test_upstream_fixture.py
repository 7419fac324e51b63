"""The recording upstream tells exactly what arrived."""

import asyncio

import aiohttp

from tests.fixtures.upstream import RecordingUpstream, Reply


async def test_it_records_and_echoes(upstream: RecordingUpstream) -> None:
    """Method, raw target, headers in order with their case, and the body without its framing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    writer.write(
        b"POST /a%2Fb?q=1 HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nx-one:2 \r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: t\r\n\r\n"
    )
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.close()
    await writer.wait_closed()
    request = upstream.last
    assert (request.method, request.target, request.body) == ("POST", "/a%2Fb?q=1", b"abcde")
    assert request.headers[1:3] == (("X-One", "1"), ("x-one", "2"))
    assert request.all("X-ONE") == ["1", "2"]
    assert request.header("Absent") is None


async def test_its_answer_can_be_chosen_and_its_connections_are_kept(upstream: RecordingUpstream) -> None:
    """Two requests of one client share a connection; a 204 and an answer to HEAD have no body."""
    upstream.respond = lambda request: Reply(204 if request.target == "/none" else 503, b"no", {"X-It": "1"})
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{upstream.url}/none") as response:
            assert (response.status, await response.read()) == (204, b"")
        async with session.head(upstream.url) as response:
            assert (response.status, response.headers["X-It"], response.content_length) == (503, "1", 2)
        async with session.get(upstream.url) as response:
            assert (response.status, await response.read()) == (503, b"no")
    assert upstream.connections == 1
