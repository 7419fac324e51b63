"""What comes back: every kind of reply that httpbin makes, through the gateway and without it, by four clients.

Equal are the status, the reason, the body before any decoding, and every header but those of `answers.GATEWAY_OWNS`.
"""

import gzip
import json
import zlib

import brotlicffi  # type: ignore[import-untyped]  # comes with httpbin, without types
import pytest

from tests.integration.httpbin.answers import GATEWAY_OWNS, parse, parse_request
from tests.integration.httpbin.clients import Aiohttp, Client, Httpx, Pairs
from tests.integration.httpbin.comparing import assert_same
from tests.integration.httpbin.raw import exchange
from tests.integration.httpbin.world import World

pytestmark = pytest.mark.asyncio(loop_scope="package")

STATUSES = [
    *(200, 201, 202, 203, 204, 205, 206, 226),
    *(300, 301, 302, 303, 304, 307, 308),
    *(400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 412, 413, 415, 417, 418, 422, 426, 428, 429, 431, 451),
    *(500, 501, 502, 503, 504, 507, 511),
]

PAGES: list[tuple[str, Pairs]] = [
    ("/", ()),
    ("/html", ()),
    ("/xml", ()),
    ("/json", ()),
    ("/robots.txt", ()),
    ("/deny", ()),
    ("/forms/post", ()),
    ("/encoding/utf8", ()),
    ("/links/10/3", ()),
    ("/base64/SGVsbG8", ()),
    ("/ip", ()),
    ("/user-agent", ()),
    ("/no/such/page", ()),
    ("/image/png", ()),
    ("/image/jpeg", ()),
    ("/image/svg", ()),
    ("/image", [("Accept", "image/webp")]),
    ("/image", [("Accept", "text/plain")]),  # 406
    ("/bytes/0?seed=1", ()),
    ("/bytes/1024?seed=1", ()),
    ("/bytes/102400?seed=2", ()),
    ("/stream-bytes/1?seed=3", ()),
    ("/stream-bytes/51200?seed=4&chunk_size=1000", ()),
    ("/drip?numbytes=7&duration=0", ()),
    ("/drip?numbytes=7&duration=0&code=503", ()),
    ("/range/1024", ()),
    ("/range/1024", [("Range", "bytes=0-9")]),
    ("/range/1024", [("Range", "bytes=1000-")]),
    ("/range/1024", [("Range", "bytes=-24")]),
    ("/range/1024", [("Range", "bytes=5000-6000")]),  # 416
    ("/range/0", ()),  # 404
    ("/links/10", ()),  # from here on, relative redirects
    ("/redirect/3", ()),
    ("/relative-redirect/2", ()),
    ("/redirect-to?url=../get&status_code=307", ()),
    ("/redirect/2?absolute=true", ()),  # from here on, absolute ones
    ("/absolute-redirect/2", ()),
    ("/redirect-to?url=https%3A%2F%2Fexample.com%2Fa%3Fb%3Dc%23d&status_code=308", ()),
    ("/cookies/set/one/1", ()),
    ("/cookies/set?one=1&two=2", ()),  # two Set-Cookie lines
    ("/cookies/delete?one=&two=", ()),
    ("/cookies", [("Cookie", 'one=1; two="2 3"; three=')]),
    ("/response-headers?X-Twice=1&X-Twice=2&x-lower=a%2Cb&Cache-Control=no-store", ()),
    ("/response-headers?X-Empty=&X-Latin=caf%C3%A9", ()),
    ("/cache", [("If-None-Match", '"any"')]),  # 304
    ("/cache", [("If-Modified-Since", "Sat, 01 Jan 2000 00:00:00 GMT")]),  # 304
    ("/etag/abc", [("If-None-Match", '"abc"')]),  # 304
    ("/etag/abc", [("If-Match", '"def"')]),  # 412
    ("/basic-auth/user/password", ()),  # 401, of the upstream
    ("/hidden-basic-auth/user/password", ()),  # 404
    ("/bearer", ()),  # 401 for the caller's own bearer token, too: it is the gateway's
]


def named(page: tuple[str, Pairs]) -> str:
    path, headers = page
    return " ".join([path, *(f"{name}:{value}" for name, value in headers)]).replace('"', "")


@pytest.mark.parametrize("page", PAGES, ids=named)
async def test_a_page_is_the_same(world: World, client: Client, page: tuple[str, Pairs]) -> None:
    """GET answers the same with the gateway in between as without it."""
    path, headers = page
    await assert_same(client, world, "GET", path, headers)


@pytest.mark.parametrize("status", STATUSES)
async def test_a_status_is_the_same(world: World, client: Client, status: int) -> None:
    """Whatever the upstream says passes unchanged: its 401, 403 and 429 are its own. R347."""
    via = await assert_same(client, world, "GET", f"/status/{status}")
    assert via.status == status


@pytest.mark.parametrize("status", [200, 204, 302, 401, 403, 404, 429, 503])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_a_status_is_the_same_for_every_method(world: World, method: str, status: int) -> None:
    """The method changes nothing about how a reply is relayed. R347."""
    body = b'{"a": 1}' if method in ("POST", "PUT", "PATCH") else None
    via = await assert_same(Httpx(), world, method, f"/status/{status}", [("Content-Type", "application/json")], body)
    assert via.status == (200 if method == "OPTIONS" else status)


@pytest.mark.parametrize("path", ["/html", "/range/1024", "/stream-bytes/1000?seed=1", "/image/png", "/no/such/page"])
async def test_head_is_the_same(world: World, client: Client, path: str) -> None:
    """HEAD answers with the headers of GET, the length among them, and no body."""
    via = await assert_same(client, world, "HEAD", path)
    assert via.body == b""


@pytest.mark.parametrize("path", ["/get", "/post", "/anything", "/no/such/page"])
async def test_options_is_the_same(world: World, client: Client, path: str) -> None:
    """OPTIONS is a request like others: the upstream says what it allows."""
    await assert_same(client, world, "OPTIONS", path)


@pytest.mark.parametrize(("method", "path"), [("POST", "/get"), ("GET", "/post"), ("DELETE", "/put"), ("PUT", "/html")])
async def test_a_method_that_the_upstream_refuses_is_its_405(
    world: World, client: Client, method: str, path: str
) -> None:
    """The upstream's 405 keeps its own Allow."""
    via = await assert_same(client, world, method, path)
    assert (via.status, via.header("Content-Type")) == (405, "text/html; charset=utf-8")
    assert via.header("Allow")


async def test_the_upstreams_401_can_be_told_from_the_gateways(world: World, client: Client) -> None:
    """A refusal by the gateway is a problem with a code; the upstream's has neither. R347."""
    upstreams = await client.fetch("GET", f"{world.via}/status/401", world.credential)
    gateways = await client.fetch("GET", f"{world.via}/status/401")
    assert (upstreams.status, gateways.status) == (401, 401)
    assert upstreams.header("WWW-Authenticate") == 'Basic realm="Fake Realm"'
    assert upstreams.header("Content-Type") is None
    assert gateways.header("WWW-Authenticate") == 'Bearer realm="api"'
    assert gateways.header("Content-Type") == "application/problem+json"
    assert json.loads(gateways.body)["code"] == "missing_api_key"


async def test_an_upstream_cannot_speak_for_the_gateway(world: World) -> None:
    """Identity headers and a request id in a reply go: under these names a client hears the gateway alone. R029."""
    path = "/response-headers?X-User-Id=mallory&x-plan=gold&X-Request-Id=forged&X-Mine=kept"
    via = await Aiohttp().fetch("GET", world.via + path, world.credential)
    assert (via.header("X-User-Id"), via.header("X-Plan"), via.header("X-Mine")) == (None, None, "kept")
    assert via.header("X-Request-Id") != "forged"


COMPRESSED = [("gzip", gzip.decompress), ("deflate", zlib.decompress), ("brotli", brotlicffi.decompress)]
ONE_OF_A_KIND = ["/uuid", "/get", "/headers", "/cache", "/cache/60", "/etag/abc", "/stream/5", "/digest-auth/auth/u/p"]


@pytest.mark.parametrize("path", [*(f"/{name}" for name, _ in COMPRESSED), *ONE_OF_A_KIND, "/status/429"])
async def test_a_reply_is_relayed_as_it_left_the_upstream(world: World, path: str) -> None:
    """On the wire on both sides, for replies that are never twice the same: the Date and compressed bytes too. R198."""
    raw = await exchange(
        world, f"GET /tapped{path} HTTP/1.1", "Accept-Encoding: gzip, deflate, br", "Connection: close"
    )
    got, sent = parse(raw), parse(bytes(world.tap.reply.seen))
    assert (got.status, got.reason, got.body) == (sent.status, sent.reason, sent.body)
    untouched = [pair for pair in sent.headers if pair[0] != "Connection"]
    request_id = parse_request(bytes(world.tap.request.seen)).header("X-Request-Id")
    added = [("X-Request-Id", request_id), ("Connection", "close")]
    assert sorted(got.headers) == sorted([*untouched, *added])
    assert GATEWAY_OWNS.keys() == {"date", *(name.lower() for name, _ in added)}


@pytest.mark.parametrize(("name", "decode"), COMPRESSED, ids=[name for name, _ in COMPRESSED])
async def test_a_compressed_body_stays_compressed(world: World, client: Client, name: str, decode: object) -> None:
    """Nothing is decoded or encoded on the way; the client's own decoding ends in the same JSON. R198."""
    assert callable(decode)
    url, accept = f"{world.via}/{name}", ("Accept-Encoding", "gzip, deflate, br")
    raw = await client.fetch("GET", url, [accept, *world.credential])
    assert raw.header("Content-Encoding") == {"brotli": "br"}.get(name, name)
    assert raw.header("Content-Length") == str(len(raw.body))
    document = json.loads(decode(raw.body))
    visit = await client.browse([url], world.credential)
    mark = {"gzip": "gzipped", "deflate": "deflated", "brotli": "brotli"}[name]
    assert document[mark] is json.loads(visit.pages[0][2])[mark] is True
