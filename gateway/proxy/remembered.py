"""A header section that has been read, and in which of its lines the next ones differ. Pure.

Clients of an API mostly repeat their header section, but for a trace id, a date, a length; and a proxy in front sends
those of many clients on one connection, each with its key. Values that mean nothing to the gateway, or nothing beyond
themselves, may change without the section being read again; all else is compared to the letter.
"""

import re
from dataclasses import replace
from typing import Final

from gateway.auth.credentials import Credential, CredentialReader
from gateway.auth.refusal import Refusal
from gateway.proxy.fields import ALLOWED_BYTES, Fields
from gateway.proxy.framing import BadFraming, content_length
from gateway.proxy.headers import Action, HeaderTable

CRLF: Final = b"\r\n"
NO_SECTION: Final = b"\n"  # which none is: a head may have an empty one
MOST_CHANGING: Final = 8  # lines; a client that changes more of them has its sections read as a whole
REQUEST_ID: Final = re.compile(rb"[0-9A-Za-z._:=+/-]{1,128}")
KEEP: Final = Action.KEEP
KEPT: Final = frozenset({KEEP, Action.NOTED, Action.COOKIES})
FORWARDED: Final = Action.FORWARDED
MAY_CHANGE: Final = frozenset({KEEP, Action.CONTENT_LENGTH, Action.REQUEST_ID, Action.CREDENTIAL, FORWARDED})


class Said:
    """What a section says that may be another thing in the next one like it. `kept` are the lines to send on."""

    __slots__ = ("content_length", "credential", "kept", "request_id")

    def __init__(
        self,
        kept: bytes,
        credential: Credential | Refusal | None,
        content_length: int | None,
        request_id: bytes | None,
    ) -> None:
        self.kept = kept
        self.credential = credential
        self.content_length = content_length
        self.request_id = request_id


class Remembered:
    """A section, and what it said: `fields`, and the lines to send on.

    The values of lines that have been seen to change are holes between pieces that must not. What a section says in
    them is told by `said_by`, but for what proxies say of their clients: that is in `fields` until the next one.
    """

    __slots__ = (
        "_changing",
        "_credentials",
        "_holes",
        "_kept_end",
        "_lines",
        "_section",
        "_section_end",
        "_table",
        "fields",
        "said",
    )

    def __init__(
        self,
        section: bytes,
        lines: list[bytes],
        kept: list[bytes],
        fields: Fields,
        table: HeaderTable,
        credentials: CredentialReader,
    ) -> None:
        self.fields = fields
        self._section = section
        self.said = Said(CRLF.join((*kept, b"")), fields.credential, fields.content_length, fields.request_id)
        self._lines = lines
        self._table = table
        self._credentials = credentials
        self._changing: frozenset[int] = frozenset()
        self._holes: list[tuple[bytes, bytes, Action]] = []  # what is before a value, what of it is kept, and its kind
        self._section_end = self._kept_end = b""

    def said_by(self, section: bytes) -> Said | None:
        """What a section says that differs from this one in nothing else; None where it has to be read. Hot."""
        if section == self._section:
            return self.said
        if self._holes:
            said = self._filled(section)
            if said is not None:
                return said
        return self._filled(section) if self.fields.is_variable and self._learns_from(section) else None

    def _filled(self, section: bytes) -> Said | None:
        """What `section` says with the values that it has in the holes; None where it differs elsewhere."""
        parts: list[bytes] = []
        credential, length, request_id = self.said.credential, self.said.content_length, self.said.request_id
        position = 0
        for piece, kept_piece, action in self._holes:
            if not section.startswith(piece, position):
                return None
            position += len(piece)
            end = section.find(CRLF, position)
            value = section[position:] if end < 0 else section[position:end]
            if value.translate(None, ALLOWED_BYTES):
                return None
            position += len(value)
            parts.append(kept_piece)
            if action is KEEP:
                parts.append(value)
            elif action is Action.REQUEST_ID:
                request_id = request_id_in(value)
            elif action is Action.CREDENTIAL:
                name = piece[piece.rfind(b"\n") + 1 : -1]
                credential = self._credentials.read([(name, value.strip(b" \t"))])
            elif action is FORWARDED:
                name = piece[piece.rfind(b"\n") + 1 : -1]
                self.fields = _with_forwarded(self.fields, name.lower(), value.strip(b" \t"))
            else:
                try:
                    length = content_length([value.strip(b" \t")])
                except BadFraming:
                    return None
        if section[position:] != self._section_end:
            return None
        parts.append(self._kept_end)
        return Said(b"".join(parts), credential, length, request_id)

    def _learns_from(self, section: bytes) -> bool:
        """Make holes of the values that differ; False where something else does, or one that may not."""
        lines = section.split(CRLF)
        if len(lines) != len(self._lines):
            return False
        changing = set(self._changing)
        for index, (line, old) in enumerate(zip(lines, self._lines, strict=True)):
            if line == old:
                continue
            name = old.partition(b":")[0] + b":"
            if not line.startswith(name) or self._action_of(line) not in MAY_CHANGE:
                return False
            changing.add(index)
        actions = [self._action_of(line) for line in self._lines]
        is_lone = all(actions[index] is KEEP or self._is_lone(actions, index) for index in changing)
        if len(changing) > MOST_CHANGING or not is_lone:
            return False
        if any(actions[index] is FORWARDED for index in changing):
            self._section = NO_SECTION  # it is one of many now, whose `fields` are told with it
        self._changing = frozenset(changing)
        self._make_holes(actions)
        return True

    def _is_lone(self, actions: list[Action], index: int) -> bool:
        """Whether no other line could be meant by what this one means: by its name, where several are read apart."""
        if actions[index] is not FORWARDED:
            return actions.count(actions[index]) == 1
        name = _name_of(self._lines[index])
        return [_name_of(line) for line in self._lines].count(name) == 1

    def _action_of(self, line: bytes) -> Action:
        return self._table.classify(line.partition(b":")[0])

    def _make_holes(self, actions: list[Action]) -> None:
        """Cut the section, and what of it is sent on, at the values that change."""
        self._holes = []
        piece = kept_piece = b""
        last = len(self._lines) - 1
        for index, line in enumerate(self._lines):
            action, end = actions[index], CRLF if index < last else b""
            is_kept = action in KEPT
            if index in self._changing:
                name = line.partition(b":")[0] + b":"
                self._holes.append((piece + name, kept_piece + name if is_kept else kept_piece, action))
                piece, kept_piece = end, CRLF if is_kept else b""
            else:
                piece += line + end
                kept_piece += line + CRLF if is_kept else b""
        self._section_end, self._kept_end = piece, kept_piece


def _name_of(line: bytes) -> bytes:
    return line.partition(b":")[0].lower()


def _with_forwarded(fields: Fields, name: bytes, value: bytes) -> Fields:
    """The same, with another value of the one field of that name which proxies set."""
    forwarded = tuple((known, value if known == name else said) for known, said in fields.forwarded)
    return replace(fields, forwarded=forwarded)


def request_id_in(value: bytes) -> bytes | None:
    """The request id in a header's value; None where it is none that could be passed on."""
    value = value.strip(b" \t")
    return value if REQUEST_ID.fullmatch(value) is not None else None
