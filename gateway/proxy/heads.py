"""The two heads that the gateway writes: every request upstream and every relayed reply starts here."""

import re
from typing import Final

from gateway.auth.admission import Admitted
from gateway.proxy.cors import without_cors
from gateway.proxy.edge import Edge
from gateway.proxy.request_head import RequestHead
from gateway.proxy.response_head import ResponseFields

CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_CHOSEN_PROTOCOL: Final = re.compile(rb"\r\nsec-websocket-protocol:", re.IGNORECASE)


def request_head(
    request: RequestHead,
    target: bytes,
    host_line: bytes,
    admitted: Admitted,
    edge: Edge,
    request_id_line: bytes,
    upgrade: bytes = b"",
    assertion: bytes = b"",
) -> bytes:
    """The head of the request to the upstream. Takes the permission; there is no other way to make one. Hot.

    `upgrade` is the protocol to switch to, where the route allows it; `assertion` the signed line about the caller, for
    an upstream that asks for one. Reserved names, hop-by-hop fields and the credential are not among the kept lines:
    the reader left them out.
    """
    fields, principal = request.fields, admitted.principal
    return b"".join(
        (
            request.method,
            b" ",
            target,
            b" HTTP/1.1\r\n",
            host_line,
            request.kept,
            b"" if principal is None else principal.identity,
            assertion,
            edge.forwarded_lines(fields.forwarded, request.host),
            request_id_line,
            b"Connection: Upgrade\r\nUpgrade: %b\r\n" % upgrade if upgrade else b"",
            b"\r\n"
            if request.body.is_complete and request.content_length is None
            else _framing(request.content_length),
        )
    )


def _framing(content_length: int | None) -> bytes:
    if content_length is not None:
        return b"Content-Length: %d\r\n\r\n" % content_length
    return CHUNKED + b"\r\n"


def reply_head(
    fields: ResponseFields,
    request_id_line: bytes,
    is_chunked: bool,
    closes: bool,
    is_http_10: bool,
    cors_lines: bytes = b"",
) -> bytes:
    """The head of the reply to the client; `cors_lines` stand in for whatever the upstream says of origins. Hot."""
    end = b"Connection: close\r\n\r\n" if closes else b"Connection: keep-alive\r\n\r\n" if is_http_10 else b"\r\n"
    start = without_cors(fields.start) + cors_lines if cors_lines else fields.start
    return b"".join((start, fields.length_line, CHUNKED if is_chunked else b"", request_id_line, end))


def switch_head(fields: ResponseFields, request_id_line: bytes, key_protocol: bytes) -> bytes:
    """The head of a relayed 101.

    A client that has put its key behind `key_protocol` gets that as the chosen one, where the upstream chose none: a
    browser takes no other answer to an offer.
    """
    chosen = b""
    if key_protocol and _CHOSEN_PROTOCOL.search(fields.start) is None:
        chosen = b"Sec-WebSocket-Protocol: %b\r\n" % key_protocol
    end = b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % fields.upgrade
    return b"".join((fields.start, chosen, request_id_line, end))


def last_chunk(trailers: list[bytes]) -> bytes:
    """The end of a chunked body, with its trailer section."""
    return b"\r\n".join((b"0", *trailers, b"", b""))
