"""The replies that the gateway itself makes: `application/problem+json`, and nothing in them that is not public."""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Final, assert_never

from gateway.auth.refusal import Reason, Refusal
from gateway.errors import GatewayError

CRLF: Final = b"\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CHALLENGE: Final = b'WWW-Authenticate: Bearer realm="api"\r\n'

PUBLIC_TEXTS: Final[dict[Reason, str]] = {
    Reason.MISSING_API_KEY: "This route needs an API key.",
    Reason.INVALID_API_KEY: "The API key is not known here.",
    Reason.AMBIGUOUS_CREDENTIALS: "The request carries two different credentials. Send one.",
    Reason.KEY_REVOKED: "This API key has been revoked.",
    Reason.KEY_EXPIRED: "This API key has expired.",
    Reason.KEY_ROTATED: "This API key has been rotated and its grace window has ended. Use the new secret.",
    Reason.INVALID_TOKEN: "The access token is not valid here, or not any more.",
    Reason.TOKEN_EXPIRED: "This access token has expired.",
    Reason.TOKEN_USED: "This access token is for one request, and has been used.",
    Reason.TOKEN_NOT_ALLOWED: "This route takes API keys, and no access tokens.",
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
            | Reason.INVALID_TOKEN
            | Reason.TOKEN_EXPIRED
            | Reason.TOKEN_USED
            | Reason.TOKEN_NOT_ALLOWED
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


class Replies:
    """Writes whole replies. `request_id_header` is the configured name of the header that carries the request id.

    `identity_headers` are those by which an upstream is told who is calling.
    """

    def __init__(self, request_id_header: str, identity_headers: Iterable[str] = ()) -> None:
        self.request_id_start = f"{request_id_header}: ".encode()
        self._identity_starts = [f"{name}:".encode() for name in identity_headers]
        self._missing_lines = lru_cache(maxsize=4096)(self._empty_lines)  # by what is told: callers come again

    def pass_on(self, identity: bytes, lines: bytes, *, closes: bool) -> bytes:
        """The reply to a proxy whose request may pass. `identity` is what the upstream is to be told.

        Each name by which it is told is in the reply, an empty one where there is nothing to tell: whatever the client
        has sent under that name is to be replaced.
        """
        return b"".join(
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nCache-Control: no-store\r\n",
                identity,
                self._missing_lines(identity),
                lines,
                b"Connection: close\r\n\r\n" if closes else CRLF,
            )
        )

    def _empty_lines(self, identity: bytes) -> bytes:
        lines = b"\n" + identity
        return b"".join(start + CRLF for start in self._identity_starts if b"\n" + start not in lines)

    @staticmethod
    def with_problem_line(reply: bytes) -> bytes:
        """A reply with its problem in a header line too: of what `auth_request` is told, nginx sees no more."""
        head, gap, body = reply.partition(b"\r\n\r\n")
        return b"".join((head, b"\r\nOstiary-Problem: ", body, gap, body)) if body else reply

    def refusal(
        self, refusal: Refusal, request_id: bytes, *, closes: bool, is_head: bool, cors_lines: bytes = b""
    ) -> tuple[int, bytes]:
        """Status and bytes of the reply to a refused caller."""
        status, text = status_of(refusal.reason), PUBLIC_TEXTS[refusal.reason]
        headers = cors_lines + CHALLENGE if status == 401 else cors_lines
        members = _members(status, refusal.reason, text, request_id) | refusal.details
        return status, self._problem(status, members, request_id, headers, closes=closes, is_head=is_head)

    def error(
        self,
        error: GatewayError,
        request_id: bytes,
        *,
        closes: bool,
        is_head: bool = False,
        allowed: Iterable[bytes] = (),
        cors_lines: bytes = b"",
    ) -> tuple[int, bytes]:
        """Status and bytes of the reply to an error. `allowed` are the methods for a 405."""
        headers = cors_lines
        if error.retry_after_seconds is not None:
            headers += b"Retry-After: %d\r\n" % error.retry_after_seconds
        if error.status == 405:
            headers += b"Allow: %b\r\n" % b", ".join(allowed)
        members = _members(error.status, error.code, error.public, request_id) | dict(error.details or {})
        return error.status, self._problem(error.status, members, request_id, headers, closes=closes, is_head=is_head)

    def _problem(
        self,
        status: int,
        members: Mapping[str, object],
        request_id: bytes,
        headers: bytes,
        *,
        closes: bool,
        is_head: bool,
    ) -> bytes:
        """A whole reply (RFC 9457). It is never cached; `closes` announces that the connection ends with it."""
        body = json.dumps(members).encode()
        return b"".join(
            (
                b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode()),
                b"Content-Type: application/problem+json\r\nCache-Control: no-store\r\n",
                b"Content-Length: %d\r\n" % len(body),
                self.request_id_start + request_id + CRLF,
                headers,
                b"Connection: close\r\n\r\n" if closes else CRLF,
                b"" if is_head else body,
            )
        )


def _members(status: int, code: str, title: str, request_id: bytes) -> dict[str, object]:
    return {
        "type": "about:blank",
        "code": code,
        "status": status,
        "title": title,
        "request_id": request_id.decode(),
    }
