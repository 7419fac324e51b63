"""Where a message's body ends. Strict, and pure: bytes in, payload out.

Chunk lines end in CRLF and nothing else, and are never copied: the payload is re-encoded by whoever sends it on, so
extensions and odd sizes do not travel (RFC 9112 7.1).
"""

import re
from typing import Final, Protocol

CHUNK_LINE_LIMIT: Final = 4096
EXTENSIONS_LIMIT: Final = 16_384  # in one body: chunk extensions are pure overhead (CVE-2024-22019)
TRAILERS_LIMIT: Final = 16_384

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb'|"'
    rb'(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"))?)*)'
)
_TRAILER_LINE = re.compile(_TOKEN + rb":[\t\x20-\x7e\x80-\xff]*")
_LENGTH = re.compile(rb"[0-9]{1,19}")


class BadFraming(Exception):
    """The bytes do not say unambiguously where the body ends."""


class Body(Protocol):
    """A body being read. `feed` takes what has arrived and returns `(payload, rest)`; `rest` lies behind the body."""

    is_complete: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Payload found in `data`, and what does not belong to this body. Raises BadFraming."""
        ...


class NoBody:
    """A message without a body."""

    is_complete = True

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Nothing of it is ours."""
        return b"", data


NO_BODY: Final = NoBody()


class LengthBody:
    """A body of a known number of bytes (Content-Length)."""

    __slots__ = ("is_complete", "remaining")

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.is_complete = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """As `Body.feed`."""
        size = len(data)
        if size < self.remaining:
            self.remaining -= size
            return data, b""
        end = self.remaining
        self.remaining = 0
        self.is_complete = True
        return (data, b"") if size == end else (data[:end], data[end:])


class UntilClose:
    """A reply's body that ends with the connection (RFC 9112 6.3, the last case)."""

    __slots__ = ("is_complete",)

    def __init__(self) -> None:
        self.is_complete = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Everything is payload."""
        return data, b""


class ChunkedBody:
    """A chunked body. `trailers` holds the trailer section's lines once complete (raw, without CRLF)."""

    __slots__ = ("_extensions", "_held", "_remaining", "_state", "_trailers_size", "is_complete", "trailers")

    def __init__(self) -> None:
        self.is_complete = False
        self.trailers: list[bytes] = []
        self._held = b""  # an unfinished line
        self._remaining = 0  # of the current chunk
        self._state = self._size
        self._extensions = 0
        self._trailers_size = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """As `Body.feed`. The payloads of all chunks in `data` come joined."""
        payload: list[bytes] = []
        if self._held:
            data, self._held = self._held + data, b""
        position = 0
        while not self.is_complete:
            moved = self._state(data, position, payload)
            if moved < 0:
                self._held = data[position:]
                return b"".join(payload), b""
            position = moved
        return b"".join(payload), data[position:]

    # Each state reads at `position` and returns the next position, or -1 where it needs more bytes.

    def _size(self, data: bytes, position: int, payload: list[bytes]) -> int:
        line, after = self._line(data, position, CHUNK_LINE_LIMIT)
        if line is None:
            return -1
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise BadFraming("malformed chunk line")
        self._extensions += len(match[2])
        if self._extensions > EXTENSIONS_LIMIT:
            raise BadFraming("too many chunk extensions")
        self._remaining = int(match[1], 16)
        self._state = self._data if self._remaining else self._trailer
        return after

    def _data(self, data: bytes, position: int, payload: list[bytes]) -> int:
        available = len(data) - position
        if available <= 0:
            return -1
        taken = min(available, self._remaining)
        payload.append(data[position : position + taken])
        self._remaining -= taken
        if not self._remaining:
            self._state = self._data_end
        return position + taken

    def _data_end(self, data: bytes, position: int, payload: list[bytes]) -> int:
        ending = data[position : position + 2]
        if ending == b"\r\n":
            self._state = self._size
            return position + 2
        if not b"\r\n".startswith(ending):
            raise BadFraming("a chunk is not followed by CRLF")
        return -1

    def _trailer(self, data: bytes, position: int, payload: list[bytes]) -> int:
        line, after = self._line(data, position, TRAILERS_LIMIT - self._trailers_size)
        if line is None:
            return -1
        self._trailers_size += after - position
        if not line:
            self.is_complete = True
        elif _TRAILER_LINE.fullmatch(line) is None:
            raise BadFraming("malformed trailer line")
        else:
            self.trailers.append(line)
        return after

    @staticmethod
    def _line(data: bytes, position: int, limit: int) -> tuple[bytes | None, int]:
        end = data.find(b"\r\n", position, position + limit + 2)
        if end < 0:
            tail = data[position:]
            if len(tail) > limit + 1 or b"\n" in tail or b"\r" in tail[:-1]:  # its last byte may be half of the CRLF
                raise BadFraming("a line of the chunked coding is too long or does not end in CRLF")
            return None, position
        line = data[position:end]
        if b"\n" in line or b"\r" in line:
            raise BadFraming("a bare CR or LF in the chunked coding")
        return line, end + 2


def content_length(values: list[bytes]) -> int:
    """The one number that the Content-Length fields give. Anything but one plain number is refused (RFC 9112 6.3)."""
    if len(values) != 1 or _LENGTH.fullmatch(values[0]) is None:
        raise BadFraming("Content-Length is not one plain number")
    return int(values[0])


def is_chunked(values: list[bytes]) -> bool:
    """True where the Transfer-Encoding fields say exactly `chunked`. Any other coding is refused (RFC 9112 6.1)."""
    if len(values) != 1 or values[0].lower() != b"chunked":
        raise BadFraming("Transfer-Encoding is not exactly `chunked`")
    return True


def chunk(payload: bytes) -> bytes:
    """`payload` as one chunk; it is not empty, since an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


LAST_CHUNK: Final = b"0\r\n\r\n"
