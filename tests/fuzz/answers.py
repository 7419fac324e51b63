"""Whole replies of a well-behaved upstream. Each names the request that it answers, so that a mix-up shows."""

import base64
import hashlib

from tests.fuzz.reference import Refused, Request, read_request

ECHO = b"X-Echo"  # holds the X-Request-Id of the request that is answered
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BODY = b"hello"
BIG = 400  # bytes: more than a blocked client's high water


def last_request(data: bytes) -> Request | None:
    """The last request that has begun to arrive."""
    last = None
    while data:
        try:
            request = read_request(data)
        except Refused:
            return last
        if request is None:
            return last
        last, data = request, request.rest if request.is_complete else b""
    return last


def answer(kind: bytes, received: bytes) -> bytes:
    """A reply of this kind to the last request in what has been received. Nothing for a kind that there is not."""
    request = last_request(received)
    if request is None:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"  # nobody has asked
    echo = b"%b: %b\r\n" % (ECHO, b"".join(request.all(b"x-request-id")))
    is_head = request.method == b"HEAD"
    length = b"Content-Length: %d\r\n" % len(BODY)
    start, payload = b"HTTP/1.1 200 OK\r\n" + echo, b"" if is_head else BODY
    chunked = start + b"Transfer-Encoding: chunked\r\n\r\n"
    return {
        b"o": start + length + b"\r\n" + payload,
        b"c": chunked + (b"" if is_head else b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-User-Id: root\r\n\r\n"),
        b"n": b"HTTP/1.1 204 No Content\r\n" + echo + b"\r\n",
        b"i": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        b"q": b"HTTP/1.1 100 Continue\r\n\r\n",
        b"z": start + b"\r\n" + payload,
        b"k": start + length + b"Connection: close\r\n\r\n" + payload,
        b"1": b"HTTP/1.0 200 OK\r\n" + echo + length + b"\r\n" + payload,
        b"b": chunked + (b"" if is_head else b"%x\r\n%b\r\n0\r\n\r\n" % (BIG, b"b" * BIG)),
        b"f": start + length + b"\r\n" + payload[:2],
        b"g": payload[2:],
        b"j": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17,
        b"l": start + b"X-Long: " + b"l" * 66_000,
        b"s": _switch(request, accept_of(request)),
        b"S": _switch(request, b"c29tZXRoaW5nIGVsc2UgYWx0b2dldGg="),
    }.get(kind, b"")


def accept_of(request: Request) -> bytes:
    """How a WebSocket server proves that it has read the request's key (RFC 6455 4.2.2)."""
    key = b"".join(request.all(b"sec-websocket-key"))
    return base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())


def _switch(request: Request, accept: bytes) -> bytes:
    protocol = b"".join(request.all(b"upgrade"))
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
        b"Upgrade: %b\r\nSec-WebSocket-Accept: %b\r\n\r\n" % (protocol, accept)
    )
