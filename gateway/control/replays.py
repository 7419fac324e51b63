"""Where a request that came before is answered as it was then (R301). Behind the gate: who calls is known."""

from dataclasses import replace

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.control.authorization import administrator_of, is_let_through, set_administrator
from gateway.control.idempotency import InvalidIdempotencyKey, Once
from gateway.control.mutations import Mutations
from gateway.control.problems import answered
from gateway.stores.postgres.connection import Postgres

HEADER = "Idempotency-Key"
MUTATING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def replaying(postgres: Postgres, mutations: Mutations) -> Middleware:
    """The middleware that reads Idempotency-Key, which is one caller's, for one method and path."""

    @web.middleware
    async def replay(request: web.Request, handler: Handler) -> web.StreamResponse:
        sent = request.headers.getall(HEADER, [])
        if not sent or request.method not in MUTATING or not is_let_through(request):
            return await handler(request)
        if len(sent) > 1:
            raise InvalidIdempotencyKey
        caller = administrator_of(request)
        once = Once.of(
            sent[0],
            actor=caller.token_id,
            method=request.method,
            path=request.rel_url.raw_path,
            body=await request.read(),
        )
        kept = await once.answered(postgres)
        if kept is not None:
            return answered(await mutations.replay(kept))
        # Whether one is under way is told by the mutation's own transaction, which looks once more.
        set_administrator(request, replace(caller, once=once))
        return await handler(request)

    return replay
