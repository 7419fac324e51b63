"""Ending a sign-in at a provider that answers this way or that: what is a refusal, and what an outage."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiohttp import web

from gateway.auth.sign_in import half_hash
from gateway.clock import SystemClock
from gateway.control.people import SignInRefused
from gateway.control.portal.attempt import Attempt
from gateway.control.portal.provider import ANSWER_LIMIT_BYTES, Provider, SignInFailed
from gateway.control.provider import ProviderKeys, ProviderUnavailable
from gateway.embedded.server_process import HOST
from gateway.settings import OidcSettings, PortalSettings
from gateway.telemetry.metrics import Metrics
from tests.fixtures.ports import free_port
from tests.fixtures.provider import AUDIENCE, OpenIdProvider

CLIENT, SECRET, URL = "portal", "s3cret/with:signs", "http://127.0.0.1:8081"


class Desk:
    """The token endpoint beside a provider, which gives what `answer` says; `asked` is what came with the code."""

    def __init__(self, provider: OpenIdProvider) -> None:
        self.provider = provider
        self.attempt = Attempt.new("/portal/keys")
        self.asked: dict[str, str] = {}
        self.authorization = ""
        self.status = 200
        self.headers: dict[str, str] = {}
        self.answer: Any = None
        self.is_slow = False
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Answer from now on."""
        app = web.Application()
        app.router.add_post("/token", self._give)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        port = free_port()
        await web.TCPSite(self._runner, HOST, port).start()
        self.provider.discovery["authorization_endpoint"] = f"{self.provider.issuer}/authorize"
        self.provider.discovery["token_endpoint"] = f"http://{HOST}:{port}/token"

    async def stop(self) -> None:
        """Answer no more."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def id_token(self, **claims: Any) -> str:
        """An ID token for this sign-in; `claims` are laid over the usual ones."""
        said = self.provider.claims("ada", **{"aud": CLIENT, "nonce": self.attempt.nonce, **claims})
        return self.provider.key.sign(said, {"typ": "JWT"})

    async def _give(self, request: web.Request) -> web.StreamResponse:
        self.asked = {name: str(value) for name, value in (await request.post()).items()}
        self.authorization = request.headers.get("Authorization", "")
        answer = {"id_token": self.id_token(), "access_token": "a"} if self.answer is None else self.answer
        text = answer if isinstance(answer, str) else json.dumps(answer)
        if self.is_slow:
            return await self._give_in_pieces(request, text)
        return web.Response(text=text, status=self.status, headers=self.headers, content_type="application/json")

    async def _give_in_pieces(self, request: web.Request, text: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for start in range(0, len(text), 100):
            await response.write(text[start : start + 100].encode())
            await asyncio.sleep(0.005)  # a packet of its own
        return response


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A provider with a token endpoint."""
    async with OpenIdProvider() as provider:
        desk = Desk(provider)
        await desk.start()
        yield desk
        await desk.stop()


async def concluded(desk: Desk, *, secret: str | None = SECRET, **answer: Any) -> Any:
    """The end of a sign-in whose browser brings `answer`, laid over a good one; None removes a name."""
    oidc = OidcSettings(issuer=desk.provider.issuer, audience=AUDIENCE)
    portal = PortalSettings.model_validate({"url": URL, "client_id": CLIENT, "client_secret": secret})
    keys = ProviderKeys(oidc, clock=SystemClock(), metrics=Metrics())
    await keys.start()
    try:
        provider = Provider(oidc, portal, keys, SystemClock())
        brought: Mapping[str, Any] = {"code": "c0de", "state": desk.attempt.state, **answer}
        return await provider.concluded(desk.attempt, {name: value for name, value in brought.items() if value})
    finally:
        await keys.close()


async def test_a_code_is_redeemed_by_whoever_has_begun(desk: Desk) -> None:
    """The code goes with the verifier, the redirect URI and the client's secret, as the provider wants it."""
    said = await concluded(desk)
    assert said.user_id == "ada"
    assert desk.asked == {
        "grant_type": "authorization_code",
        "code": "c0de",
        "redirect_uri": f"{URL}/portal/callback",
        "code_verifier": desk.attempt.verifier,
    }
    assert desk.authorization == f"Basic {base64.b64encode(b'portal:s3cret%2Fwith%3Asigns').decode()}"
    await concluded(desk, secret="")
    assert (desk.authorization, desk.asked["client_id"]) == ("", CLIENT)
    desk.provider.discovery["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    await concluded(desk)
    assert (desk.authorization, desk.asked["client_secret"]) == ("", SECRET)


async def test_an_answer_may_come_in_pieces(desk: Desk) -> None:
    """An ID token of some kilobytes comes in several packets; one without an end is not read to it."""
    desk.is_slow = True
    desk.answer = {"id_token": desk.id_token(groups=["g" * 1000]), "access_token": "a"}
    assert (await concluded(desk)).user_id == "ada"
    desk.is_slow, desk.answer = False, json.dumps({"id_token": desk.id_token()}) + " " * ANSWER_LIMIT_BYTES
    with pytest.raises(ProviderUnavailable):
        await concluded(desk)


async def test_where_a_browser_is_sent(desk: Desk) -> None:
    """With a challenge, and neither the verifier nor the secret that all is derived from."""
    oidc = OidcSettings(issuer=desk.provider.issuer, audience=AUDIENCE)
    portal = PortalSettings(url=URL, client_id=CLIENT, scopes=("email",))
    keys = ProviderKeys(oidc, clock=SystemClock(), metrics=Metrics())
    address = await Provider(oidc, portal, keys, SystemClock()).address_of(desk.attempt)
    for part in ("response_type=code", "code_challenge_method=S256", "scope=openid+email", desk.attempt.challenge):
        assert part in address
    assert desk.attempt.verifier not in address
    assert desk.attempt.secret not in address


@pytest.mark.parametrize(
    ("answer", "promises_issuer"),
    [
        pytest.param({"state": None}, False, id="no state"),
        pytest.param({"state": "x"}, False, id="another state"),
        pytest.param({"code": None}, False, id="no code"),
        pytest.param({"error": "access_denied"}, False, id="refused by the user"),
        pytest.param({"iss": "https://evil.example"}, False, id="another issuer"),
        pytest.param({}, True, id="no issuer, which was promised"),
    ],
)
async def test_an_answer_that_is_not_for_us(desk: Desk, answer: dict[str, Any], promises_issuer: bool) -> None:
    """The code is not even redeemed. RFC 6749 10.12, RFC 9207. R365."""
    desk.provider.discovery["authorization_response_iss_parameter_supported"] = promises_issuer
    with pytest.raises(SignInFailed):
        await concluded(desk, **answer)
    assert desk.asked == {}


async def test_the_issuer_itself_may_answer(desk: Desk) -> None:
    """RFC 9207 2.4."""
    desk.provider.discovery["authorization_response_iss_parameter_supported"] = True
    assert (await concluded(desk, iss=desk.provider.issuer)).user_id == "ada"


@pytest.mark.parametrize(
    ("status", "given"),
    [
        pytest.param(400, {"error": "invalid_grant"}, id="a code that is no good"),
        pytest.param(401, {"error": "invalid_client"}, id="a secret that is no good"),
        pytest.param(302, {"id_token": "x"}, id="somewhere else"),
        pytest.param(200, {"access_token": "a"}, id="no ID token"),
        pytest.param(200, {"id_token": 5}, id="an ID token that is none"),
        pytest.param(200, {"id_token": "a.b.c"}, id="an ID token that is not signed"),
        pytest.param(200, [], id="a list"),
        pytest.param(200, "no JSON", id="no JSON"),
    ],
)
async def test_what_signs_nobody_in(desk: Desk, status: int, given: Any) -> None:
    """Refused, and nobody is followed elsewhere."""
    desk.status, desk.answer, desk.headers = status, given, {"Location": f"{URL}/portal"} if status == 302 else {}
    with pytest.raises(SignInRefused):
        await concluded(desk)


async def test_an_id_token_of_another_sign_in(desk: Desk) -> None:
    """Good in all but what makes it this one's. OpenID Connect Core 3.1.3.7."""
    for claims in ({"nonce": "other"}, {"aud": AUDIENCE}, {"azp": "other"}, {"at_hash": half_hash("b", "ES256")}):
        desk.answer = {"id_token": desk.id_token(**claims), "access_token": "a"}
        with pytest.raises(SignInFailed):
            await concluded(desk)
    desk.answer = {"id_token": desk.id_token(at_hash=half_hash("a", "ES256")), "access_token": "a"}
    assert (await concluded(desk)).user_id == "ada"


async def test_a_provider_that_is_away_refuses_nobody(desk: Desk) -> None:
    """An outage, and not a verdict: of the token endpoint, of discovery, of one that is another's. R070."""
    desk.status = 503
    with pytest.raises(ProviderUnavailable):
        await concluded(desk)
    await desk.stop()
    with pytest.raises(ProviderUnavailable):
        await concluded(desk)
    for name, value in (("issuer", "https://evil.example"), ("token_endpoint", "http://evil.example/token")):
        before = desk.provider.discovery[name]
        desk.provider.discovery[name] = value
        with pytest.raises(ProviderUnavailable):
            await concluded(desk)
        desk.provider.discovery[name] = before
    await desk.provider.stop()
    with pytest.raises(ProviderUnavailable):
        await concluded(desk)
