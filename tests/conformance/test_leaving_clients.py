"""Clients that leave: the upstream is let go, and never gets a whole request that was not sent."""

import asyncio
import socket
import struct

import pytest

from gateway.embedded.server_process import HOST
from tests.conformance.conftest import TIMEOUT_SECONDS
from tests.fixtures.edge import OURS, Edge
from tests.fixtures.raw_upstream import OK, End, RawConnection, reply

pytestmark = pytest.mark.asyncio(loop_scope="session")

GET = b"GET /a HTTP/1.1\r\nHost: gw.test\r\n\r\n"
UPLOADS = [
    pytest.param(b"Content-Length: 100\r\n\r\nhello", b"hello", id="length"),
    pytest.param(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"5\r\nhello\r\n", id="between chunks"),
    pytest.param(b"Transfer-Encoding: chunked\r\n\r\n9\r\nhello", b"5\r\nhello\r\n", id="inside a chunk"),
    pytest.param(
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", b"5\r\nhello\r\n", id="before the last line"
    ),
]


@pytest.mark.parametrize(("sent", "arrived"), UPLOADS)
@pytest.mark.parametrize("is_hard", [False, True], ids=["FIN", "RST"])
async def test_an_upload_that_is_given_up_never_completes(
    edge: Edge, sent: bytes, arrived: bytes, is_hard: bool
) -> None:
    """The upstream sees the part that came, and a close. R193."""
    async with edge.line() as line:
        await line.send(b"POST /a HTTP/1.1\r\nHost: gw.test\r\n" + sent)
        await edge.upstream.until(lambda: any(c.received.endswith(arrived) for c in edge.upstream.connections))
        if is_hard:
            line.abort()
        else:
            await line.finish()
        await edge.upstream.until_quiet()
    assert edge.upstream.requests == []
    await edge.assert_serving()


@pytest.mark.parametrize("is_hard", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("target", [b"/a", b"/keyed"], ids=["connecting", "admitting"])
async def test_an_upload_that_waits_in_the_gateway_is_given_up(edge: Edge, target: bytes, is_hard: bool) -> None:
    """What waits for a connection or for a verdict is not sent on as if it were whole. R193."""
    async with edge.line() as line:
        key = edge.caller.secret.encode()
        head = b"POST %b HTTP/1.1\r\nHost: gw.test\r\nX-Api-Key: %b\r\n" % (target, key)
        await line.send(head + b"Content-Length: 100\r\n\r\nhello")
        if is_hard:
            line.abort()
        else:
            await line.finish()
            assert await line.until_ended() == b""
    await edge.assert_answered()
    await edge.upstream.until_quiet()
    assert [request.target for request in edge.upstream.requests] == [b"/good"]


async def test_a_download_that_is_given_up_lets_the_upstream_go(edge: Edge) -> None:
    """A client that leaves costs the upstream no more work. R193."""

    async def endless(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        watch = asyncio.ensure_future(connection.until_ended())
        while not watch.done():
            await connection.send(b"5\r\nhello\r\n")
            await asyncio.wait({watch}, timeout=0.01)

    edge.upstream.script = endless
    async with edge.line() as polite, edge.line() as rude:
        for line in (polite, rude):
            await line.send(GET)
            await line.until(lambda received: b"hello" in received)
        rude.abort()
        await polite.close()
        await edge.upstream.until_quiet()
    assert [connection.end is not End.OPEN for connection in edge.upstream.connections] == [True, True]


async def test_a_client_that_leaves_before_the_reply_lets_the_upstream_go(edge: Edge) -> None:
    """While the upstream thinks, too. R193."""

    async def think(connection: RawConnection) -> None:
        await connection.request()
        await connection.until_ended()

    edge.upstream.script = think
    async with edge.line() as line:
        await line.send(GET)
        await edge.upstream.until(lambda: len(edge.upstream.requests) == 1)
        line.abort()
        await edge.upstream.until_quiet()
    await edge.assert_serving()


@pytest.mark.parametrize("target", [b"/a", b"/keyed"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_a_client_that_has_said_all_gets_its_reply(edge: Edge, target: bytes, is_chunked: bool) -> None:
    """Closing the sending side is not leaving. RFC 9112 9.6."""
    gate = asyncio.Event()

    async def slowly(connection: RawConnection) -> None:
        await connection.request()
        await gate.wait()
        await connection.send(OK)
        await connection.close()

    edge.upstream.script = slowly
    async with edge.line() as line:
        body = (
            b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
            if is_chunked
            else b"Content-Length: 4\r\n\r\nbody"
        )
        await line.send(edge.filled(b"POST %b HTTP/1.1\r\nHost: gw.test\r\nX-Api-Key: @KEY@\r\n" % target + body))
        await line.finish()
        await edge.upstream.until(lambda: len(edge.upstream.requests) == 1)
        await edge.settle()
        gate.set()
        (told,) = await line.replies(b"POST")
        await line.until_ended()
    assert (told.status, told.body, told.is_cut) == (200, b"ok", False)


@pytest.mark.parametrize("attempt", range(10))
async def test_a_pipeline_is_answered_behind_a_closed_sending_side(edge: Edge, attempt: int) -> None:
    """All that was asked before is answered. RFC 9112 9.6."""
    async with edge.line() as line:
        await line.send(GET * 5)
        await line.finish()
        assert [r.status for r in await line.replies(*[b"GET"] * 5)] == [200] * 5
        await line.until_ended()


async def test_a_refused_client_that_has_said_all_gets_its_refusal(edge: Edge) -> None:
    """Also behind half a body. RFC 9112 9.6."""
    async with edge.line() as line:
        await line.send(b"POST /keyed HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 100\r\n\r\nhalf")
        await line.finish()
        assert [r.status for r in await line.replies(b"POST")] == [401]
        await line.until_ended()
    assert edge.upstream.received == []


@pytest.mark.threat("readers that never read")
@pytest.mark.parametrize("megabytes", [1, 8])
async def test_a_slow_reader_harms_nobody_else(edge: Edge, megabytes: int) -> None:
    """The upstream waits with its client, the reply arrives whole, and the kept connection serves the next one."""
    size = megabytes * 2**20 + 4711

    async def large(connection: RawConnection) -> None:
        while True:
            request = await connection.request()
            body = b"x" * size if request.target == b"/large" else b"ok"
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    edge.upstream.script = large
    loop = asyncio.get_running_loop()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        await loop.sock_connect(slow, (HOST, edge.gateway.proxy_port))
        await loop.sock_sendall(slow, b"GET /large HTTP/1.1\r\nHost: gw.test\r\n\r\n")
        head = await loop.sock_recv(slow, 100)
        assert head.startswith(b"HTTP/1.1 200 OK")
        await edge.assert_answered()
        received = len(head)
        while received < size:
            received += len(await loop.sock_recv(slow, 2**20))
        for _ in range(3):
            await edge.assert_answered()


async def test_a_reply_that_is_taken_late_arrives_whole(edge: Edge) -> None:
    """The time between two requests does not end a connection on which the client is still being sent a reply."""
    size = 700_000  # more than the kernel takes at once, less than the gateway holds beside
    edge.upstream.script = reply(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    loop = asyncio.get_running_loop()
    with socket.socket() as late:
        late.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        late.setblocking(False)
        await loop.sock_connect(late, (HOST, edge.gateway.proxy_port))
        await loop.sock_sendall(late, GET)
        await asyncio.sleep(1.5 * TIMEOUT_SECONDS)  # longer than a connection may be idle, and far from twice as long
        received = 0
        while data := await loop.sock_recv(late, 65_536):
            received += len(data)
    assert received > size


async def test_a_client_that_was_reset_before_it_was_met_is_not_served(edge: Edge) -> None:
    """What it sent can still be read, but not its address: no rule for addresses would hold, nor the trail. R297."""

    async def kept(connection: RawConnection) -> None:
        while True:
            await connection.request()
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    edge.upstream.script = kept
    await edge.assert_answered()  # there is a connection now on which a request goes out at once
    edge.gateway.pause()
    try:
        for _ in range(3):
            with socket.create_connection((HOST, edge.gateway.proxy_port)) as rude:
                rude.sendall(GET)
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        edge.gateway.resume()
    await edge.settle()
    await edge.assert_answered()
    assert [request.target for request in edge.upstream.requests] == [b"/good", b"/good"]


async def test_an_upload_to_a_slow_upstream_waits_and_arrives(edge: Edge) -> None:
    """The client waits with its upstream, and nothing is lost or added. R025."""
    size = 8 * 2**20
    gate = asyncio.Event()

    async def later(connection: RawConnection) -> None:
        await connection.head()
        await gate.wait()
        await connection.request()
        await connection.send(OK)
        await connection.close()

    edge.upstream.script = later
    body = bytes(range(256)) * (size // 256)
    async with edge.line() as line:
        sending = asyncio.ensure_future(
            line.send(b"POST /a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: %d\r\n\r\n" % size + body)
        )
        await edge.upstream.until(lambda: any(b"Content-Length" in c.received for c in edge.upstream.connections))
        await edge.settle()
        gate.set()
        await sending
        assert [r.status for r in await line.replies(b"POST")] == [200]
    (request,) = edge.upstream.requests
    assert request.body == body
    assert edge.plain(request.raw[: -len(body)]) == (
        b"POST /a HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"Content-Length: %d\r\n\r\n" % size
    )


async def test_an_upstream_may_think_about_a_large_upload(edge: Edge) -> None:
    """Once the body has gone, the upstream has its own time to answer, not what is left of the client's. R340."""
    gate = asyncio.Event()

    async def thoughtful(connection: RawConnection) -> None:
        await connection.head()
        await gate.wait()
        await connection.request()
        await asyncio.sleep(TIMEOUT_SECONDS + 0.3)
        await connection.send(OK)
        await connection.close()

    async def upload(size: int) -> list[int]:
        async with edge.line() as line:
            head = b"POST /a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: %d\r\n\r\n" % size
            await line.send(head + b"x" * size)
            return [r.status for r in await line.replies(b"POST")]

    # Among so many sizes are some whose last bytes are what fills the way to the upstream.
    edge.upstream.script = thoughtful
    sizes = range(2_000_000, 6_000_000, 400_000)
    uploads = asyncio.gather(*map(upload, sizes))
    await edge.upstream.until(lambda: len(edge.upstream.connections) == len(sizes))
    for _ in range(5):
        await edge.settle()
    gate.set()
    assert await uploads == [[200]] * len(sizes)


async def test_an_early_reply_to_a_large_upload_frees_the_connections(edge: Edge) -> None:
    """The upstream answers without reading: the client is told, and both sides end. RFC 9112 9.6."""

    async def early(connection: RawConnection) -> None:
        await connection.head()
        await connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await connection.until_ended()

    edge.upstream.script = early
    async with edge.line() as line:
        sending = asyncio.ensure_future(
            line.send(b"POST /a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 30000000\r\n\r\n" + b"x" * 3_000_000)
        )
        (told,) = await line.replies(b"POST")
        assert (told.status, told.body) == (413, b"no")
        await line.until_ended()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    await edge.upstream.until_quiet()
    edge.upstream.script = reply(OK)
    await edge.assert_serving()
