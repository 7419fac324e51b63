"""The calls on the audit trail: reading it, taking it away as a file, and looking whether it is whole (R110, R314)."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from gateway.control import answers
from gateway.control.admin_tokens import Administrator
from gateway.control.authorization import administrator_of
from gateway.control.calls import EVERYBODY, NDJSON, READERS_OF_ALL, Call, query_of
from gateway.control.pages import AuditQuery, Query, page_of
from gateway.control.problems import reply
from gateway.stores.postgres import audit as sql
from gateway.stores.postgres.audit import GENESIS, AuditRow, Filters, Head, hash_of
from gateway.stores.postgres.connection import Postgres

READ_SECONDS = 3.0  # for one page or batch; a whole export takes as long as it takes
BATCH = 500


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the chain is whole: `events` were looked at, up to `first_broken`, the first that is not as it was."""

    events: int
    first_broken: int | None

    def shown(self) -> dict[str, Any]:
        """The verdict as the API shows it."""
        return {"events": self.events, "intact": self.first_broken is None, "first_broken": self.first_broken}


class Chain:
    """Looks at events in order, and finds the first that was altered, taken out or put in later."""

    def __init__(self) -> None:
        self.last = Head(0, GENESIS)

    def accepts(self, event: AuditRow) -> bool:
        """Whether `event` follows the last one that was accepted."""
        is_next = event.id == self.last.id + 1 and event.previous_hash == self.last.hash
        if not is_next or event.hash != hash_of(event.previous_hash, event.members):
            return False
        self.last = Head(event.id, event.hash)
        return True

    def concluded(self, head: Head) -> Verdict:
        """The verdict after all events up to `head` were accepted, or all that there were."""
        if self.last.id < head.id:
            return Verdict(self.last.id, self.last.id + 1)
        return Verdict(head.id, None if self.last.hash == head.hash else head.id)


class AuditTrail:
    """Reads the trail. A tenant's administrator reads what is about that tenant alone (R272)."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def page(
        self, caller: Administrator, asked: AuditQuery, *, after: int | None, limit: int
    ) -> Sequence[AuditRow]:
        """Up to `limit` events that are asked for, behind `after`. Raises StoreUnavailable."""
        filters = filters_of(caller, asked)
        if filters is None:
            return []
        return await self._postgres.run(
            lambda c: sql.page(c, filters, after=after, limit=limit, is_latest_first=asked.order == "latest"),
            seconds=READ_SECONDS,
            is_read=True,
        )

    async def batches(
        self, caller: Administrator, asked: AuditQuery, after: int | None
    ) -> AsyncIterator[Sequence[AuditRow]]:
        """All that is asked for, in pieces. Raises StoreUnavailable."""
        while batch := await self.page(caller, asked, after=after, limit=BATCH):
            yield batch
            after = batch[-1].id


def filters_of(caller: Administrator, asked: AuditQuery) -> Filters | None:
    """What is asked for; None where the caller may see nothing of it."""
    filters = Filters(
        tenant_id=asked.tenant_id or caller.tenant_id,
        actor=asked.actor,
        target=asked.target,
        action=asked.action,
        since=asked.since,
        until=asked.until,
    )
    return filters if caller.tenant_id in (None, filters.tenant_id) else None


class AuditCalls:
    """The handlers of `/v1/audit`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._trail = AuditTrail(postgres)

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        return (
            Call(
                method="GET",
                path="/v1/audit",
                handler=self.list,
                roles=EVERYBODY,
                about="List events of the audit trail, in the order of commits",
                query=AuditQuery,
                answer=answers.Events,
            ),
            Call(
                method="GET",
                path="/v1/audit/export",
                handler=self.export,
                roles=EVERYBODY,
                about="Export events of the audit trail, one a line",
                query=AuditQuery,
                answer=answers.Event,
                media_type=NDJSON,
            ),
            Call(
                method="GET",
                path="/v1/audit/verify",
                handler=self.verify,
                roles=READERS_OF_ALL,
                about="Say whether the audit trail is whole",
                query=Query,
                answer=answers.Chain,
            ),
        )

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/audit?tenant_id=&actor=&target=&action=&since=&until=&order=`."""
        asked, caller = query_of(request, AuditQuery), administrator_of(request)
        rows = await self._trail.page(caller, asked, after=asked.number, limit=asked.limit + 1)
        return reply(page_of(asked, rows, AuditRow.shown, lambda row: str(row.id)))

    async def export(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/audit/export`, with the filters of the listing: an event a line, as JSON.

        One that is cut off ends without its last chunk, so that no client takes it for the whole.
        """
        asked, caller = query_of(request, AuditQuery), administrator_of(request)
        batches = self._trail.batches(caller, asked, asked.number)
        batch = await anext(batches, None)  # before the head: what fails at once is a problem as any other
        response = web.StreamResponse(headers={"Content-Type": NDJSON})
        await response.prepare(request)
        try:
            while batch is not None:
                await response.write(b"".join(json.dumps(row.shown()).encode() + b"\n" for row in batch))
                batch = await anext(batches, None)
            await response.write_eof()
        except ConnectionError:
            pass  # the client has left
        except Exception:
            if request.transport is not None:
                request.transport.abort()
            raise  # to be logged; nothing can be sent any more
        return response

    async def verify(self, request: web.Request) -> web.Response:
        """`GET /v1/audit/verify`: read all of the chain, and say whether it is whole."""
        query_of(request, Query)
        head = await self._postgres.run(sql.head, seconds=READ_SECONDS, is_read=True)
        chain = Chain()
        async for batch in self._trail.batches(administrator_of(request), AuditQuery(), None):
            for event in batch:
                if event.id > head.id:
                    break
                if not chain.accepts(event):
                    return reply(Verdict(chain.last.id + 1, chain.last.id + 1).shown())
        return reply(chain.concluded(head).shown())
