"""What the upstream is told, and by whom: identity, credentials, forwarding and ids over a real gateway."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.embedded.server_process import HOST
from tests.fixtures.edge import OURS, Edge
from tests.fixtures.exposition import scraped
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import ENVIRONMENT, Caller, plant
from tests.fixtures.raw_upstream import OK, RawUpstream, reply
from tests.fixtures.stores import Databases
from tests.fixtures.strict import StrictRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = (
    b"X-User-Id",
    b"X-Tenant-Id",
    b"X-Key-Id",
    b"X-Key-Environment",
    b"X-Auth-Kind",
    b"X-Scopes",
    b"X-Plan",
    b"X-Identity-Assertion",
)
OTHER_NAMES = {
    "user_id": "Caller",
    "tenant_id": "Caller-Tenant",
    "key_id": "Caller-Key",
    "scopes": "Caller-May",
    "request_id": "X-Trace",
}
IDENTITY = (
    b"X-User-Id: user-ada\r\n"
    b"X-Tenant-Id: tenant-of-ada\r\n"
    b"X-Key-Id: key_ada\r\n"
    b"X-Key-Environment: test\r\n"
    b"X-Auth-Kind: key\r\n"
    b"X-Scopes: orders:read orders:write\r\n"
    b"X-Plan: starter\r\n"
)
FORGED = b"forged"
CLOSE = b"Connection: close\r\n\r\n"
ODD_SCOPES = ("größe", "a\r\nX-User-Id: root", "nul\x01l", "日本", "plain")


def route(name: str, path: str, auth: str = "required", **more: object) -> dict[str, Any]:
    return {"name": name, "paths": [path], "upstream": "raw", "auth": auth, **more}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edges(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> AsyncIterator[dict[str, Edge]]:
    """Two gateways on one database and one upstream. `plain`: the defaults. `other`: trusts the tests, other names."""
    dsn = await databases.create(is_migrated=True)
    caller = await plant(dsn, retired_secret=RETIRED)
    await plant(dsn, ODD)
    await plant(dsn, OPERATOR)
    async with RawUpstream() as upstream:
        base = {
            "environment": ENVIRONMENT,
            "postgres": {"dsn": dsn},
            "upstreams": {"raw": {"targets": [upstream.url]}},
        }
        configs: dict[str, dict[str, Any]] = {
            "plain": {
                "routes": [
                    route("open", "/", "none"),
                    route("keyed", "/keyed"),
                    route("optional", "/optional", "optional"),
                    route("orders", "/orders", require={"scopes": ["orders:read"]}),
                    route("admin", "/orders/admin", require={"scopes": ["admin"]}),
                ]
            },
            "other": {
                "routes": [
                    route("keyed", "/keyed", methods=["GET"]),
                    route("hosted", "/hosted", hosts=["gw.test"]),
                    route("open", "/open", "none"),
                ],
                "trusted_proxies": ["127.0.0.0/8"],
                "credentials": [{"header": "X-Secret"}],
                "identity_headers": OTHER_NAMES,
            },
        }
        nodes = {
            name: GatewayProcess(tmp_path_factory.mktemp(name), {**base, **config}) for name, config in configs.items()
        }
        await asyncio.gather(*(node.start() for node in nodes.values()))
        yield {name: Edge(node, upstream, caller) for name, node in nodes.items()}
        assert [await node.stop() for node in nodes.values()] == [0, 0]
    await databases.drop(dsn)


RETIRED = Caller().secret
ODD = Caller("odd", scopes=ODD_SCOPES)
OPERATOR = Caller("root", kind="operator", scopes=())


@pytest_asyncio.fixture(loop_scope="module")
async def edge(edges: dict[str, Edge]) -> AsyncIterator[Edge]:
    """The gateway with the default names, and an upstream that has seen nothing."""
    await edges["plain"].upstream.reset()
    yield edges["plain"]
    edges["plain"].check_upstream()


@pytest_asyncio.fixture(loop_scope="module")
async def other(edges: dict[str, Edge]) -> AsyncIterator[Edge]:
    """The gateway that trusts its peer and uses other names."""
    await edges["other"].upstream.reset()
    yield edges["other"]
    edges["other"].check_upstream()


async def sent(edge: Edge, target: bytes, *lines: bytes, host: bytes = b"gw.test") -> StrictRequest:
    """The one request that arrives when this GET is sent."""
    fields = b"".join(line + b"\r\n" for line in lines)
    replies = await edge.line_says(edge.filled(b"GET %b HTTP/1.1\r\nHost: %b\r\n%b" % (target, host, fields)) + CLOSE)
    assert [r.status for r in replies] == [200], replies
    (request,) = edge.upstream.requests
    return request


def values(request: StrictRequest, name: bytes) -> list[bytes]:
    return [value for key, value in request.fields if key.lower() == name.lower()]


def folded(name: bytes) -> bytes:
    """A name as WSGI, CGI and PHP see it, and a little further."""
    return name.lower().translate(None, b"-_.")


def spellings(name: bytes) -> list[bytes]:
    return [
        name,
        name.lower(),
        name.upper(),
        name.swapcase(),
        name.replace(b"-", b"_"),
        name.replace(b"-", b"."),
        name.replace(b"-", b""),
        name.replace(b"-", b"_", 1),
        name + b"_",
    ]


async def spoofed(edge: Edge) -> float:
    return (await scraped(edge.gateway)).sum("ostiary_spoofed_headers_total")


# R020, R021, R022: identity


@pytest.mark.threat("forged identity")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("target", "key", "identity"),
    [
        pytest.param(b"/open", b"", b"", id="public"),
        pytest.param(b"/open", b"X-Api-Key: @KEY@", b"", id="public with a key"),
        pytest.param(b"/optional", b"", b"", id="optional"),
        pytest.param(b"/optional", b"X-Api-Key: @KEY@", IDENTITY, id="optional with a key"),
        pytest.param(b"/keyed", b"X-Api-Key: @KEY@", IDENTITY, id="with a key"),
    ],
)
async def test_forged_identity_never_arrives(
    edge: Edge, name: bytes, target: bytes, key: bytes, identity: bytes
) -> None:
    """Whatever the route and the spelling, the upstream sees the resolved identity or none. R020, R021, R022."""
    forgeries = [spelling + b": " + FORGED for spelling in spellings(name)]
    lines = [*forgeries[:5], key, *forgeries[5:]] if key else forgeries
    before = await spoofed(edge)
    request = await sent(edge, target, *lines, b"Accept: x")
    assert edge.plain(request.raw) == (
        b"GET " + target + b" HTTP/1.1\r\nHost: upstream\r\nAccept: x\r\n" + identity + OURS + b"\r\n"
    )
    assert await spoofed(edge) - before == len(forgeries)
    for reserved in NAMES:
        seen = [value for field, value in request.fields if folded(field) == folded(reserved)]
        assert len(seen) <= 1, "an upstream that folds names sees one value only"


@pytest.mark.threat("forged identity")
async def test_forged_identity_joined_and_repeated(edge: Edge) -> None:
    """A list, two lines, an empty value: all go. R022."""
    request = await sent(
        edge,
        b"/keyed",
        b"X-Api-Key: @KEY@",
        b"X-User-Id: user-ada, forged",
        b"X-User-Id:",
        b"X-User-Id: forged",
        b"X-User-Id:\tforged\t",
    )
    assert values(request, b"X-User-Id") == [b"user-ada"]


@pytest.mark.threat("Connection takes our fields away")
@pytest.mark.parametrize(
    "options",
    [
        b", ".join(NAMES),
        b"close, x-user-id",
        b"X-USER-ID,X-TENANT-ID,,X-Forwarded-For,X-Request-Id,Host",
        b"X-Api-Key, Authorization",
    ],
)
async def test_connection_cannot_take_the_identity_away(edge: Edge, options: bytes) -> None:
    """What Connection names is the client's; what the gateway adds comes afterwards. R022, R024."""
    request = await sent(edge, b"/keyed", b"Connection: " + options, b"X-Api-Key: @KEY@", b"X-User-Id: forged")
    assert edge.plain(request.raw) == b"GET /keyed HTTP/1.1\r\nHost: upstream\r\n" + IDENTITY + OURS + b"\r\n"


@pytest.mark.threat("trailers")
async def test_identity_in_trailers_goes_nowhere(edge: Edge) -> None:
    """Trailers are dropped, announced or not. R020, R022."""
    replies = await edge.line_says(
        edge.filled(
            b"POST /keyed HTTP/1.1\r\nHost: gw.test\r\nX-Api-Key: @KEY@\r\nTrailer: X-User-Id\r\n"
            b"TE: trailers\r\nTransfer-Encoding: chunked\r\n"
        )
        + CLOSE
        + b"2\r\nok\r\n0\r\nX-User-Id: forged\r\nX-Api-Key: forged\r\nContent-Length: 9\r\n\r\n"
    )
    assert [r.status for r in replies] == [200]
    assert edge.arrived() == [
        b"POST /keyed HTTP/1.1\r\nHost: upstream\r\n"
        + IDENTITY
        + OURS
        + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    ]


@pytest.mark.threat("forged identity")
async def test_the_configured_names_are_the_reserved_ones(other: Edge) -> None:
    """Under other names, those are set and protected, and the default ones are the client's own. R021."""
    request = await sent(
        other, b"/keyed", b"X-Secret: @KEY@", b"Caller: forged", b"caller_key: forged", b"X-User-Id: mine"
    )
    assert values(request, b"Caller") == [b"user-ada"]
    assert values(request, b"Caller-Tenant") == [b"tenant-of-ada"]
    assert values(request, b"Caller-Key") == [b"key_ada"]
    assert values(request, b"Caller-May") == [b"orders:read orders:write"]
    assert values(request, b"X-User-Id") == [b"mine"]
    assert FORGED not in request.raw


async def test_a_retired_secret_tells_the_same_identity(edge: Edge) -> None:
    """In its grace window it is the same key. R028."""
    request = await sent(edge, b"/keyed", b"X-Api-Key: " + RETIRED.encode())
    assert edge.plain(request.raw) == b"GET /keyed HTTP/1.1\r\nHost: upstream\r\n" + IDENTITY + OURS + b"\r\n"


async def test_an_operators_kind_is_told(edge: Edge) -> None:
    """The upstream can tell an operator from a user; without scopes there is no empty header. R013, R021."""
    request = await sent(edge, b"/keyed", b"X-Api-Key: " + OPERATOR.secret.encode(), b"X-Scopes: forged")
    assert values(request, b"X-Auth-Kind") == [b"operator"]
    assert values(request, b"X-Scopes") == []


async def test_identity_values_that_are_no_header_are_encoded(edge: Edge) -> None:
    """CR, LF and what is not ASCII arrive percent-encoded, in one line. R026."""
    request = await sent(edge, b"/keyed", b"X-Api-Key: " + ODD.secret.encode())
    assert values(request, b"X-User-Id") == [b"user-odd"]
    assert values(request, b"X-Scopes") == [
        b"gr%C3%B6%C3%9Fe a%0D%0AX-User-Id%3A root nul%01l %E6%97%A5%E6%9C%AC plain"
    ]


# R001, R009, R010, R016, R023: credentials


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"X-Api-Key: @KEY@"], id="X-Api-Key"),
        pytest.param([b"x-api-key:@KEY@"], id="lower case"),
        pytest.param([b"Authorization: Bearer @KEY@"], id="Authorization"),
        pytest.param([b"authorization:\tbearer  @KEY@ "], id="bearer"),
        pytest.param([b"X-Api-Key: @KEY@", b"Authorization: Bearer @KEY@"], id="both"),
        pytest.param([b"X-Api-Key: @KEY@", b"X-Api-Key: @KEY@"], id="twice"),
        pytest.param([b"X-Api-Key: @KEY@", b"X_Api_Key: @KEY@", b"x.api.key: @KEY@", b"XApiKey: @KEY@"], id="twins"),
        pytest.param([b"X-Api-Key: @KEY@", b"Authorization_: Bearer @KEY@"], id="a twin of Authorization"),
        pytest.param([b"X-Api-Key: @KEY@", b"Proxy-Authorization: Bearer @KEY@"], id="Proxy-Authorization"),
        pytest.param([b"X-Api-Key: @KEY@", b"Connection: X-Api-Key"], id="nominated"),
    ],
)
@pytest.mark.parametrize("target", [b"/keyed", b"/open", b"/optional"])
async def test_the_key_stays_with_the_gateway(edge: Edge, target: bytes, lines: list[bytes]) -> None:
    """It is removed from every request, also where nobody asked for it. R001, R016, R023."""
    request = await sent(edge, target, *lines, b"Accept: x")
    assert edge.caller.secret.encode() not in request.raw
    identity = b"" if target == b"/open" else IDENTITY
    assert edge.plain(request.raw) == (
        b"GET " + target + b" HTTP/1.1\r\nHost: upstream\r\nAccept: x\r\n" + identity + OURS + b"\r\n"
    )


@pytest.mark.parametrize(
    "value", [b"X-Api-Key: wrong", b"Authorization: Basic dTpw", b"X-Api-Key: \xff", b"X-Api-Key:"]
)
async def test_a_useless_key_on_a_public_route_is_not_looked_at(edge: Edge, value: bytes) -> None:
    """The reply is the same, no identity is told, and nothing is validated. R016."""
    before = (await scraped(edge.gateway)).by_labels("ostiary_auth_total")
    request = await sent(edge, b"/open", value)
    assert edge.plain(request.raw) == b"GET /open HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"\r\n"
    assert (await scraped(edge.gateway)).by_labels("ostiary_auth_total") == before


@pytest.mark.parametrize("value", [b"X-Api-Key: wrong", b"Authorization: Basic dTpw", b"X-Api-Key: \xff"])
async def test_a_useless_key_is_not_the_same_as_none(edge: Edge, value: bytes) -> None:
    """Where a key may be given, a wrong one is refused and never ignored. R007, R010."""
    replies = await edge.line_says(b"GET /optional HTTP/1.1\r\nHost: gw.test\r\n" + value + b"\r\n" + CLOSE)
    assert [r.status for r in replies] == [401]
    assert edge.upstream.received == []


async def test_a_key_in_another_place_is_none(edge: Edge, other: Edge) -> None:
    """A key in the query, a cookie or a header that is not configured admits nobody, and is not taken away. R005."""
    key = edge.caller.secret.encode()
    for target, line in (
        (b"/keyed?api_key=" + key, b"Accept: x"),
        (b"/keyed", b"Cookie: api_key=" + key),
        (b"/keyed", b"X_Api_Key: " + key),
        (b"/keyed", b"Api-Key: " + key),
    ):
        replies = await edge.line_says(b"GET " + target + b" HTTP/1.1\r\nHost: gw.test\r\n" + line + b"\r\n" + CLOSE)
        assert [r.status for r in replies] == [401], target
    replies = await other.line_says(b"GET /keyed HTTP/1.1\r\nHost: gw.test\r\nX-Api-Key: " + key + b"\r\n" + CLOSE)
    assert [r.status for r in replies] == [401]
    assert edge.upstream.received == []


# R024, R297: this hop's fields, and who is in front of it


@pytest.mark.threat("h2c upgrade")
async def test_hop_by_hop_fields_of_a_request_stay_behind(edge: Edge) -> None:
    """What was said to the gateway alone is not passed on. R024."""
    request = await sent(
        edge,
        b"/open",
        b"Connection: X-Hop, keep-alive",
        b"X-Hop: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"TE: trailers",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
        b"Via: 1.1 other",
        b"Cookie: a=b",
    )
    assert edge.plain(request.raw) == (
        b"GET /open HTTP/1.1\r\nHost: upstream\r\nVia: 1.1 other\r\nCookie: a=b\r\n" + OURS + b"\r\n"
    )


FORWARDED = (
    b"X-Forwarded-For: 192.0.2.1",
    b"X-Forwarded-For: 192.0.2.2",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: shop.test",
    b"X-Forwarded-Port: 444",
    b"X-Forwarded-Prefix: /x",
    b"X-Real-Ip: 192.0.2.3",
    b"Forwarded: for=192.0.2.4",
)
TWINS = (b"X_Forwarded_For: 192.0.2.5", b"x-forwarded_proto: https", b"X.Real.Ip: 192.0.2.6", b"XForwardedHost: evil")


async def test_an_unknown_client_does_not_say_who_it_is(edge: Edge) -> None:
    """Only the socket tells the address; what the client claims goes, in every spelling. R024, R297."""
    request = await sent(edge, b"/open", *FORWARDED, *TWINS)
    assert edge.plain(request.raw) == b"GET /open HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"\r\n"


async def test_a_trusted_proxy_says_who_its_client_is(other: Edge) -> None:
    """Its chain is kept and its own address appended; twins are not believed, nor are other names. R297."""
    request = await sent(other, b"/open", *FORWARDED, *TWINS)
    assert [
        (name, value) for name, value in request.fields if b"orward" in name.lower() or b"real" in name.lower()
    ] == [
        (b"X-Forwarded-For", b"192.0.2.1, 192.0.2.2, 127.0.0.1"),
        (b"X-Forwarded-Proto", b"https"),
        (b"X-Forwarded-Host", b"shop.test"),
    ]


# R030: request ids


async def test_a_request_id_is_made_or_kept_and_told_to_both_sides(edge: Edge) -> None:
    """The upstream, the reply and the problem name the request alike. R030."""
    request = await sent(edge, b"/open", b"X-Request-Id: abc-1.2:3")
    assert values(request, b"X-Request-Id") == [b"abc-1.2:3"]
    for target in (b"/open", b"/keyed"):
        (answer,) = await edge.line_says(
            b"GET " + target + b" HTTP/1.1\r\nHost: gw.test\r\nX-Request-Id: abc-1.2:3\r\n" + CLOSE
        )
        assert answer.all(b"X-Request-Id") == [b"abc-1.2:3"]
        assert answer.status == 200 or b'"request_id": "abc-1.2:3"' in answer.body


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"X-Request-Id:"],
        [b"X-Request-Id: a b"],
        [b"X-Request-Id: <script>"],
        [b"X-Request-Id: " + b"a" * 200],
        [b"X-Request-Id: \xc3\xa9"],
        [b"X-Request-Id: one", b"X-Request-Id: two"],
        [b"X_Request_Id: twin"],
        [b'X-Request-Id: a"b'],
    ],
)
async def test_a_doubtful_request_id_is_replaced(edge: Edge, lines: list[bytes]) -> None:
    """Nothing of it arrives, and every request gets one of its own. R030, R325."""
    fields = b"".join(line + b"\r\n" for line in lines)
    answers = [await edge.line_says(b"GET /open HTTP/1.1\r\nHost: gw.test\r\n" + fields + CLOSE) for _ in range(2)]
    ids = [answer.all(b"X-Request-Id") for (answer,) in answers]
    assert [values(request, b"X-Request-Id") for request in edge.upstream.requests] == ids
    assert len({one for (one,) in ids}) == 2
    for name, value in (line.split(b": ") for line in lines if b": " in line):
        for request in edge.upstream.requests:
            assert (name, value) not in request.fields


async def test_the_request_ids_name_is_configurable(other: Edge) -> None:
    """It is the only one used, upstream and in replies. R030."""
    request = await sent(other, b"/open", b"X-Trace: abc", b"X-Request-Id: mine")
    assert values(request, b"X-Trace") == [b"abc"]
    assert values(request, b"X-Request-Id") == [b"mine"]
    (answer,) = await other.line_says(b"GET /keyed HTTP/1.1\r\nHost: gw.test\r\nX-Trace: abc\r\n" + CLOSE)
    assert answer.status == 401
    assert answer.all(b"X-Trace") == [b"abc"]
    assert answer.all(b"X-Request-Id") == []


# R029, R343, R347: replies


async def test_an_upstream_cannot_speak_for_the_gateway(edge: Edge) -> None:
    """The gateway's names are removed from replies and their trailers, in every spelling. R029."""
    forged = b"".join(spelling + b": forged\r\n" for name in (*NAMES, b"X-Request-Id") for spelling in spellings(name))
    edge.upstream.script = reply(
        b"HTTP/1.1 200 OK\r\nX-Stays: 1\r\n" + forged + b"Transfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\nX-User-Id: forged\r\nx_plan: forged\r\n\r\n"
    )
    said = await edge.converse(b"GET /open HTTP/1.1\r\nHost: gw.test\r\nTE: trailers\r\n" + CLOSE)
    assert FORGED not in said
    assert b"X-Stays: 1" in said


@pytest.mark.threat("cached refusals")
@pytest.mark.parametrize("value", [b"no-store", b"private, max-age=0", b"public, max-age=60"])
async def test_an_upstreams_caching_is_left_alone(edge: Edge, value: bytes) -> None:
    """It is neither weakened nor invented. R343."""
    edge.upstream.script = reply(
        b"HTTP/1.1 200 OK\r\nCache-Control: " + value + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    )
    for target in (b"/open", b"/keyed"):
        (answer,) = await edge.line_says(
            edge.filled(b"GET " + target + b" HTTP/1.1\r\nHost: gw.test\r\nX-Api-Key: @KEY@\r\n") + CLOSE
        )
        assert answer.all(b"Cache-Control") == [value]
    edge.upstream.script = reply(OK)
    (answer,) = await edge.line_says(b"GET /open HTTP/1.1\r\nHost: gw.test\r\n" + CLOSE)
    assert answer.all(b"Cache-Control") == []


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_an_upstreams_own_refusal_passes_unchanged(edge: Edge, status: int) -> None:
    """It is told apart from the gateway's own by being no problem document of it. R347."""
    edge.upstream.script = reply(
        b"HTTP/1.1 %d Mine\r\nWWW-Authenticate: Basic\r\nRetry-After: 7\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 4\r\n\r\nmine" % status
    )
    (answer,) = await edge.line_says(
        edge.filled(b"GET /keyed HTTP/1.1\r\nHost: gw.test\r\nX-Api-Key: @KEY@\r\n") + CLOSE
    )
    assert (answer.status, answer.reason, answer.body) == (status, b"Mine", b"mine")
    assert [(n, v) for n, v in answer.fields if n not in (b"X-Request-Id", b"Connection")] == [
        (b"WWW-Authenticate", b"Basic"),
        (b"Retry-After", b"7"),
        (b"Content-Type", b"text/plain"),
        (b"Content-Length", b"4"),
    ]


@pytest.mark.threat("cached refusals", "two credentials")
@pytest.mark.parametrize(
    ("request_line", "line", "status", "code"),
    [
        (b"GET /keyed", b"", 401, b"missing_api_key"),
        (b"GET /keyed", b"X-Secret: x", 401, b"invalid_api_key"),
        (b"GET /keyed", b"X-Secret: x\r\nX-Secret: y", 400, b"ambiguous_credentials"),
        (b"PUT /keyed", b"", 401, b"missing_api_key"),
        (b"PUT /keyed", b"X-Secret: @KEY@", 405, b"method_not_allowed"),
        (b"GET /nowhere", b"", 401, b"missing_api_key"),
        (b"GET /nowhere", b"X-Secret: x", 401, b"invalid_api_key"),
        (b"GET /nowhere", b"X-Secret: @KEY@", 404, b"not_found"),
        (b"GET /", b"", 401, b"missing_api_key"),
        (b"GET /open2", b"", 401, b"missing_api_key"),
        (b"GET /OPEN", b"", 401, b"missing_api_key"),
        (b"GET /.ostiary/whoami", b"", 401, b"missing_api_key"),
        (b"GET /open/%2e%2e/keyed", b"", 400, b"bad_request"),
    ],
)
async def test_the_gateways_own_replies(
    other: Edge, request_line: bytes, line: bytes, status: int, code: bytes
) -> None:
    """A stranger learns no route; each reply is a problem that nobody stores and that names no upstream. R340, R343."""
    (answer,) = await other.line_says(
        other.filled(request_line + b" HTTP/1.1\r\nHost: gw.test\r\n" + (line + b"\r\n" if line else b"")) + CLOSE
    )
    assert answer.status == status
    assert b'"code": "%b"' % code in answer.body
    assert answer.all(b"Content-Type") == [b"application/problem+json"]
    assert answer.all(b"Cache-Control") == [b"no-store"]
    assert bool(answer.all(b"WWW-Authenticate")) is (status == 401)
    assert answer.all(b"Allow") == ([b"GET"] if status == 405 else [])
    for hidden in (b"raw", HOST.encode(), str(other.upstream.port).encode(), other.caller.secret.encode()):
        assert hidden not in answer.body
    assert other.upstream.received == []


@pytest.mark.threat("cached refusals")
@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /.ostiary/whoami", 200),
        (b"GET /.ostiary/nowhere", 404),
        (b"GET /.ostiary", 404),
        (b"PUT /.ostiary/whoami", 405),
    ],
)
async def test_the_gateways_own_endpoints_reply_like_the_rest_of_it(
    edge: Edge, request_line: bytes, status: int
) -> None:
    """Nobody stores them, errors are problems, and the software behind them is not named. R340, R343."""
    (answer,) = await edge.line_says(
        edge.filled(request_line + b" HTTP/1.1\r\nHost: gw.test\r\nX-Request-Id: abc\r\nX-Api-Key: @KEY@\r\n") + CLOSE
    )
    assert answer.status == status
    assert answer.all(b"Cache-Control") == [b"no-store"]
    assert answer.all(b"X-Request-Id") == [b"abc"]
    assert answer.all(b"Server") == []
    if status >= 400:
        assert answer.all(b"Content-Type") == [b"application/problem+json"]
        assert b'"request_id":"abc"' in answer.body


async def test_a_host_that_no_route_has_is_not_told_from_no_route(other: Edge) -> None:
    """Hosts cannot be found by trying. R340."""
    line = b"X-Secret: @KEY@"
    assert (await sent(other, b"/hosted", line)).target == b"/hosted"
    for key, status in ((b"", 401), (other.filled(line) + b"\r\n", 404)):
        (answer,) = await other.line_says(b"GET /hosted HTTP/1.1\r\nHost: else.test\r\n" + key + CLOSE)
        assert answer.status == status


# R341, R342: what a path and a host can do


@pytest.mark.threat("path of two readings")
@pytest.mark.parametrize(
    "target",
    [
        b"/orders/admin",
        b"/orders/admin/",
        b"/orders/admin?x",
        b"/orders//admin",
        b"/orders/./admin",
        b"/orders/x/../admin",
        b"/open/../orders/admin",
        b"/orders/%61dmin",
        b"/orders/%2561dmin",
        b"/orders/%2e/admin",
        b"/orders%2fadmin",
        b"/orders/;/admin",
        b"/orders/admin;x",
        b"/orders\\admin",
        b"/orders/admin%3f",
        b"/orders/admin%23",
        b"http://gw.test/orders/admin",
    ],
)
async def test_a_key_for_one_path_is_no_key_for_another(edge: Edge, target: bytes) -> None:
    """However the path is written, the rule of the path that the upstream would read is applied. R341."""
    (answer,) = await edge.line_says(
        edge.filled(b"GET " + target + b" HTTP/1.1\r\nHost: gw.test\r\nX-Api-Key: @KEY@\r\n") + CLOSE
    )
    assert answer.status in (400, 403)
    assert edge.upstream.received == []
    assert (await sent(edge, b"/orders/admins", b"X-Api-Key: @KEY@")).target == b"/orders/admins"


@pytest.mark.threat("Host as a lever")
@pytest.mark.parametrize("named", ["target", "host", "both"])
async def test_a_request_cannot_choose_its_upstream(edge: Edge, named: str) -> None:
    """Whatever authority is named, only the configured address is spoken to, by its own name. R342."""
    async with RawUpstream() as elsewhere:
        authority = f"{HOST}:{elsewhere.port}".encode()
        target = b"http://%b/open" % authority if named != "host" else b"/open"
        request = await sent(edge, target, host=b"gw.test" if named == "target" else authority)
        assert elsewhere.connections == []
    assert values(request, b"Host") == [f"{HOST}:{edge.upstream.port}".encode()]
    assert values(request, b"X-Forwarded-Host") == [authority]
    assert request.target == b"/open"
