"""What was used, added up for bills and charts: by key, by user, by tenant; as pages, and as CSV to take away."""

import base64
import binascii
import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from gateway.control import moments
from gateway.control.admin_tokens import Administrator
from gateway.control.bodies import Id
from gateway.control.moments import QueryMoment
from gateway.control.pages import CURSOR, DEFAULT_LIMIT, Limit, Query
from gateway.control.problems import InvalidQuery
from gateway.stores.postgres import usage_pages as sql
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.usage_pages import DIMENSIONS, Place, Usage, UsageFilters

READ_SECONDS: Final = 10.0  # for one page
EXPORT_ROWS: Final = 5_000  # of one page of an export
DAY: Final = timedelta(days=1)
# What is told where no `since` is given, and how far apart `since` and `until` may be, by step.
SPANS: Final = {
    "minute": (timedelta(hours=1), 7 * DAY),
    "hour": (DAY, 92 * DAY),
    "day": (31 * DAY, 400 * DAY),
    "month": (366 * DAY, 3660 * DAY),
}
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)

_BY_PATTERN: Final = f"({'|'.join(DIMENSIONS)})(,({'|'.join(DIMENSIONS)}))*"


def _dimensions(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if len(set(names)) < len(names) or not set(names) <= DIMENSIONS.keys():
        raise PydanticCustomError("by", f"Name some of these, each once, with commas between: {', '.join(DIMENSIONS)}")
    return names


def _place(cursor: str) -> Place:
    """The row that a cursor names. Whether it has as many dimensions as the query is seen where both are known."""
    try:
        at, *values = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
        if all(isinstance(value, str) and "\x00" not in value for value in values):
            return Place(moments.parse(at), tuple(values))
    except (binascii.Error, ValueError, TypeError, RecursionError):
        pass
    raise PydanticCustomError("cursor", "Use next_cursor of the page before, as it is")


def _cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(json.dumps([moments.text(place.at), *place.values]).encode()).decode()


class UsageQuery(Query):
    """What usage is told, and how: in steps of UTC, from `since` (in) to `until` (not in), apart by `by`."""

    since: QueryMoment | None = None
    until: QueryMoment | None = None
    step: Literal["minute", "hour", "day", "month"] = "day"
    by: Annotated[
        tuple[str, ...],
        BeforeValidator(_dimensions),
        WithJsonSchema({"type": "string", "pattern": f"^{_BY_PATTERN}$", "description": "Names with commas between."}),
    ] = ()


class UsagePageQuery(UsageQuery):
    """`GET /v1/keys/{id}/usage`."""

    limit: Limit = DEFAULT_LIMIT
    after: Annotated[Place | None, BeforeValidator(_place), CURSOR] = Field(None, alias="cursor")


class OwnUsageQuery(UsageQuery):
    """`GET /v1/me/usage/export`."""

    key_id: Id | None = None


class OwnUsagePageQuery(UsagePageQuery):
    """`GET /v1/me/usage`."""

    key_id: Id | None = None


class AllUsageQuery(OwnUsageQuery):
    """`GET /v1/usage/export`."""

    user_id: Id | None = None
    tenant_id: Id | None = None


class AllUsagePageQuery(OwnUsagePageQuery):
    """`GET /v1/usage`."""

    user_id: Id | None = None
    tenant_id: Id | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asks for and may see; no filters where that is nothing."""

    filters: UsageFilters | None
    step: str
    by: tuple[str, ...]


def wish_of(asked: UsageQuery, caller: Administrator, *, key_id: str | None = None) -> Wish:
    """What `asked` means for this caller; `key_id`: of one key, which they may see. Raises InvalidQuery."""
    user_id, tenant_id = getattr(asked, "user_id", None), getattr(asked, "tenant_id", None)
    is_visible = caller.tenant_id in (None, tenant_id or caller.tenant_id)
    is_visible = is_visible and caller.user_id in (None, user_id or caller.user_id)
    since, until = _span(asked)
    filters = UsageFilters(
        since,
        until,
        key_id=key_id or getattr(asked, "key_id", None),
        user_id=user_id or caller.user_id,
        tenant_id=tenant_id or caller.tenant_id,
    )
    return Wish(filters if is_visible else None, asked.step, asked.by)


def _span(asked: UsageQuery) -> tuple[datetime, datetime]:
    usual, longest = SPANS[asked.step]
    if asked.since is not None and asked.until is not None and asked.until < asked.since:
        raise InvalidQuery("until", "Name a moment that is not before since")
    now = datetime.now(UTC)
    latest = now + DAY  # nothing was used after that, whose clock ever is asked
    until = min(asked.until or latest, latest)
    since = max(EARLIEST, asked.since or max(min(until, now), EARLIEST + usual) - usual)
    if until - since > longest + DAY:
        raise InvalidQuery("since", f"Name one that is at most {longest.days} days before until, or another step")
    return min(since, until), until


class UsageReader:
    """Reads usage. Every method raises StoreUnavailable."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def page(self, wish: Wish, *, after: Place | None, limit: int) -> dict[str, Any]:
        """One page, as the API answers it. Raises InvalidQuery for a cursor of another query."""
        if after is not None and len(after.values) != len(wish.by):
            raise InvalidQuery("cursor", "Use next_cursor of the page before, with the same query")
        rows = [] if wish.filters is None else await self._rows(wish, wish.filters, after, limit + 1)
        items = rows[:limit]
        return {
            "items": [shown(row, wish.by) for row in items],
            "next_cursor": _cursor(items[-1].place) if len(rows) > limit else None,
        }

    async def batches(self, wish: Wish) -> AsyncIterator[Sequence[Usage]]:
        """All of it, in pieces; each is asked of a day at most (of a month, by months), however long the whole is."""
        if wish.filters is None:
            return
        for window in _windows(wish.filters, wish.step):
            after: Place | None = None
            while rows := await self._rows(wish, window, after, EXPORT_ROWS):
                yield rows
                after = rows[-1].place
                if len(rows) < EXPORT_ROWS:
                    break

    async def _rows(self, wish: Wish, filters: UsageFilters, after: Place | None, limit: int) -> list[Usage]:
        return await self._postgres.run(
            lambda c: sql.page(c, filters, step=wish.step, by=wish.by, after=after, limit=limit),
            seconds=READ_SECONDS,
            is_read=True,
        )


def _windows(filters: UsageFilters, step: str) -> list[UsageFilters]:
    """The span cut at the ends of days, or of months where those are the steps: no step is in two of them."""
    windows, since = [], filters.since
    while since < filters.until:
        start = since.replace(hour=0, minute=0, second=0, microsecond=0)
        end = (start.replace(day=1) + 32 * DAY).replace(day=1) if step == "month" else start + DAY
        windows.append(replace(filters, since=since, until=min(end, filters.until)))
        since = end
    return windows


def shown(row: Usage, by: Sequence[str]) -> dict[str, Any]:
    """One row as the API shows it."""
    return {
        "at": moments.text(row.place.at),
        **dict(zip((DIMENSIONS[name] for name in by), row.place.values, strict=True)),
        "requests": row.requests,
        "received_bytes": row.received_bytes,
        "sent_bytes": row.sent_bytes,
    }


def csv_head(by: Sequence[str]) -> str:
    """The first line of a CSV file."""
    return ",".join(["at", *(DIMENSIONS[name] for name in by), "requests", "received_bytes", "sent_bytes"]) + "\n"


def csv_lines(rows: Sequence[Usage], by: Sequence[str]) -> str:
    """Rows as lines of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(shown(row, by).values() for row in rows)
    return text.getvalue()
