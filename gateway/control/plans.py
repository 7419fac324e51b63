"""The calls on plans."""

import re
from dataclasses import asdict

from aiohttp import web

from gateway.control.authorization import administrator_of
from gateway.control.bodies import PlanBody, read_body
from gateway.control.deeds import Deed
from gateway.control.mutations import Judge, Mutations
from gateway.control.pages import page_of, read_query
from gateway.control.paths import id_in_path
from gateway.control.problems import InvalidBody, NotFound, answered, reply
from gateway.stores.postgres import plans as sql
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.plans import PlanRow

READ_SECONDS = 3.0

_NAME_SHAPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class PlanCalls:
    """The handlers of `/v1/plans`."""

    def __init__(self, postgres: Postgres, mutations: Mutations) -> None:
        self._postgres = postgres
        self._mutations = mutations

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/plans`."""
        asked = read_query(request)
        rows = await self._postgres.run(
            lambda c: sql.page(c, after=asked.after, limit=asked.limit + 1), seconds=READ_SECONDS, is_read=True
        )
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
        body, name = await read_body(request, PlanBody), request.match_info["name"]
        if _NAME_SHAPE.fullmatch(name) is None:
            message = "Use a letter or a digit and then up to 63 letters, digits or the signs . _ -"
            raise InvalidBody([{"place": "(path)", "message": message}], code="invalid_name")
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
