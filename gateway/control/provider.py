"""The public keys of the OpenID provider: fetched, kept, and fetched anew. Must not know: what a token says.

One task alone ever asks the provider, with a pause between, so that invented key ids cannot make many ask it. While it
does not answer, the keys that are known go on for a stated time; after that, and for unknown ones, nobody can tell: an
outage, and never a verdict on the caller (R070).
"""

import asyncio
from typing import Final

import aiohttp
import structlog

from gateway.auth.sign_in import Head, PublicKey, PublicKeys, public_keys
from gateway.clock import Clock
from gateway.consistency.background import Background, woken
from gateway.control.fetching import NotFetched, fetched_json
from gateway.errors import Outage
from gateway.setting_values import check_provider_url
from gateway.settings import OidcSettings
from gateway.telemetry.metrics import Metrics

DISCOVERY: Final = "/.well-known/openid-configuration"
FETCH_SECONDS: Final = 5.0  # for discovery and keys together
INTERVAL_SECONDS: Final = 5.0  # between two fetches, whatever callers name
SETTLE_SECONDS: Final = 1.0  # for a caller who waits for a fetch, beyond the fetch's own deadline
DOCUMENT_LIMIT_BYTES: Final = 512 * 1024

log = structlog.get_logger(__name__)


class ProviderUnavailable(Outage):
    """The provider does not answer, or not with its keys. The message says which."""

    public = "The gateway cannot verify sign-ins right now. Try again shortly."


class ProviderKeys:
    """The keys of one provider. Their age is counted from when the question was sent that brought them."""

    def __init__(
        self, settings: OidcSettings, *, clock: Clock, metrics: Metrics, interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        self._settings = settings
        self._monotonic = clock.monotonic
        self._interval_seconds = interval_seconds
        self._up = metrics.dependency_up.labels("oidc")
        self._keys: PublicKeys = {}
        self._known_at = float("-inf")
        self._is_failing = False  # the last fetch was in vain
        self._wanted = asyncio.Event()
        self._asked = asyncio.Event()  # set after the next fetch, and then replaced
        self._background = Background()

    async def start(self) -> None:
        """Begin. A provider that is away does not make it fail: it is asked again."""
        self._up.set(0)
        self._background.start(self._keep_forever)

    async def close(self) -> None:
        """Stop."""
        await self._background.close()

    async def find(self, head: Head) -> PublicKey | None:
        """The key that `head` names; None where the provider has none such, as of a moment ago.

        Raises ProviderUnavailable where that cannot be told.
        """
        key = self._known(head)
        if key is not None or (not self._is_failing and self._age < self._interval_seconds):
            return key
        if not self._is_failing:
            await self._next_fetch()
            key = self._known(head)
        if key is None and self._is_failing:
            raise ProviderUnavailable("the provider's keys cannot be read")
        return key

    def _known(self, head: Head) -> PublicKey | None:
        is_good = self._age <= self._settings.outage_seconds
        return self._keys.get((head.algorithm, head.key_id)) if is_good else None

    @property
    def _age(self) -> float:
        return self._monotonic() - self._known_at

    async def _next_fetch(self) -> None:
        """Return when the provider has been asked once more, or the fetch is under way that is now."""
        asked = self._asked
        self._wanted.set()
        try:
            async with asyncio.timeout(FETCH_SECONDS + SETTLE_SECONDS):
                await asked.wait()
        except TimeoutError:
            raise ProviderUnavailable("nobody has asked the provider in time") from None

    async def _keep_forever(self) -> None:
        async with aiohttp.ClientSession(
            headers={"Accept": "application/json", "Accept-Encoding": "identity"}, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            while True:
                await self._refresh(session)
                self._wanted.clear()
                asked, self._asked = self._asked, asyncio.Event()
                asked.set()
                await asyncio.sleep(self._interval_seconds)
                if not self._is_failing:
                    rest_seconds = self._settings.refresh_seconds - self._interval_seconds
                    await woken(self._wanted, seconds=max(0.0, rest_seconds))

    async def _refresh(self, session: aiohttp.ClientSession) -> None:
        began = self._monotonic()
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                keys = await self._fetch(session)
        except (ProviderUnavailable, NotFetched, aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            if not self._is_failing:
                log.warning("provider_keys_not_read", error=f"{type(error).__name__}: {error}")
            self._is_failing = True
            self._up.set(0)
            return
        if self._is_failing:
            log.info("provider_keys_read_again")
        if not keys:
            log.warning("provider_has_no_keys", algorithms=self._settings.algorithms)
        self._keys, self._known_at, self._is_failing = keys, began, False
        self._up.set(1)

    async def _fetch(self, session: aiohttp.ClientSession) -> PublicKeys:
        url = self._settings.jwks_url or await self._discover(session)
        keys = public_keys(
            await fetched_json(session, url, limit_bytes=DOCUMENT_LIMIT_BYTES), self._settings.algorithms
        )
        if keys is None:
            raise ProviderUnavailable(f"{url} is no JWKS")
        return keys

    async def _discover(self, session: aiohttp.ClientSession) -> str:
        """Where the keys are, by OpenID Connect Discovery 4: what names another issuer is not believed (4.3)."""
        url = self._settings.issuer.removesuffix("/") + DISCOVERY
        document = await fetched_json(session, url, limit_bytes=DOCUMENT_LIMIT_BYTES)
        if not isinstance(document, dict) or document.get("issuer") != self._settings.issuer:
            raise ProviderUnavailable(f"{url} is not about oidc.issuer, to the letter")
        jwks_uri = document.get("jwks_uri")
        if not isinstance(jwks_uri, str):
            raise ProviderUnavailable(f"{url} names no jwks_uri")
        try:
            return check_provider_url(jwks_uri)
        except ValueError as error:
            raise ProviderUnavailable(f"jwks_uri of {url}: {error}") from error
