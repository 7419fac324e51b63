"""The portal put together, and mounted: on the admin listener, and on the public one where a route says so."""

from collections.abc import Sequence

from aiohttp import web

from gateway.clock import Clock
from gateway.control.issuance import Issuance
from gateway.control.key_parts import KeyParts
from gateway.control.keys import Keys
from gateway.control.me import OwnKeys
from gateway.control.people import People
from gateway.control.portal.account_pages import AccountPages
from gateway.control.portal.activity import Activity
from gateway.control.portal.cookies import Cookies
from gateway.control.portal.gate import AddressOf, PortalGate
from gateway.control.portal.key_forms import KeyForms
from gateway.control.portal.key_pages import KeyPages
from gateway.control.portal.provider import Provider
from gateway.control.portal.ready_lines import ReadyLines
from gateway.control.portal.rendering import Renderer, protect
from gateway.control.portal.sessions import Sessions
from gateway.control.portal.sign_in import SignInPages
from gateway.control.portal.usage_view import UsageViews
from gateway.control.portal.visits import Access, Page
from gateway.control.provider import ProviderKeys
from gateway.control.retired_secrets import RetiredSecrets
from gateway.control.usage import UsageReader
from gateway.setting_values import PORTAL_PATH
from gateway.settings import OidcSettings, PortalSettings


class Portal:
    """The portal of one node. It owns none of its parts: who gives them closes them."""

    def __init__(
        self,
        parts: KeyParts,
        people: People,
        provider_keys: ProviderKeys,
        oidc: OidcSettings,
        settings: PortalSettings,
        lines: ReadyLines,
        clock: Clock,
    ) -> None:
        self._people = people
        self._renderer = renderer = Renderer()
        self._cookies = Cookies(settings)
        self._sessions = Sessions(parts.postgres, settings)
        issuance = Issuance(parts)
        keys, retired, own = Keys(parts, issuance), RetiredSecrets(parts), OwnKeys(parts, issuance, oidc.key_scopes)
        usage, activity = UsageViews(UsageReader(parts.postgres)), Activity(parts.postgres)
        shown = KeyPages(keys, retired, own, usage, activity, renderer)
        forms = KeyForms(keys, retired, own, shown, lines, renderer, parts.settings.grace_seconds)
        provider = Provider(oidc, settings, provider_keys, clock)
        self._pages: Sequence[Page] = (
            *SignInPages(provider, people, self._sessions, self._cookies, renderer, settings.url).pages(),
            *forms.pages(),  # before the pages of a key: /keys/new is none
            *shown.pages(),
            *AccountPages(keys, usage, activity, self._sessions, renderer).pages(),
            Page("GET", "/static/{version}/{name}", renderer.static, Access.ANYBODY),
        )

    def mounted_on(self, app: web.Application, address_of: AddressOf) -> web.Application:
        """Mount it on `app`; returns the part of it that is the portal."""
        gate = PortalGate(self._sessions, self._people, self._cookies, self._renderer, address_of)
        portal = web.Application(middlewares=[gate.middleware])
        portal.on_response_prepare.append(protect)
        gate.guard(portal, list(self._pages))
        app.add_subapp(PORTAL_PATH, portal)
        return portal
