"""Requests and replies out of bytes, forgivingly: what a proxy let through has to be told apart all the same. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]+)[^\n]*\n")
_STATUS = re.compile(rb"HTTP/[0-9.]+ ([0-9]{3})\b")
_NUMBER = re.compile(rb"[0-9]+")
_BODILESS = frozenset({204, 304})


@dataclass(frozen=True)
class Message:
    """A request or a reply. Names of `fields` are in lower case; `body` is without chunk framing."""

    start: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    is_whole: bool

    def values(self, name: bytes) -> list[bytes]:
        """Every value of the field `name` (lower case)."""
        return [value for key, value in self.fields if key == name]

    @property
    def status(self) -> int:
        """The status of a reply; 0 where there is none that can be read."""
        found = _STATUS.match(self.start)
        return int(found[1]) if found else 0

    @property
    def closes(self) -> bool:
        """Whether it announces the end of the connection."""
        return any(b"close" in value.lower() for value in self.values(b"connection"))


@dataclass(frozen=True)
class _Head:
    start: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    rest: bytes

    def message(self, body: bytes, *, is_whole: bool) -> Message:
        return Message(self.start, self.fields, body, is_whole)

    def framed(self) -> tuple[bytes, bytes, bool] | None:
        """The body that a length or chunks frame, what follows, and whether it is whole; `None` without either."""
        if any(name == b"transfer-encoding" and b"chunked" in value.lower() for name, value in self.fields):
            return _chunked(self.rest)
        lengths = [
            found for name, value in self.fields if name == b"content-length" and (found := _NUMBER.search(value))
        ]
        if not lengths:
            return None
        length = int(lengths[0][0])
        return self.rest[:length], self.rest[length:], len(self.rest) >= length


def _head(data: bytes) -> _Head | None:
    end = _HEAD_END.search(data)
    if end is None:
        return None
    start, *lines = re.split(rb"\r?\n", data[: end.start()])
    pairs = (line.partition(b":") for line in lines)
    fields = tuple((name.strip().lower(), value.strip()) for name, _, value in pairs)
    return _Head(start, fields, data[end.end() :])


def _chunked(data: bytes) -> tuple[bytes, bytes, bool]:
    body = b""
    while line := _CHUNK_LINE.match(data):
        length = int(line[1], 16)
        data = data[line.end() :]
        if length == 0:
            if data.startswith(b"\r\n"):
                return body, data[2:], True
            end = _HEAD_END.search(data)  # of the trailers
            return (body, b"", False) if end is None else (body, data[end.end() :], True)
        if len(data) < length:
            return body + data, b"", False
        body, data = body + data[:length], data[length:].removeprefix(b"\r").removeprefix(b"\n")
    return body, b"", False


def read_requests(data: bytes) -> list[Message]:
    """The requests in `data`; the last may be unfinished, its head too."""
    return list(_requests(data))


def _requests(data: bytes) -> Iterator[Message]:
    while data := data.lstrip(b"\r\n"):
        head = _head(data)
        if head is None:
            yield Message(data, (), b"", is_whole=False)
            return
        body, data, is_whole = head.framed() or (b"", head.rest, True)
        yield head.message(body, is_whole=is_whole)


def read_replies(data: bytes, methods: Sequence[bytes], *, ends_well: bool) -> list[Message]:
    """The replies in `data` to requests with these methods, interim ones among them.

    `ends_well` says that the connection has ended in order, which is how a reply without any framing ends.
    """
    return list(_replies(data, list(methods), ends_well))


def _replies(data: bytes, methods: list[bytes], ends_well: bool) -> Iterator[Message]:
    while data:
        head = _head(data)
        if head is None:
            yield Message(data, (), b"", is_whole=False)
            return
        status = head.message(b"", is_whole=True).status
        method = b"GET"
        if status >= 200 and methods:
            method = methods.pop(0)
        if 0 < status < 200 or status in _BODILESS or method == b"HEAD":
            body, data, is_whole = b"", head.rest, True
        else:
            body, data, is_whole = head.framed() or (head.rest, b"", ends_well)
        yield head.message(body, is_whole=is_whole)
