"""The head of an upstream's reply: read as strictly as a request's. Pure. Anything doubtful is the upstream's fault."""

import re
from dataclasses import dataclass
from typing import Final

import httptools

from gateway.proxy.errors import UpstreamError
from gateway.proxy.fields import ALLOWED_BYTES
from gateway.proxy.framing import (
    NO_BODY,
    BadFraming,
    Body,
    ChunkedBody,
    LengthBody,
    UntilClose,
    content_length,
    is_chunked,
)
from gateway.proxy.headers import NEVER_IN_TRAILERS, Action, HeaderTable, nominated, without

STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
HEAD_LIMIT: Final = 65_536  # bytes; twice what clients may send: cookies and policies grow on this side
LINES_LIMIT: Final = 1_000
INTERIM_LIMIT: Final = 16  # 1xx replies before the final one
NEVER_NOMINATED: Final = frozenset({b"close", b"keep-alive", b"upgrade", b"content-length", b"transfer-encoding"})
KEEP, DROP = Action.KEEP, Action.DROP


@dataclass(slots=True)
class ResponseFields:
    """A reply's head, read. Shared by all replies of a connection that repeat it, so nobody changes it.

    `start` is the status line and the lines to relay as they came, each with its CRLF; no framing fields among them.
    `length_line` is `Content-Length: n` with its CRLF, or empty: it also means something in answer to HEAD.
    """

    status: int
    start: bytes
    length_line: bytes
    keeps_alive: bool
    content_length: int | None
    is_chunked: bool
    upgrade: bytes  # the protocol that a 101 switches to, in lower case


class ResponseReader:
    """Reads reply heads for one upstream connection. The last head is remembered with what it said, as for requests."""

    __slots__ = ("_last", "_table")

    def __init__(self, table: HeaderTable) -> None:
        self._table = table
        self._last: tuple[bytes, ResponseFields] | None = None

    def read(self, head: bytes) -> ResponseFields:
        """What the head in `head` says (up to, not with, its empty line). Raises UpstreamError. Hot."""
        last = self._last
        if last is not None and head == last[0]:
            return last[1]
        fields = self._read_fields(head)
        self._last = (head, fields)
        return fields

    def allowed_trailers(self, lines: list[bytes]) -> list[bytes]:
        """The trailer lines that may be relayed: none that frames, routes, authenticates, or is ours to say."""
        allowed = []
        for line in lines:
            name = line.partition(b":")[0]
            if self._table.classify(name) is KEEP and name.lower() not in NEVER_IN_TRAILERS:
                allowed.append(line)
        return allowed

    def _read_fields(self, head: bytes) -> ResponseFields:
        if len(head) > HEAD_LIMIT:  # in one piece: who reads would not have waited for the rest of such a head
            raise UpstreamError("the reply's head is too large")
        lines = head.split(b"\r\n")
        if len(lines) > LINES_LIMIT:
            raise UpstreamError("too many header lines in the reply")
        if head.translate(None, ALLOWED_BYTES) != b"\r\n" * (len(lines) - 1):
            raise UpstreamError("a control character, or a bare CR or LF, in the reply's head")
        status_line = STATUS_LINE.fullmatch(lines[0])
        if status_line is None:
            raise UpstreamError("malformed status line")
        self._check_with_llhttp(head)
        minor, code, reason = status_line.groups()
        kept = [b"HTTP/1.1 %b %b" % (code, reason or b"")]
        special: dict[Action, list[bytes]] = {}
        get = self._table.get
        for index in range(1, len(lines)):
            line = lines[index]
            name, colon, value = line.partition(b":")
            action = get(name)
            if action is None:
                action = self._table.classify(name)
            if action is KEEP:
                kept.append(line)
            elif action is not DROP:
                special.setdefault(action, []).append(value.strip(b" \t"))
            if not colon:
                raise UpstreamError("a header line without a colon in the reply")
        return _assemble(int(code), minor == b"1", kept, special)

    def _check_with_llhttp(self, head: bytes) -> None:
        try:
            httptools.HttpResponseParser(self).feed_data(head + b"\r\n\r\n")
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise UpstreamError(f"llhttp on the reply: {error}") from error


def _assemble(status: int, is_http_11: bool, kept: list[bytes], special: dict[Action, list[bytes]]) -> ResponseFields:
    if Action.INVALID in special:
        raise UpstreamError("a header name that is not a token in the reply")
    keeps_alive = is_http_11
    connections = special.get(Action.CONNECTION)
    if connections is not None:
        options = nominated(connections)
        keeps_alive = b"close" not in options and (is_http_11 or b"keep-alive" in options)
        names = options - NEVER_NOMINATED
        if names:
            kept = [kept[0], *without(kept[1:], names)]
    lengths = special.get(Action.CONTENT_LENGTH)
    codings = special.get(Action.TRANSFER_ENCODING)
    try:
        length = None if lengths is None else content_length(lengths)
        if codings is not None and (length is not None or not is_http_11):
            raise BadFraming("Transfer-Encoding beside Content-Length, or in HTTP/1.0")
        chunked = codings is not None and is_chunked(codings)
    except BadFraming as error:
        raise UpstreamError(f"the reply's framing: {error}") from error
    if status == 204 and (length or chunked):
        keeps_alive = False  # a body that must not be (RFC 9110 15.3.5), and may still come: not as the next reply
    kept.append(b"")
    length_line = b"" if length is None or status == 204 or status < 200 else b"Content-Length: %d\r\n" % length
    upgrade = b",".join(special.get(Action.UPGRADE, ())).lower()
    return ResponseFields(status, b"\r\n".join(kept), length_line, keeps_alive, length, chunked, upgrade)


def body_of(fields: ResponseFields, request_method: bytes) -> Body:
    """Where the reply's body ends (RFC 9112 6.3)."""
    status = fields.status
    if request_method == b"HEAD" or status in (204, 304) or status < 200:
        return NO_BODY
    if fields.is_chunked:
        return ChunkedBody()
    return UntilClose() if fields.content_length is None else LengthBody(fields.content_length)
