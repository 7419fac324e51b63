"""Upgrades that are none: nothing passes unread before both sides have switched, and only what the route allows may."""

import base64
import hashlib

import pytest

from tests.fixtures.edge import OURS, Edge
from tests.fixtures.raw_upstream import OK, RawConnection, Script, reply

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # RFC 6455 1.3
ASKED = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n"
SOCKET = b"GET /socket HTTP/1.1\r\nHost: gw.test\r\n" + ASKED + b"\r\n"
HIDDEN = b"GET /keyed HTTP/1.1\r\nHost: gw.test\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b\r\n"


def accept(answer: bytes) -> bytes:
    return b"Sec-WebSocket-Accept: " + answer + b"\r\n"


def answering(answer: bytes) -> Script:
    """Take one head, answer, and record what follows."""

    async def script(connection: RawConnection) -> None:
        await connection.head()
        await connection.send(answer)
        await connection.until_ended()

    return script


def behind_the_head(edge: Edge) -> list[bytes]:
    """What the upstream has got behind the first head of each connection."""
    return [received.partition(b"\r\n\r\n")[2] for received in edge.upstream.received]


@pytest.mark.threat("upgrade without a switch")
@pytest.mark.parametrize("is_bytewise", [False, True], ids=["whole", "bytewise"])
async def test_nothing_passes_before_the_switch(edge: Edge, is_bytewise: bool) -> None:
    """What comes behind the handshake waits for the upstream's 101, and then goes through the tunnel."""
    edge.upstream.script = RawConnection.until_ended
    async with edge.line() as line:
        await line.send(SOCKET + b"behind it", is_bytewise=is_bytewise)
        await edge.upstream.until(lambda: any(b"\r\n\r\n" in received for received in edge.upstream.received))
        await edge.settle()
        assert behind_the_head(edge)[0] == b""
    await edge.upstream.until_quiet()
    edge.upstream.connections.clear()
    edge.upstream.script = answering(SWITCH % (b"websocket", accept(ACCEPT)))
    async with edge.line() as line:
        await line.send(SOCKET + b"behind it", is_bytewise=is_bytewise)
        await line.until(lambda received: b"\r\n\r\n" in received)
        await edge.upstream.until(lambda: behind_the_head(edge) == [b"behind it"])
    await edge.upstream.until_quiet()
    edge.upstream.connections.clear()  # what passed the tunnel is no HTTP


NO_SWITCH = [
    pytest.param(OK, 200, id="an ordinary reply"),
    pytest.param(OK.replace(b"200 OK", b"426 Upgrade Required\r\nUpgrade: websocket"), 426, id="426"),
    pytest.param(
        OK.replace(b"200 OK\r\n", SWITCH[len("HTTP/1.1 ") :].replace(b"101 Switching Protocols", b"200 OK")[:-2])
        % (b"websocket", accept(ACCEPT)),
        200,
        id="a 200 that looks like a switch",
    ),
    pytest.param(SWITCH % (b"websocket", b""), 502, id="no proof"),
    pytest.param(SWITCH % (b"websocket", accept(b"AAAAAAAAAAAAAAAAAAAAAAAAAAA=")), 502, id="a wrong proof"),
    pytest.param(SWITCH % (b"websocket", accept(KEY)), 502, id="the key sent back"),
    pytest.param(SWITCH % (b"websocket", accept(ACCEPT) * 2), 502, id="the proof twice"),
    pytest.param(SWITCH % (b"websocket", accept(ACCEPT) + accept(b"x")), 502, id="a proof and something else"),
    pytest.param(SWITCH % (b"h2c", accept(ACCEPT)), 502, id="to something else"),
    pytest.param(SWITCH % (b"websocket, h2c", accept(ACCEPT)), 502, id="to two protocols"),
    pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n" + accept(ACCEPT) + b"\r\n", 502, id="to nothing"),
]


@pytest.mark.threat("upgrade without a switch")
@pytest.mark.parametrize(("answer", "status"), NO_SWITCH)
async def test_without_a_switch_there_is_no_tunnel(edge: Edge, answer: bytes, status: int) -> None:
    """The request behind the handshake is one like any other: read here, admitted by itself, and here refused."""
    edge.upstream.script = answering(answer)
    async with edge.line() as line:
        await line.send(SOCKET + HIDDEN)
        assert [told.status for told in await line.replies(b"GET", b"GET")] == [status, 401]
    assert b"".join(behind_the_head(edge)) == b""
    assert not any(b"/keyed" in received for received in edge.upstream.received)
    edge.upstream.connections.clear()  # a handshake has an Upgrade, on which a strict reader remarks
    await edge.assert_serving()


ORDINARY = [
    pytest.param(b"GET", ASKED.replace(b"Upgrade: websocket", b"Upgrade: h2c"), id="h2c"),
    pytest.param(
        b"GET",
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        id="h2c with its settings",
    ),
    pytest.param(b"GET", b"Connection: upgrade\r\nupgrade: H2C\r\n", id="h2c in another case"),
    pytest.param(b"GET", b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", id="a choice"),
    pytest.param(b"GET", b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n", id="two fields"),
    pytest.param(b"GET", b"Upgrade: h2c\r\n", id="h2c that Connection does not name"),
    pytest.param(b"GET", b"Upgrade: websocket\r\n", id="a WebSocket that Connection does not name"),
    pytest.param(b"GET", b"Connection: HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", id="settings alone"),
    pytest.param(b"GET", b"Connection: Upgrade\r\nUp_grade: h2c\r\nHTTP2.Settings: AAAA\r\n", id="twins of the fields"),
    pytest.param(b"GET", b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", id="TLS"),
    pytest.param(b"OPTIONS", b"Connection: Upgrade\r\nUpgrade: h2c\r\n", id="h2c by OPTIONS"),
    pytest.param(b"HEAD", ASKED, id="a WebSocket by HEAD"),
    pytest.param(b"GET", ASKED + b"Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n", id="a WebSocket with two keys"),
    pytest.param(b"GET", ASKED + b"Sec-WebSocket-Key: x\r\n", id="a WebSocket with a key and something else"),
]


@pytest.mark.threat("h2c upgrade")
@pytest.mark.parametrize(("method", "lines"), ORDINARY)
async def test_other_upgrades_go_on_as_ordinary_requests(edge: Edge, method: bytes, lines: bytes) -> None:
    """Neither Upgrade nor what belongs to it reaches the upstream, under any spelling, so it cannot switch. R024."""
    async with edge.line() as line:
        await line.send(method + b" /a HTTP/1.1\r\nHost: gw.test\r\n" + lines + b"\r\n" + HIDDEN)
        assert [told.status for told in await line.replies(method, b"GET")] == [200, 401]
    (arrived,) = edge.arrived()
    head = arrived.lower().replace(b"sec-websocket-", b"")
    assert arrived.startswith(method + b" /a HTTP/1.1\r\nHost: upstream\r\n")
    assert not any(word in head for word in (b"upgrade", b"up_grade", b"h2c", b"http2", b"connection", b"tls"))


@pytest.mark.threat("h2c upgrade")
async def test_an_upstream_that_switches_unasked_is_not_followed(edge: Edge) -> None:
    """An upstream that takes an ordinary request for h2c is told nothing more."""
    edge.upstream.script = answering(SWITCH % (b"h2c", b"") + b"\0\0\0\4\0\0\0\0\0")
    async with edge.line() as line:
        await line.send(
            b"GET /a HTTP/1.1\r\nHost: gw.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n" + HIDDEN
        )
        assert [told.status for told in await line.replies(b"GET", b"GET")] == [502, 401]
    assert behind_the_head(edge) == [b""]
    edge.upstream.script = reply(OK)


@pytest.mark.threat("h2c upgrade")
async def test_prior_knowledge_is_no_http_11(edge: Edge) -> None:
    """The preface of HTTP/2 is a bad request, and nothing behind it is read. RFC 9113 3.4."""
    await edge.assert_refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN, 400, "bad_request")


@pytest.mark.threat("upgrade without a switch", "unread body after an early answer")
@pytest.mark.parametrize("lines", [b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_an_upgrade_with_a_body_is_none(edge: Edge, lines: bytes) -> None:
    """A body and what follows it could be taken for the tunnel's first bytes: such a request is an ordinary one."""
    body = b"123456789" if lines.startswith(b"Content") else b"9\r\n123456789\r\n0\r\n\r\n"
    async with edge.line() as line:
        await line.send(b"GET /a HTTP/1.1\r\nHost: gw.test\r\n" + ASKED + lines + b"\r\n" + body + HIDDEN)
        assert [told.status for told in await line.replies(b"GET", b"GET")] == [200, 401]
    (request,) = edge.upstream.requests
    assert request.body == b"123456789"
    assert b"pgrade" not in request.raw
    assert edge.plain(request.raw).startswith(b"GET /a HTTP/1.1\r\nHost: upstream\r\n")
    assert OURS in edge.plain(request.raw)
