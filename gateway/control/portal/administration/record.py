"""The audit trail as pages: what was done, by whom, to what, the latest first."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from gateway.control.calls import EVERYBODY
from gateway.control.pages import AuditQuery, parse_query
from gateway.control.portal.administration.listing import PER_PAGE, filter_of
from gateway.control.portal.administration.services import Services
from gateway.control.portal.visits import Access, Page, administrator_of
from gateway.control.portal.words import ACTIONS
from gateway.control.problems import InvalidQuery
from gateway.stores.postgres.audit import AuditRow

FILTERS: Final = ("tenant", "actor", "action", "target", "since", "until")
LONGEST_VALUE: Final = 200


@dataclass(frozen=True, slots=True)
class Told:
    """One event. `changes` are what became of each member that is not as it was: its name, before, after."""

    id: int
    at: datetime
    action: str
    words: str
    target: str
    tenant_id: str | None
    actor: Mapping[str, Any]
    address: str | None
    changes: list[tuple[str, str, str]]


def told(row: AuditRow) -> Told:
    """An event as administrators read it."""
    event = row.members
    before, after = event["before"] or {}, event["after"] or {}
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return Told(
        row.id,
        datetime.fromisoformat(event["at"]),
        event["action"],
        ACTIONS.get(event["action"], event["action"]),
        event["target"],
        event["tenant_id"],
        event["actor"],
        event["address"],
        [(name, _text(before.get(name)), _text(after.get(name))) for name in names],
    )


def _text(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"


class RecordPages:
    """The trail. A tenant's administrator reads what is about that tenant (R272)."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def pages(self) -> list[Page]:
        """What is declared here."""
        return [Page("GET", "/admin/audit", self.list, Access.ADMINISTRATOR, EVERYBODY)]

    async def list(self, request: web.Request) -> web.Response:
        """`GET /portal/admin/audit?tenant=&actor=&action=&target=&since=&until=&before=`."""
        caller = administrator_of(request)
        filters = {name: filter_of(request, name) for name in FILTERS}
        asked: AuditQuery | None = None
        wrong: dict[str, str] = {}
        try:
            asked = parse_query(
                {"order": "latest", **{_NAMES.get(name, name): text for name, text in filters.items() if text}},
                AuditQuery,
            )
        except InvalidQuery as error:
            (issue,) = error.members["issues"]
            wrong[_FIELDS.get(issue["place"], issue["place"])] = issue["message"]
        if filters["tenant"] and not wrong:
            await self._services.tenants.find(caller, filters["tenant"])
        before = filter_of(request, "before")
        behind = int(before) if before.isascii() and before.isdigit() and len(before) <= 18 else None
        rows = [] if asked is None else await self._services.trail.page(caller, asked, after=behind, limit=PER_PAGE + 1)
        shown = rows[:PER_PAGE]
        named = {name: text for name, text in filters.items() if text}
        return self._services.renderer.page(
            request,
            "admin/audit.html",
            status=400 if wrong else 200,
            events=[told(row) for row in shown],
            older=urlencode({**named, "before": shown[-1].id}) if len(rows) > PER_PAGE else None,
            is_continued=behind is not None,
            filters=filters,
            wrong=wrong,
        )


_NAMES: Final = {"tenant": "tenant_id"}
_FIELDS: Final = {"tenant_id": "tenant"}
