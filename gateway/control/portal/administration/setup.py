"""Pages on what is set up: plans, and the keys that sign tokens."""

from typing import Final

from aiohttp import web

from gateway.control.calls import EVERYBODY, READERS_OF_ALL
from gateway.control.plans import Plans
from gateway.control.portal.administration.listing import PER_PAGE, after_of, listed
from gateway.control.portal.administration.services import Services
from gateway.control.portal.visits import Access, Page
from gateway.control.signing_key_calls import listed as signing_keys

SIGNING: Final = {
    "next": "Published, and signs when its time comes",
    "current": "Signs",
    "previous": "Proves what it has signed",
    "retired": "Believed by nobody",
}


class SetupPages:
    """Plans and signing keys, as they are."""

    def __init__(self, services: Services, plans: Plans) -> None:
        self._services = services
        self._plans = plans

    def pages(self) -> list[Page]:
        """What is declared here."""
        return [
            Page("GET", "/admin/plans", self.plans, Access.ADMINISTRATOR, EVERYBODY),
            Page("GET", "/admin/signing-keys", self.signing_keys, Access.ADMINISTRATOR, READERS_OF_ALL),
        ]

    async def plans(self, request: web.Request) -> web.Response:
        """`GET /portal/admin/plans?after=`."""
        rows = await self._plans.page(after=after_of(request), limit=PER_PAGE + 1)
        page = listed(request, rows, lambda row: row.name, {})
        return self._services.renderer.page(request, "admin/plans.html", page=page)

    async def signing_keys(self, request: web.Request) -> web.Response:
        """`GET /portal/admin/signing-keys`: never a private part."""
        rows = await signing_keys(self._services.postgres, self._services.environment)
        return self._services.renderer.page(
            request, "admin/signing_keys.html", rows=list(reversed(rows)), states=SIGNING
        )
