"""The calls of signed-in users, `/v1/me`: the same as those on keys, where nobody else's keys exist.

What a key may at all is its owner's entitlement. Scopes narrow a key further, where routes ask for them: since an
administrator may count on that, users give their own keys none but those that the configuration lists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from gateway.control import answers, moments
from gateway.control.admin_tokens import Administrator
from gateway.control.authorization import administrator_of, person_of
from gateway.control.bodies import Body, Digest, KeyName, NewKeyBody, Scopes
from gateway.control.calls import NO_ROLE, Call, body_of
from gateway.control.deeds import Answer
from gateway.control.issuance import ApiAccessRequired, Issuance, IssuanceClosed, KeyLimitReached, is_issuance_open
from gateway.control.key_parts import KeyParts
from gateway.control.moments import Moment
from gateway.control.problems import Problem, answered, reply
from gateway.setting_values import EnvironmentName
from gateway.stores.postgres import users as sql
from gateway.stores.postgres.connection import Connection
from gateway.stores.postgres.keys import DuplicateKey, DuplicateName, active_of_user, owners
from gateway.stores.postgres.users import EffectiveEntitlement

READ_SECONDS = 3.0


class ScopesNotGiven(Problem):
    """The user asks for scopes that users may not give to their keys; `denied` names them (R224)."""

    code = "insufficient_scope"
    status = 403
    public = "You may not give a key all of these scopes. See `denied`."
    answer = answers.DeniedProblem


class OwnKeyBody(Body):
    """`POST /v1/me/keys`: as `POST /v1/keys`, for oneself."""

    name: KeyName
    scopes: Scopes = ()
    environment: EnvironmentName | None = None
    expires_at: Moment | None = None
    secret_sha256: Digest | None = None
    prefix: str | None = None

    def of_user(self, user_id: str) -> NewKeyBody:
        """The same wish, with its owner."""
        return NewKeyBody.model_construct(user_id=user_id, **dict(self))  # its fields have been validated


def shown_effective(entitlement: EffectiveEntitlement) -> dict[str, Any]:
    """What the user has, the plan included. `api_access` is whether their keys are admitted, and new ones made."""
    return {
        "plan": entitlement.plan,
        "tier": entitlement.tier,
        "features": entitlement.features,
        "limits": entitlement.limits,
        "valid_until": moments.text(entitlement.valid_until),
        "api_access": entitlement.has_api_access,
    }


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a user has, and what would become of one more key of theirs: `refusal` is what its creation would raise."""

    entitlement: EffectiveEntitlement | None
    active: int
    limit: int
    is_issuance_open: bool

    @property
    def refusal(self) -> type[Problem] | None:
        """Why no more key can be made now; None where one can."""
        if not self.is_issuance_open:
            return IssuanceClosed
        if self.entitlement is None or not self.entitlement.has_api_access:
            return ApiAccessRequired
        return KeyLimitReached if self.active >= self.limit else None


class OwnKeys:
    """What users do for themselves and nobody else does so. `key_scopes` are those that they may give."""

    def __init__(self, parts: KeyParts, issuance: Issuance, key_scopes: Sequence[str]) -> None:
        self.key_scopes = tuple(key_scopes)
        self._postgres = parts.postgres
        self._settings = parts.settings
        self._issuance = issuance

    async def outlook(self, user_id: str) -> Outlook:
        """What the user has now, and whether there is room for one more key. Raises StoreUnavailable."""

        async def work(connection: Connection) -> Outlook:
            entitlement = await sql.effective_entitlement(connection, user_id)
            active = len(await active_of_user(connection, user_id))
            owner = (await owners(connection, [user_id], None, are_locked=False)).get(user_id)
            is_open = owner is not None and is_issuance_open(self._settings, owner)
            return Outlook(entitlement, active, self._settings.max_per_user, is_open)

        return await self._postgres.run(work, seconds=READ_SECONDS, is_read=True)

    async def entitlement(self, user_id: str) -> EffectiveEntitlement | None:
        """What the user has now. Raises StoreUnavailable."""
        return await self._postgres.run(
            lambda c: sql.effective_entitlement(c, user_id), seconds=READ_SECONDS, is_read=True
        )

    async def create(self, caller: Administrator, user_id: str, body: OwnKeyBody) -> Answer:
        """A key of the user's own. Raises ScopesNotGiven, and what `Issuance.create` raises."""
        denied = [scope for scope in body.scopes if scope not in self.key_scopes]
        if denied:
            raise ScopesNotGiven(f"{denied} are not among oidc.key_scopes", denied=denied)
        return await self._issuance.create(caller, body.of_user(user_id))


class MyCalls:
    """The handlers of `/v1/me` that are not those of `/v1/keys`."""

    def __init__(self, own: OwnKeys) -> None:
        self._own = own

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        return (
            Call(
                method="GET",
                path="/v1/me",
                handler=self.show,
                roles=NO_ROLE,
                is_personal=True,
                about="Show who has signed in, and what they are entitled to",
                answer=answers.Me,
            ),
            Call(
                method="POST",
                path="/v1/me/keys",
                handler=self.create,
                roles=NO_ROLE,
                is_personal=True,
                about="Create a key of one's own. Its secret is shown this once",
                body=OwnKeyBody,
                answer=answers.KeyCreated,
                statuses=(201,),
                problems=(
                    ScopesNotGiven,
                    IssuanceClosed,
                    ApiAccessRequired,
                    KeyLimitReached,
                    DuplicateKey,
                    DuplicateName,
                ),
            ),
        )

    async def show(self, request: web.Request) -> web.Response:
        """`GET /v1/me`: who the caller is here, and what the provider and the gateway make of them."""
        person = person_of(request)
        user = person.user
        entitlement = await self._own.entitlement(user.id)
        return reply(
            {
                "id": user.id,
                "tenant_id": user.tenant_id,
                "display_name": user.display_name,
                "roles": sorted(person.roles),
                "groups": sorted(person.groups),
                "admin_role": person.admin_role,
                "entitlement": None if entitlement is None else shown_effective(entitlement),
            }
        )

    async def create(self, request: web.Request) -> web.Response:
        """`POST /v1/me/keys`: the only reply that ever shows this secret (R218)."""
        body = await body_of(request, OwnKeyBody)
        return answered(await self._own.create(administrator_of(request), person_of(request).user.id, body))
