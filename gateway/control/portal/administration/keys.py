"""Pages on everybody's keys: listed, found by an id or by a secret, looked at and revoked.

A secret that is looked for is sent in a form, in no address; it is neither logged nor shown again. What is another
tenant's is found as little as what never was (R272, R277).
"""

import json
import re
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from gateway.consistency.confirmation import RevocationPending
from gateway.control.bodies import RevokeBody, parse_body
from gateway.control.calls import ADMINISTRATORS, EVERYBODY
from gateway.control.deeds import Answer
from gateway.control.ids import ALPHABET
from gateway.control.keys import AlreadyRevoked
from gateway.control.pages import AuditQuery
from gateway.control.paths import id_in_path
from gateway.control.portal.administration.listing import PER_PAGE, after_of, filter_of, id_filter_of, listed
from gateway.control.portal.administration.record import told
from gateway.control.portal.administration.services import USAGE_DAYS, Services
from gateway.control.portal.charts import daily
from gateway.control.portal.forms import read_form
from gateway.control.portal.visits import Access, Page, administrator_of
from gateway.control.problems import NotFound
from gateway.setting_values import PORTAL_PATH

STATUSES: Final = ("active", "expired", "revoked")
SECRETS_SHOWN: Final = 20
EVENTS_SHOWN: Final = 10
KEY_ID: Final = re.compile(rf"key_[{ALPHABET}]{{26}}")


class AllKeyPages:
    """What administrators do with the keys that they see."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def pages(self) -> list[Page]:
        """What is declared here."""
        return [
            Page("GET", "/admin/keys", self.list, Access.ADMINISTRATOR, EVERYBODY),
            Page("POST", "/admin/keys", self.find, Access.ADMINISTRATOR, EVERYBODY),
            Page("GET", "/admin/keys/{id}", self.show, Access.ADMINISTRATOR, EVERYBODY),
            Page("GET", "/admin/keys/{id}/revoke", self.ask_revoke, Access.ADMINISTRATOR, ADMINISTRATORS),
            Page("POST", "/admin/keys/{id}/revoke", self.revoke, Access.ADMINISTRATOR, ADMINISTRATORS),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """`GET /portal/admin/keys?tenant=&user=&status=&after=`."""
        return await self._list(request, None)

    async def _list(self, request: web.Request, missed: str | None, status: int = 200) -> web.Response:
        caller = administrator_of(request)
        filters = {name: id_filter_of(request, name) for name in ("tenant", "user")}
        status_asked = filter_of(request, "status")
        filters["status"] = status_asked if status_asked in STATUSES else ""
        if filters["tenant"]:
            await self._services.tenants.find(caller, filters["tenant"])
        if filters["user"]:
            await self._services.users.find(caller, filters["user"])
        rows = await self._services.keys.page(
            caller,
            user_id=filters["user"] or None,
            tenant_id=filters["tenant"] or None,
            status=filters["status"] or None,
            after=after_of(request),
            limit=PER_PAGE + 1,
        )
        return self._services.renderer.page(
            request,
            "admin/keys.html",
            status=status,
            page=listed(request, rows, lambda row: row.id, filters),
            filters=filters,
            statuses=STATUSES,
            missed=missed,
            by_secret=caller.role in ADMINISTRATORS,
        )

    async def find(self, request: web.Request) -> web.Response:
        """`POST /portal/admin/keys`: on to the key of this id, or of this secret, whether it works still or not."""
        caller, sought = administrator_of(request), (await read_form(request)).text("sought").strip()
        if KEY_ID.fullmatch(sought) is None:
            if caller.role not in ADMINISTRATORS:
                return await self._list(request, "role", 403)
            self._services.verify_rate.take(caller.token_id)
            found = await self._services.verification.verify(caller, sought)
            key_id = found["key_id"]
        else:
            try:
                key_id = (await self._services.keys.find(caller, sought)).id
            except NotFound:
                key_id = None
        if key_id is None:
            return await self._list(request, "none", 404)
        return web.Response(status=303, headers={"Location": f"{PORTAL_PATH}/admin/keys/{key_id}"})

    async def show(self, request: web.Request) -> web.Response:
        """`GET /portal/admin/keys/{id}`: with how a rotation stands, its usage, and what was done to it."""
        caller = administrator_of(request)
        key = await self._services.keys.find(caller, id_in_path(request))
        retired = await self._services.retired.page(caller, key.id, limit=SECRETS_SHOWN)
        usage = await self._services.usage.of(caller, USAGE_DAYS, key.id)
        asked = AuditQuery.model_construct(target=f"key:{key.id}", order="latest")
        events = await self._services.trail.page(caller, asked, after=None, limit=EVENTS_SHOWN)
        return self._services.renderer.page(
            request,
            "admin/key.html",
            key=key,
            retired=list(reversed(retired)),
            at=datetime.now(UTC),
            usage=usage,
            chart=daily(usage.days, key.name),
            events=[told(event) for event in events],
            may_revoke=caller.role in ADMINISTRATORS,
        )

    async def ask_revoke(self, request: web.Request) -> web.Response:
        """`GET /portal/admin/keys/{id}/revoke`: what cannot be undone (R363)."""
        key = await self._services.keys.find(administrator_of(request), id_in_path(request))
        if key.status == "revoked":
            raise AlreadyRevoked(key.id)
        return self._services.renderer.page(request, "admin/revoke.html", key=key)

    async def revoke(self, request: web.Request) -> web.Response:
        """`POST /portal/admin/keys/{id}/revoke`: how far it has come; sending the form again waits on (R233)."""
        caller, form = administrator_of(request), await read_form(request)
        key = await self._services.keys.find(caller, id_in_path(request))
        reason = parse_body(json.dumps({"reason": form.text("reason").strip() or None}).encode(), RevokeBody).reason
        outcome: Answer | RevocationPending
        try:
            outcome = await self._services.keys.revoke(caller, key.id, reason)
        except RevocationPending as pending:
            outcome = pending
        said = f"{key.name} is revoked: no gateway admits it, nor any token that was made from it"
        back = [(f"{PORTAL_PATH}/admin/keys/{key.id}", key.name), (f"{PORTAL_PATH}/admin/keys", "Keys")]
        return self._services.changed(request, outcome, said=said, back=back)
