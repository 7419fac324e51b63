"""The call that explains a decision: what would become of a request, step by step."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Self

from aiohttp import web
from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from gateway.auth.explanation import KeyGivenTwice, UnknownKey
from gateway.control import answers
from gateway.control.bodies import Body, Id, Text
from gateway.control.calls import OPERATORS, Call, body_of
from gateway.control.problems import reply

TOKEN = r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$"  # RFC 9110 5.6.2  # noqa: S105  # a grammar
SECRET = re.compile(r"[\x21-\x7e]{1,4096}")

Explain = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


def _secret(text: str) -> str:
    if SECRET.fullmatch(text) is None:
        raise PydanticCustomError("secret", "Use 1 to 4096 visible ASCII characters")
    return text


class ExplainBody(Body):
    """`POST /v1/explain`: a request, and at most one way to say whose it is."""

    method: Annotated[str, Field(pattern=TOKEN, max_length=32)] = "GET"
    path: Annotated[Text, Field(min_length=1, max_length=8192)]
    host: Annotated[Text, Field(min_length=1, max_length=255)] = "localhost"
    headers: Annotated[
        dict[Annotated[str, Field(pattern=TOKEN, max_length=256)], Annotated[Text, Field(max_length=8192)]],
        Field(max_length=100),
    ] = Field(default_factory=dict)
    address: Annotated[Text, Field(max_length=64)] | None = None
    key_id: Id | None = None
    secret: Annotated[str, AfterValidator(_secret)] | None = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _name_one_key(self) -> Self:
        if self.key_id is not None and self.secret is not None:
            raise PydanticCustomError("key", "Name the key by key_id or give its secret, not both")
        return self


class ExplainCalls:
    """The handler of `/v1/explain`."""

    def __init__(self, explain: Explain) -> None:
        self._explain = explain

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        return (
            Call(
                method="POST",
                path="/v1/explain",
                handler=self.explain,
                roles=OPERATORS,
                about="Tell what would become of a request, step by step. Nothing is changed by it",
                body=ExplainBody,
                answer=answers.Explanation,
                problems=(UnknownKey, KeyGivenTwice),
            ),
        )

    async def explain(self, request: web.Request) -> web.Response:
        """`POST /v1/explain`: nothing is changed by it, and no secret is in the answer (R218)."""
        body = await body_of(request, ExplainBody)
        asked = body.model_dump()
        return reply(await self._explain({**asked, "headers": tuple(asked["headers"].items())}))
