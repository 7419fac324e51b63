"""Plans: looked up, and the calls on them."""

import re
from dataclasses import asdict

from aiohttp import web

from gateway.control import answers
from gateway.control.authorization import administrator_of
from gateway.control.bodies import PlanBody
from gateway.control.calls import EVERYBODY, OPERATORS, Call, body_of, query_of
from gateway.control.deeds import Deed
from gateway.control.mutations import Judge, Mutations
from gateway.control.pages import Listing, page_of
from gateway.control.paths import id_in_path
from gateway.control.problems import InvalidBody, NotFound, answered, reply
from gateway.stores.postgres import plans as sql
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.plans import PlanInUse, PlanRow

READ_SECONDS = 3.0

_NAME_SHAPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class InvalidPlanName(InvalidBody):
    """What is in the path cannot be the name of a new plan."""

    code = "invalid_name"

    def __init__(self) -> None:
        message = "Use a letter or a digit and then up to 63 letters, digits or the signs . _ -"
        super().__init__([{"place": "(path)", "message": message}], code=self.code)


class Plans:
    """Looks plans up."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def page(self, *, after: str = "", limit: int) -> list[PlanRow]:
        """Up to `limit` plans with a name above `after`. Raises StoreUnavailable."""
        return await self._postgres.run(
            lambda c: sql.page(c, after=after, limit=limit), seconds=READ_SECONDS, is_read=True
        )


class PlanCalls:
    """The handlers of `/v1/plans`."""

    def __init__(self, postgres: Postgres, mutations: Mutations) -> None:
        self._postgres = postgres
        self._mutations = mutations
        self._plans = Plans(postgres)

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        return (
            Call(
                method="GET",
                path="/v1/plans",
                handler=self.list,
                roles=EVERYBODY,
                about="List plans",
                query=Listing,
                answer=answers.Plans,
            ),
            Call(
                method="GET",
                path="/v1/plans/{name}",
                handler=self.show,
                roles=EVERYBODY,
                about="Show a plan",
                answer=answers.Plan,
            ),
            Call(
                method="PUT",
                path="/v1/plans/{name}",
                handler=self.put,
                roles=OPERATORS,
                about="Create or overwrite a plan",
                body=PlanBody,
                answer=answers.PlanChanged,
                problems=(InvalidPlanName,),
            ),
            Call(
                method="DELETE",
                path="/v1/plans/{name}",
                handler=self.delete,
                roles=OPERATORS,
                about="Delete a plan that no user has",
                statuses=(204,),
                problems=(PlanInUse,),
            ),
        )

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/plans`."""
        asked = query_of(request, Listing)
        rows = await self._plans.page(after=asked.after, limit=asked.limit + 1)
        return reply(page_of(asked, rows, asdict, lambda row: row.name))

    async def show(self, request: web.Request) -> web.Response:
        """`GET /v1/plans/{name}`."""
        name = id_in_path(request, "name")
        row = await self._postgres.run(lambda c: sql.find(c, name), seconds=READ_SECONDS, is_read=True)
        if row is None:
            raise NotFound(f"no plan {name!r}")
        return reply(asdict(row))

    async def put(self, request: web.Request) -> web.Response:
        """`PUT /v1/plans/{name}`: create or overwrite. Effective on every node for every user of the plan (R264)."""
        body, name = await body_of(request, PlanBody), request.match_info["name"]
        if _NAME_SHAPE.fullmatch(name) is None:
            raise InvalidPlanName
        plan, target = PlanRow(name, body.tier, body.features, body.limits), f"plan:{name}"
        after = asdict(plan)

        async def work(connection: Connection, judge: Judge) -> Deed:
            while not await sql.insert(connection, plan):
                before = await sql.lock(connection, name)
                if before is not None:
                    # What takes something away depends on the routes; so every change counts as if it did.
                    judge.declare(is_narrowing=before != plan)
                    await sql.update(connection, plan)
                    return Deed("plan.put", target, None, asdict(before), after, after)
            return Deed("plan.put", target, None, None, after, after)

        caller = administrator_of(request)
        return answered(await self._mutations.apply_judged(work, caller=caller, target=target))

    async def delete(self, request: web.Request) -> web.Response:
        """`DELETE /v1/plans/{name}`, unless a user has it."""
        name, caller = id_in_path(request, "name"), administrator_of(request)
        target = f"plan:{name}"

        async def work(connection: Connection) -> Deed:
            before = await sql.lock(connection, name)
            if before is None:
                raise NotFound(f"no plan {name!r}")
            await sql.delete(connection, name)
            return Deed("plan.delete", target, None, asdict(before), None, status=204)

        return answered(await self._mutations.apply(work, caller=caller, target=target, is_narrowing=False))
