"""A reader of requests and replies that forgives nothing: what it remarks on must not have been sent."""

import re
from dataclasses import dataclass

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rb"([A-Z-]+) (/[!-\"$-~]*|\*) HTTP/1\.1")
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([\t -~\x80-\xff]*)")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*")
LENGTH = re.compile(rb"0|[1-9][0-9]*")
CHUNK_SIZE = re.compile(rb"[1-9a-f][0-9a-f]*")
HOP_BY_HOP = {b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"http2-settings", b"expect"}


class RemarkError(AssertionError):
    """Something that a strict reader would not have taken."""


@dataclass(frozen=True)
class StrictRequest:
    """A request. `raw` is all of it; `body` is without framing."""

    method: bytes
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    raw: bytes


@dataclass(frozen=True)
class StrictReply:
    """A reply. `is_cut` where the connection ended inside its body."""

    status: int
    reason: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    is_cut: bool = False

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a field."""
        return [value for key, value in self.fields if key.lower() == name.lower()]

    @property
    def closes(self) -> bool:
        """Whether it announces that the connection ends."""
        return b"close" in self.all(b"Connection")


def next_request(data: bytes) -> tuple[StrictRequest, bytes] | None:
    """The first request and what follows it; None where more bytes are needed. Raises RemarkError."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return None
    line, *lines = head.split(b"\r\n")
    request_line = REQUEST_LINE.fullmatch(line)
    if request_line is None:
        raise RemarkError(f"request line {line!r}")
    fields = read_fields(lines)
    names = [name.lower() for name, _ in fields]
    for name in names:
        if name in HOP_BY_HOP or name == b"connection":
            raise RemarkError(f"hop-by-hop field {name!r}")
    if names.count(b"host") != 1:
        raise RemarkError(f"{names.count(b'host')} Host fields")
    body = read_body(fields, rest)
    if body is None:
        return None
    payload, left = body
    raw = data[: len(data) - len(left)]
    return StrictRequest(request_line[1], request_line[2], fields, payload, raw), left


def read_fields(lines: list[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Header lines as pairs. Raises RemarkError."""
    fields = []
    for line in lines:
        field = FIELD.fullmatch(line)
        if field is None:
            raise RemarkError(f"header line {line!r}")
        fields.append((field[1], field[2]))
    return tuple(fields)


def read_body(
    fields: tuple[tuple[bytes, bytes], ...], data: bytes, *, is_reply: bool = False
) -> tuple[bytes, bytes] | None:
    """The body that the fields frame, and what follows it; None where more bytes are needed. Raises RemarkError.

    A reply may have trailers; they are not told apart from nothing.
    """
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise RemarkError(f"framing {lengths} {codings}")
    if lengths:
        if LENGTH.fullmatch(lengths[0]) is None:
            raise RemarkError(f"Content-Length {lengths[0]!r}")
        length = int(lengths[0])
        return None if len(data) < length else (data[:length], data[length:])
    if not codings:
        return b"", data
    if codings != [b"chunked"]:
        raise RemarkError(f"Transfer-Encoding {codings!r}")
    payload = b""
    while True:
        size, found, rest = data.partition(b"\r\n")
        if not found:
            return None
        if size == b"0":
            if len(rest) < 2:
                return None
            if rest[:2] == b"\r\n":
                return payload, rest[2:]
            if not is_reply:
                raise RemarkError("a trailer")
            trailers, found, rest = rest.partition(b"\r\n\r\n")
            read_fields(trailers.split(b"\r\n"))
            return (payload, rest) if found else None
        if CHUNK_SIZE.fullmatch(size) is None:
            raise RemarkError(f"chunk line {size!r}")
        length = int(size, 16)
        if len(rest) < length + 2:
            return None
        if rest[length : length + 2] != b"\r\n":
            raise RemarkError("a chunk without its end")
        payload, data = payload + rest[:length], rest[length + 2 :]


def read_replies(data: bytes, methods: list[bytes], *, is_ended: bool) -> list[StrictReply]:
    """The replies to requests with these methods, interim ones among them. Raises RemarkError.

    `is_ended`: nothing more will come, so an unfinished reply is a cut one; otherwise it is left out.
    """
    replies: list[StrictReply] = []
    waiting = list(methods)
    while data:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            if is_ended:
                raise RemarkError(f"half a head: {head!r}")
            return replies
        line, *lines = head.split(b"\r\n")
        status_line = STATUS_LINE.fullmatch(line)
        if status_line is None:
            raise RemarkError(f"status line {line!r}")
        status, fields = int(status_line[1]), read_fields(lines)
        if status >= 200:
            method = waiting.pop(0) if waiting else b"GET"
        if status < 200 or method == b"HEAD" or status in (204, 304):
            body: tuple[bytes, bytes] | None = (b"", rest)
        elif not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in fields):
            body = (rest, b"") if is_ended else None
        else:
            body = read_body(fields, rest, is_reply=True)
        if body is None:
            if is_ended:
                replies.append(StrictReply(status, status_line[2], fields, rest, is_cut=True))
            return replies
        payload, data = body
        replies.append(StrictReply(status, status_line[2], fields, payload))
    return replies
