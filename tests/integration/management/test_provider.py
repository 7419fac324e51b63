"""The provider's keys: rotation, withdrawal, every way of being away, and no storm of questions. R070."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.settings import OidcSettings
from tests.fixtures.provider import (
    AUDIENCE,
    JWKS_PATH,
    Fault,
    OpenIdProvider,
    ProviderKey,
    answers,
    floods,
    hangs,
    swells,
    trickles,
)
from tests.fixtures.waiting import until
from tests.integration.management.world import (
    PROVIDER_INTERVAL_SECONDS,
    Management,
    give_tokens,
    management_over,
)


@pytest.fixture
async def provider() -> AsyncIterator[OpenIdProvider]:
    """A provider that answers."""
    async with OpenIdProvider() as provider:
        yield provider


@asynccontextmanager
async def signing_in(dsn: str, provider: OpenIdProvider, **settings: Any) -> AsyncIterator[Management]:
    """The API whose users sign in at the provider."""
    oidc = OidcSettings.model_validate({"issuer": provider.issuer, "audience": AUDIENCE, **settings})
    async with management_over(dsn, oidc=oidc) as world:
        await give_tokens(world)
        await world.plant()
        yield world


async def me(world: Management, token: str) -> tuple[int, Any]:
    """How a token is answered: status and code."""
    reply = await world.call("GET", "/v1/me", token=token)
    return reply.status, reply.code


async def until_me(world: Management, token: str, *answer: Any) -> None:
    """Wait until the token is answered in this way."""

    async def is_answered() -> bool:
        return await me(world, token) == answer

    await until(is_answered, what=f"{answer}")


SERVED, NOT_OURS, AWAY = (200, None), (401, "invalid_token"), (503, "auth_unavailable")


async def test_a_rotation_is_not_noticed(postgres_dsn: str, provider: OpenIdProvider) -> None:
    """A new key is asked for with its first token, once the interval is over; one that the provider keeps stays."""
    async with signing_in(postgres_dsn, provider) as world:
        old = provider.token()
        await until_me(world, old, *SERVED)
        for name in ("second", "third"):
            provider.rotate(name, keeps=True)
            await until_me(world, provider.token(), *SERVED)
            assert await me(world, old) == SERVED


async def test_a_withdrawn_key_is_believed_no_more(postgres_dsn: str, provider: OpenIdProvider) -> None:
    """What the provider does not publish any more is read within `refresh_seconds`, unasked for."""
    async with signing_in(postgres_dsn, provider, refresh_seconds=0.3) as world:
        old = provider.token()
        await until_me(world, old, *SERVED)
        provider.rotate("second")
        await until_me(world, old, *NOT_OURS)
        assert await me(world, provider.token()) == SERVED


async def test_a_key_of_the_same_id_replaces_the_old_one(postgres_dsn: str, provider: OpenIdProvider) -> None:
    """A provider that reuses ids is believed as it is now."""
    async with signing_in(postgres_dsn, provider, refresh_seconds=0.3) as world:
        old = provider.token()
        await until_me(world, old, *SERVED)
        provider.rotate("first")
        await until_me(world, provider.token(), *SERVED)
        assert await me(world, old) == NOT_OURS


async def test_invented_keys_make_no_storm(postgres_dsn: str, provider: OpenIdProvider) -> None:
    """However many key ids are invented, the provider is asked once in the interval; good tokens are not hindered."""
    async with signing_in(postgres_dsn, provider) as world:
        good = provider.token()
        await until_me(world, good, *SERVED)
        began, before = time.monotonic(), provider.fetches
        invented = [ProviderKey(f"invented-{number}", provider.key.private) for number in range(150)]
        claims = provider.claims()
        answers_of = await asyncio.gather(
            *(me(world, key.sign(claims)) for key in invented), *(me(world, good) for _ in range(20))
        )
        seconds = time.monotonic() - began
        assert answers_of == [NOT_OURS] * 150 + [SERVED] * 20
        assert provider.fetches - before <= seconds / PROVIDER_INTERVAL_SECONDS + 1
        provider.fault = answers(500)
        await until_me(world, invented[0].sign(claims), *AWAY)
        began, before = time.monotonic(), len(provider.asked)
        for key in invented:
            assert await me(world, key.sign(claims)) == AWAY
        assert len(provider.asked) - before <= (time.monotonic() - began) / PROVIDER_INTERVAL_SECONDS + 1


async def test_the_provider_is_not_asked_for_known_keys(postgres_dsn: str, provider: OpenIdProvider) -> None:
    """Nor for what is malformed, or signed by an algorithm that is not accepted."""
    async with signing_in(postgres_dsn, provider) as world:
        await until_me(world, provider.token(), *SERVED)
        before = provider.fetches
        for _ in range(10):
            assert await me(world, provider.token()) == SERVED
            assert await me(world, provider.token()[:-4]) == NOT_OURS
            assert await me(world, provider.key.sign(provider.claims(), {"kid": "x", "alg": "HS256"})) == NOT_OURS
        assert provider.fetches == before


FAULTS: dict[str, Fault] = {
    "500": answers(500),
    "503 with keys": answers(503, b'{"keys": []}'),
    "404": answers(404),
    "a page": answers(200, b"<html>maintenance</html>"),
    "deep nonsense": answers(200, b"[" * 100_000),
    "no JWKS": answers(200, b'{"keys": {}}'),
    "nothing": answers(200, b""),
    "larger than any key set": swells,
    "without an end": floods,
}


async def test_nonsense_is_an_outage(postgres_dsn: str, provider: OpenIdProvider) -> None:
    """Known keys go on; a key that is not known cannot be judged: 503, never 401. The end of it is noticed. R070."""
    async with signing_in(postgres_dsn, provider, refresh_seconds=0.3) as world:
        known = provider.token()
        await until_me(world, known, *SERVED)
        for name, fault in FAULTS.items():
            provider.rotate(name, keeps=True)
            provider.fault = fault
            await until_me(world, provider.token(), *AWAY)
            assert await me(world, known) == SERVED
            assert b'ostiary_dependency_up{dependency="oidc"} 0.0' in world.metrics.exposition()
            provider.fault = None
            await until_me(world, provider.token(), *SERVED)
            assert b'ostiary_dependency_up{dependency="oidc"} 1.0' in world.metrics.exposition()


async def test_a_provider_that_is_down(postgres_dsn: str, provider: OpenIdProvider) -> None:
    """Known keys go on for `outage_seconds`, and then nobody can tell; when it is back, all is well. R070."""
    async with signing_in(postgres_dsn, provider, refresh_seconds=0.2, outage_seconds=1.2) as world:
        token = provider.token()
        await until_me(world, token, *SERVED)
        await provider.stop()
        unknown = ProviderKey("unknown").sign(provider.claims())
        await until_me(world, unknown, *AWAY)
        assert await me(world, token) == SERVED
        await until_me(world, token, *AWAY)
        reply = await world.call("GET", "/v1/me", token=token)
        assert int(reply.headers["Retry-After"]) >= 1
        assert provider.issuer not in reply.text
        await provider.start()
        await until_me(world, token, *SERVED)
        assert await me(world, unknown) == NOT_OURS


async def test_a_provider_that_is_down_from_the_start(postgres_dsn: str) -> None:
    """Admin tokens do not depend on it; users get 503 until it is there. R070."""
    provider = OpenIdProvider()
    async with signing_in(postgres_dsn, provider) as world:
        assert await me(world, provider.token()) == AWAY
        assert await me(world, "not.a.token") == NOT_OURS
        await world.expect(200, "GET", "/v1/keys")
        await provider.start()
        try:
            await until_me(world, provider.token(), *SERVED)
        finally:
            await provider.stop()


@pytest.mark.parametrize("fault", [hangs, trickles], ids=["silent", "trickling"])
async def test_a_provider_that_hangs(postgres_dsn: str, provider: OpenIdProvider, fault: Fault) -> None:
    """Users whose key is known do not wait; one whose key is not waits for the deadline of a fetch, and gets 503."""
    async with signing_in(postgres_dsn, provider, refresh_seconds=0.3) as world:
        token = provider.token()
        await until_me(world, token, *SERVED)
        provider.fault = fault
        provider.rotate("second", keeps=True)
        before = len(provider.asked)
        await until(lambda: len(provider.asked) > before, what="the gateway to ask")
        began = time.monotonic()
        waiting = [asyncio.ensure_future(me(world, provider.token())) for _ in range(5)]
        assert await me(world, token) == SERVED
        assert time.monotonic() - began < 1
        assert await asyncio.gather(*waiting) == [AWAY] * 5
        assert 3 < time.monotonic() - began < 8
        began = time.monotonic()
        assert await me(world, provider.token()) == AWAY
        assert time.monotonic() - began < 1
        provider.fault = None


async def test_keys_of_somebody_else(postgres_dsn: str, provider: OpenIdProvider) -> None:
    """Who answers with a redirect has not answered: keys from elsewhere are not the provider's."""
    async with OpenIdProvider() as other, signing_in(postgres_dsn, provider, refresh_seconds=0.3) as world:
        known = provider.token()
        await until_me(world, known, *SERVED)
        other.rotate("other")
        before = len(provider.asked)
        provider.fault = answers(302, Location=other.discovery["jwks_uri"])
        await until(lambda: len(provider.asked) > before + 1, what="the gateway to ask twice")
        assert await me(world, other.key.sign(provider.claims())) == AWAY
        assert await me(world, known) == SERVED
        assert other.asked == []


DISCOVERIES: dict[str, dict[str, Any]] = {
    "another issuer": {"issuer": "https://evil.example"},
    "no issuer": {"issuer": None},
    "no keys": {"jwks_uri": None},
    "keys by plain HTTP": {"jwks_uri": "http://login.example.com/keys"},
    "keys of a file": {"jwks_uri": "file:///etc/passwd"},
    "keys nowhere": {"jwks_uri": 7},
}


async def test_a_discovery_that_is_not_believed(postgres_dsn: str, provider: OpenIdProvider) -> None:
    """Then the keys are not asked for, and nobody is refused for it. OpenID Connect Discovery 4.3."""
    good = dict(provider.discovery)
    provider.discovery = good | DISCOVERIES["another issuer"]
    async with signing_in(postgres_dsn, provider) as world:
        for document in DISCOVERIES.values():
            provider.discovery = good | document
            before = len(provider.asked)
            await until(lambda before=before: len(provider.asked) > before + 1, what="the gateway to ask twice")
            assert await me(world, provider.token()) == AWAY
        assert provider.fetches == 0
        provider.discovery = good
        await until_me(world, provider.token(), *SERVED)


async def test_keys_at_a_configured_address(postgres_dsn: str, provider: OpenIdProvider) -> None:
    """With `jwks_url` discovery is not asked."""
    url = f"http://127.0.0.1:{provider.port}{JWKS_PATH}"
    async with signing_in(postgres_dsn, provider, jwks_url=url) as world:
        await until_me(world, provider.token(), *SERVED)
        assert set(provider.asked) == {JWKS_PATH}


async def test_a_provider_without_keys(postgres_dsn: str, provider: OpenIdProvider) -> None:
    """It has withdrawn them all: that is its word, and no outage."""
    provider.published = []
    async with signing_in(postgres_dsn, provider) as world:
        await until_me(world, provider.token(), *NOT_OURS)
