"""nginx, Envoy, Caddy, Traefik and HAProxy in front, with the files that are shipped for them: they ask, and obey."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.auth.secrets import SecretFormat
from tests.conftest import StartGateway
from tests.fixtures.fronts import COMMANDS
from tests.fixtures.planted import ENVIRONMENT
from tests.fixtures.upstream import RecordingUpstream
from tests.integration.forward_auth.world import IDENTITY, World, told, world

SPOOFED = {name.replace("-", "_"): "mallory" for name in IDENTITY}
TWINS = ("X__User__Id", "XUserId", "x_userid", "X.User.Id", "X~User~Id", "_X_User_Id")
RENAMED = (
    {"X_Original_Uri": "/public/1"},
    {"X_Original_URL": "http://api.test/public/1"},
    {"X_Forwarded_Uri": "/public/1"},
    {"X_Forwarded_Uri": "/public/1", "X_Forwarded_Method": "GET"},
    {"X_Original_Uri": "/public/1", "X_Forwarded_Uri": "/public/1", "X_Original_Url": "/public/1"},
    {"X_Original_Host": "other.test", "X_Forwarded_Host": "other.test", "X_Original_Uri": "/public/1"},
)


@pytest.fixture(params=COMMANDS)
async def stand(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    gateway: StartGateway,
    postgres_dsn: str,
    upstream: RecordingUpstream,
) -> AsyncIterator[World]:
    """One of the proxies, the gateway and the API."""
    async with world(request.param, tmp_path / "front", gateway, postgres_dsn, upstream) as made:
        yield made


async def test_what_may_pass_is_forwarded_with_the_identity(stand: World) -> None:
    """Method, target and body arrive as they were sent, with the identity, and without the key. R021, R023, R025."""
    answer = await stand.ask("/orders/42?expand=items%2Fall&x=1", method="POST", body="order", X_Trace="7", **SPOOFED)
    assert answer.status == 200, (answer, stand.front.log)
    seen = stand.api.last
    assert (seen.method, seen.target, seen.body) == ("POST", "/orders/42?expand=items%2Fall&x=1", b"order")
    assert told(seen) == {
        "X-User-Id": stand.caller.user_id,
        "X-Tenant-Id": stand.caller.tenant_id,
        "X-Key-Id": stand.caller.key_id,
        "X-Key-Environment": ENVIRONMENT,
        "X-Auth-Kind": "key",
        "X-Scopes": "orders:read orders:write",
        "X-Plan": "starter",
    }
    assert seen.header("X-Request-Id")
    assert seen.header("X-Trace") == "7"
    assert stand.caller.secret not in str(seen.headers)
    if stand.front.name not in ("caddy", "traefik"):  # which pass nothing of the answer on to the client
        assert answer.headers["RateLimit-Policy"] == '"plan.per_minute";q=600;w=60'
    by_bearer = await stand.ask("/orders", secret="", Authorization=f"Bearer {stand.caller.secret}")
    assert by_bearer.status == 200
    assert stand.caller.secret not in str(stand.api.last.headers)


async def test_what_may_not_is_refused_as_the_gateway_refuses_it(stand: World) -> None:
    """All statuses come out with their body and headers, and nothing reaches the API. R003, R070, R292, R340."""
    unknown = SecretFormat("ost", ENVIRONMENT).generate()
    await stand.ask("/few")
    before = len(stand.api.requests)
    refused = {
        "missing_api_key": await stand.ask("/orders", secret=""),
        "invalid_api_key": await stand.ask("/orders", secret="", Authorization=f"Bearer {unknown}"),
        "ambiguous_credentials": await stand.ask("/orders", Authorization=f"Bearer {unknown}"),
        "insufficient_scope": await stand.ask("/admin"),
        "not_found": await stand.ask("/nowhere"),
        "method_not_allowed": await stand.ask("/orders", method="DELETE"),
        "rate_limited": await stand.ask("/few"),
        "auth_unavailable": await stand.ask("/unknown"),
    }
    assert len(stand.api.requests) == before
    assert [answer.status for answer in refused.values()] == [401, 401, 400, 403, 404, 405, 429, 503], refused
    for code, answer in refused.items():
        if code == "auth_unavailable":
            assert answer.problem["code"] in (code, "limits_unavailable")
        else:
            assert answer.problem["code"] == code
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Ostiary-Problem" not in answer.headers
        assert max(answer.times.values()) == 1, answer.headers
    assert refused["missing_api_key"].headers["WWW-Authenticate"] == 'Bearer realm="api"'
    assert refused["method_not_allowed"].headers["Allow"] == "GET, POST"
    assert 1 <= int(refused["rate_limited"].headers["Retry-After"]) <= 60
    assert '"key.per_minute";r=0;t=' in refused["rate_limited"].headers["RateLimit"]
    assert int(refused["auth_unavailable"].headers["Retry-After"]) >= 1
    assert refused["insufficient_scope"].problem["request_id"] == refused["insufficient_scope"].headers["X-Request-Id"]


async def test_nobody_passes_for_another(stand: World) -> None:
    """What a client says of itself is gone where the answer has no such header, and in every spelling. R020, R022."""
    answer = await stand.ask("/public/1", secret="", **SPOOFED)
    assert answer.status == 200
    assert told(stand.api.last) == {}
    answer = await stand.ask("/maybe", secret="", **SPOOFED)
    assert (answer.status, told(stand.api.last)) == (200, {})
    for name in TWINS:
        before = len(stand.api.requests)
        answer = await stand.ask("/public/1", secret="", **{name: "mallory"})
        if len(stand.api.requests) > before:
            assert told(stand.api.last) == {}, name
        else:
            assert answer.status in (400, 403), (name, answer)


async def test_nobody_asks_about_another_request_than_his_own(stand: World) -> None:
    """Names that a client gives its request beside the proxy's own lead nowhere but to a refusal."""
    for named in RENAMED:
        answer = await stand.ask("/orders", secret="", **named)
        assert answer.status in (400, 401), (named, answer)
        answer = await stand.ask("/admin/../public", **named)
        assert answer.status in (200, 400), (named, answer)  # where the client has cleaned the path itself
    assert [seen.target for seen in stand.api.requests if "public" not in seen.target] == []


async def test_nobody_is_counted_as_another_address(stand: World) -> None:
    """The address of a client is what the proxy says, not what the client says. R297."""
    statuses = [
        (await stand.ask("/few-by-address", secret="", X_Forwarded_For=f"198.51.100.{number}")).status
        for number in range(3)
    ]
    assert statuses == [200, 429, 429]
    # The last one in the list is the proxy's own word. Envoy has its own address there for a client of loopback.
    last = (stand.api.last.header("X-Forwarded-For") or "").rpartition(",")[2].strip()
    assert last == "127.0.0.1" or (stand.front.name == "envoy" and not last.startswith("198.51.100."))


async def test_nobody_to_ask_is_an_outage(stand: World) -> None:
    """Where no node of the gateway answers, nothing passes, and nobody is blamed for it. Traefik says 500. R070."""
    stand.gateway.kill()
    answer = await stand.ask("/orders")
    assert stand.api.requests == []
    if stand.front.name == "traefik":
        assert answer.status == 500
    else:
        assert answer.status == 503
        assert answer.problem["code"] == "auth_unavailable"
        assert int(answer.headers["Retry-After"]) >= 1
