"""What reaches the upstream: httpbin says what it was asked, and only the documented differences may be in it."""

import base64
import hashlib
import json
import random
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.embedded.server_process import HOST
from tests.integration.httpbin.answers import Answer, parse, parse_request
from tests.integration.httpbin.clients import Aiohttp, Client, Curl, Httpx, Pairs
from tests.integration.httpbin.comparing import ask_both
from tests.integration.httpbin.raw import exchange
from tests.integration.httpbin.world import SCOPES, World

pytestmark = pytest.mark.asyncio(loop_scope="package")

# Of one hop alone; the gateway has hops of its own on both sides, and answers an Expect itself.
NOT_FORWARDED = ("Connection", "Expect")
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]  # /anything echoes these
TEXT = "name=value&other=ä".encode()
BINARY = random.Random(1).randbytes(3_000)

BODIES: list[tuple[str, str, bytes]] = [
    ("json", "application/json", json.dumps({"a": [1, None, "ü"], "b": {"c": "\u2028"}}).encode()),
    ("form", "application/x-www-form-urlencoded", b"a=1&b=%20x+y&a=2&empty=&%C3%A4=%00"),
    ("text", "text/plain; charset=utf-8", TEXT),
    ("binary", "application/octet-stream", BINARY),
    ("lookalike", "application/octet-stream", b"0\r\n\r\nGET /status/418 HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("empty", "application/json", b""),
    (
        "multipart",
        'multipart/form-data; boundary="=_b"',
        b'--=_b\r\nContent-Disposition: form-data; name="title"\r\n\r\nA title\r\n'
        b'--=_b\r\nContent-Disposition: form-data; name="file"; filename="x.bin"\r\nContent-Type: image/png\r\n\r\n'
        + BINARY
        + b"\r\n--=_b--\r\n",
    ),
]


def identity(world: World, via: Answer, *, host: str) -> dict[str, str]:
    """Every header that the gateway adds for this caller."""
    request_id = via.header("X-Request-Id")
    assert request_id
    return {
        "X-User-Id": "ada",
        "X-Tenant-Id": "acme",
        "X-Key-Id": world.key_id,
        "X-Key-Environment": "test",
        "X-Auth-Kind": "key",
        "X-Scopes": " ".join(SCOPES),
        "X-Plan": "starter",
        "X-Forwarded-For": HOST,
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": host,
        "X-Request-Id": request_id,
    }


def assert_documented_differences_alone(world: World, direct: Answer, via: Answer) -> dict[str, Any]:
    """Fails unless the gateway's echo is the direct one, less what is not forwarded, and with the identity."""
    expected, seen = json.loads(direct.body), json.loads(via.body)
    headers: dict[str, str] = {name: value for name, value in expected["headers"].items() if name not in NOT_FORWARDED}
    expected["headers"] = headers | identity(world, via, host=f"{HOST}:{world.gateway.proxy_port}")
    assert seen == expected
    assert seen["headers"]["Host"] == f"{HOST}:{world.httpbin.port}", "Host is the upstream's authority"
    assert world.secret not in via.body.decode()
    result: dict[str, Any] = seen
    return result


@pytest.mark.parametrize("method", METHODS)
async def test_only_the_documented_differences_reach_the_upstream(world: World, client: Client, method: str) -> None:
    """Identity, X-Forwarded-* and X-Request-Id come, credential and hop-by-hop fields go; else nothing. R021-R024."""
    headers = [("X-Custom", "a  b; c=d"), ("Cookie", "a=1; b=2"), ("Via", "1.0 x")]
    direct, via = await ask_both(client, world, method, "/anything/a/b?show_env=1&x=1&x=2", headers)
    assert (direct.status, via.status) == (200, 200)
    seen = assert_documented_differences_alone(world, direct, via)
    assert seen["method"] == method


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key"])
async def test_the_credential_stays_here(world: World, client: Client, name: str) -> None:
    """In whichever place the key came, the upstream sees neither. R023."""
    value = f"Bearer {world.secret}" if name == "Authorization" else world.secret
    both = [("Authorization", f"Bearer {world.secret}"), ("X-Api-Key", world.secret)]
    direct = await client.fetch("GET", f"{world.direct}/anything?show_env=1")
    for headers in ([(name, value)], both):
        via = await client.fetch("GET", f"{world.via}/anything?show_env=1", headers)
        assert_documented_differences_alone(world, direct, via)


@pytest.mark.threat("forged identity")
async def test_what_a_caller_says_of_itself_is_overwritten(world: World, client: Client) -> None:
    """Identity and forwarding fields of the caller's own do not arrive, in any spelling. R020, R022, R297."""
    forged = [
        *(("X-User-Id", "root"), ("x-tenant-id", "other"), ("X_User_Id", "root"), ("X-SCOPES", "admin:all")),
        *(("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Host", "evil.example"), ("Forwarded", "for=203.0.113.9")),
        *(("X-Real-Ip", "203.0.113.9"), ("X-Forwarded-Proto", "https")),
    ]
    direct = await client.fetch("GET", f"{world.direct}/anything?show_env=1")
    via = await client.fetch("GET", f"{world.via}/anything?show_env=1", [*forged, *world.credential])
    assert_documented_differences_alone(world, direct, via)


TARGETS = [
    "/anything/caf%C3%A9/%E2%82%AC?q=%F0%9F%8E%89",
    "/anything/a%20b?x=%20&y=a+b&z=%2B&empty=&bare",
    "/anything/a:b@c,d=e+f!$'()*~?a=/?:@!$'()*,;",
    "/anything/UPPER/lower?%2F=%26&x=%3D",
    "/anything?" + "long=" + "x" * 3_900,  # gunicorn takes lines of 4,094
]


@pytest.mark.parametrize("target", TARGETS, ids=range(len(TARGETS)))
async def test_path_and_query_arrive_as_they_were_sent(world: World, client: Client, target: str) -> None:
    """What is matched is what is forwarded, byte for byte: nothing is encoded, decoded or sorted anew. R341."""
    sign = "&" if "?" in target else "?"
    direct, via = await ask_both(client, world, "GET", f"{target}{sign}show_env=1")
    assert_documented_differences_alone(world, direct, via)


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("body", BODIES, ids=[name for name, _, _ in BODIES])
async def test_a_body_arrives_as_it_was_sent(
    world: World, client: Client, body: tuple[str, str, bytes], is_chunked: bool
) -> None:
    """Whatever it holds and however it is framed: httpbin reads the same form, files, JSON and data. R025."""
    _, content_type, payload = body
    direct, via = await ask_both(
        client,
        world,
        "POST",
        "/anything?show_env=1",
        [("Content-Type", content_type)],
        payload,
        is_chunked=is_chunked and bool(payload),
    )
    assert_documented_differences_alone(world, direct, via)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_every_method_may_have_a_body(world: World, method: str, is_chunked: bool) -> None:
    """The framing of a body does not depend on the method. R025."""
    direct, via = await ask_both(
        Httpx(),
        world,
        method,
        "/anything?show_env=1",
        [("Content-Type", "text/plain")],
        TEXT,
        is_chunked=is_chunked,
    )
    seen = assert_documented_differences_alone(world, direct, via)
    assert seen["data"] == TEXT.decode()
    assert seen["headers"].get("Transfer-Encoding") == ("chunked" if is_chunked else None)
    assert seen["headers"].get("Content-Length") == (None if is_chunked else str(len(TEXT)))


async def test_a_clients_own_multipart_form_arrives(world: World, client: Client) -> None:
    """Fields and files of a form that the client has put together itself. R025."""
    fields: Mapping[str, str] = {"title": "A title", "note": "zwölf"}
    direct = await client.upload(f"{world.direct}/post", (), fields, BINARY)
    via = await client.upload(f"{world.via}/post", world.credential, fields, BINARY)
    assert via["form"] == direct["form"] == fields
    assert via["files"] == direct["files"]
    assert base64.b64decode(via["files"]["upload"].partition(",")[2]) == BINARY


async def test_header_lines_are_forwarded_to_the_letter(world: World) -> None:
    """On the wire: request line, then Host, the caller's lines in order and as spelled, then what was added. R024."""
    mine = ("X-Zulu:  two  spaces ", "accept: */*", "X-Zulu: again", "X-Tab:\ta\tb", 'Cookie: q="a;b"; r=1', "X-None:")
    lines = ("GET /tapped/anything?a=%2f HTTP/1.1", *mine, "Connection: close, X-Hop", "X-Hop: 1", "Keep-Alive: 5")
    raw = await exchange(world, *lines, "TE: trailers", "Proxy-Authorization: Basic eDp5")
    reply, sent = parse(raw), bytes(world.tap.request.seen)
    added = identity(world, reply, host="gateway.example")
    expected = [
        "GET /anything?a=%2f HTTP/1.1",
        f"Host: {world.tap.url.removeprefix('http://')}",
        *mine,
        *(f"{name}: {value}" for name, value in added.items()),
        *("", ""),
    ]
    assert sent.decode("latin-1").split("\r\n") == expected


@pytest.mark.parametrize("given", ["trace-1234.ab", None], ids=["given", "none"])
async def test_the_request_id_is_one_for_all(world: World, given: str | None) -> None:
    """The client's, where it has one, else the gateway's: the same upstream and in the reply. R030."""
    headers = world.credential + ([("X-Request-Id", given)] if given else [])
    via = await Aiohttp().fetch("GET", f"{world.via}/anything?show_env=1", headers)
    seen = json.loads(via.body)["headers"]["X-Request-Id"]
    assert seen == via.header("X-Request-Id")
    assert seen == given or given is None


async def test_an_expectation_is_met_by_the_gateway(world: World) -> None:
    """A curl that waits for 100 Continue gets it, and the upstream never hears of it. RFC 9110 10.1.1, R025."""
    payload = random.Random(2).randbytes(2_000_000)
    # It would give up waiting only after the whole time allowed.
    arguments = ["--verbose", "--expect100-timeout", "60", "--data-binary", "@-", "--header", "Expect: 100-continue"]
    headers: Pairs = [("Content-Type", "application/octet-stream"), *world.credential]
    for name, value in headers:
        arguments += ["--header", f"{name}: {value}"]
    output, said = await Curl().run(*arguments, f"{world.tapped}/post?show_env=1", stdin=payload)
    assert "< HTTP/1.1 100 Continue" in said
    seen = json.loads(output)
    echoed = base64.b64decode(seen["data"].partition(",")[2])
    assert hashlib.sha256(echoed).digest() == hashlib.sha256(payload).digest()
    assert "Expect" not in seen["headers"]
    request = parse_request(bytes(world.tap.request.seen))
    assert (request.header("Expect"), len(request.body)) == (None, len(payload))


async def test_a_refused_upload_is_never_sent(world: World) -> None:
    """Without a credential the answer comes instead of 100 Continue, and curl keeps its body to itself. R251."""
    arguments = ("--verbose", "--expect100-timeout", "60", "--header", "Expect: 100-continue", "--data-binary", "@-")
    output, said = await Curl().run(
        *arguments, "--write-out", "\n%{http_code} %{size_upload}", f"{world.tapped}/post", stdin=bytes(2_000_000)
    )
    assert output.splitlines()[-1] == b"401 0"
    assert "100 Continue" not in said
    assert world.tap.request.seen == b""
