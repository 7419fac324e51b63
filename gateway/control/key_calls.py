"""The calls on keys and retired secrets: HTTP in front of the services."""

from aiohttp import web

from gateway.control.authorization import administrator_of
from gateway.control.bodies import KeyChange, NewKeyBody, RevokeBody, RotateBody, WindowBody, read_body
from gateway.control.issuance import Issuance
from gateway.control.key_parts import shown_key, shown_retired
from gateway.control.keys import Keys
from gateway.control.pages import page_of, read_query
from gateway.control.paths import id_in_path
from gateway.control.problems import InvalidQuery, answered, reply
from gateway.control.retired_secrets import RetiredSecrets

STATUSES = ("active", "revoked", "expired")


class KeyCalls:
    """The handlers of `/v1/keys` and `/v1/retired-secrets`."""

    def __init__(self, issuance: Issuance, keys: Keys, retired_secrets: RetiredSecrets) -> None:
        self._issuance = issuance
        self._keys = keys
        self._retired_secrets = retired_secrets

    async def create(self, request: web.Request) -> web.Response:
        """`POST /v1/keys`: the only reply that ever shows this secret (R218)."""
        body = await read_body(request, NewKeyBody)
        return answered(await self._issuance.create(administrator_of(request), body))

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/keys?user_id=&tenant_id=&status=`."""
        asked = read_query(request, "user_id", "tenant_id", "status")
        status = asked.filters.get("status")
        if status is not None and status not in STATUSES:
            raise InvalidQuery("status", f"Use one of: {', '.join(STATUSES)}")
        rows = await self._keys.page(
            administrator_of(request),
            user_id=asked.filters.get("user_id"),
            tenant_id=asked.filters.get("tenant_id"),
            status=status,
            after=asked.after,
            limit=asked.limit + 1,
        )
        return reply(page_of(asked, rows, shown_key, lambda row: row.id))

    async def show(self, request: web.Request) -> web.Response:
        """`GET /v1/keys/{id}`."""
        return reply(shown_key(await self._keys.find(administrator_of(request), id_in_path(request))))

    async def change(self, request: web.Request) -> web.Response:
        """`PATCH /v1/keys/{id}`."""
        body = await read_body(request, KeyChange)
        return answered(await self._keys.change(administrator_of(request), id_in_path(request), body))

    async def rotate(self, request: web.Request) -> web.Response:
        """`POST /v1/keys/{id}/rotate`: the only reply that ever shows the new secret (R090)."""
        body = await read_body(request, RotateBody, is_optional=True)
        key_id = id_in_path(request)
        return answered(await self._keys.rotate(administrator_of(request), key_id, body.grace_seconds))

    async def revoke(self, request: web.Request) -> web.Response:
        """`POST /v1/keys/{id}/revoke`: no node admits the key when this has answered (R221)."""
        body = await read_body(request, RevokeBody, is_optional=True)
        return answered(await self._keys.revoke(administrator_of(request), id_in_path(request), body.reason))

    async def list_retired(self, request: web.Request) -> web.Response:
        """`GET /v1/keys/{id}/retired-secrets`."""
        asked = read_query(request)
        rows = await self._retired_secrets.page(
            administrator_of(request), id_in_path(request), after=asked.after, limit=asked.limit + 1
        )
        return reply(page_of(asked, rows, shown_retired, lambda row: row.id))

    async def set_window(self, request: web.Request) -> web.Response:
        """`PATCH /v1/retired-secrets/{id}`."""
        body = await read_body(request, WindowBody)
        secret_id = id_in_path(request)
        return answered(await self._retired_secrets.set_window(administrator_of(request), secret_id, body.expires_at))
