"""What the management API says when it does not do what was asked: errors, and the one place that words them.

A refusal leaves a transaction as an exception, because it must roll back what was done before it. `str(error)` is for
the log; `public` and `members` are for the caller (R239).
"""

import json
import re
import secrets
from collections.abc import Mapping
from typing import Any, ClassVar

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.control.answers import ProblemAnswer, ProblemWithIssues
from gateway.control.deeds import Answer
from gateway.errors import Fault, GatewayError

REQUEST_ID_HEADER = "X-Request-Id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_REQUEST_ID_KEY = web.RequestKey("request_id", str)

log = structlog.get_logger(__name__)


class Problem(GatewayError):
    """A refusal. `members` are added to the reply as they are, and `answer` tells what they are; `headers` too."""

    answer: ClassVar[type[ProblemAnswer]] = ProblemAnswer
    code = "bad_request"
    status = 400
    fault = Fault.CLIENT
    public = "The request cannot be understood."

    def __init__(self, reason: str = "", *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(reason)
        self.headers = dict(headers or {})
        self.members = members


class InvalidBody(Problem):
    """The body, or one field of it, is not what the call takes; `issues` say where and why."""

    code = "invalid_body"
    public = "The body is not what this call takes. See the issues."
    answer = ProblemWithIssues

    def __init__(self, issues: list[dict[str, str]], *, code: str = "invalid_body") -> None:
        told = (f"{one['place']}: {one['message']}" if one["place"] else one["message"] for one in issues)
        super().__init__("; ".join(told), issues=issues)
        self.code = code


class InvalidQuery(Problem):
    """The query string is not what the call takes."""

    code = "invalid_query"
    public = "The query string is not what this call takes. See the issues."
    answer = ProblemWithIssues

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"{place}: {message}", issues=[{"place": place, "message": message}])


class Unauthenticated(Problem):
    """No admin token, or none that is valid (R123)."""

    code = "invalid_admin_token"
    status = 401
    public = "This call needs a valid admin token: Authorization: Bearer osta_..."

    def __init__(self, reason: str) -> None:
        super().__init__(reason, headers={"WWW-Authenticate": 'Bearer realm="ostiary"'})


class SignInRequired(Unauthenticated):
    """The call is for users who have signed in, and for nobody else (R210)."""

    code = "sign_in_required"
    public = "This call is for signed-in users: Authorization: Bearer and an access token of your sign-in."


class Forbidden(Problem):
    """The caller's role does not allow the call (R123)."""

    code = "forbidden"
    status = 403
    public = "Your role does not allow this call."


class TenantSuspended(Problem):
    """The caller's tenant is suspended, whatever the caller has come with (R279)."""

    code = "tenant_suspended"
    status = 403
    public = "Your organisation is suspended here."


class NotFound(Problem):
    """There is no such thing, or it is another tenant's (R272)."""

    code = "not_found"
    status = 404
    public = "There is no such resource."


class MethodNotAllowed(Problem):
    """The resource exists, the method does not."""

    code = "method_not_allowed"
    status = 405
    public = "This resource does not have this method. See the Allow header."


class PayloadTooLarge(Problem):
    """The body is larger than any sensible one."""

    code = "payload_too_large"
    status = 413
    public = "The body is too large."


class UnsupportedMediaType(Problem):
    """The body is of a type that the call does not read."""

    code = "unsupported_media_type"
    status = 415
    answer = ProblemWithIssues
    public = "This call does not read bodies of this Content-Type. See the issues."


def reply(data: object, *, status: int = 200) -> web.Response:
    """A JSON reply."""
    return web.Response(
        body=json.dumps(data, separators=(",", ":")).encode(), status=status, content_type="application/json"
    )


def answered(answer: Answer) -> web.Response:
    """The reply to a mutation."""
    response = web.Response(status=204) if answer.body is None else reply(answer.body, status=answer.status)
    if answer.is_replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def request_id_of(request: web.Request) -> str:
    """The id under which the request stands in logs and on record."""
    return request[_REQUEST_ID_KEY]


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever is raised into a problem (RFC 9457), and log it as whose fault it is. Outermost."""
    name_request(request)
    try:
        return await handler(request)
    except Exception as error:
        if isinstance(error, web.HTTPException) and error.status < 400:
            raise
        return _problem(request, heard(request, error))


def name_request(request: web.Request) -> None:
    """Give the request its id: the one that it came with, where that is one."""
    sent = request.headers.get(REQUEST_ID_HEADER, "")
    request[_REQUEST_ID_KEY] = sent if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(16)


def heard(request: web.Request, error: Exception) -> GatewayError:
    """What is to be said of whatever was raised, once it has been logged as whose fault it is."""
    if isinstance(error, web.HTTPException):
        return _of_http(error)
    told = error
    if isinstance(error, web.RequestPayloadError):
        told = Problem(f"the body cannot be read: {error}")
    _log(request, told)
    return told if isinstance(told, GatewayError) else GatewayError()


async def mark_reply(request: web.Request, response: web.StreamResponse) -> None:
    """Add to every reply what every reply of this application has: no guessing, its request id, and no caching (R343).

    A handler whose answer is public may have said otherwise about caching.

    What software answers, in which version, is nobody's business. For the signal `on_response_prepare`, which also sees
    replies that aiohttp makes outside of the middlewares.
    """
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.popall("Server", None)
    request_id = request.get(_REQUEST_ID_KEY)
    if request_id is not None:
        response.headers[REQUEST_ID_HEADER] = request_id


def _of_http(error: web.HTTPException) -> Problem:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return MethodNotAllowed(headers={"Allow": ", ".join(sorted(error.allowed_methods))})
    match error.status:
        case 404:
            return NotFound()
        case 413:
            return PayloadTooLarge()
        case _:
            return Problem(f"HTTP {error.status}")


def _problem(request: web.Request, error: GatewayError) -> web.Response:
    response = web.Response(
        body=json.dumps(
            {
                "type": "about:blank",
                "code": error.code,
                "status": error.status,
                "title": error.public,
                "request_id": request[_REQUEST_ID_KEY],
                **(error.members if isinstance(error, Problem) else {}),
            },
            separators=(",", ":"),
        ).encode(),
        status=error.status,
        content_type="application/problem+json",
    )
    if isinstance(error, Problem):
        response.headers.update(error.headers)
    if error.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    return response


def _log(request: web.Request, error: Exception) -> None:
    resource = request.match_info.route.resource
    about = {
        "method": request.method,
        "route": "none" if resource is None else resource.canonical,
        "request_id": request[_REQUEST_ID_KEY],
    }
    match error:
        case GatewayError(fault=Fault.CLIENT):
            log.info("management call refused", code=error.code, reason=str(error), **about)
        case GatewayError():
            log.warning("management call failed", code=error.code, reason=str(error), **about)
        case _:
            log.error("management call broke", exc_info=error, **about)
