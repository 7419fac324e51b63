"""One call of the management API as it is declared, and how its handler reads what it takes.

Routes, roles and the OpenAPI document all come from the declaration; a handler that takes what its call does not
declare fails at once.
"""

from dataclasses import dataclass
from typing import Final, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from gateway.control.admin_tokens import Role
from gateway.control.bodies import Body, read_body
from gateway.control.pages import Query, read_query
from gateway.control.problems import InvalidBody
from gateway.errors import GatewayError

EVERYBODY: Final = frozenset(Role)
READERS_OF_ALL: Final = frozenset({Role.OPERATOR, Role.AUDITOR})
ADMINISTRATORS: Final = frozenset({Role.OPERATOR, Role.TENANT_ADMIN})
OPERATORS: Final = frozenset({Role.OPERATOR})
NO_ROLE: Final[frozenset[Role]] = frozenset()

NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: its path may hold `{names}`, and `handler` runs for these `roles` alone (None: for anybody, no token).

    One that `is_personal` is for signed-in users, about what is theirs, and for no role. `about` is a sentence for its
    readers. `query` and `body` are what it takes, or a body of one of the `raw_types` that its handler reads; an empty
    body is `{}` where it `is_body_optional`, and a bad one is answered with `bad_body_status`. `answer` is what it
    answers (None: nothing), with one of `statuses`; as `media_type`, an object a line where that is NDJSON. `problems`
    are what it refuses beside what follows from all this (`openapi.py`).
    """

    method: str
    path: str
    handler: Handler
    roles: frozenset[Role] | None
    about: str
    is_personal: bool = False
    query: type[Query] | None = None
    body: type[Body] | None = None
    is_body_optional: bool = False
    raw_types: tuple[str, ...] = ()
    bad_body_status: int = 400
    answer: type[BaseModel] | None = None
    statuses: tuple[int, ...] = (200,)
    media_type: str = "application/json"
    problems: tuple[type[GatewayError], ...] = ()


CALL: Final = web.RequestKey("call", Call)

B = TypeVar("B", bound=Body)
Q = TypeVar("Q", bound=Query)


async def body_of(request: web.Request, model: type[B]) -> B:
    """The body of a request for a call that takes `model`. Raises InvalidBody."""
    call = request[CALL]
    assert call.body is model, f"{call.method} {call.path} declares {call.body}"
    try:
        return await read_body(request, model, is_optional=call.is_body_optional)
    except InvalidBody as error:
        error.status = call.bad_body_status
        raise


def query_of(request: web.Request, model: type[Q]) -> Q:
    """The query of a request for a call that takes `model`. Raises InvalidQuery."""
    call = request[CALL]
    assert call.query is model, f"{call.method} {call.path} declares {call.query}"
    return read_query(request, model)
