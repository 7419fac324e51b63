"""The replies that the gateway itself makes: `application/problem+json`, and nothing in them that is not public."""

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final, assert_never

from gateway.auth.refusal import Reason, Refusal
from gateway.errors import GatewayError


class RequestId:
    """A request's name: its text, and the header line that carries it. `header` is the configured name."""

    __slots__ = ("line", "text")

    def __init__(self, header: bytes, text: bytes) -> None:
        self.text = text
        self.line = b"%b: %b\r\n" % (header, text)


CHALLENGE: Final = b'WWW-Authenticate: Bearer realm="api"\r\n'

PUBLIC_TEXTS: Final[dict[Reason, str]] = {
    Reason.MISSING_API_KEY: "This route needs an API key.",
    Reason.INVALID_API_KEY: "The API key is not known here.",
    Reason.AMBIGUOUS_CREDENTIALS: "The request carries two different credentials. Send one.",
    Reason.KEY_REVOKED: "This API key has been revoked.",
    Reason.KEY_EXPIRED: "This API key has expired.",
    Reason.KEY_ROTATED: "This API key has been rotated and its grace window has ended. Use the new secret.",
    Reason.TENANT_SUSPENDED: "The organisation that owns this key is suspended.",
    Reason.USER_SUSPENDED: "The user who owns this key is suspended.",
    Reason.API_ACCESS_REQUIRED: "The owner of this key has no plan that includes API access.",
    Reason.SUBSCRIPTION_LAPSED: "The subscription of this key's owner has ended.",
    Reason.INSUFFICIENT_SCOPE: "This API key lacks a scope that the route asks for.",
    Reason.UPGRADE_REQUIRED: "The plan of this key's owner does not include this route.",
}


def status_of(reason: Reason) -> int:
    """The HTTP status of a refusal. A reason without one does not type-check."""
    match reason:
        case (
            Reason.MISSING_API_KEY
            | Reason.INVALID_API_KEY
            | Reason.KEY_REVOKED
            | Reason.KEY_EXPIRED
            | Reason.KEY_ROTATED
        ):
            return 401
        case Reason.AMBIGUOUS_CREDENTIALS:
            return 400
        case (
            Reason.TENANT_SUSPENDED
            | Reason.USER_SUSPENDED
            | Reason.API_ACCESS_REQUIRED
            | Reason.SUBSCRIPTION_LAPSED
            | Reason.INSUFFICIENT_SCOPE
            | Reason.UPGRADE_REQUIRED
        ):
            return 403
        case _ as unreachable:
            assert_never(unreachable)


def refusal_reply(refusal: Refusal, request_id: RequestId, *, closes: bool, is_head: bool = False) -> tuple[int, bytes]:
    """Status and bytes of the reply to a refused caller."""
    status = status_of(refusal.reason)
    headers = CHALLENGE if status == 401 else b""
    text = PUBLIC_TEXTS[refusal.reason]
    return status, problem(
        status, refusal.reason, text, request_id, headers, refusal.details, closes=closes, is_head=is_head
    )


def error_reply(
    error: GatewayError, request_id: RequestId, *, closes: bool, is_head: bool = False, allowed: Iterable[bytes] = ()
) -> tuple[int, bytes]:
    """Status and bytes of the reply to an error. `allowed` are the methods for a 405."""
    headers = b""
    if error.retry_after_seconds is not None:
        headers += b"Retry-After: %d\r\n" % error.retry_after_seconds
    if error.status == 405:
        headers += b"Allow: %b\r\n" % b", ".join(allowed)
    return error.status, problem(
        error.status, error.code, error.public, request_id, headers, {}, closes=closes, is_head=is_head
    )


def problem(
    status: int,
    code: str,
    detail: str,
    request_id: RequestId,
    headers: bytes,
    details: Mapping[str, object],
    *,
    closes: bool,
    is_head: bool,
) -> bytes:
    """A whole reply (RFC 9457). It is never cached; `closes` announces that the connection ends with it."""
    phrase = HTTPStatus(status).phrase
    body = json.dumps(
        {
            "type": "about:blank",
            "title": phrase,
            "status": status,
            "code": code,
            "detail": detail,
            "request_id": request_id.text.decode(),
            **details,
        }
    ).encode()
    return b"".join(
        (
            b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode()),
            b"Content-Type: application/problem+json\r\nCache-Control: no-store\r\n",
            b"Content-Length: %d\r\n" % len(body),
            request_id.line,
            headers,
            b"Connection: close\r\n\r\n" if closes else b"\r\n",
            b"" if is_head else body,
        )
    )


CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
