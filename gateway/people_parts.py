"""The parts for people, put together: who is signed in by a provider, and the pages for them."""

import contextlib
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.control.explain import Explain
from gateway.control.key_parts import KeyParts
from gateway.control.people import People
from gateway.control.portal.application import Portal
from gateway.control.portal.ready_lines import ReadyLines
from gateway.control.provider import ProviderKeys
from gateway.settings import OidcSettings, Settings
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.revisions import RevisionLog
from gateway.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class SigningIn:
    """The parts for users who sign in at a provider."""

    settings: OidcSettings
    keys: ProviderKeys
    people: People


async def open_people(
    settings: Settings, postgres: Postgres, clock: Clock, metrics: Metrics, stack: contextlib.AsyncExitStack
) -> SigningIn | None:
    """Whom a provider signs in; none where none is configured. It is not waited for."""
    configured = settings.oidc
    if configured is None:
        return None
    keys = ProviderKeys(configured, clock=clock, metrics=metrics)
    await keys.start()
    stack.push_async_callback(keys.close)
    return SigningIn(configured, keys, People(postgres, keys, configured))


def portal_of(
    settings: Settings,
    parts: KeyParts,
    signing_in: SigningIn | None,
    clock: Clock,
    revisions: RevisionLog,
    explain: Explain,
) -> Portal | None:
    """The pages for whoever is signed in, where they are configured."""
    if settings.portal is None or signing_in is None:
        return None
    lines = ReadyLines(settings.portal.api_url or _own_url(settings), settings.credentials)
    return Portal(
        parts,
        signing_in.people,
        signing_in.keys,
        signing_in.settings,
        settings.portal,
        lines,
        clock,
        revisions,
        explain,
    )


def _own_url(settings: Settings) -> str:
    """The public listener's URL, as somebody on this machine writes it."""
    address, scheme = settings.listen.proxy, "http" if settings.listen.tls is None else "https"
    return f"{scheme}://localhost:{address.port}" if address.host in ("0.0.0.0", "::") else f"{scheme}://{address}"  # noqa: S104
