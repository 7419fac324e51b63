"""The call that makes every node forget what it knows about one secret."""

from aiohttp import web

from gateway.control import answers
from gateway.control.authorization import administrator_of
from gateway.control.bodies import InvalidateBody
from gateway.control.calls import ADMINISTRATORS, Call, body_of
from gateway.control.deeds import Deed
from gateway.control.key_operations import Operation, counted
from gateway.control.key_parts import KeyParts
from gateway.control.problems import Forbidden, answered
from gateway.stores.postgres import keys as sql
from gateway.stores.postgres.connection import Connection


class CacheCalls:
    """The handlers of `/v1/cache`."""

    def __init__(self, parts: KeyParts) -> None:
        self._parts = parts

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        path = "/v1/cache/invalidate"
        return (
            Call(
                method="POST",
                path=path,
                handler=self.invalidate,
                roles=ADMINISTRATORS,
                about="Make every node forget what it knows about one secret",
                body=InvalidateBody,
                bad_body_status=422,
                answer=answers.Changed,
            ),
            Call(
                method="OPTIONS",
                path=path,
                handler=self.options,
                roles=None,
                about="Tell the methods of this path",
                statuses=(204,),
            ),
        )

    async def invalidate(self, request: web.Request) -> web.Response:
        """`POST /v1/cache/invalidate`: nothing cached about the secret is believed any more, on any node (R240).

        A tenant's administrator may name secrets of that tenant, whatever their state, and unknown ones (R241).
        """
        body = await body_of(request, InvalidateBody)
        caller = administrator_of(request)
        digests = self._parts.peppers.candidates(bytes.fromhex(body.secret_sha256))

        async def work(connection: Connection) -> Deed:
            owners = await sql.tenants_of_digests(connection, digests)
            if caller.tenant_id is not None and owners - {caller.tenant_id}:
                raise Forbidden("another tenant's secret")
            await sql.invalidate_digests(connection, digests)
            # Not the digest: the trail is read by more people than may know it.
            owner = next(iter(owners), caller.tenant_id)
            return Deed("cache.invalidate", "cache:secret", owner, None, {"is_known": bool(owners)}, {})

        with counted(self._parts.metrics, Operation.INVALIDATE):
            answer = await self._parts.mutations.apply(
                work, caller=caller, target=f"digest:{digests[0].hex()}", is_narrowing=True
            )
        return answered(answer)

    async def options(self, request: web.Request) -> web.Response:
        """`OPTIONS /v1/cache/invalidate`."""
        return web.Response(status=204, headers={"Allow": "OPTIONS, POST"})
