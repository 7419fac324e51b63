"""The calls on keys and retired secrets: HTTP in front of the services."""

from dataclasses import replace

from aiohttp import web

from gateway.control import answers
from gateway.control.authorization import administrator_of
from gateway.control.bodies import KeyChange, NewKeyBody, RevokeBody, RotateBody, WindowBody
from gateway.control.calls import ADMINISTRATORS, EVERYBODY, NO_ROLE, Call, body_of, query_of
from gateway.control.issuance import ApiAccessRequired, Issuance, IssuanceClosed, KeyLimitReached
from gateway.control.key_parts import shown_key, shown_retired
from gateway.control.keys import AlreadyRevoked, KeyExpired, KeyRevoked, Keys
from gateway.control.pages import KeysQuery, Listing, page_of
from gateway.control.paths import id_in_path
from gateway.control.problems import NotFound, answered, reply
from gateway.control.retired_secrets import RetiredSecrets
from gateway.stores.postgres.keys import DuplicateKey, DuplicateName


class KeyCalls:
    """The handlers of `/v1/keys` and `/v1/retired-secrets`."""

    def __init__(self, issuance: Issuance, keys: Keys, retired_secrets: RetiredSecrets) -> None:
        self._issuance = issuance
        self._keys = keys
        self._retired_secrets = retired_secrets

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        return (
            Call(
                method="POST",
                path="/v1/keys",
                handler=self.create,
                roles=ADMINISTRATORS,
                about="Create a key. Its secret is shown this once",
                body=NewKeyBody,
                answer=answers.KeyCreated,
                statuses=(201,),
                problems=(NotFound, IssuanceClosed, ApiAccessRequired, KeyLimitReached, DuplicateKey, DuplicateName),
            ),
            Call(
                method="GET",
                path="/v1/keys",
                handler=self.list,
                roles=EVERYBODY,
                about="List keys, oldest first",
                query=KeysQuery,
                answer=answers.Keys,
            ),
            Call(
                method="GET",
                path="/v1/keys/{id}",
                handler=self.show,
                roles=EVERYBODY,
                about="Show a key, masked",
                answer=answers.Key,
            ),
            Call(
                method="PATCH",
                path="/v1/keys/{id}",
                handler=self.change,
                roles=ADMINISTRATORS,
                about="Change the name, the scopes or the end of a key",
                body=KeyChange,
                answer=answers.KeyChanged,
                problems=(KeyRevoked, KeyLimitReached, DuplicateName),
            ),
            Call(
                method="POST",
                path="/v1/keys/{id}/rotate",
                handler=self.rotate,
                roles=ADMINISTRATORS,
                about="Give a key a new secret, shown this once. The present one works until its window ends",
                body=RotateBody,
                is_body_optional=True,
                answer=answers.KeyRotated,
                problems=(KeyRevoked, KeyExpired),
            ),
            Call(
                method="POST",
                path="/v1/keys/{id}/revoke",
                handler=self.revoke,
                roles=ADMINISTRATORS,
                about="Revoke a key for good. No node admits it when this has answered",
                body=RevokeBody,
                is_body_optional=True,
                answer=answers.KeyChanged,
                problems=(AlreadyRevoked,),
            ),
            Call(
                method="GET",
                path="/v1/keys/{id}/retired-secrets",
                handler=self.list_retired,
                roles=EVERYBODY,
                about="List the retired secrets of a key, oldest first",
                query=Listing,
                answer=answers.RetiredSecrets,
            ),
            Call(
                method="PATCH",
                path="/v1/retired-secrets/{id}",
                handler=self.set_window,
                roles=ADMINISTRATORS,
                about="End, extend or reopen the window of a retired secret",
                body=WindowBody,
                answer=answers.WindowChanged,
                problems=(KeyRevoked,),
            ),
        )

    def personal_calls(self) -> tuple[Call, ...]:
        """The same for signed-in users, for whom but their own keys exist; they make keys by a call of its own."""
        return tuple(
            replace(call, path=call.path.replace("/v1/", "/v1/me/", 1), roles=NO_ROLE, is_personal=True)
            for call in self.calls()
            if call.handler not in (self.create, self.change)
        )

    async def create(self, request: web.Request) -> web.Response:
        """`POST /v1/keys`: the only reply that ever shows this secret (R218)."""
        body = await body_of(request, NewKeyBody)
        return answered(await self._issuance.create(administrator_of(request), body))

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/keys?user_id=&tenant_id=&status=`."""
        asked = query_of(request, KeysQuery)
        rows = await self._keys.page(
            administrator_of(request),
            user_id=asked.user_id,
            tenant_id=asked.tenant_id,
            status=asked.status,
            after=asked.after,
            limit=asked.limit + 1,
        )
        return reply(page_of(asked, rows, shown_key, lambda row: row.id))

    async def show(self, request: web.Request) -> web.Response:
        """`GET /v1/keys/{id}`."""
        return reply(shown_key(await self._keys.find(administrator_of(request), id_in_path(request))))

    async def change(self, request: web.Request) -> web.Response:
        """`PATCH /v1/keys/{id}`."""
        body = await body_of(request, KeyChange)
        return answered(await self._keys.change(administrator_of(request), id_in_path(request), body))

    async def rotate(self, request: web.Request) -> web.Response:
        """`POST /v1/keys/{id}/rotate`: the only reply that ever shows the new secret (R090)."""
        body = await body_of(request, RotateBody)
        key_id = id_in_path(request)
        return answered(await self._keys.rotate(administrator_of(request), key_id, body.grace_seconds))

    async def revoke(self, request: web.Request) -> web.Response:
        """`POST /v1/keys/{id}/revoke`: no node admits the key when this has answered (R221)."""
        body = await body_of(request, RevokeBody)
        return answered(await self._keys.revoke(administrator_of(request), id_in_path(request), body.reason))

    async def list_retired(self, request: web.Request) -> web.Response:
        """`GET /v1/keys/{id}/retired-secrets`."""
        asked = query_of(request, Listing)
        rows = await self._retired_secrets.page(
            administrator_of(request), id_in_path(request), after=asked.after, limit=asked.limit + 1
        )
        return reply(page_of(asked, rows, shown_retired, lambda row: row.id))

    async def set_window(self, request: web.Request) -> web.Response:
        """`PATCH /v1/retired-secrets/{id}`."""
        body = await body_of(request, WindowBody)
        secret_id = id_in_path(request)
        return answered(await self._retired_secrets.set_window(administrator_of(request), secret_id, body.expires_at))
