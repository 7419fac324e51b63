"""What the pages for administrators stand on: the services of the management API, and what makes pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gateway.consistency.confirmation import RevocationPending
from gateway.control.audit import AuditTrail
from gateway.control.call_rate import CallRate
from gateway.control.deeds import Answer
from gateway.control.entitlements import Entitlements
from gateway.control.explain import Explain
from gateway.control.keys import Keys
from gateway.control.me import OwnKeys
from gateway.control.portal.rendering import Renderer
from gateway.control.portal.usage_view import UsageViews
from gateway.control.retired_secrets import RetiredSecrets
from gateway.control.tenants import Tenants
from gateway.control.users import Users
from gateway.control.verification import Verification
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.revisions import RevisionLog

USAGE_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Services:
    """The parts, all of one node. `environment` is that of this installation, `issuance` the configured one."""

    renderer: Renderer
    postgres: Postgres
    tenants: Tenants
    users: Users
    entitlements: Entitlements
    keys: Keys
    retired: RetiredSecrets
    own: OwnKeys
    verification: Verification
    verify_rate: CallRate
    trail: AuditTrail
    usage: UsageViews
    revisions: RevisionLog
    explain: Explain
    environment: str
    issuance: str

    def changed(
        self, request: web.Request, outcome: Answer | RevocationPending, *, said: str, back: Sequence[tuple[str, str]]
    ) -> web.Response:
        """The page after a change: how far it has come. `said` is what is so now; `back` leads on (address, words).

        What is stored but not confirmed is no failure, and no success: it says so, and how to wait on (R233).
        """
        is_pending = isinstance(outcome, RevocationPending)
        response = self.renderer.page(
            request,
            "admin/changed.html",
            status=outcome.status if is_pending else 200,
            said=said,
            back=back,
            propagation=None if isinstance(outcome, RevocationPending) else outcome.shown["propagation"],
        )
        if isinstance(outcome, RevocationPending):
            response.headers["Retry-After"] = str(outcome.retry_after_seconds)
        return response
