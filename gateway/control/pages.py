"""Query strings: filters, and pages by an opaque cursor."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from gateway.control.bodies import ID_SHAPE, Id, Text
from gateway.control.moments import QueryMoment
from gateway.control.problems import InvalidQuery
from gateway.setting_values import Shape

DEFAULT_LIMIT = 50
LARGEST_LIMIT = 200

Row = TypeVar("Row")


def _limit(text: str) -> int:
    if re.fullmatch("[0-9]{1,3}", text) is not None and 1 <= int(text) <= LARGEST_LIMIT:
        return int(text)
    raise PydanticCustomError("limit", f"Write a whole number from 1 to {LARGEST_LIMIT}")


def _flag(text: str) -> bool:
    if text in ("true", "false"):
        return text == "true"
    raise PydanticCustomError("flag", "Write true or false")


def _after(cursor: str) -> str:
    try:
        after = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        after = ""
    if ID_SHAPE.fullmatch(after) is None:
        raise PydanticCustomError("cursor", "Use next_cursor of the page before, as it is")
    return after


def _event_number(after: str) -> str:
    if re.fullmatch("[0-9]{1,18}", after) is None:
        raise PydanticCustomError("cursor", "Use next_cursor of the page before, as it is")
    return after


Limit = Annotated[
    int, BeforeValidator(_limit), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": LARGEST_LIMIT})
]
Flag = Annotated[bool, BeforeValidator(_flag), WithJsonSchema({"type": "boolean"})]
CURSOR = WithJsonSchema({"description": "`next_cursor` of the page before.", "type": "string", "minLength": 1})


class Query(BaseModel):
    """A query string: no name that is not listed, and each once."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Listing(Query):
    """What a listing is asked for: up to `limit` items after the id `after` (as a `cursor`: in base64)."""

    limit: Limit = DEFAULT_LIMIT
    after: Annotated[str, AfterValidator(_after), CURSOR] = Field("", alias="cursor")


class UsersQuery(Listing):
    """`GET /v1/users`. `search`: how the id begins, or the displayed name, in letters of either case."""

    tenant_id: Id | None = None
    search: Annotated[Text, Field(max_length=200)] = ""


class KeysQuery(Listing):
    """`GET /v1/keys`."""

    user_id: Id | None = None
    tenant_id: Id | None = None
    status: Literal["active", "revoked", "expired"] | None = None


class AuditQuery(Listing):
    """`GET /v1/audit`: the events that fit each one that is named; `since` is in, `until` is not."""

    after: Annotated[str, AfterValidator(_after), AfterValidator(_event_number), CURSOR] = Field("", alias="cursor")
    tenant_id: Id | None = None
    actor: Id | None = None
    target: Annotated[str, Shape(r"[a-z_]+:[A-Za-z0-9._:@-]{1,200}", "a target", "Write kind:id.")] | None = None
    action: Annotated[str, Shape(r"[a-z_]+\.[a-z_]+", "an action", "Write one such as key.create.")] | None = None
    since: QueryMoment | None = None
    until: QueryMoment | None = None
    order: Literal["oldest", "latest"] = "oldest"

    @property
    def number(self) -> int | None:
        """`after` as the number of an event."""
        return int(self.after) if self.after else None


Q = TypeVar("Q", bound=Query)


def read_query(request: web.Request, model: type[Q]) -> Q:
    """The request's query string as `model`. Raises InvalidQuery, also for names that are not known."""
    for name in request.query:
        if len(request.query.getall(name)) > 1:
            raise InvalidQuery(name, "Name it once")
    return parse_query(request.query, model)


def parse_query(sent: Mapping[str, str], model: type[Q]) -> Q:
    """What was sent as `model`. Raises InvalidQuery, also for names that are not known."""
    try:
        return model.model_validate(dict(sent))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "extra_forbidden":
            known = (field.alias or name for name, field in model.model_fields.items())
            raise InvalidQuery("(name)", f"Use only: {', '.join(known)}") from None
        place = str(first["loc"][0]) if first["loc"] else "(name)"  # none: a name that is no text
        raise InvalidQuery(place, first["msg"]) from None


def page_of(
    asked: Listing, rows: Sequence[Row], show: Callable[[Row], dict[str, Any]], id_of: Callable[[Row], str]
) -> Any:
    """The reply of a listing whose `rows` were asked for with one more than `limit`."""
    shown = rows[: asked.limit]
    has_more = len(rows) > asked.limit
    return {
        "items": [show(row) for row in shown],
        "next_cursor": base64.urlsafe_b64encode(id_of(shown[-1]).encode()).decode() if has_more else None,
    }
