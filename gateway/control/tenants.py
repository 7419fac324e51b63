"""Tenants: what may be done to them, and the calls that do it."""

import contextlib
from typing import Any

from aiohttp import web

from gateway.control import answers, moments
from gateway.control.admin_tokens import Administrator
from gateway.control.authorization import administrator_of
from gateway.control.bodies import NewTenant, TenantChange
from gateway.control.calls import EVERYBODY, OPERATORS, Call, body_of, query_of
from gateway.control.deeds import Answer, Deed
from gateway.control.mutations import Judge, Mutations, NothingToDo
from gateway.control.pages import Listing, page_of
from gateway.control.paths import id_in_path
from gateway.control.problems import NotFound, answered, reply
from gateway.stores.postgres import tenants as sql
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.tenants import DuplicateTenant, TenantRow

READ_SECONDS = 3.0
USERS_DELETED_AT_ONCE = 200  # a transaction holds back all others while it commits: a large tenant goes in pieces


def shown_tenant(tenant: TenantRow) -> dict[str, Any]:
    """The tenant as it may be shown."""
    return {
        "id": tenant.id,
        "name": tenant.name,
        "status": tenant.status,
        "issuance": tenant.issuance,
        "created_at": moments.text(tenant.created_at),
    }


class Tenants:
    """What may be done to tenants, but for deleting one. Every method raises StoreUnavailable.

    A tenant's administrator has one: others do not exist for them (R272).
    """

    def __init__(self, postgres: Postgres, mutations: Mutations) -> None:
        self._postgres = postgres
        self._mutations = mutations

    async def create(self, caller: Administrator, body: NewTenant) -> Answer:
        """A new tenant, active. Raises DuplicateTenant."""
        target = f"tenant:{body.id}"

        async def work(connection: Connection) -> Deed:
            after = shown_tenant(await sql.insert(connection, body.id, body.name))
            return Deed("tenant.create", target, body.id, None, after, after, status=201)

        return await self._mutations.apply(work, caller=caller, target=target, is_narrowing=False)

    async def page(self, caller: Administrator, *, after: str = "", limit: int) -> list[TenantRow]:
        """Up to `limit` tenants with an id above `after`; a tenant's administrator sees one."""
        return await self._postgres.run(
            lambda c: sql.page(c, only_id=caller.tenant_id, after=after, limit=limit),
            seconds=READ_SECONDS,
            is_read=True,
        )

    async def find(self, caller: Administrator, tenant_id: str) -> TenantRow:
        """The tenant. Raises NotFound."""
        if caller.tenant_id not in (None, tenant_id):
            raise NotFound(f"{tenant_id!r} is not the caller's tenant")
        row = await self._postgres.run(lambda c: sql.find(c, tenant_id), seconds=READ_SECONDS, is_read=True)
        return _found(row, tenant_id)

    async def change(self, caller: Administrator, tenant_id: str, body: TenantChange) -> Answer:
        """Rename, suspend or readmit: a suspended tenant's credentials are all refused (R104).

        Or say whether its users get new keys (R225); a create that is under way at this moment may still make one.
        Raises NotFound, RevocationPending.
        """
        target = f"tenant:{tenant_id}"

        async def work(connection: Connection, judge: Judge) -> Deed:
            tenant = _found(await sql.lock(connection, tenant_id), tenant_id)
            status = body.status or tenant.status
            judge.declare(is_narrowing=status == "suspended" != tenant.status)
            issuance = body.issuance if "issuance" in body.model_fields_set else tenant.issuance
            name = body.name or tenant.name
            row = await sql.update(connection, tenant_id, name=name, status=status, issuance=issuance)
            after = shown_tenant(row)
            return Deed("tenant.change", target, tenant_id, shown_tenant(tenant), after, after)

        return await self._mutations.apply_judged(work, caller=caller, target=target)


class TenantCalls:
    """The handlers of `/v1/tenants`."""

    def __init__(self, postgres: Postgres, mutations: Mutations) -> None:
        self._mutations = mutations
        self._tenants = Tenants(postgres, mutations)

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        return (
            Call(
                method="POST",
                path="/v1/tenants",
                handler=self.create,
                roles=OPERATORS,
                about="Create a tenant",
                body=NewTenant,
                answer=answers.TenantChanged,
                statuses=(201,),
                problems=(DuplicateTenant,),
            ),
            Call(
                method="GET",
                path="/v1/tenants",
                handler=self.list,
                roles=EVERYBODY,
                about="List tenants",
                query=Listing,
                answer=answers.Tenants,
            ),
            Call(
                method="GET",
                path="/v1/tenants/{id}",
                handler=self.show,
                roles=EVERYBODY,
                about="Show a tenant",
                answer=answers.Tenant,
            ),
            Call(
                method="PATCH",
                path="/v1/tenants/{id}",
                handler=self.change,
                roles=OPERATORS,
                about="Rename, suspend or readmit a tenant, or say whether its users get new keys",
                body=TenantChange,
                answer=answers.TenantChanged,
            ),
            Call(
                method="DELETE",
                path="/v1/tenants/{id}",
                handler=self.delete,
                roles=OPERATORS,
                about="Delete a tenant with its users, keys and admin tokens",
                statuses=(204,),
            ),
        )

    async def create(self, request: web.Request) -> web.Response:
        """`POST /v1/tenants`."""
        body = await body_of(request, NewTenant)
        return answered(await self._tenants.create(administrator_of(request), body))

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/tenants`; a tenant's administrator sees one."""
        asked = query_of(request, Listing)
        rows = await self._tenants.page(administrator_of(request), after=asked.after, limit=asked.limit + 1)
        return reply(page_of(asked, rows, shown_tenant, lambda row: row.id))

    async def show(self, request: web.Request) -> web.Response:
        """`GET /v1/tenants/{id}`."""
        return reply(shown_tenant(await self._tenants.find(administrator_of(request), id_in_path(request))))

    async def change(self, request: web.Request) -> web.Response:
        """`PATCH /v1/tenants/{id}`: a suspended tenant's credentials are all refused (R104)."""
        body = await body_of(request, TenantChange)
        return answered(await self._tenants.change(administrator_of(request), id_in_path(request), body))

    async def delete(self, request: web.Request) -> web.Response:
        """`DELETE /v1/tenants/{id}` with its users, keys, retired secrets and admin tokens (R103).

        The tenant is suspended first, then emptied in pieces: what fails half-way refuses all its credentials already,
        and is finished by a repeat.
        """
        tenant_id, caller = id_in_path(request), administrator_of(request)
        target = f"tenant:{tenant_id}"

        async def suspend(connection: Connection) -> Deed:
            tenant = _found(await sql.lock(connection, tenant_id), tenant_id)
            row = await sql.update(
                connection, tenant_id, name=tenant.name, status="suspended", issuance=tenant.issuance
            )
            return Deed("tenant.change", target, tenant_id, shown_tenant(tenant), shown_tenant(row))

        async def empty(connection: Connection) -> Deed:
            users = await sql.delete_users(connection, tenant_id, limit=USERS_DELETED_AT_ONCE)
            if not users:
                raise NothingToDo
            return Deed("tenant.delete_users", target, tenant_id, {"users": users}, None)

        async def delete(connection: Connection) -> Deed:
            tenant = _found(await sql.lock(connection, tenant_id), tenant_id)
            await sql.delete(connection, tenant_id)
            return Deed("tenant.delete", target, tenant_id, shown_tenant(tenant), None, status=204)

        try:
            await self._mutations.apply(suspend, caller=caller, target=target, is_narrowing=True, is_answer=False)
        except NotFound:
            if await self._mutations.resume(target) is None:
                raise
            return web.Response(status=204)
        with contextlib.suppress(NothingToDo):
            while True:
                await self._mutations.apply(empty, caller=caller, target=target, is_narrowing=True, is_answer=False)
        return answered(await self._mutations.apply(delete, caller=caller, target=target, is_narrowing=True))


def _found(row: TenantRow | None, tenant_id: str) -> TenantRow:
    if row is None:
        raise NotFound(f"no tenant {tenant_id!r}")
    return row
