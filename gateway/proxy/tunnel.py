"""What follows a 101: bytes both ways, unread but for one thing.

Both transports change hands: their protocols are replaced by the two sides of the tunnel, so nothing of the HTTP engine
sees these bytes. Of WebSocket replies the frame boundaries are tracked, so that a close frame of our own (RFC 6455
5.5.1) never lands inside a frame of the upstream's.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from gateway.proxy.request_head import RequestHead
from gateway.proxy.response_head import ResponseFields

WEBSOCKET: Final = b"websocket"
POLICY_VIOLATION: Final = 1008  # the key is no longer admitted
GOING_AWAY: Final = 1001
LONGEST_FRAME_HEAD: Final = 14
FLUSH_SECONDS: Final = 2.0  # for a client to take the last bytes
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Blanks are taken off afterwards: a pattern for them would take half a second over a line that is full of them.
_KEYS: Final = re.compile(rb"(?:^|\r\n)sec-websocket-key:([^\r\n]*)(?=\r\n)", re.IGNORECASE)
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")
_ACCEPTS: Final = re.compile(rb"\r\nsec-websocket-accept:([^\r\n]*)(?=\r\n)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Handshake:
    """A switch that the client has asked for and the route allows. `key` is a WebSocket's, else empty."""

    upgrade: bytes
    key: bytes

    @property
    def is_websocket(self) -> bool:
        """Whether the protocol's frames are known here."""
        return self.upgrade == WEBSOCKET

    def is_answered_by(self, response: ResponseFields) -> bool:
        """Whether a 101 switches to this. A WebSocket server proves that it has understood (RFC 6455 4.2.2)."""
        if response.upgrade != self.upgrade:
            return False
        answer = base64.b64encode(hashlib.sha1(self.key + _GUID, usedforsecurity=False).digest())
        return not self.is_websocket or _values(_ACCEPTS, response.start) == [answer]


def handshake(request: RequestHead, allowed: frozenset[bytes]) -> Handshake | None:
    """The switch to ask the upstream for, or None: then the request goes on as an ordinary one.

    A WebSocket needs exactly one well-formed key (RFC 6455 4.2.1).
    """
    upgrade = request.fields.upgrade
    if upgrade not in allowed or not request.body.is_complete or request.method != b"GET":
        return None
    if upgrade != WEBSOCKET:
        return Handshake(upgrade, b"")
    keys = _values(_KEYS, request.kept)
    return Handshake(upgrade, keys[0]) if len(keys) == 1 and _KEY.fullmatch(keys[0]) else None


def _values(pattern: re.Pattern[bytes], lines: bytes) -> list[bytes]:
    return [value.strip(b" \t") for value in pattern.findall(lines)]


def close_frame(code: int) -> bytes:
    """A server's close frame with a status code and no reason."""
    return b"\x88\x02" + code.to_bytes(2)


class FrameBoundary:
    """Follows a server's WebSocket frames (RFC 6455 5.2), so that one can be put behind the last."""

    def __init__(self) -> None:
        self._head = b""
        self._payload = 0  # bytes of the current frame still to come

    @property
    def is_between_frames(self) -> bool:
        """Whether the last byte seen ended a frame."""
        return not self._head and not self._payload

    def feed(self, data: bytes, *, is_last: bool = False) -> int:
        """Take the next bytes, or with `is_last` those of the current frame alone; answers how many."""
        position = 0
        while position < len(data) and not (is_last and self.is_between_frames):
            if self._payload:
                step = min(self._payload, len(data) - position)
                self._payload -= step
                position += step
                continue
            known = len(self._head)
            head = self._head + data[position : position + LONGEST_FRAME_HEAD - known]
            size, payload = _frame_head(head)
            if not size:
                self._head = head
                return len(data)
            self._head, self._payload = b"", payload
            position += size - known
        return position


def _frame_head(head: bytes) -> tuple[int, int]:
    """The size of a frame's head and that of its payload, in bytes; zeros while the head is incomplete."""
    if len(head) < 2:
        return 0, 0
    length, mask = head[1] & 0x7F, 4 if head[1] & 0x80 else 0
    extra = {126: 2, 127: 8}.get(length, 0)
    size = 2 + extra + mask
    if len(head) < size:
        return 0, 0
    return size, int.from_bytes(head[2 : 2 + extra]) if extra else length


class Tunnel:
    """Two joined transports. Ends when both have; `on_closed` is told once. Times are seconds."""

    def __init__(
        self,
        client: Any,
        upstream: Any,
        *,
        is_websocket: bool,
        idle_seconds: float,
        monotonic: Callable[[], float],
        on_closed: Callable[[], None],
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._boundary = FrameBoundary() if is_websocket else None
        self._idle_seconds = idle_seconds
        self._monotonic = monotonic
        self._on_closed = on_closed
        self._open_sides = 2
        self._active_at = monotonic()
        self._ended_at = inf
        self._code = 0  # why it ends
        self._has_told = False  # the client has had its last byte
        self._client_side = _Side(self, client, upstream, None)
        self._upstream_side = _Side(self, upstream, client, self._boundary)

    def start(self, *, to_client: bytes, to_upstream: bytes, is_client_done: bool) -> None:
        """Take both transports over. The given bytes came behind the handshake on either side."""
        self._client.set_protocol(self._client_side)
        self._upstream.set_protocol(self._upstream_side)
        if to_upstream:
            self._client_side.data_received(to_upstream)
        if to_client:
            self._upstream_side.data_received(to_client)
        if is_client_done:
            self._client_side.eof_received()

    def end(self, code: int) -> None:
        """Close both sides; a WebSocket client is told why, behind the frame under way. Only the first call counts."""
        if self.is_ending:
            return
        self._ended_at = self._monotonic()
        self._code = code
        is_inside = self._boundary is not None and not self._boundary.is_between_frames
        if not is_inside or self._upstream_side.has_ended:
            self._tell()

    @property
    def is_ending(self) -> bool:
        """Whether nothing more passes, but for the rest of the upstream's frame."""
        return self._ended_at < inf

    def last_frame(self, data: bytes) -> None:
        """Let the upstream's frame come to its end, behind which the client can be told."""
        if self._has_told:
            return
        assert self._boundary is not None
        self._client.write(data[: self._boundary.feed(data, is_last=True)])
        if self._boundary.is_between_frames:
            self._tell()

    def _tell(self) -> None:
        self._has_told = True
        self._upstream.abort()
        if self._client.is_closing():
            return
        if self._boundary is not None and self._boundary.is_between_frames and not self._upstream_side.has_ended:
            self._client.write(close_frame(self._code))
        if not self._client.can_write_eof():
            self._client.close()
            return
        # What a client still sends is read and thrown away: closing at once would answer it with a reset, which can
        # overtake the reason.
        if not self._upstream_side.has_ended:
            self._client.write_eof()
        self._client.resume_reading()

    def sweep(self, now: float) -> None:
        """End a tunnel that is silent for too long; cut one whose client does not read its end."""
        if now >= self._ended_at + FLUSH_SECONDS:
            self._client.abort()
            self._upstream.abort()
        elif now >= self._active_at + self._idle_seconds:
            self.end(GOING_AWAY)

    def side_ended(self) -> None:
        """One side will send no more; with both, there is nothing left to wait for."""
        if self._client_side.has_ended and self._upstream_side.has_ended:
            self._client.close()
            self._upstream.close()

    def side_lost(self, other: Any) -> None:
        """One side's connection is gone, so the other one ends, but for a client that is being told why."""
        if other is not self._client or not self._has_told:
            other.close()
        self._open_sides -= 1
        if not self._open_sides:
            self._on_closed()

    def moved(self) -> None:
        """Bytes have passed."""
        self._active_at = self._monotonic()

    def take_bytes(self) -> tuple[int, int]:
        """How many bytes have come from the client, and from the upstream, since this was asked before."""
        taken = self._client_side.passed_bytes, self._upstream_side.passed_bytes
        self._client_side.passed_bytes = self._upstream_side.passed_bytes = 0
        return taken


class _Side(asyncio.Protocol):
    """Reads from its own transport and writes to the other."""

    def __init__(self, tunnel: Tunnel, own: Any, other: Any, boundary: FrameBoundary | None) -> None:
        self._tunnel = tunnel
        self._own = own
        self._other = other
        self._boundary = boundary
        self.has_ended = False
        self.passed_bytes = 0

    def data_received(self, data: bytes) -> None:
        self._tunnel.moved()
        if self._tunnel.is_ending:
            if self._boundary is not None:
                self._tunnel.last_frame(data)
            return
        if self._boundary is not None:
            self._boundary.feed(data)
        self.passed_bytes += len(data)
        self._other.write(data)

    def eof_received(self) -> bool:
        self.has_ended = True
        if self._other.is_closing() or not self._other.can_write_eof():
            return False
        self._other.write_eof()
        self._tunnel.side_ended()
        return bool(self._own.can_write_eof())  # TLS has no half-closed state, and would log that it was asked for

    def pause_writing(self) -> None:
        """Its transport takes no more: the other one is not read meanwhile."""
        if not self._other.is_closing():
            self._other.pause_reading()

    def resume_writing(self) -> None:
        if not self._other.is_closing():
            self._other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tunnel.side_lost(self._other)
