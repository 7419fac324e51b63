"""Pages of other origins: preflights before authentication, listed origins alone, on every kind of reply."""

import aiohttp
import pytest

from tests.conftest import StartGateway
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.upstream import RecordingUpstream, Reply

APP = "https://app.example.com"
ROUTES = [
    {
        "name": "orders",
        "paths": ["/orders"],
        "upstream": "orders",
        "methods": ["GET", "POST"],
        "cors": {"origins": [APP]},
    },
    {"name": "open", "paths": ["/public"], "upstream": "orders", "auth": "none", "cors": {"origins": [APP]}},
    {"name": "any", "paths": ["/any"], "upstream": "orders", "auth": "none", "cors": {"origins": ["*"]}},
    {"name": "own", "paths": ["/own"], "upstream": "orders", "auth": "none"},
]
ASKING = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}


@pytest.fixture
async def node(gateway: StartGateway) -> GatewayProcess:
    return await gateway({"routes": ROUTES})


async def ask(node: GatewayProcess, method: str, path: str, **headers: str) -> aiohttp.ClientResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.request(method, f"{node.proxy_url}{path}", headers=named) as response:
        await response.read()
        return response


async def test_preflight_is_answered_before_authentication(node: GatewayProcess, upstream: RecordingUpstream) -> None:
    """A preflight needs no key, lists methods and both key headers, and the upstream sees nothing. R017."""
    reply = await ask(node, "OPTIONS", "/orders/1", Origin=APP, **ASKING)
    assert reply.status == 204
    assert reply.headers["Access-Control-Allow-Origin"] == APP
    assert reply.headers["Vary"] == "Origin"
    assert reply.headers["Access-Control-Allow-Methods"] == "GET, POST"
    assert {"Authorization", "X-Api-Key"} <= set(reply.headers["Access-Control-Allow-Headers"].split(", "))
    assert upstream.requests == []


@pytest.mark.parametrize("path", ["/orders/1", "/public/1"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://app.example.com.evil.example", f"{APP}/"])
async def test_other_origins_are_refused(
    node: GatewayProcess, upstream: RecordingUpstream, path: str, origin: str
) -> None:
    """An origin that is not listed gets 403, uncached, and is not told what would be allowed. R344."""
    for method, headers in (("OPTIONS", ASKING), ("GET", {})):
        reply = await ask(node, method, path, Origin=origin, **headers)
        assert reply.status == 403
        assert reply.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in reply.headers
    assert upstream.requests == []


async def test_every_reply_tells_the_page(node: GatewayProcess, upstream: RecordingUpstream) -> None:
    """Relayed replies and our own carry the header, without which a page could not read the error. R196, R344."""
    upstream.respond = lambda request: Reply(
        body=b"ok", headers={"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true"}
    )
    relayed, refused = await ask(node, "GET", "/public", Origin=APP), await ask(node, "GET", "/orders", Origin=APP)
    assert (relayed.status, refused.status) == (200, 401)
    for reply in (relayed, refused):
        assert reply.headers.getall("Access-Control-Allow-Origin") == [APP]
        assert "Retry-After" in reply.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in reply.headers


async def test_any_origin_is_echoed(node: GatewayProcess) -> None:
    """A route open to any page echoes the origin, so that caches keep replies apart."""
    reply = await ask(node, "GET", "/any", Origin="https://whoever.example")
    assert reply.headers["Access-Control-Allow-Origin"] == "https://whoever.example"
    assert reply.headers["Vary"] == "Origin"


async def test_callers_without_an_origin_see_no_difference(node: GatewayProcess) -> None:
    """A caller that is no page is not told of origins."""
    reply = await ask(node, "GET", "/public")
    assert reply.status == 200
    assert not [name for name in reply.headers if name.lower().startswith("access-control-")]


async def test_route_without_a_rule_leaves_it_to_the_upstream(
    node: GatewayProcess, upstream: RecordingUpstream
) -> None:
    """Preflights and origins pass to an upstream that answers for itself."""
    upstream.respond = lambda request: Reply(headers={"Access-Control-Allow-Origin": "https://x.example"})
    reply = await ask(node, "OPTIONS", "/own", Origin="https://x.example", **ASKING)
    assert reply.headers["Access-Control-Allow-Origin"] == "https://x.example"
    assert upstream.last.header("Origin") == "https://x.example"
