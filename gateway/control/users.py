"""Users: looked up, and the calls on them.

A tenant's administrator manages the users of that tenant; others do not exist for them.
"""

from typing import Any

from aiohttp import web

from gateway.control import answers, moments
from gateway.control.admin_tokens import Administrator
from gateway.control.authorization import administrator_of
from gateway.control.bodies import ID_SHAPE, UserBody
from gateway.control.calls import ADMINISTRATORS, EVERYBODY, Call, body_of, query_of
from gateway.control.deeds import Deed
from gateway.control.mutations import Judge, Mutations
from gateway.control.pages import UsersQuery, page_of
from gateway.control.paths import id_in_path
from gateway.control.problems import Forbidden, InvalidBody, NotFound, Problem, answered, reply
from gateway.stores.postgres import users as sql
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.tenants import UnknownTenant
from gateway.stores.postgres.users import UserFacts, UserRow

READ_SECONDS = 3.0


class TenantFixed(Problem):
    """A user was to be moved to another tenant."""

    code = "tenant_fixed"
    status = 409
    public = "A user stays in its tenant. Delete it, or create another one there."


class InvalidUserId(InvalidBody):
    """What is in the path cannot be the id of a new user."""

    code = "invalid_id"

    def __init__(self) -> None:
        super().__init__([{"place": "(path)", "message": "This cannot be a user's id"}], code=self.code)


def shown_user(user: UserRow) -> dict[str, Any]:
    """The user as it may be shown."""
    return {
        "id": user.id,
        "tenant_id": user.tenant_id,
        "display_name": user.display_name,
        "roles": list(user.roles),
        "groups": list(user.groups),
        "status": user.status,
        "created_at": moments.text(user.created_at),
    }


def visible(user: UserRow | None, caller: Administrator, user_id: str) -> UserRow:
    """The user, if it exists for the caller. Raises NotFound."""
    if user is None or caller.tenant_id not in (None, user.tenant_id):
        raise NotFound(f"no user {user_id!r} in sight")
    return user


class Users:
    """Looks users up. Every method raises StoreUnavailable."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def find(self, caller: Administrator, user_id: str) -> UserRow:
        """The user. Raises NotFound."""
        row = await self._postgres.run(lambda c: sql.find(c, user_id), seconds=READ_SECONDS, is_read=True)
        return visible(row, caller, user_id)

    async def page(
        self, caller: Administrator, *, tenant_id: str | None = None, search: str = "", after: str = "", limit: int
    ) -> list[UserRow]:
        """Up to `limit` users with an id above `after`: of one tenant, of those whose id or name begins so."""
        tenant_id = tenant_id or caller.tenant_id
        if caller.tenant_id not in (None, tenant_id):
            return []
        return await self._postgres.run(
            lambda c: sql.page(c, tenant_id=tenant_id, search=search, after=after, limit=limit),
            seconds=READ_SECONDS,
            is_read=True,
        )


class UserCalls:
    """The handlers of `/v1/users`."""

    def __init__(self, postgres: Postgres, mutations: Mutations) -> None:
        self._mutations = mutations
        self._users = Users(postgres)

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        return (
            Call(
                method="GET",
                path="/v1/users",
                handler=self.list,
                roles=EVERYBODY,
                about="List users",
                query=UsersQuery,
                answer=answers.Users,
            ),
            Call(
                method="GET",
                path="/v1/users/{id}",
                handler=self.show,
                roles=EVERYBODY,
                about="Show a user",
                answer=answers.User,
            ),
            Call(
                method="PUT",
                path="/v1/users/{id}",
                handler=self.put,
                roles=ADMINISTRATORS,
                about="Create (201) or overwrite (200) a user",
                body=UserBody,
                answer=answers.UserChanged,
                statuses=(200, 201),
                problems=(InvalidUserId, UnknownTenant, TenantFixed),
            ),
            Call(
                method="DELETE",
                path="/v1/users/{id}",
                handler=self.delete,
                roles=ADMINISTRATORS,
                about="Delete a user with its entitlement and keys",
                statuses=(204,),
            ),
        )

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/users?tenant_id=&search=`."""
        asked = query_of(request, UsersQuery)
        rows = await self._users.page(
            administrator_of(request),
            tenant_id=asked.tenant_id,
            search=asked.search,
            after=asked.after,
            limit=asked.limit + 1,
        )
        return reply(page_of(asked, rows, shown_user, lambda row: row.id))

    async def show(self, request: web.Request) -> web.Response:
        """`GET /v1/users/{id}`."""
        return reply(shown_user(await self._users.find(administrator_of(request), id_in_path(request))))

    async def put(self, request: web.Request) -> web.Response:
        """`PUT /v1/users/{id}`: create (201) or overwrite (200). Suspending refuses all its credentials (R104)."""
        caller, body, user_id = administrator_of(request), await body_of(request, UserBody), request.match_info["id"]
        if ID_SHAPE.fullmatch(user_id) is None:
            raise InvalidUserId
        if caller.tenant_id not in (None, body.tenant_id):
            raise Forbidden(f"{caller.token_id} is of {caller.tenant_id!r}")

        target = f"user:{user_id}"

        async def work(connection: Connection, judge: Judge) -> Deed:
            while True:
                created = await sql.insert(connection, _facts(user_id, body, body.status or "active"))
                if created is not None:
                    after = shown_user(created)
                    return Deed("user.create", target, body.tenant_id, None, after, after, status=201)
                before = await sql.lock(connection, user_id)
                if before is not None:
                    return await _overwrite(connection, judge, visible(before, caller, user_id))

        async def _overwrite(connection: Connection, judge: Judge, before: UserRow) -> Deed:
            if before.tenant_id != body.tenant_id:
                raise TenantFixed(f"{user_id!r} is of {before.tenant_id!r}")
            status = body.status or before.status
            judge.declare(is_narrowing=status == "suspended" != before.status)
            after = shown_user(await sql.update(connection, _facts(user_id, body, status)))
            return Deed("user.change", target, before.tenant_id, shown_user(before), after, after)

        return answered(await self._mutations.apply_judged(work, caller=caller, target=target))

    async def delete(self, request: web.Request) -> web.Response:
        """`DELETE /v1/users/{id}` with its entitlement, keys and retired secrets: all are refused at once (R103)."""
        user_id, caller = id_in_path(request), administrator_of(request)
        target = f"user:{user_id}"

        async def work(connection: Connection) -> Deed:
            user = visible(await sql.lock(connection, user_id), caller, user_id)
            await sql.delete(connection, user_id)
            return Deed("user.delete", target, user.tenant_id, shown_user(user), None, status=204)

        try:
            return answered(await self._mutations.apply(work, caller=caller, target=target, is_narrowing=True))
        except NotFound:
            # Gone, but perhaps not confirmed yet: then this call finishes it (R233).
            if caller.tenant_id is not None or await self._mutations.resume(target) is None:
                raise
        return web.Response(status=204)


def _facts(user_id: str, body: UserBody, status: str) -> UserFacts:
    return UserFacts(user_id, body.tenant_id, body.display_name, body.roles, body.groups, status)
