"""Entitlements: read, given and taken away, and the calls for it.

A tenant's administrator may read them: what a tenant has bought is not theirs to set.
"""

from typing import Any

from aiohttp import web

from gateway.control import answers, moments
from gateway.control.admin_tokens import Administrator
from gateway.control.authorization import administrator_of
from gateway.control.bodies import EntitlementBody
from gateway.control.calls import EVERYBODY, OPERATORS, Call, body_of
from gateway.control.deeds import Answer, Deed
from gateway.control.mutations import Judge, Mutations
from gateway.control.paths import id_in_path
from gateway.control.problems import NotFound, answered, reply
from gateway.control.users import visible
from gateway.stores.postgres import users as sql
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.time import has_passed
from gateway.stores.postgres.users import EntitlementRow, UnknownPlan

READ_SECONDS = 3.0


def shown_entitlement(entitlement: EntitlementRow) -> dict[str, Any]:
    """The entitlement as it may be shown."""
    return {
        "user_id": entitlement.user_id,
        "plan": entitlement.plan,
        "features": entitlement.features,
        "limits": entitlement.limits,
        "valid_until": moments.text(entitlement.valid_until),
        "updated_at": moments.text(entitlement.updated_at),
    }


class Entitlements:
    """Reads and gives entitlements. Every method raises NotFound (of the user) and StoreUnavailable."""

    def __init__(self, postgres: Postgres, mutations: Mutations) -> None:
        self._postgres = postgres
        self._mutations = mutations

    async def find(self, caller: Administrator, user_id: str) -> EntitlementRow | None:
        """What the user is entitled to; None for nothing."""

        async def work(connection: Connection) -> EntitlementRow | None:
            visible(await sql.find(connection, user_id), caller, user_id)
            return await sql.entitlement(connection, user_id)

        return await self._postgres.run(work, seconds=READ_SECONDS, is_read=True)

    async def put(self, caller: Administrator, user_id: str, body: EntitlementBody) -> Answer:
        """Create or overwrite. The user's keys stay what they are, and follow it on every node (R254).

        Raises UnknownPlan; RevocationPending where it may take something away.
        """
        target = f"entitlement:{user_id}"

        async def work(connection: Connection, judge: Judge) -> Deed:
            user = visible(await sql.lock(connection, user_id), caller, user_id)
            before = await sql.entitlement(connection, user_id)
            # An end in the past narrows even where it moves forward: the earlier call may not have been confirmed.
            is_over = await has_passed(connection, body.valid_until)
            judge.declare(is_narrowing=before is not None and (is_over or not _is_renewal(before, body)))
            row = await sql.put_entitlement(
                connection,
                user_id,
                plan=body.plan,
                features=body.features,
                limits=body.limits,
                valid_until=body.valid_until,
            )
            after = shown_entitlement(row)
            return Deed(
                "entitlement.put",
                target,
                user.tenant_id,
                None if before is None else shown_entitlement(before),
                after,
                after,
            )

        return await self._mutations.apply_judged(work, caller=caller, target=target)


class EntitlementCalls:
    """The handlers of `/v1/users/{id}/entitlement`."""

    def __init__(self, postgres: Postgres, mutations: Mutations) -> None:
        self._mutations = mutations
        self._entitlements = Entitlements(postgres, mutations)

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        path = "/v1/users/{id}/entitlement"
        return (
            Call(
                method="GET",
                path=path,
                handler=self.show,
                roles=EVERYBODY,
                about="Show what a user is entitled to",
                answer=answers.Entitlement,
            ),
            Call(
                method="PUT",
                path=path,
                handler=self.put,
                roles=OPERATORS,
                about="Entitle a user, or change what it is entitled to",
                body=EntitlementBody,
                answer=answers.EntitlementChanged,
                problems=(UnknownPlan,),
            ),
            Call(
                method="DELETE",
                path=path,
                handler=self.delete,
                roles=OPERATORS,
                about="Take a user's entitlement away. Its keys are refused from now on",
                statuses=(204,),
            ),
        )

    async def show(self, request: web.Request) -> web.Response:
        """`GET`."""
        user_id = id_in_path(request)
        found = await self._entitlements.find(administrator_of(request), user_id)
        if found is None:
            raise NotFound(f"user {user_id!r} has no entitlement")
        return reply(shown_entitlement(found))

    async def put(self, request: web.Request) -> web.Response:
        """`PUT`: create or overwrite. The user's keys stay what they are, and follow it on every node (R254)."""
        body = await body_of(request, EntitlementBody)
        return answered(await self._entitlements.put(administrator_of(request), id_in_path(request), body))

    async def delete(self, request: web.Request) -> web.Response:
        """`DELETE`: the user's keys are refused from now on."""
        user_id, caller = id_in_path(request), administrator_of(request)
        target = f"entitlement:{user_id}"

        async def work(connection: Connection) -> Deed:
            user = visible(await sql.lock(connection, user_id), caller, user_id)
            before = await sql.entitlement(connection, user_id)
            if before is None:
                raise NotFound(f"user {user_id!r} has no entitlement")
            await sql.delete_entitlement(connection, user_id)
            return Deed("entitlement.delete", target, user.tenant_id, shown_entitlement(before), None, status=204)

        try:
            return answered(await self._mutations.apply(work, caller=caller, target=target, is_narrowing=True))
        except NotFound:
            # Gone, but perhaps not confirmed yet: then this call finishes it (R233).
            if await self._mutations.resume(target) is None:
                raise
        return web.Response(status=204)


def _is_renewal(before: EntitlementRow, after: EntitlementBody) -> bool:
    """Whether the same thing is given for as long or longer. Any other change may take something away."""
    same = (before.plan, before.features, before.limits) == (after.plan, after.features, after.limits)
    return same and (
        after.valid_until is None or (before.valid_until is not None and after.valid_until >= before.valid_until)
    )
