"""WebSocket frames by hand, well-formed or not, and the handshake in front of them (RFC 6455)."""

import base64
import hashlib
from enum import IntEnum
from itertools import cycle

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # 1.3
MASK = b"\xa1\x02\x7f\xff"
ASKING = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n"
)


class Op(IntEnum):
    """What a frame is (5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


def frame(
    op: int,
    payload: bytes = b"",
    *,
    mask: bytes = b"",
    is_final: bool = True,
    reserved: int = 0,
    width: int | None = None,
) -> bytes:
    """A frame. `mask` is of four bytes or none; `width` is that of the extended length, where not the shortest."""
    size = len(payload)
    if width is None:
        width = 0 if size < 126 else 2 if size < 65_536 else 8
    length = {0: size, 2: 126, 8: 127}[width]
    first = is_final << 7 | reserved << 4 | op
    if mask:
        payload = bytes(byte ^ key for byte, key in zip(payload, cycle(mask), strict=False))
    return bytes([first, bool(mask) << 7 | length]) + size.to_bytes(8)[8 - width :] + mask + payload


def close(code: int, reason: bytes = b"", *, mask: bytes = b"") -> bytes:
    """A close frame (5.5.1)."""
    return frame(Op.CLOSE, code.to_bytes(2) + reason, mask=mask)
