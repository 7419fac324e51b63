"""`/.ostiary/auth` itself: the same decision as for a request that comes by itself, told to whoever asks."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest

from gateway.embedded.server_process import HOST
from tests.conftest import StartGateway
from tests.fixtures import psql
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.limited import counted
from tests.fixtures.planted import Caller, plant
from tests.fixtures.signed import AUDIENCE, ISSUER, SEALING_KEY
from tests.fixtures.upstream import RecordingUpstream
from tests.fixtures.waiting import until
from tests.integration.forward_auth.world import IDENTITY, Answer, ask, start_gateway

DOOR = "/.ostiary/auth"
APP = "https://app.example.com"


@pytest.fixture
async def caller(postgres_dsn: str) -> Caller:
    return await plant(postgres_dsn)


@pytest.fixture
async def node(gateway: StartGateway, upstream: RecordingUpstream, caller: Caller) -> AsyncIterator[GatewayProcess]:
    """A gateway that trusts whoever asks from here. Nothing of what is asked reaches an upstream."""
    yield await start_gateway(gateway, upstream, {"metering": {"interval_seconds": 0.2}})
    assert not [seen for seen in upstream.requests if "forwarded" not in seen.target]


@pytest.fixture
async def stranger(gateway: StartGateway, upstream: RecordingUpstream, caller: Caller) -> GatewayProcess:
    """A gateway that trusts nobody."""
    return await start_gateway(gateway, upstream, {"trusted_proxies": []})


async def about(node: GatewayProcess, uri: str, secret: str = "", method: str = "GET", **headers: str) -> Answer:
    """What is said of a request that is named as most proxies do."""
    named = {"X_Forwarded_Method": method, "X_Forwarded_Uri": uri, "X_Forwarded_Host": "api.test"}
    return await ask(node.proxy_url, DOOR, secret, **named, **headers)


def code_of(answer: Answer) -> str:
    return "" if answer.status == 200 else str(answer.problem["code"])


NAMES: dict[str, tuple[str, str, dict[str, str]]] = {
    "Traefik, Caddy": (
        "GET",
        DOOR,
        {"X_Forwarded_Method": "POST", "X_Forwarded_Uri": "/orders/1?x=1", "X_Forwarded_Host": "api.test"},
    ),
    "nginx": ("GET", DOOR, {"X_Original_Method": "POST", "X_Original_URI": "/orders/1?x=1"}),
    "ingress-nginx": ("GET", DOOR, {"X_Original_Method": "POST", "X_Original_URL": "http://api.test/orders/1?x=1"}),
    "Envoy": ("POST", f"{DOOR}/orders/1?x=1", {}),
    "twice the same": ("POST", f"{DOOR}/orders/1", {"X_Forwarded_Uri": "/orders/1", "X_Original_Method": "POST"}),
    "no method": ("POST", DOOR, {"X_Forwarded_Uri": "/orders/1"}),
    "HEAD asks": ("HEAD", DOOR, {"X_Forwarded_Method": "GET", "X_Forwarded_Uri": "/orders/1"}),
    "a path to be cleaned": ("GET", DOOR, {"X_Forwarded_Uri": "/orders//1/./2/"}),
}


async def test_a_request_is_named_as_proxies_name_it(node: GatewayProcess, caller: Caller) -> None:
    """A route for GET and POST, a scope: each way to name the request leads there, and the identity is told. R021."""
    for method, target, headers in NAMES.values():
        await check_named(node, caller, method, target, headers)


async def check_named(
    node: GatewayProcess, caller: Caller, method: str, target: str, headers: Mapping[str, str]
) -> None:
    answer = await ask(node.proxy_url, target, caller.secret, method, **headers)
    assert answer.status == 200, answer
    assert answer.body == b""
    assert answer.headers["X-User-Id"] == caller.user_id
    assert answer.headers["X-Scopes"] == "orders:read orders:write"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["RateLimit-Policy"] == '"plan.per_minute";q=600;w=60'
    assert answer.headers["X-Request-Id"]
    assert [answer.times[header.lower()] for header in IDENTITY] == [1] * len(IDENTITY)
    assert answer.headers["X-Identity-Assertion"] == ""
    refused = await ask(node.proxy_url, target, "", method, **headers)
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Bearer realm="api"')


UNNAMED: dict[str, tuple[str, dict[str, str]]] = {
    "two targets": (DOOR, {"X_Forwarded_Uri": "/public", "X_Original_Uri": "/orders"}),
    "a target beside the path": (f"{DOOR}/public", {"X_Forwarded_Uri": "/orders"}),
    "a method beside the path": (f"{DOOR}/orders", {"X_Forwarded_Method": "DELETE"}),
    "two methods": (
        DOOR,
        {"X_Forwarded_Uri": "/public", "X_Forwarded_Method": "GET", "X_Original_Method": "POST"},
    ),
    "a host beside that of the path": (f"{DOOR}/public", {"Host": "a", "X_Forwarded_Host": "b"}),
    "two hosts": (DOOR, {"X_Forwarded_Uri": "/public", "X_Forwarded_Host": "a", "X_Original_Host": "b"}),
    "a list of hosts": (DOOR, {"X_Forwarded_Uri": "/public", "X_Forwarded_Host": "a, b"}),
    "no method": (DOOR, {"X_Forwarded_Uri": "/public", "X_Forwarded_Method": "GET /"}),
    "no target": (DOOR, {"X_Forwarded_Uri": "/public /"}),
    "a fragment": (DOOR, {"X_Forwarded_Uri": "/public#/orders"}),
    "an encoded slash": (DOOR, {"X_Forwarded_Uri": "/public%2f..%2forders"}),
    "a path out of a route": (DOOR, {"X_Forwarded_Uri": "/orders/../public"}),
    "a path into a route": (DOOR, {"X_Forwarded_Uri": "/public/../orders"}),
    "an empty segment in front": (DOOR, {"X_Forwarded_Uri": "//public"}),
    "out of the door": (f"{DOOR}/../whoami", {}),
    "a header that looks like ours": (DOOR, {"X_Forwarded_Uri": "/public", "X__User__Id": "mallory"}),
    "and without any sign": (DOOR, {"X_Forwarded_Uri": "/public", "XUserId": "mallory"}),
}


async def test_what_could_be_two_requests_is_none(node: GatewayProcess, caller: Caller) -> None:
    """Where names disagree, or the path could lead elsewhere as it came, nothing passes, whoever asks. R341."""
    for name, (target, headers) in UNNAMED.items():
        answer = await ask(node.proxy_url, target, caller.secret, **headers)
        expected = (404, "not_found") if name == "out of the door" else (400, "bad_request")
        assert (answer.status, answer.problem["code"]) == expected, (name, answer)


async def test_refusals_are_those_of_the_proxy_path(node: GatewayProcess, caller: Caller) -> None:
    """Status, code, title and headers are the same at both doors, and the body is in a line too. R003, R340."""
    asked = {
        "missing_api_key": ("/orders", "", "GET"),
        "invalid_api_key": ("/orders", "ost_wrong", "GET"),
        "insufficient_scope": ("/admin", caller.secret, "GET"),
        "not_found": ("/nowhere", caller.secret, "GET"),
        "method_not_allowed": ("/orders", caller.secret, "DELETE"),
    }
    for code, (path, secret, method) in asked.items():
        there, here = await ask(node.proxy_url, path, secret, method), await about(node, path, secret, method)
        told, line = here.problem, here.headers["Ostiary-Problem"]
        assert code_of(here) == code
        assert line.encode() == here.body
        expected = {**there.problem, "request_id": told["request_id"]}
        assert (here.status, told) == (there.status, expected)
        for name in ("WWW-Authenticate", "Allow", "Retry-After", "Cache-Control"):
            assert here.headers.get(name) == there.headers.get(name)


async def test_nothing_named_is_no_route(node: GatewayProcess, caller: Caller) -> None:
    """Who names no request is told 404, with a key; the gateway's own endpoints cannot be named either. R340."""
    assert code_of(await ask(node.proxy_url, DOOR)) == "missing_api_key"
    assert code_of(await ask(node.proxy_url, DOOR, caller.secret)) == "not_found"
    for own in ("/.ostiary/whoami", "/.ostiary/auth/orders", "/.ostiary/auth", "/.ostiary"):
        assert code_of(await about(node, own, caller.secret)) == "not_found", own
    assert code_of(await ask(node.proxy_url, DOOR + "x", caller.secret)) == "not_found"


async def test_a_named_head_request_gets_a_body(node: GatewayProcess) -> None:
    """The reply is framed for the question, which has a body, whatever the method that is asked about."""
    answer = await about(node, "/orders", method="HEAD")
    assert (answer.status, code_of(answer)) == (401, "missing_api_key")


async def test_nothing_is_told_is_told_too(node: GatewayProcess) -> None:
    """Where nobody is known, each name is there and empty: the proxy overwrites what the client says. R020."""
    for path in ("/public", "/maybe"):
        answer = await about(node, path, X_User_Id="mallory")
        assert answer.status == 200
        assert [answer.headers[name] for name in IDENTITY] == [""] * len(IDENTITY)
    assert await counted(node, "ostiary_spoofed_headers") == 2


async def test_keys_in_other_places(gateway: StartGateway, upstream: RecordingUpstream, caller: Caller) -> None:
    """A key in the named query, or behind a WebSocket's protocol, counts as it does in a request itself. R005."""
    places = [{"header": "X-Api-Key"}, {"query": "api_key"}, {"websocket_protocol": "key"}]
    node = await start_gateway(gateway, upstream, {"credentials": places})
    assert (await about(node, f"/orders?api_key={caller.secret}")).headers["X-User-Id"] == caller.user_id
    assert (await ask(node.proxy_url, f"{DOOR}/orders?api_key={caller.secret}")).status == 200
    assert (await about(node, "/orders", Sec_WebSocket_Protocol=f"chat, key, {caller.secret}")).status == 200
    assert code_of(await about(node, "/orders?api_key=other", caller.secret)) == "ambiguous_credentials"


async def test_both_doors_draw_on_one_budget(
    gateway: StartGateway, upstream: RecordingUpstream, caller: Caller
) -> None:
    """What was let through at one door is used up at the other. R291."""
    node = await start_gateway(gateway, upstream, {"plans": {"starter": {"limits": {"per_minute": 4}}}})
    asked = [
        (await about(node, "/orders", caller.secret)).status,
        (await ask(node.proxy_url, "/orders", caller.secret)).status,
        (await about(node, "/orders", caller.secret)).status,
        (await ask(node.proxy_url, "/orders", caller.secret)).status,
    ]
    there, here = await ask(node.proxy_url, "/orders", caller.secret), await about(node, "/orders", caller.secret)
    assert asked == [200] * 4
    assert code_of(there) == code_of(here) == "rate_limited"
    assert here.headers["RateLimit-Policy"] == there.headers["RateLimit-Policy"]
    assert int(here.headers["Retry-After"]) >= 1


async def test_addresses_are_told_by_trusted_proxies(node: GatewayProcess, caller: Caller) -> None:
    """A limit by address counts the client whom a trusted proxy names, each apart. R297."""
    statuses = [
        (await about(node, "/few-by-address", X_Forwarded_For=f"198.51.100.{last}")).status for last in (1, 1, 2, 2)
    ]
    assert statuses == [200, 429, 200, 429]


async def test_a_stranger_charges_only_himself(stranger: GatewayProcess, caller: Caller) -> None:
    """Who is not trusted may ask about his own key, and counts as the address that he has, whatever he says. R297."""
    statuses = [
        (await about(stranger, "/few-by-address", X_Forwarded_For=f"198.51.100.{last}")).status for last in (1, 2)
    ]
    assert statuses == [200, 429]
    assert code_of(await about(stranger, "/orders")) == "missing_api_key"
    assert code_of(await about(stranger, "/admin", caller.secret)) == "insufficient_scope"
    own = await about(stranger, "/orders", caller.secret)
    assert (own.status, own.headers["X-User-Id"]) == (200, caller.user_id)


async def test_a_stranger_gets_nothing_signed(
    gateway: StartGateway, upstream: RecordingUpstream, caller: Caller
) -> None:
    """The assertion is for the proxies alone: anybody else could take it to the API past them. R027."""
    changes: dict[str, Any] = {
        "tokens": {"issuer": ISSUER, "audience": AUDIENCE, "sealing_key": SEALING_KEY},
        "upstreams": {"api": {"targets": [upstream.url], "assertion": True}, "orders": None},
    }
    trusting = await start_gateway(gateway, upstream, changes)
    wary = await start_gateway(gateway, upstream, {**changes, "trusted_proxies": []})
    told = (await about(trusting, "/orders", caller.secret)).headers["X-Identity-Assertion"]
    assert told.count(".") == 2
    kept = await about(wary, "/orders", caller.secret)
    assert (kept.status, kept.headers["X-Identity-Assertion"]) == (200, "")


async def test_preflights_may_pass_where_the_route_lists_the_origin(node: GatewayProcess) -> None:
    """A preflight needs no key and has no caller; one of another origin is refused, other OPTIONS need keys. R017."""
    asking = {"Access_Control_Request_Method": "GET", "method": "OPTIONS"}
    passed = await about(node, "/pages", Origin=APP, X_User_Id="mallory", **asking)
    assert (passed.status, passed.headers["Access-Control-Allow-Origin"]) == (200, APP)
    assert [passed.headers[name] for name in IDENTITY] == [""] * len(IDENTITY)
    assert code_of(await about(node, "/pages", Origin="https://evil.example", **asking)) == "origin_not_allowed"
    assert code_of(await about(node, "/maybe/../pages", Origin=APP, **asking)) == "bad_request"
    assert code_of(await about(node, "/orders", Origin=APP, **asking)) == "missing_api_key"
    assert code_of(await about(node, "/pages", method="OPTIONS")) == "missing_api_key"
    refused = await about(node, "/pages", Origin=APP)
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, APP)


async def test_it_is_metered_and_counted_as_what_it_names(
    node: GatewayProcess, caller: Caller, postgres_dsn: str
) -> None:
    """Usage and metrics have the named route and method, once each. R320."""
    await about(node, "/orders", caller.secret, "POST")
    await about(node, "/admin", caller.secret)
    await about(node, "/orders")

    async def is_written() -> bool:
        rows = await psql.rows(postgres_dsn, "SELECT key_id, route, outcome, code, requests FROM usage")
        return sorted(rows) == [
            ("", "orders", "refused", "missing_api_key", 1),
            (caller.key_id, "admin", "refused", "insufficient_scope", 1),
            (caller.key_id, "orders", "forwarded", "2xx", 1),
        ]

    await until(is_written, what="the usage")
    labels = {"route": "orders", "method": "POST", "status": "200", "outcome": "forwarded"}
    assert await counted(node, "ostiary_requests", **labels) == 1
    assert await counted(node, "ostiary_requests", route=".ostiary.auth") == 0


async def test_what_passes_uses_its_key(node: GatewayProcess, caller: Caller, postgres_dsn: str) -> None:
    """A key that lets a question pass is in use, and so is its secret. R310, R312."""
    await about(node, "/orders", caller.secret)

    async def is_written() -> bool:
        (row,) = await psql.rows(
            postgres_dsn, "SELECT last_used_at, secret_first_used_at FROM api_keys WHERE id = $1", caller.key_id
        )
        return None not in row

    await until(is_written, what="the use")


async def test_one_connection_serves_all_questions(node: GatewayProcess, caller: Caller) -> None:
    """Questions and requests of many clients come on one connection; each gets its own answer, in order."""
    reader, writer = await asyncio.open_connection(HOST, node.proxy_port)

    def question(uri: str, secret: str, method: str = "GET") -> bytes:
        return (
            f"GET {DOOR} HTTP/1.1\r\nHost: gw.test\r\nX-Forwarded-Uri: {uri}\r\nX-Forwarded-Method: {method}\r\n"
            f"X-Forwarded-For: 192.0.2.1\r\nX-Api-Key: {secret}\r\n\r\n"
        ).encode()

    good, none = question("/orders", caller.secret), question("/orders", "ost_wrong")
    forwarded = b"GET /public/forwarded HTTP/1.1\r\nHost: gw.test\r\n\r\n"
    plan = [good, good, none, good, question("/admin", caller.secret), forwarded, none, good, forwarded, good] * 3
    writer.write(b"".join(plan))
    statuses = []
    for _ in plan:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        statuses.append(int(head.split(b" ", 2)[1]))
    writer.close()
    await writer.wait_closed()
    assert statuses == [200, 200, 401, 200, 403, 200, 401, 200, 200, 200] * 3


async def test_a_body_that_is_not_sent_holds_nothing_up(node: GatewayProcess, caller: Caller) -> None:
    """A proxy may pass Content-Length on, and no body: the answer does not wait, and its connection ends with it."""
    reader, writer = await asyncio.open_connection(HOST, node.proxy_port)
    head = f"POST {DOOR}/orders HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 100\r\nX-Api-Key: {caller.secret}\r\n\r\n"
    writer.write(head.encode())
    received = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nConnection: close\r\n" in received


async def test_an_explanation_says_what_answers(node: GatewayProcess, operator_token: str) -> None:
    """`explain` of the door itself ends; what is asked there is explained under its own path."""
    document = {"method": "GET", "path": DOOR, "host": "gw.test"}
    async with aiohttp.request(
        "POST",
        f"{node.admin_url}/v1/explain",
        json=document,
        headers={"Authorization": f"Bearer {operator_token}"},
    ) as answer:
        assert answer.status == 200
        explained = await answer.json()
    assert (explained["decision"]["outcome"], explained["decision"]["status"]) == ("answered", None)
