"""Pages about all keys of a user together: what was used, what was done, and where somebody is signed in."""

import re
from typing import Final

from aiohttp import web

from gateway.control.keys import Keys
from gateway.control.portal.activity import Activity
from gateway.control.portal.charts import KINDS, daily
from gateway.control.portal.rendering import Renderer
from gateway.control.portal.sessions import Sessions
from gateway.control.portal.usage_view import UsageViews
from gateway.control.portal.visits import Page, owner_of, person_of, session_of

SPANS: Final = (7, 30, 90)  # days
USUAL_SPAN: Final = 30
EVENTS_PER_PAGE: Final = 30
_NUMBER: Final = re.compile("[0-9]{1,18}")


class AccountPages:
    """Usage, activity and sessions."""

    def __init__(
        self, keys: Keys, usage: UsageViews, activity: Activity, sessions: Sessions, renderer: Renderer
    ) -> None:
        self._keys = keys
        self._usage = usage
        self._activity = activity
        self._sessions = sessions
        self._renderer = renderer

    def pages(self) -> list[Page]:
        """What is declared here."""
        return [Page("GET", "/usage", self.usage), Page("GET", "/activity", self.activity)]

    async def usage(self, request: web.Request) -> web.Response:
        """`GET /portal/usage?days=&key=`: by day and by outcome, of all keys or of one."""
        caller = owner_of(request)
        asked = request.query.get("days", "")
        days = int(asked) if asked in map(str, SPANS) else USUAL_SPAN
        key_id = request.query.get("key")
        key = None if not key_id else await self._keys.find(caller, key_id)
        usage = await self._usage.of(caller, days, None if key is None else key.id)
        return self._renderer.page(
            request,
            "usage.html",
            key=key,
            usage=usage,
            days=days,
            spans=SPANS,
            kinds=KINDS,
            chart=daily(usage.days, "All keys" if key is None else key.name),
        )

    async def activity(self, request: web.Request) -> web.Response:
        """`GET /portal/activity?before=`: what was done, the latest first."""
        before = request.query.get("before", "")
        number = int(before) if _NUMBER.fullmatch(before) else None
        events = await self._activity.of(person_of(request), before=number, limit=EVENTS_PER_PAGE + 1)
        return self._renderer.page(
            request,
            "activity.html",
            events=events[:EVENTS_PER_PAGE],
            before=events[EVENTS_PER_PAGE - 1].id if len(events) > EVENTS_PER_PAGE else None,
            is_continued=number is not None,
            sessions=await self._sessions.of(session_of(request)),
        )
