"""Several requests in a row: kept connections, sessions with cookies and redirects, and clients of HTTP/1.0."""

import asyncio
import json

import pytest

from tests.fixtures.connections import connected
from tests.integration.httpbin.answers import parse
from tests.integration.httpbin.clients import Client
from tests.integration.httpbin.raw import exchange, head
from tests.integration.httpbin.world import World

pytestmark = pytest.mark.asyncio(loop_scope="package")

WAIT_SECONDS = 20

# Every kind of ending that a reply can have, one after another on one connection.
MIXED = [
    *("/html", "/status/204", "/stream/3", "/bytes/0", "/status/304", "/status/404", "/status/500", "/gzip"),
    *("/stream-bytes/30000?seed=1", "/drip?numbytes=3&duration=0", "/range/1000", "/no/such/page", "/json"),
]


async def test_a_session_needs_one_connection(world: World, client: Client) -> None:
    """Replies of every kind leave the client's connection usable for the next request."""
    visit = await client.browse([world.via + path for path in MIXED], world.credential)
    assert visit.connections == 1
    statuses = [status for status, _, _ in visit.pages]
    assert statuses == [200, 204, 200, 200, 304, 404, 500, 200, 200, 200, 200, 404, 200]


async def test_the_upstreams_connection_is_used_again(world: World, client: Client) -> None:
    """Sessions of different clients share what the gateway has open to the upstream."""
    before = world.tap.connections
    for _ in range(2):
        visit = await client.browse([world.tapped + path for path in MIXED], world.credential)
        assert len(visit.pages) == len(MIXED)
    assert world.tap.connections - before <= 1


async def test_redirects_are_followed_through_the_gateway(world: World, client: Client) -> None:
    """A relative Location leads on through the gateway, with the credential, to the page itself."""
    visit = await client.browse([f"{world.via}/redirect/3", f"{world.via}/links/5"], world.credential)
    assert [(status, url) for status, url, _ in visit.pages] == [
        (200, f"{world.via}/get"),
        (200, f"{world.via}/links/5/0"),
    ]
    assert json.loads(visit.pages[0][2])["headers"]["X-User-Id"] == "ada"


async def test_a_session_keeps_its_cookies(world: World, client: Client) -> None:
    """Cookies that the upstream sets and deletes come back as they do without the gateway."""
    paths = ["/cookies/set?one=1&two=2", "/cookies/set/three/3", "/cookies/delete?one=", "/cookies"]
    direct = await client.browse([world.direct + path for path in paths], ())
    via = await client.browse([world.via + path for path in paths], world.credential)
    assert [page[2] for page in via.pages] == [page[2] for page in direct.pages]
    assert json.loads(via.pages[-1][2]) == {"cookies": {"two": "2", "three": "3"}}


async def test_pipelined_requests_are_answered_in_order(world: World) -> None:
    """Sent in one go, answered one by one, each with its own reply (RFC 9112 9.3.2)."""
    numbers = [*range(1, 9)]
    raw = b"".join(head(world, f"GET /base64/{'QUFB' * number} HTTP/1.1") for number in numbers)
    async with connected(world.gateway.proxy_port) as (reader, writer), asyncio.timeout(WAIT_SECONDS):
        writer.write(raw + head(world, "GET /status/418 HTTP/1.1", "Connection: close"))
        for number in numbers:
            answer = parse(await reader.readuntil(b"\r\n\r\n"))
            body = await reader.readexactly(int(answer.header("Content-Length") or 0))
            assert body == b"AAA" * number
        assert parse(await reader.read()).status == 418


HTTP_10_PATHS = ["/html", "/status/404", "/stream/3", "/stream-bytes/30000?seed=1", "/range/1000", "/gzip"]


@pytest.mark.parametrize("path", HTTP_10_PATHS)
async def test_http_10_gets_a_body_without_chunks(world: World, path: str) -> None:
    """A reply of unknown length ends with the connection for a client that cannot read chunks. RFC 9112 6.1, 9.3."""
    answer = parse(await exchange(world, f"GET /tapped{path} HTTP/1.0"))
    sent = parse(bytes(world.tap.reply.seen))
    assert (answer.version, answer.status, answer.reason) == ("HTTP/1.1", sent.status, sent.reason)
    assert answer.body == sent.body
    assert answer.header("Transfer-Encoding") is None
    assert answer.header("Content-Length") == sent.header("Content-Length")
    assert answer.header("Connection") == "close"
    owned = {"connection", "x-request-id", "transfer-encoding"}
    assert sorted(pair for pair in answer.headers if pair[0].lower() not in owned) == sorted(
        pair for pair in sent.headers if pair[0].lower() not in owned
    )


async def test_http_10_may_keep_its_connection(world: World) -> None:
    """It asks with `keep-alive`, is told the same, and keeps it as long as replies have a length. RFC 9112 9.3."""
    async with connected(world.gateway.proxy_port) as (reader, writer), asyncio.timeout(WAIT_SECONDS):
        for _ in range(3):
            writer.write(head(world, "GET /range/1000 HTTP/1.0", "Connection: keep-alive"))
            answer = parse(await reader.readuntil(b"\r\n\r\n"))
            assert answer.header("Connection") == "keep-alive"
            await reader.readexactly(1000)
        writer.write(head(world, "GET /stream/1 HTTP/1.0", "Connection: keep-alive"))
        answer = parse(await reader.read())
        assert (answer.header("Connection"), json.loads(answer.body)["id"]) == ("close", 0)


async def test_http_10_may_send_a_body(world: World) -> None:
    """With a Content-Length, and without a Host line of its own. R025."""
    lines = ("POST /anything HTTP/1.0", *(f"{name}: {value}" for name, value in world.credential), "Content-Length: 5")
    async with connected(world.gateway.proxy_port) as (reader, writer), asyncio.timeout(WAIT_SECONDS):
        writer.write("\r\n".join([*lines, "", "hello"]).encode())
        answer = parse(await reader.read())
    seen = json.loads(answer.body)
    assert (seen["method"], seen["data"], seen["headers"]["Host"]) == (
        "POST",
        "hello",
        f"127.0.0.1:{world.httpbin.port}",
    )
