"""Reads replies off a connection as cheaply as a load generator must: the status and the length, no more."""

import re

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Reply:
    """One reply on its way, which is to have `status`. After it was whole, the next one is read."""

    def __init__(self, status: int = 200) -> None:
        self._wanted = b"HTTP/1.1 %d" % status
        self._buffer = b""
        self._missing = 0
        self._is_good = True

    def feed(self, data: bytes) -> bool | None:
        """Take bytes; return None while the reply is not whole, then whether it was as wanted, with a length."""
        if self._missing:
            self._missing -= len(data)
        else:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return None
            length = _LENGTH.search(self._buffer, 0, end + 2)
            self._is_good = length is not None and self._buffer.startswith(self._wanted)
            self._missing = end + 4 + (int(length[1]) if length else 0) - len(self._buffer)
            self._buffer = b""
        if self._missing > 0:
            return None
        self._missing = 0
        return self._is_good
