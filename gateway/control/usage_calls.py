"""The calls on usage: HTTP in front of what reads it."""

from dataclasses import replace
from typing import Final

from aiohttp import web

from gateway.control import answers
from gateway.control.authorization import administrator_of
from gateway.control.calls import CSV, EVERYBODY, NO_ROLE, Call, query_of
from gateway.control.keys import Keys
from gateway.control.paths import id_in_path
from gateway.control.problems import reply
from gateway.control.usage import (
    AllUsagePageQuery,
    AllUsageQuery,
    OwnUsagePageQuery,
    OwnUsageQuery,
    UsagePageQuery,
    UsageQuery,
    UsageReader,
    csv_head,
    csv_lines,
    wish_of,
)

ABOUT_BYTES: Final = "bytes of bodies, from callers and to them"


class UsageCalls:
    """The handlers of `/v1/usage` and of all that ends so. Nobody sees what is another tenant's, or another user's."""

    def __init__(self, reader: UsageReader, keys: Keys) -> None:
        self._reader = reader
        self._keys = keys

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        of_key = Call(
            method="GET",
            path="/v1/keys/{id}/usage",
            handler=self.of_key,
            roles=EVERYBODY,
            about=f"Tell what a key has used: requests, and {ABOUT_BYTES}",
            query=UsagePageQuery,
            answer=answers.UsagePage,
        )
        listing = Call(
            method="GET",
            path="/v1/usage",
            handler=self.list,
            roles=EVERYBODY,
            about=f"Tell what was used: requests, and {ABOUT_BYTES}",
            query=AllUsagePageQuery,
            answer=answers.UsagePage,
        )
        export = Call(
            method="GET",
            path="/v1/usage/export",
            handler=self.export,
            roles=EVERYBODY,
            about="Export what was used as CSV",
            query=AllUsageQuery,
            answer=answers.UsageCsv,
            media_type=CSV,
        )
        return (
            of_key,
            listing,
            export,
            _personal(of_key, UsagePageQuery),
            _personal(listing, OwnUsagePageQuery),
            _personal(export, OwnUsageQuery),
        )

    async def of_key(self, request: web.Request) -> web.Response:
        """`GET /v1/keys/{id}/usage?since=&until=&step=&by=`."""
        asked, caller = query_of(request, UsagePageQuery), administrator_of(request)
        key = await self._keys.find(caller, id_in_path(request))
        wish = wish_of(asked, caller, key_id=key.id)
        return reply(await self._reader.page(wish, after=asked.after, limit=asked.limit))

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/usage?key_id=&user_id=&tenant_id=&since=&until=&step=&by=`; also below `/v1/me`."""
        caller = administrator_of(request)
        asked = query_of(request, AllUsagePageQuery if caller.user_id is None else OwnUsagePageQuery)
        return reply(await self._reader.page(wish_of(asked, caller), after=asked.after, limit=asked.limit))

    async def export(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/usage/export`, with the filters of the listing; also below `/v1/me`.

        One that is cut off ends without its last chunk, so that no client takes it for the whole.
        """
        caller = administrator_of(request)
        asked: UsageQuery = query_of(request, AllUsageQuery if caller.user_id is None else OwnUsageQuery)
        batches = self._reader.batches(wish_of(asked, caller))
        batch = await anext(batches, None)  # before the head: what fails at once is a problem as any other
        response = web.StreamResponse(
            headers={"Content-Type": CSV, "Content-Disposition": 'attachment; filename="usage.csv"'}
        )
        await response.prepare(request)
        try:
            await response.write(csv_head(asked.by).encode())
            while batch is not None:
                await response.write(csv_lines(batch, asked.by).encode())
                batch = await anext(batches, None)
            await response.write_eof()
        except ConnectionError:
            pass  # the client has left
        except Exception:
            if request.transport is not None:
                request.transport.abort()
            raise  # to be logged; nothing can be sent any more
        return response


def _personal(call: Call, query: type[UsageQuery]) -> Call:
    path = call.path.replace("/v1/", "/v1/me/", 1)
    return replace(call, path=path, roles=NO_ROLE, is_personal=True, query=query)
