"""The pages for administrators put together."""

from collections.abc import Sequence

from aiohttp import web

from gateway.control.admin_tokens import AdminTokens
from gateway.control.calls import EVERYBODY
from gateway.control.plans import Plans
from gateway.control.portal.administration.explanation import ExplanationPages
from gateway.control.portal.administration.fleet import FleetPages
from gateway.control.portal.administration.keys import AllKeyPages
from gateway.control.portal.administration.record import RecordPages
from gateway.control.portal.administration.services import Services
from gateway.control.portal.administration.setup import SetupPages
from gateway.control.portal.administration.sign_in import TokenSignIn
from gateway.control.portal.administration.tenants import TenantPages
from gateway.control.portal.administration.users import UserPages
from gateway.control.portal.cookies import Cookies
from gateway.control.portal.sessions import Sessions
from gateway.control.portal.visits import Access, Page, administrator_of
from gateway.setting_values import PORTAL_PATH


def pages_of(services: Services, tokens: AdminTokens, sessions: Sessions, cookies: Cookies) -> Sequence[Page]:
    """All of them. Each names its roles, which are those of the call of the management API that does the same."""
    plans = Plans(services.postgres)
    return (
        *TokenSignIn(tokens, sessions, cookies, services.renderer).pages(),
        Page("GET", "/admin", first, Access.ADMINISTRATOR, EVERYBODY),
        *TenantPages(services).pages(),
        *UserPages(services, plans).pages(),
        *AllKeyPages(services).pages(),
        *FleetPages(services).pages(),
        *RecordPages(services).pages(),
        *SetupPages(services, plans).pages(),
        *ExplanationPages(services).pages(),
    )


async def first(request: web.Request) -> web.Response:
    """`GET /portal/admin`: the fleet, for who sees it; a tenant's administrator begins with the tenant."""
    tenant_id = administrator_of(request).tenant_id
    page = "fleet" if tenant_id is None else f"tenants/{tenant_id}"
    raise web.HTTPSeeOther(f"{PORTAL_PATH}/admin/{page}")
