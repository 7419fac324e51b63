"""The OpenAPI document of the management API, made from the declarations of its calls and from their models.

What every reader of a declaration may conclude stands here once: which problems follow from a role, a body, a query, a
name in the path, a method that changes something.
"""

import asyncio
import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway import __version__
from gateway.consistency.confirmation import RevocationPending
from gateway.control.answers import Answer, ProblemAnswer
from gateway.control.bodies import CODES, ID_SHAPE
from gateway.control.calls import Call
from gateway.control.idempotency import IdempotencyKeyReused, InvalidIdempotencyKey
from gateway.control.pages import Query
from gateway.control.people import SIGN_IN_PROBLEMS
from gateway.control.problems import (
    Forbidden,
    InvalidBody,
    InvalidQuery,
    NotFound,
    PayloadTooLarge,
    Problem,
    SignInRequired,
    Unauthenticated,
)
from gateway.control.replays import MUTATING
from gateway.errors import GatewayError, StoreUnavailable
from gateway.stores.postgres.idempotency import RequestInFlight

PATH: Final = "/v1/openapi.json"
SCHEMAS: Final = "#/components/schemas/"

_ABOUT: Final = """Keys, their owners and what these are entitled to, on the admin listener.

Every reply has `Cache-Control: no-store` and an `X-Request-Id`. Failures are problems (RFC 9457). A method that a path
does not have is a 405 with `Allow`, and a path that does not exist a 404; both only with a valid admin token, else 401.
Roles stand at each call as `x-roles`; what belongs to another tenant does not exist for a `tenant-admin` (404)."""

_SIGNED_IN: Final = "Of the OpenID provider, where one is configured. Claims may give its user an administrator's role."
_HEADERS: Final[dict[str, Any]] = {
    "X-Request-Id": {"description": "Under which the request is logged.", "schema": {"type": "string"}},
    "Cache-Control": {"description": "No reply may be kept.", "schema": {"const": "no-store"}},
    "Idempotent-Replayed": {
        "description": "The reply is that of an earlier request with this Idempotency-Key.",
        "schema": {"const": "true"},
    },
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "RFC 9110, 11.6.1.", "schema": {"type": "string"}},
}
_IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Makes repeats safe: for 24 hours a repeat with it gets the reply of the first request.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x20-\\x7e]+$"},
}


class OpenApi:
    """The handler of `/v1/openapi.json`.

    To put it together takes a tenth of a second: it is done when somebody asks for it, and beside the event loop, on
    which this node may be forwarding requests.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._text: bytes | None = None

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        return (Call(method="GET", path=PATH, handler=self.show, roles=None, about="This document", answer=Document),)

    async def show(self, request: web.Request) -> web.Response:
        """`GET /v1/openapi.json`."""
        if self._text is None:
            self._text = await asyncio.to_thread(self._written)
        return web.Response(body=self._text, content_type="application/json")

    def _written(self) -> bytes:
        return json.dumps(document((*self._calls, *self.calls())), separators=(",", ":")).encode()


class Document(Answer):
    """An OpenAPI document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]
    servers: list[Any]


def document(calls: Sequence[Call]) -> dict[str, Any]:
    """The document of these calls, as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Ostiary management API", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(calls),
            "headers": _HEADERS,
            "parameters": {"IdempotencyKey": _IDEMPOTENCY_KEY},
            "securitySchemes": {
                "adminToken": {"type": "http", "scheme": "bearer", "bearerFormat": "osta_..."},
                "accessToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": _SIGNED_IN,
                },
            },
        },
    }


def problems_of(call: Call) -> tuple[type[GatewayError], ...]:
    """All that `call` may refuse or fail with: what it declares, and what follows from the rest of the declaration."""
    follows: list[type[GatewayError]] = [*call.problems, GatewayError]
    if call.roles is not None:
        follows += [SignInRequired if call.is_personal else Unauthenticated, Forbidden, StoreUnavailable]
        follows += SIGN_IN_PROBLEMS
        if call.method in MUTATING:
            follows += [Problem, InvalidIdempotencyKey, IdempotencyKeyReused, RequestInFlight, RevocationPending]
    if call.query is not None:
        follows += [InvalidQuery]
    if call.body is not None:
        follows += [InvalidBody, PayloadTooLarge]
    if "{" in call.path:
        follows += [NotFound]
    return tuple(dict.fromkeys(follows))


def _operation(call: Call) -> dict[str, Any]:
    about: dict[str, Any] = {
        "operationId": "_".join([call.method.lower(), *re.findall(r"[a-z]+", call.path.removeprefix("/v1"))]),
        "tags": [call.path.split("/")[2]],
        "summary": call.about,
        "parameters": _parameters(call),
        "responses": _responses(call),
    }
    if call.roles is not None:
        by_sign_in: dict[str, list[str]] = {"accessToken": []}
        security = [by_sign_in] if call.is_personal else [{"adminToken": []}, by_sign_in]
        about |= {"security": security, "x-roles": sorted(call.roles)}
    if call.body is not None:
        content = {"application/json": {"schema": _reference(call.body)}}
        about["requestBody"] = {"required": not call.is_body_optional, "content": content}
    elif call.raw_types:
        about["requestBody"] = {"required": True, "content": {name: {"schema": {}} for name in call.raw_types}}
    return about


def _parameters(call: Call) -> list[Any]:
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^{ID_SHAPE.pattern}$"}}
        for name in re.findall(r"{(\w+)}", call.path)
    ]
    asked = [] if call.query is None else _query_parameters(call.query)
    is_once = call.method in MUTATING and call.roles is not None
    once = [{"$ref": "#/components/parameters/IdempotencyKey"}] if is_once else []
    return [*named, *asked, *once]


def _query_parameters(query: type[Query]) -> list[Any]:
    """One parameter a name; where a name may be left out, that is what null means here."""
    parameters = []
    for name, schema in query.model_json_schema().get("properties", {}).items():
        sent = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
        spelled = sent[0] if len(sent) == 1 else {key: schema[key] for key in schema if key not in {"title", "default"}}
        parameters.append({"name": name, "in": "query", "schema": spelled})
    return parameters


def _responses(call: Call) -> dict[str, Any]:
    marks = ["X-Request-Id", "Cache-Control"]
    replayed = ["Idempotent-Replayed"] if call.method in MUTATING else []
    responses: dict[str, Any] = {}
    for status in call.statuses:
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "headers": _header_references([*marks, *replayed]),
            **({} if call.answer is None else {"content": {call.media_type: {"schema": _reference(call.answer)}}}),
        }
    by_status: dict[int, list[type[GatewayError]]] = {}
    for problem in problems_of(call):
        status = call.bad_body_status if problem is InvalidBody else problem.status
        by_status.setdefault(status, []).append(problem)
    for status, problems in sorted(by_status.items()):
        more = ["WWW-Authenticate"] if status == HTTPStatus.UNAUTHORIZED else []
        more += ["Retry-After"] if any(problem.retry_after_seconds for problem in problems) else []
        responses[str(status)] = {
            "description": " ".join(dict.fromkeys(f"`{problem.code}`: {problem.public}" for problem in problems)),
            "headers": _header_references([*marks, *more]),
            "content": {"application/problem+json": {"schema": _problem_schema(call, status, problems)}},
        }
    return responses


def _header_references(names: Sequence[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _problem_schema(call: Call, status: int, problems: Sequence[type[GatewayError]]) -> dict[str, Any]:
    """A problem of this status with one of the codes; which members it has depends on its code."""
    codes: dict[type[ProblemAnswer], set[str]] = {}
    for problem in problems:
        codes.setdefault(_answer_of(problem), set()).update(_codes(call, problem))
    choices = [
        {**_reference(answer), "properties": {"status": {"const": status}, "code": {"enum": sorted(named)}}}
        for answer, named in codes.items()
    ]
    return choices[0] if len(choices) == 1 else {"oneOf": choices}


def _codes(call: Call, problem: type[GatewayError]) -> set[str]:
    if problem is not InvalidBody:
        return {problem.code}
    if call.body is None:
        return {InvalidBody.code}
    return {InvalidBody.code} | {CODES[name] for name in call.body.model_fields if name in CODES}


def _answer_of(problem: type[GatewayError]) -> type[ProblemAnswer]:
    return problem.answer if issubclass(problem, Problem) else ProblemAnswer


def _reference(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": SCHEMAS + model.__name__}


def _schemas(calls: Sequence[Call]) -> dict[str, Any]:
    """The schema of every model that some call names, and of what these hold."""
    named = [model for call in calls for model in (call.body, call.answer) if model is not None]
    problems = [_answer_of(problem) for call in calls for problem in problems_of(call)]
    models = list(dict.fromkeys([*named, *problems]))
    _, schema = models_json_schema([(model, "validation") for model in models], ref_template=SCHEMAS + "{model}")
    schemas: dict[str, Any] = schema["$defs"]
    assert all(model.__name__ in schemas for model in models), "no two models have one name"
    return schemas
