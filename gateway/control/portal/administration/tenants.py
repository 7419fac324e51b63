"""Pages on tenants: which there are, what one has used, and whether its credentials are admitted."""

import json
from typing import Final, Literal

from aiohttp import web

from gateway.consistency.confirmation import RevocationPending
from gateway.control.bodies import NewTenant, TenantChange, parse_body
from gateway.control.calls import EVERYBODY, OPERATORS
from gateway.control.deeds import Answer
from gateway.control.paths import id_in_path
from gateway.control.portal.administration.listing import PER_PAGE, after_of, listed
from gateway.control.portal.administration.services import USAGE_DAYS, Services
from gateway.control.portal.charts import daily
from gateway.control.portal.forms import Form, read_form
from gateway.control.portal.visits import Access, Page, administrator_of
from gateway.control.problems import InvalidBody
from gateway.setting_values import PORTAL_PATH
from gateway.stores.postgres.tenants import DuplicateTenant

ISSUANCE: Final[dict[str, tuple[Literal["open", "closed"] | None, str]]] = {  # by what is chosen
    "open": ("open", "gets new API keys"),
    "closed": ("closed", "gets no new API keys; those that it has can be rotated and revoked"),
    "configured": (None, "gets new API keys as the configuration says"),
}


class TenantPages:
    """What operators do with tenants; a tenant's administrator sees one."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def pages(self) -> list[Page]:
        """What is declared here."""
        one, seen, done = "/admin/tenants/{id}", Access.ADMINISTRATOR, Access.ADMINISTRATOR
        return [
            Page("GET", "/admin/tenants", self.list, seen, EVERYBODY),
            Page("POST", "/admin/tenants", self.create, done, OPERATORS),
            Page("GET", one, self.show, seen, EVERYBODY),
            Page("GET", f"{one}/suspend", self.ask_suspend, done, OPERATORS),
            Page("POST", f"{one}/suspend", self.suspend, done, OPERATORS),
            Page("POST", f"{one}/activate", self.activate, done, OPERATORS),
            Page("POST", f"{one}/issuance", self.set_issuance, done, OPERATORS),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """`GET /portal/admin/tenants?after=`."""
        return await self._list(request, Form.empty(), {})

    async def _list(self, request: web.Request, form: Form, wrong: dict[str, str], status: int = 200) -> web.Response:
        caller = administrator_of(request)
        rows = await self._services.tenants.page(caller, after=after_of(request), limit=PER_PAGE + 1)
        page = listed(request, rows, lambda row: row.id, {})
        return self._services.renderer.page(
            request, "admin/tenants.html", status=status, page=page, form=form, wrong=wrong
        )

    async def create(self, request: web.Request) -> web.Response:
        """`POST /portal/admin/tenants`."""
        form = await read_form(request)
        wanted = {"id": form.text("id").strip(), "name": form.text("name")}
        try:
            body = parse_body(json.dumps(wanted).encode(), NewTenant)
            await self._services.tenants.create(administrator_of(request), body)
        except InvalidBody as error:
            wrong = {issue["place"]: issue["message"] for issue in error.members["issues"]}
            return await self._list(request, form, wrong, error.status)
        except DuplicateTenant as error:
            return await self._list(request, form, {"id": error.public}, error.status)
        raise web.HTTPSeeOther(f"{PORTAL_PATH}/admin/tenants/{body.id}")

    async def show(self, request: web.Request) -> web.Response:
        """`GET /portal/admin/tenants/{id}`: with what it has used."""
        caller = administrator_of(request)
        tenant = await self._services.tenants.find(caller, id_in_path(request))
        usage = await self._services.usage.of(caller, USAGE_DAYS, tenant_id=tenant.id)
        return self._services.renderer.page(
            request,
            "admin/tenant.html",
            tenant=tenant,
            configured=self._services.issuance,
            usage=usage,
            chart=daily(usage.days, tenant.name),
        )

    async def ask_suspend(self, request: web.Request) -> web.Response:
        """`GET /portal/admin/tenants/{id}/suspend`: what will happen."""
        tenant = await self._services.tenants.find(administrator_of(request), id_in_path(request))
        return self._services.renderer.page(request, "admin/suspend.html", tenant=tenant)

    async def suspend(self, request: web.Request) -> web.Response:
        """`POST /portal/admin/tenants/{id}/suspend`: all its credentials are refused, on every node (R104)."""
        return await self._change(request, TenantChange(status="suspended"), "is suspended: no credential of it works")

    async def activate(self, request: web.Request) -> web.Response:
        """`POST /portal/admin/tenants/{id}/activate`."""
        return await self._change(request, TenantChange(status="active"), "is active: its credentials work again")

    async def set_issuance(self, request: web.Request) -> web.Response:
        """`POST /portal/admin/tenants/{id}/issuance`: whether its users get new keys (R225)."""
        chosen = (await read_form(request)).text("issuance")
        if chosen not in ISSUANCE:
            raise InvalidBody([{"place": "issuance", "message": f"Choose one of {', '.join(ISSUANCE)}"}])
        issuance, said = ISSUANCE[chosen]
        return await self._change(request, TenantChange(issuance=issuance), said)

    async def _change(self, request: web.Request, change: TenantChange, said: str) -> web.Response:
        caller, tenant_id = administrator_of(request), id_in_path(request)
        tenant = await self._services.tenants.find(caller, tenant_id)
        outcome: Answer | RevocationPending
        try:
            outcome = await self._services.tenants.change(caller, tenant_id, change)
        except RevocationPending as pending:
            outcome = pending
        back = [(f"{PORTAL_PATH}/admin/tenants/{tenant_id}", tenant.name), (f"{PORTAL_PATH}/admin/tenants", "Tenants")]
        return self._services.changed(request, outcome, said=f"{tenant.name} {said}", back=back)
