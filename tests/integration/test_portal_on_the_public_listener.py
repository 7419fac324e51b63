"""The portal behind the public listener: a session of it reaches its pages, and nothing else that stands there."""

import secrets
from collections.abc import Mapping

import aiohttp
import asyncpg
import pytest
from yarl import URL

from gateway.auth.secrets import sha256_digest
from tests.conftest import StartGateway
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import Caller, plant
from tests.fixtures.provider import AUDIENCE, OpenIdProvider
from tests.fixtures.upstream import RecordingUpstream

SESSION = "ostiary_session"


async def sign_in(dsn: str, caller: Caller) -> str:
    """A session of the caller's, as a sign-in leaves it: what the browser holds."""
    token = secrets.token_urlsafe(32)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "INSERT INTO portal_sessions (digest, kind, subject, facts, ends_at) VALUES ($1, 'user', $2, $3,"
            " now() + interval '1 hour')",
            sha256_digest(token.encode()),
            caller.user_id,
            '{"tenant_id": null, "roles": [], "groups": []}',
        )
    finally:
        await connection.close()
    return token


async def start(gateway: StartGateway, portal: Mapping[str, object]) -> GatewayProcess:
    """A node with a portal, and an API beside it, also below the portal's own path."""
    issuer = OpenIdProvider().issuer  # nobody is there: who has signed in needs no provider
    return await gateway(
        {
            "oidc": {"issuer": issuer, "audience": AUDIENCE},
            "portal": {"url": "http://localhost:8080", "client_id": "portal"},
            "routes": [
                {"name": "api", "paths": ["/", "/portal/api"], "upstream": "orders", "auth": "none"},
                *([{"name": "portal", "paths": ["/portal"], **portal}] if portal else []),
            ],
        }
    )


async def get(session: aiohttp.ClientSession, url: str, **headers: str) -> int:
    async with session.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as answer:
        await answer.read()
        return answer.status


@pytest.mark.parametrize("is_public", [True, False], ids=["with a route", "on the admin listener alone"])
async def test_no_api_sees_a_session(
    gateway: StartGateway, postgres_dsn: str, upstream: RecordingUpstream, is_public: bool
) -> None:
    """Whatever a path looks like, it is the route that decides; the API's own cookies arrive, each time. R365."""
    caller = await plant(postgres_dsn)
    token = await sign_in(postgres_dsn, caller)
    node = await start(gateway, {"upstream": ".portal", "auth": "none"} if is_public else {})
    cookie = f"theirs=1; {SESSION}={token}; more=2"
    targets = ["/orders", "/portal/api/orders", "/portal/../orders", "/portal/%2e%2e/orders", "/portal//api"]
    targets += [] if is_public else ["/portal", "/portal/keys"]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        for number, target in enumerate(targets * 2):
            status = await get(session, node.proxy_url + target, Cookie=cookie, Traceparent=str(number))
            assert status == (400 if "%2e" in target else 200), target
            if is_public:
                pages = f"{node.proxy_url}/portal/keys"
                assert await get(session, pages, Cookie=cookie, Traceparent=str(number)) == 200
                assert await get(session, pages, Cookie=cookie, Traceparent=str(number)) == 200
                assert await get(session, pages) == 303
            assert await get(session, f"{node.proxy_url}/orders", Cookie="theirs=1; more=2", T=str(number)) == 200
    assert len(upstream.requests) == len(targets) * 4 - 2
    for request in upstream.requests:
        cookies = [value for name, value in request.headers if name.lower() == "cookie"]
        assert cookies == ["theirs=1; more=2"], request
