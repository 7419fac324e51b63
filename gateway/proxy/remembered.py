"""A header section that has been read, and in which of its lines the next ones differ. Pure.

Clients of an API mostly repeat their header section, but for a trace id or a date. What means nothing to the gateway
may change without the section being read again; what does is compared to the letter.
"""

from typing import Final

from gateway.proxy.fields import ALLOWED_BYTES, Fields

CRLF: Final = b"\r\n"
MOST_CHANGING: Final = 8  # lines; a client that changes more of them has its sections read as a whole


class Remembered:
    """A section, and what it said: `fields`, and `kept`, the lines to send on, each with its CRLF.

    `positions` names the lines that mean nothing to the gateway: index in `lines` -> index in `kept`. The values of
    those that have been seen to change are holes between pieces that must not.
    """

    __slots__ = (
        "_changing",
        "_kept",
        "_kept_end",
        "_lines",
        "_pieces",
        "_positions",
        "_section_end",
        "fields",
        "kept",
        "minor",
        "section",
    )

    def __init__(
        self,
        section: bytes,
        minor: bytes,
        lines: list[bytes],
        kept: list[bytes],
        positions: dict[int, int],
        fields: Fields,
    ) -> None:
        self.section = section
        self.minor = minor
        self.fields = fields
        self.kept = CRLF.join((*kept, b""))
        self._lines = lines
        self._kept = kept
        self._positions = positions
        self._changing: set[int] = set()
        self._pieces: list[tuple[bytes, bytes]] = []
        self._section_end = self._kept_end = b""

    def kept_of(self, section: bytes) -> bytes | None:
        """The lines to send on of a section that says the same as this one; None where it has to be read. Hot."""
        if section == self.section:
            return self.kept
        if self._pieces:
            kept = self._filled(section)
            if kept is not None:
                return kept
        return self._filled(section) if self._learns_from(section) else None

    def _filled(self, section: bytes) -> bytes | None:
        """The kept lines with the values that `section` has in the holes; None where it differs elsewhere."""
        parts: list[bytes] = []
        position = 0
        for piece, kept_piece in self._pieces:
            if not section.startswith(piece, position):
                return None
            position += len(piece)
            end = section.find(CRLF, position)
            value = section[position:] if end < 0 else section[position:end]
            if value.translate(None, ALLOWED_BYTES):
                return None
            parts += kept_piece, value
            position += len(value)
        if section[position:] != self._section_end:
            return None
        parts.append(self._kept_end)
        return b"".join(parts)

    def _learns_from(self, section: bytes) -> bool:
        """Make holes of the lines that differ; False where one of them may not, or in its value alone."""
        lines = section.split(CRLF)
        if len(lines) != len(self._lines):
            return False
        for index, (line, old) in enumerate(zip(lines, self._lines, strict=True)):
            if line == old:
                continue
            if index not in self._positions or line.partition(b":")[:2] != old.partition(b":")[:2]:
                return False
            self._changing.add(index)
        if len(self._changing) > MOST_CHANGING:
            return False
        self._make_holes()
        return True

    def _make_holes(self) -> None:
        pieces: list[tuple[bytes, bytes]] = []
        lines, kept = self._lines, self._kept
        start = kept_start = 0
        for index in sorted(self._changing):
            position = self._positions[index]
            name = lines[index].partition(b":")[0] + b":"
            before = CRLF if start else b""  # what ends the hole before it
            piece = before + CRLF.join((*lines[start:index], name))
            pieces.append((piece, before + CRLF.join((*kept[kept_start:position], name))))
            start, kept_start = index + 1, position + 1
        self._pieces = pieces
        self._section_end = CRLF.join((b"", *lines[start:]))
        self._kept_end = CRLF.join((b"", *kept[kept_start:], b""))
