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
FLUSH_SECONDS: Final = 2.0  # for a client to take the last bytes
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = re.compile(rb"(?:^|\r\n)sec-websocket-key:[ \t]*([A-Za-z0-9+/]{22}==)[ \t]*\r\n", re.IGNORECASE)
_ACCEPT: Final = re.compile(rb"\r\nsec-websocket-accept:[ \t]*([A-Za-z0-9+/=]*)[ \t]*\r\n", re.IGNORECASE)


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
        return not self.is_websocket or _ACCEPT.findall(response.start) == [answer]


def handshake(request: RequestHead, allowed: frozenset[bytes]) -> Handshake | None:
    """The switch to ask the upstream for, or None: then the request goes on as an ordinary one.

    A WebSocket needs exactly one well-formed key (RFC 6455 4.2.1).
    """
    upgrade = request.fields.upgrade
    if upgrade not in allowed or not request.body.is_complete or request.method != b"GET":
        return None
    if upgrade != WEBSOCKET:
        return Handshake(upgrade, b"")
    keys = _KEY.findall(request.fields.kept)
    return Handshake(upgrade, keys[0]) if len(keys) == 1 else None


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

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        position = 0
        while position < len(data):
            if self._payload:
                step = min(self._payload, len(data) - position)
                self._payload -= step
                position += step
                continue
            self._head += data[position : position + 1]
            position += 1
            self._read_head()

    def _read_head(self) -> None:
        head = self._head
        if len(head) < 2:
            return
        length, mask = head[1] & 0x7F, 4 if head[1] & 0x80 else 0
        extra = {126: 2, 127: 8}.get(length, 0)
        if len(head) == 2 + extra + mask:
            self._payload = int.from_bytes(head[2 : 2 + extra]) if extra else length
            self._head = b""


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
        self._client_side = _Side(self, upstream, None)
        self._upstream_side = _Side(self, client, self._boundary)

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
        """Close both sides; a WebSocket client is told why, if a frame can be put in. Only the first call counts."""
        if self._ended_at < inf:
            return
        self._ended_at = self._monotonic()
        can_tell = not self._upstream_side.has_ended and not self._client.is_closing()
        if can_tell and self._boundary is not None and self._boundary.is_between_frames:
            self._client.write(close_frame(code))
        self._client.close()
        self._upstream.abort()

    def sweep(self, now: float) -> None:
        """End a tunnel that is silent for too long; cut one whose client does not read its end."""
        if now >= self._ended_at + FLUSH_SECONDS:
            self._client.abort()
        elif now >= self._active_at + self._idle_seconds:
            self.end(GOING_AWAY)

    def side_ended(self) -> None:
        """One side will send no more; with both, there is nothing left to wait for."""
        if self._client_side.has_ended and self._upstream_side.has_ended:
            self._client.close()
            self._upstream.close()

    def side_lost(self) -> None:
        """One side's connection is gone."""
        self._open_sides -= 1
        if not self._open_sides:
            self._on_closed()

    def moved(self) -> None:
        """Bytes have passed."""
        self._active_at = self._monotonic()


class _Side(asyncio.Protocol):
    """Reads from one transport and writes to the other."""

    def __init__(self, tunnel: Tunnel, other: Any, boundary: FrameBoundary | None) -> None:
        self._tunnel = tunnel
        self._other = other
        self._boundary = boundary
        self.has_ended = False

    def data_received(self, data: bytes) -> None:
        self._tunnel.moved()
        if self._boundary is not None:
            self._boundary.feed(data)
        self._other.write(data)

    def eof_received(self) -> bool:
        self.has_ended = True
        if self._other.is_closing() or not self._other.can_write_eof():
            return False
        self._other.write_eof()
        self._tunnel.side_ended()
        return True

    def pause_writing(self) -> None:
        """Its transport takes no more: the other one is not read meanwhile."""
        if not self._other.is_closing():
            self._other.pause_reading()

    def resume_writing(self) -> None:
        if not self._other.is_closing():
            self._other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._other.close()
        self._tunnel.side_lost()
