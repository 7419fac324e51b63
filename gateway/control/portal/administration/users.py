"""Pages on users: found, looked at, and what they are entitled to."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from gateway.consistency.confirmation import RevocationPending
from gateway.control.bodies import EntitlementBody, parse_body
from gateway.control.calls import EVERYBODY, OPERATORS
from gateway.control.deeds import Answer
from gateway.control.paths import id_in_path
from gateway.control.plans import Plans
from gateway.control.portal.administration.listing import PER_PAGE, after_of, filter_of, id_filter_of, listed
from gateway.control.portal.administration.services import USAGE_DAYS, Services
from gateway.control.portal.charts import daily
from gateway.control.portal.forms import read_form
from gateway.control.portal.visits import Access, Page, administrator_of
from gateway.control.problems import InvalidBody
from gateway.setting_values import PORTAL_PATH
from gateway.stores.postgres.users import EntitlementRow, UnknownPlan, UserRow

WINDOWS: Final = ("second", "minute", "hour", "day", "month")
LONGEST_SEARCH: Final = 200
KEYS_SHOWN: Final = 20
MOST_PLANS: Final = 1000  # to choose from


class UserPages:
    """What administrators see of users, and operators entitle them to."""

    def __init__(self, services: Services, plans: Plans) -> None:
        self._services = services
        self._plans = plans

    def pages(self) -> list[Page]:
        """What is declared here."""
        return [
            Page("GET", "/admin/users", self.list, Access.ADMINISTRATOR, EVERYBODY),
            Page("GET", "/admin/users/{id}", self.show, Access.ADMINISTRATOR, EVERYBODY),
            Page("GET", "/admin/users/{id}/entitlement", self.ask_entitlement, Access.ADMINISTRATOR, OPERATORS),
            Page("POST", "/admin/users/{id}/entitlement", self.entitle, Access.ADMINISTRATOR, OPERATORS),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """`GET /portal/admin/users?find=&tenant=&after=`; another tenant's do not exist (R272)."""
        caller = administrator_of(request)
        find, tenant_id = filter_of(request, "find")[:LONGEST_SEARCH], id_filter_of(request, "tenant")
        if tenant_id:
            await self._services.tenants.find(caller, tenant_id)
        rows = await self._services.users.page(
            caller, tenant_id=tenant_id or None, search=_plain(find), after=after_of(request), limit=PER_PAGE + 1
        )
        page = listed(request, rows, lambda row: row.id, {"find": find, "tenant": tenant_id})
        return self._services.renderer.page(request, "admin/users.html", page=page, find=find, tenant_id=tenant_id)

    async def show(self, request: web.Request) -> web.Response:
        """`GET /portal/admin/users/{id}`: with entitlement, keys and usage."""
        caller = administrator_of(request)
        user = await self._services.users.find(caller, id_in_path(request))
        keys = await self._services.keys.page(caller, user_id=user.id, limit=KEYS_SHOWN + 1)
        usage = await self._services.usage.of(caller, USAGE_DAYS, user_id=user.id)
        return self._services.renderer.page(
            request,
            "admin/user.html",
            user=user,
            outlook=await self._services.own.outlook(user.id),
            keys=keys[:KEYS_SHOWN],
            has_more=len(keys) > KEYS_SHOWN,
            usage=usage,
            chart=daily(usage.days, user.display_name or user.id),
        )

    async def ask_entitlement(self, request: web.Request) -> web.Response:
        """`GET /portal/admin/users/{id}/entitlement`: what is given now, to be changed."""
        user, before = await self._before(request)
        return await self._form(request, user, before, shown_form(before), {})

    async def entitle(self, request: web.Request) -> web.Response:
        """`POST /portal/admin/users/{id}/entitlement`: the user's keys follow it on every node (R254)."""
        form = await read_form(request)
        user, before = await self._before(request)
        filled = {name: form.text(name) for name in shown_form(None)}
        outcome: Answer | RevocationPending
        try:
            body = parse_body(json.dumps(wanted(filled, before)).encode(), EntitlementBody)
            outcome = await self._services.entitlements.put(administrator_of(request), user.id, body)
        except InvalidBody as error:
            wrong = {_field(issue["place"]): issue["message"] for issue in error.members["issues"]}
            return await self._form(request, user, before, filled, wrong, error.status)
        except UnknownPlan as error:
            return await self._form(request, user, before, filled, {"plan": error.public}, error.status)
        except RevocationPending as pending:
            outcome = pending
        back = [(f"{PORTAL_PATH}/admin/users/{user.id}", user.display_name or user.id)]
        said = f"{user.display_name or user.id} has the plan “{filled['plan']}”"
        return self._services.changed(request, outcome, said=said, back=back)

    async def _before(self, request: web.Request) -> tuple[UserRow, EntitlementRow | None]:
        caller, user_id = administrator_of(request), id_in_path(request)
        user = await self._services.users.find(caller, user_id)
        return user, await self._services.entitlements.find(caller, user_id)

    async def _form(
        self,
        request: web.Request,
        user: UserRow,
        before: EntitlementRow | None,
        filled: Mapping[str, str],
        wrong: Mapping[str, str],
        status: int = 200,
    ) -> web.Response:
        return self._services.renderer.page(
            request,
            "admin/entitlement.html",
            status=status,
            user=user,
            before=before,
            filled=filled,
            wrong=wrong,
            windows=WINDOWS,
            plans=await self._plans.page(limit=MOST_PLANS),
        )


def shown_form(before: EntitlementRow | None) -> dict[str, str]:
    """What the fields of the form say of an entitlement; the times are of UTC."""
    limits = {} if before is None else before.limits
    return {
        "plan": "" if before is None else before.plan,
        "valid_until": "" if before is None else _local(before.valid_until),
        "features": "" if before is None else "\n".join(f"{n} = {json.dumps(v)}" for n, v in before.features.items()),
        **{f"per_{window}": str(limits.get(f"per_{window}", "")) for window in WINDOWS},
    }


def wanted(filled: Mapping[str, str], before: EntitlementRow | None) -> dict[str, Any]:
    """What the filled-in form asks for, as a body of the API. Raises InvalidBody for what cannot stand in one.

    A field that nobody has touched asks for exactly what was there: its text is shorter than that.
    """
    ends: str | None = filled["valid_until"].strip() or None
    if before is not None and before.valid_until is not None and ends == _local(before.valid_until):
        ends = before.valid_until.isoformat()
    limits = {f"per_{window}": filled[f"per_{window}"].strip() for window in WINDOWS}
    return {
        "plan": filled["plan"],
        "valid_until": ends,
        "features": _features(filled["features"]),
        "limits": {name: _whole(name, text) for name, text in limits.items() if text},
    }


def _features(text: str) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, sign, value = (part.strip() for part in line.partition("="))
        if not sign or name in features:
            raise _mistake("features", "Write one on each line, as name = value, and each once")
        try:
            features[name] = json.loads(value)
        except (ValueError, RecursionError):
            features[name] = value
    return features


def _whole(name: str, text: str) -> int:
    try:
        return int(text[:20])
    except ValueError:
        raise _mistake(name, "Write a whole number") from None


def _mistake(place: str, message: str) -> InvalidBody:
    return InvalidBody([{"place": place, "message": message}])


def _field(place: str) -> str:
    """The field of the form that a place in the body is about."""
    return place.removeprefix("limits.").partition(".")[0].partition("[")[0]


def _local(at: datetime | None) -> str:
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M")


def _plain(text: str) -> str:
    """What Postgres takes: the query of a URL may hold anything."""
    return "".join(character for character in text if character.isprintable())
