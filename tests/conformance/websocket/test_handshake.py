"""A handshake is a request like any other until its 101: admitted or refused, cleaned, answered, counted."""

import base64
import hashlib
import json
import re

import pytest

from tests.conformance.websocket.frames import ACCEPT, ASKING, KEY, MASK, SWITCHING, Op, close, frame
from tests.fixtures.edge import OURS, Edge, assert_same
from tests.fixtures.planted import ENVIRONMENT, Caller
from tests.fixtures.raw_upstream import OK, End, RawConnection, Script, reply
from tests.fixtures.strict import read_replies

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEYED = b"GET /keyed HTTP/1.1\r\nHost: gw.test\r\n"
OPEN = b"GET /socket HTTP/1.1\r\nHost: gw.test\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
ASKED = ASKING.removeprefix(UPGRADE)  # what stays where it was; the two lines of the switch come last
ACCEPTED = b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"
EARLY = frame(Op.TEXT, b"early", mask=MASK)


def identity(caller: Caller) -> bytes:
    """What the upstream is told of `caller`."""
    return (
        f"X-User-Id: {caller.user_id}\r\nX-Tenant-Id: {caller.tenant_id}\r\nX-Key-Id: {caller.key_id}\r\n"
        f"X-Key-Environment: {ENVIRONMENT}\r\nX-Auth-Kind: key\r\nX-Scopes: {' '.join(caller.scopes)}\r\n"
        f"X-Plan: {caller.plan}\r\n"
    ).encode()


async def switch(connection: RawConnection) -> None:
    """An upstream that says yes, and hello."""
    await connection.head()
    await connection.send(SWITCHING + b"\r\n" + frame(Op.TEXT, b"hello"))
    await connection.until_ended()


def answers(said: bytes) -> Script:
    """An upstream that says `said` to a head, and stays."""

    async def script(connection: RawConnection) -> None:
        await connection.head()
        await connection.send(said)
        await connection.until_ended()

    return script


@pytest.mark.threat("upgrade without a switch")
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param(b"", 401, id="no key"),
        pytest.param(b"X-Api-Key: ost_test_nonsense\r\n", 401, id="a malformed key"),
        pytest.param(b"Authorization: Bearer @OTHER@\r\n", 401, id="a key that nobody has"),
        pytest.param(b"Authorization: Basic YTpi\r\n", 401, id="another scheme"),
        pytest.param(b"X-Api-Key: @KEY@\r\nX-Api-Key: @OTHER@\r\n", 400, id="two keys"),
        pytest.param(b"Sec-WebSocket-Protocol: @KEY@\r\n", 401, id="a key where none is looked for"),
        pytest.param(b"X-User-Id: root\r\n", 401, id="an identity instead of a key"),
    ],
)
async def test_a_refused_handshake_reaches_nobody(edge: Edge, fields: bytes, status: int) -> None:
    """The refusal is that of any request; the frames that came with it are neither relayed nor obeyed. R345."""
    edge.upstream.script = switch
    other = Caller(name="nobody").secret.encode()
    sent = KEYED + edge.filled(fields).replace(b"@OTHER@", other) + ASKING + b"\r\n" + EARLY
    async with edge.line() as line:
        await line.send(sent)
        first = (await line.replies(b"GET"))[0]
        await line.finish()
        received = await line.until_ended()
    assert first.status == status
    assert first.all(b"Content-Type") == [b"application/problem+json"]
    assert json.loads(first.body)["status"] == status
    assert first.all(b"Upgrade") == []
    assert b"hello" not in received
    assert edge.upstream.connections == []


async def test_the_next_request_after_a_refused_handshake(edge: Edge) -> None:
    """The connection goes on as HTTP: a good key is served on it, and another handshake switches it."""
    key = edge.filled(b"X-Api-Key: @KEY@\r\n")
    edge.upstream.script = reply(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    async with edge.line() as line:
        await line.send(KEYED + ASKING + b"\r\n")
        assert [answer.status for answer in await line.replies(b"GET")] == [401]
        await line.send(KEYED + key + b"\r\n")
        assert [answer.status for answer in await line.replies(b"GET", b"GET")] == [401, 200]
        edge.upstream.script = switch
        await line.send(KEYED + key + ASKING + b"\r\n")
        received = await line.until(lambda received: received.endswith(b"hello"))
    assert [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", received)] == [401, 200, 101]
    assert len(edge.upstream.connections) == 2


async def test_what_a_handshake_says_of_its_sender_is_overwritten(edge: Edge) -> None:
    """Key out, forged identity out, the caller's own in; what makes the handshake stays. R345."""
    edge.upstream.script = switch
    forged = (
        b"X-User-Id: root\r\nx_tenant_id: all\r\nX-SCOPES: *\r\nX-Auth-Kind: operator\r\nX-Forwarded-For: 10.0.0.1\r\n"
    )
    async with edge.line() as line:
        await line.send(
            KEYED + forged + edge.filled(b"Authorization: Bearer @KEY@\r\n") + ASKING + b"Cookie: a=b\r\n\r\n"
        )
        await line.until(lambda received: received.endswith(b"hello"))
        await line.send(EARLY)
        await line.finish()
    await edge.upstream.until_quiet()
    head = b"GET /keyed HTTP/1.1\r\nHost: upstream\r\n" + ASKED + b"Cookie: a=b\r\n" + identity(edge.caller) + OURS
    assert_same(edge.arrived()[0], head + UPGRADE + b"\r\n" + EARLY, "what reached the upstream")


@pytest.mark.threat("upgrade without a switch")
@pytest.mark.parametrize(
    ("status", "rest"),
    [
        pytest.param(302, b"Location: /elsewhere\r\n" + EMPTY, id="302"),
        pytest.param(401, b"WWW-Authenticate: Basic\r\n" + EMPTY, id="401"),
        pytest.param(403, b"Transfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", id="403"),
        pytest.param(503, b"Retry-After: 9\r\n" + EMPTY, id="503"),
    ],
)
async def test_an_upstream_that_does_not_switch(edge: Edge, status: int, rest: bytes) -> None:
    """Its reply is relayed, and the connection stays HTTP: what comes next is read as a request. RFC 9110 7.8."""
    edge.upstream.script = answers(b"HTTP/1.1 %d Whatever\r\n" % status + rest)
    async with edge.line() as line:
        await line.send(OPEN + ASKING + b"\r\n" + KEYED + b"\r\n" + EARLY)
        await line.finish()
        replies = read_replies(await line.until_ended(), [b"GET"] * 3, is_ended=True)
    assert [answer.status for answer in replies][:2] == [status, 401], "the request behind it is judged as one"
    assert all(answer.all(b"Upgrade") == [] for answer in replies)
    arrived = b"GET /socket HTTP/1.1\r\nHost: upstream\r\n" + ASKED + OURS + UPGRADE + b"\r\n"
    assert_same(b"".join(edge.arrived()), arrived, "what reached the upstream")


OTHER_ACCEPT = base64.b64encode(hashlib.sha1(b"another key").digest())
OF_WEBSOCKET = b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE


@pytest.mark.threat("upgrade without a switch")
@pytest.mark.parametrize(
    "said",
    [
        pytest.param(OF_WEBSOCKET + b"Sec-WebSocket-Accept: \r\n", id="an empty accept"),
        pytest.param(OF_WEBSOCKET + b"Sec-WebSocket-Accept: " + ACCEPT.lower() + b"\r\n", id="accept in lower case"),
        pytest.param(
            SWITCHING + b"X-Between: 1\r\nSec-WebSocket-Accept: " + OTHER_ACCEPT + b"\r\n", id="two accepts apart"
        ),
        pytest.param(SWITCHING.replace(b"Connection: Upgrade\r\n", b""), id="no connection option"),
    ],
)
async def test_a_101_that_does_not_answer_this_handshake(edge: Edge, said: bytes) -> None:
    """Is a 502: no tunnel, and the upstream's connection is closed. RFC 6455 4.1."""
    edge.upstream.script = answers(said + b"\r\n" + frame(Op.TEXT, b"hello"))
    async with edge.line() as line:
        await line.send(OPEN + ASKING + b"\r\n")
        (answer,) = await line.replies(b"GET")
        await line.send(EARLY)
        await line.finish()
        received = await line.until_ended()
    assert answer.status == 502
    assert b"hello" not in received
    await edge.upstream.until_quiet()
    assert EARLY not in b"".join(edge.arrived())


TWO = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"


@pytest.mark.threat("upgrade without a switch")
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(OPEN.replace(b"1.1", b"1.0") + ASKING + b"\r\n", id="HTTP/1.0"),
        pytest.param(OPEN + ASKING.replace(b"websocket", b"websocket2") + b"\r\n", id="another protocol"),
        pytest.param(OPEN + ASKING + b"Upgrade: websocket\r\n\r\n", id="twice the same protocol"),
        pytest.param(OPEN + UPGRADE + b"Sec-WebSocket-Version: 13\r\n\r\n", id="no key"),
        pytest.param(OPEN + ASKING.replace(KEY, KEY[:-4] + b"====") + b"\r\n", id="a malformed key"),
        pytest.param(OPEN + ASKING.replace(KEY, b"AAAA") + b"\r\n", id="a short key"),
        pytest.param(OPEN + TWO + ASKING + b"\r\n", id="two keys apart"),
        pytest.param(OPEN.replace(b"GET", b"POST") + ASKING + b"Content-Length: 0\r\n\r\n", id="POST"),
    ],
)
async def test_what_is_no_handshake_is_an_ordinary_request(edge: Edge, sent: bytes) -> None:
    """It goes on without its upgrade, and an upstream that switches all the same is faulty: 502. RFC 6455 4.2.1."""
    edge.upstream.script = switch
    async with edge.line() as line:
        await line.send(sent)
        answer = (await line.replies(sent.split(b" ")[0]))[0]
        await line.finish()
        assert b"hello" not in await line.until_ended()
    assert answer.status == 502
    await edge.upstream.until_quiet()
    assert edge.upstream.connections
    for connection in edge.upstream.connections:
        assert b"\r\nupgrade:" not in connection.received.lower()
        assert b"\r\nconnection:" not in connection.received.lower()


async def test_a_tunnel_takes_its_upstreams_connection_along(edge: Edge) -> None:
    """A connection that was a tunnel carries no other request, whichever way it ended."""
    edge.upstream.script = switch
    async with edge.line() as line:
        await line.send(OPEN + ASKING + b"\r\n")
        await line.until(lambda received: received.endswith(b"hello"))
        await line.send(close(1000, mask=MASK))
        await line.finish()
        await line.until_ended()
    await edge.upstream.until_quiet()
    assert [connection.end for connection in edge.upstream.connections] == [End.CLOSED]
    await edge.assert_serving()


async def test_a_kept_connection_becomes_a_tunnel(edge: Edge) -> None:
    """On both sides: requests first, then the handshake on the same two connections."""

    async def script(connection: RawConnection) -> None:
        await connection.request()
        await connection.send(OK.replace(b"Connection: close\r\n", b""))
        await connection.send(b"")
        while b"Upgrade" not in connection.received:
            await connection.read()
        await connection.send(SWITCHING + b"\r\n" + frame(Op.TEXT, b"hello"))
        await connection.until_ended()

    edge.upstream.script = script
    async with edge.line() as line:
        await line.send(OPEN + b"\r\n")
        assert [answer.status for answer in await line.replies(b"GET")] == [200]
        await line.send(OPEN + ASKING + b"\r\n")
        await line.until(lambda received: received.endswith(b"hello"))
    assert len(edge.upstream.connections) == 1
