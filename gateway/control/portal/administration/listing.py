"""Pages of listings by the database's own cursor, so that each costs the same, and what they are narrowed to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import urlencode

from aiohttp import web

from gateway.control.bodies import ID_SHAPE
from gateway.control.problems import NotFound

PER_PAGE: Final = 50
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Listed(Generic[Row]):
    """One page. `more` is the address of the next one, None on the last; `is_continued`: it is not the first."""

    items: Sequence[Row]
    more: str | None
    is_continued: bool


def after_of(request: web.Request) -> str:
    """Behind which id the page begins; from the start where there is no such."""
    after = request.query.get("after", "")
    return after if ID_SHAPE.fullmatch(after) is not None else ""


def listed(
    request: web.Request, rows: Sequence[Row], id_of: Callable[[Row], str], filters: Mapping[str, str]
) -> Listed[Row]:
    """The page of `rows`, which were asked for with one more than it shows; the next one has the same filters."""
    items = rows[:PER_PAGE]
    more = None
    if len(rows) > PER_PAGE:
        named = {name: value for name, value in filters.items() if value}
        more = f"{request.path}?{urlencode({**named, 'after': id_of(items[-1])})}"
    return Listed(items, more, bool(after_of(request)))


def filter_of(request: web.Request, name: str) -> str:
    """What a listing is narrowed to by a field; empty where it is not."""
    return request.query.get(name, "").strip()


def id_filter_of(request: web.Request, name: str) -> str:
    """The id that a listing is narrowed to; empty where it is not. Raises NotFound: a malformed one names nothing."""
    text = filter_of(request, name)
    if text and ID_SHAPE.fullmatch(text) is None:
        raise NotFound("malformed id")
    return text
