"""The OpenID provider as a client of it sees it: where one signs in, and what a code is worth (RFC 6749, RFC 7636)."""

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp

from gateway.auth.sign_in import ID_TOKEN_TYPES, Judge, Names, Statement
from gateway.clock import Clock
from gateway.control.fetching import NotFetched, fetched_json
from gateway.control.people import SignInRefused
from gateway.control.portal.attempt import Attempt
from gateway.control.provider import DISCOVERY, DOCUMENT_LIMIT_BYTES, ProviderKeys, ProviderUnavailable
from gateway.setting_values import PORTAL_PATH, check_provider_url
from gateway.settings import OidcSettings, PortalSettings

FETCH_SECONDS: Final = 5.0
ANSWER_LIMIT_BYTES: Final = 256 * 1024


class SignInFailed(SignInRefused):
    """The sign-in did not come to its end."""

    code = "sign_in_failed"
    public = "Signing in did not work. Please begin again."


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What the provider says of itself (OpenID Connect Discovery 3)."""

    authorization: str
    token: str
    is_posted: bool  # whether the client's secret goes into the body
    names_issuer: bool  # in its answers (RFC 9207)


class Provider:
    """Begins and ends sign-ins at the provider. It keeps nothing but what the provider says of itself."""

    def __init__(self, oidc: OidcSettings, portal: PortalSettings, keys: ProviderKeys, clock: Clock) -> None:
        self._oidc = oidc
        self._portal = portal
        self._keys = keys
        self._monotonic = clock.monotonic
        self._known: tuple[float, Endpoints] | None = None
        self._asking = asyncio.Lock()
        self._redirect_uri = f"{portal.url}{PORTAL_PATH}/callback"
        claims = oidc.claims
        self._judge = Judge(
            issuer=oidc.issuer,
            audience=portal.client_id,
            algorithms=oidc.algorithms,
            names=Names(claims.user_id, claims.tenant_id, claims.roles, claims.groups),
            leeway_seconds=oidc.leeway_seconds,
            types=ID_TOKEN_TYPES,
        )

    async def address_of(self, attempt: Attempt) -> str:
        """Where the browser goes to sign in. Raises ProviderUnavailable."""
        endpoints = await self._endpoints()
        scopes = dict.fromkeys(("openid", *self._portal.scopes))
        asked = {
            "response_type": "code",
            "client_id": self._portal.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(scopes),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        return f"{endpoints.authorization}?{urlencode(asked)}"

    async def concluded(self, attempt: Attempt, answer: Mapping[str, str]) -> Statement:
        """What the provider says of who has signed in, where `answer` is what the browser brings back.

        Raises SignInFailed where it is not the answer to this attempt, or not a good one; ProviderUnavailable.
        """
        if not attempt.is_answered_by(answer.get("state", "")):
            raise SignInFailed("the state is another one")
        endpoints = await self._endpoints()
        issuer = answer.get("iss")
        if issuer != self._oidc.issuer and (issuer is not None or endpoints.names_issuer):
            raise SignInFailed("another issuer answers")  # RFC 9207 2.4
        if "error" in answer or "code" not in answer:
            raise SignInFailed(f"the provider says {answer.get('error', 'nothing')[:64]!r}")
        given = await self._redeemed(endpoints, answer["code"], attempt)
        return await self._said(given, attempt)

    async def _said(self, given: Mapping[str, Any], attempt: Attempt) -> Statement:
        token, access_token = given.get("id_token"), given.get("access_token")
        if not isinstance(token, str):
            raise SignInFailed("there is no ID token")
        head = self._judge.head_of(token)
        key = None if head is None else await self._keys.find(head)
        if head is None or key is None:
            raise SignInFailed("the ID token is signed by no key of the provider")
        beside = access_token if isinstance(access_token, str) else None
        said = self._judge.read_id_token(token, head, key, nonce=attempt.nonce, access_token=beside)
        if said is None:
            raise SignInFailed("the ID token is not for this sign-in")
        return said

    async def _redeemed(self, endpoints: Endpoints, code: str, attempt: Attempt) -> Mapping[str, Any]:
        """What the provider gives for the code, to whoever holds the verifier."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": attempt.verifier,
        }
        secret, client_id = self._portal.client_secret, self._portal.client_id
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if secret is None or endpoints.is_posted:
            form["client_id"] = client_id
        if secret is not None and endpoints.is_posted:
            form["client_secret"] = secret.get_secret_value()
        elif secret is not None:  # both parts are encoded first (RFC 6749 2.3.1)
            pair = f"{quote(client_id, safe='')}:{quote(secret.get_secret_value(), safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        try:
            async with asyncio.timeout(FETCH_SECONDS), _session() as session:
                posted = session.post(endpoints.token, data=form, headers=headers, allow_redirects=False)
                async with posted as response:
                    text = await _read(response)
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderUnavailable(f"the provider's token endpoint: {type(error).__name__}") from error
        return token_answer(response.status, text)

    async def _endpoints(self) -> Endpoints:
        async with self._asking:
            if self._known is None or self._monotonic() - self._known[0] > self._oidc.refresh_seconds:
                began = self._monotonic()
                try:
                    async with asyncio.timeout(FETCH_SECONDS):
                        self._known = began, await self._discovered()
                except (NotFetched, aiohttp.ClientError, OSError) as error:
                    raise ProviderUnavailable(f"the provider's discovery: {type(error).__name__}: {error}") from error
            return self._known[1]

    async def _discovered(self) -> Endpoints:
        url = self._oidc.issuer.removesuffix("/") + DISCOVERY
        async with _session() as session:
            found = await fetched_json(session, url, limit_bytes=DOCUMENT_LIMIT_BYTES)
        if not isinstance(found, dict) or found.get("issuer") != self._oidc.issuer:
            raise ProviderUnavailable(f"{url} is not of this issuer")
        methods = found.get("token_endpoint_auth_methods_supported")
        is_posted = isinstance(methods, list) and "client_secret_basic" not in methods
        return Endpoints(
            _endpoint(found, "authorization_endpoint"),
            _endpoint(found, "token_endpoint"),
            is_posted,
            found.get("authorization_response_iss_parameter_supported") is True,
        )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body, in however many pieces it comes."""
    read = bytearray()
    async for piece in response.content.iter_any():
        read += piece
        if len(read) > ANSWER_LIMIT_BYTES:
            raise ProviderUnavailable(f"the provider's token endpoint gives more than {ANSWER_LIMIT_BYTES} bytes")
    return bytes(read)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())


def _endpoint(found: Mapping[str, Any], name: str) -> str:
    try:
        return check_provider_url(str(found.get(name)))
    except ValueError as error:
        raise ProviderUnavailable(f"the provider's {name} cannot be used") from error


def token_answer(status: int, text: bytes) -> Mapping[str, Any]:
    """The answer of the token endpoint. What the provider does not give is one thing, and not answering another."""
    if status >= 500:
        raise ProviderUnavailable(f"the provider's token endpoint answers {status}")
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or status != 200:
        said = given.get("error") if isinstance(given, dict) else None
        raise SignInFailed(f"the provider's token endpoint answers {status} {str(said)[:64]!r}")
    return given
