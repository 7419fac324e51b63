"""Pages that show keys: the list, one key, and what becomes of a rotation."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from gateway.control.admin_tokens import Administrator
from gateway.control.keys import Keys
from gateway.control.me import OwnKeys
from gateway.control.paths import id_in_path
from gateway.control.portal.activity import Activity
from gateway.control.portal.charts import daily, spark
from gateway.control.portal.rendering import Renderer
from gateway.control.portal.rotation import Rotation
from gateway.control.portal.usage_view import UsageViews, unused
from gateway.control.portal.visits import Page, owner_of, person_of
from gateway.control.retired_secrets import RetiredSecrets
from gateway.stores.postgres.keys import KeyRow

MOST_KEYS: Final = 200  # of one status; a user has a handful
REVOKED_PER_PAGE: Final = 20
KEY_DAYS: Final = 30
KEY_EVENTS: Final = 10


class KeyPages:
    """The pages on which keys are looked at (R360, R362)."""

    def __init__(
        self,
        keys: Keys,
        retired: RetiredSecrets,
        own: OwnKeys,
        usage: UsageViews,
        activity: Activity,
        renderer: Renderer,
    ) -> None:
        self._keys = keys
        self._retired = retired
        self._own = own
        self._usage = usage
        self._activity = activity
        self._renderer = renderer

    def pages(self) -> list[Page]:
        """What is declared here."""
        return [Page("GET", "/keys", self.list), Page("GET", "/keys/{id}", self.show)]

    async def list(self, request: web.Request) -> web.Response:
        """`GET /portal/keys`: those that work, those that have ended, and those that were revoked, apart."""
        caller = owner_of(request)
        assert caller.user_id is not None
        live = await self._keys.page(caller, status="active", limit=MOST_KEYS)
        live += await self._keys.page(caller, status="expired", limit=MOST_KEYS)
        after = request.query.get("revoked_after", "")
        revoked = await self._keys.page(caller, status="revoked", after=after, limit=REVOKED_PER_PAGE + 1)
        used = await self._usage.by_key(caller)
        return self._renderer.page(
            request,
            "keys.html",
            keys=live,
            revoked=revoked[:REVOKED_PER_PAGE],
            revoked_after=revoked[REVOKED_PER_PAGE - 1].id if len(revoked) > REVOKED_PER_PAGE else None,
            is_continued=bool(after),
            rotations=await self.rotations(caller, live),
            charts={key.id: spark(used.get(key.id) or unused(), key.name) for key in live},
            outlook=await self._own.outlook(caller.user_id),
        )

    async def show(self, request: web.Request) -> web.Response:
        """`GET /portal/keys/{id}`."""
        caller = owner_of(request)
        key = await self._keys.find(caller, id_in_path(request))
        usage = await self._usage.of(caller, KEY_DAYS, key.id)
        return self._renderer.page(
            request,
            "key.html",
            key=key,
            rotation=(await self.rotations(caller, [key])).get(key.id),
            usage=usage,
            chart=daily(usage.days, key.name),
            events=await self._activity.of_key(person_of(request), key.id, limit=KEY_EVENTS),
        )

    async def rotations(self, caller: Administrator, keys: Sequence[KeyRow]) -> dict[str, Rotation]:
        """The rotations that are under way, by the ids of the keys."""
        assert caller.user_id is not None
        by_key = defaultdict(list)
        for retired in await self._retired.open_of(caller.user_id):
            by_key[retired.key_id].append(retired)
        return {key.id: Rotation(key, by_key[key.id]) for key in keys if key.id in by_key and key.status == "active"}
