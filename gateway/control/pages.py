"""Query strings of listings: filters, and pages by an opaque cursor."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web

from gateway.control.bodies import ID_SHAPE
from gateway.control.problems import InvalidQuery

DEFAULT_LIMIT = 50
LARGEST_LIMIT = 200

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a listing was asked for: up to `limit` items after the id `after`, and the filters that were named."""

    limit: int
    after: str
    filters: dict[str, str]


def read_query(request: web.Request, *filters: str, shapes: Mapping[str, re.Pattern[str]] | None = None) -> Asked:
    """Read `limit`, `cursor` and these filters, each of the shape of an id unless `shapes` has another for it.

    Raises InvalidQuery, also for names that are not known.
    """
    for name in request.query:
        if name not in {"limit", "cursor", *filters}:
            raise InvalidQuery("(name)", f"Use only: limit, cursor{''.join(', ' + f for f in filters)}")
        if len(request.query.getall(name)) > 1:
            raise InvalidQuery(name, "Name it once")
    chosen = {name: request.query[name] for name in filters if name in request.query}
    for name, value in chosen.items():
        if (shapes or {}).get(name, ID_SHAPE).fullmatch(value) is None:
            raise InvalidQuery(name, "This is not an id")
    return Asked(_limit(request.query.get("limit")), _after(request.query.get("cursor")), chosen)


def page_of(
    asked: Asked, rows: Sequence[Row], show: Callable[[Row], dict[str, Any]], id_of: Callable[[Row], str]
) -> Any:
    """The reply of a listing whose `rows` were asked for with one more than `limit`."""
    shown = rows[: asked.limit]
    has_more = len(rows) > asked.limit
    return {
        "items": [show(row) for row in shown],
        "next_cursor": base64.urlsafe_b64encode(id_of(shown[-1]).encode()).decode() if has_more else None,
    }


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= LARGEST_LIMIT:
        return int(text)
    raise InvalidQuery("limit", f"Write a whole number from 1 to {LARGEST_LIMIT}")


def _after(cursor: str | None) -> str:
    if cursor is None:
        return ""
    try:
        after = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        after = ""
    if ID_SHAPE.fullmatch(after) is None:
        raise InvalidQuery("cursor", "Use next_cursor of the page before, as it is")
    return after
