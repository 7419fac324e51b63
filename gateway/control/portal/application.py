"""The portal put together, and mounted: on the admin listener, and on the public one where a route says so."""

from collections.abc import Sequence

from aiohttp import web

from gateway.clock import Clock
from gateway.control.admin_tokens import AdminTokens
from gateway.control.audit import AuditTrail
from gateway.control.call_rate import CallRate
from gateway.control.entitlements import Entitlements
from gateway.control.explain import Explain
from gateway.control.issuance import Issuance
from gateway.control.key_parts import KeyParts
from gateway.control.keys import Keys
from gateway.control.me import OwnKeys
from gateway.control.people import People
from gateway.control.portal.account_pages import AccountPages
from gateway.control.portal.activity import Activity
from gateway.control.portal.administration.desk import pages_of
from gateway.control.portal.administration.services import Services
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
from gateway.control.tenants import Tenants
from gateway.control.usage import UsageReader
from gateway.control.users import Users
from gateway.control.verification import Verification
from gateway.setting_values import PORTAL_PATH
from gateway.settings import OidcSettings, PortalSettings
from gateway.stores.postgres.revisions import RevisionLog


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
        revisions: RevisionLog,
        explain: Explain,
    ) -> None:
        self._people = people
        self._tokens = AdminTokens(parts.postgres)
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
            *pages_of(
                Services(
                    renderer=renderer,
                    postgres=parts.postgres,
                    tenants=Tenants(parts.postgres, parts.mutations),
                    users=Users(parts.postgres),
                    entitlements=Entitlements(parts.postgres, parts.mutations),
                    keys=keys,
                    retired=retired,
                    own=own,
                    verification=Verification(parts),
                    verify_rate=CallRate(parts.settings.verify_per_minute, clock.monotonic),
                    trail=AuditTrail(parts.postgres),
                    usage=usage,
                    revisions=revisions,
                    explain=explain,
                    environment=parts.secret_format.environment,
                    issuance=parts.settings.issuance,
                ),
                self._tokens,
                self._sessions,
                self._cookies,
            ),
            Page("GET", "/static/{version}/{name}", renderer.static, Access.ANYBODY),
        )

    def mounted_on(self, app: web.Application, address_of: AddressOf, *, takes_tokens: bool) -> web.Application:
        """Mount it on `app`; returns the part of it that is the portal.

        `takes_tokens`: whether one may sign in by an admin token there, as is fit where the management API is.
        """
        tokens = self._tokens if takes_tokens else None
        gate = PortalGate(self._sessions, self._people, tokens, self._cookies, self._renderer, address_of)
        portal = web.Application(middlewares=[gate.middleware])
        portal.on_response_prepare.append(protect)
        gate.guard(portal, list(self._pages))
        app.add_subapp(PORTAL_PATH, portal)
        return portal
