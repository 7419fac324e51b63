"""What large bodies and WebSocket messages are made of. Shared by their origin and their load generator."""

import base64
import hashlib
import zlib

BLOCK = bytes(range(256)) * 4096  # 1 MiB
MESSAGE_BYTES = 64
CLIENT_FRAME_BYTES = 2 + 4 + MESSAGE_BYTES
SERVER_FRAME_BYTES = 2 + MESSAGE_BYTES
# A text frame of `MESSAGE_BYTES`. The mask is zero: legal, and nobody has to unmask.
CLIENT_FRAME_HEAD = b"\x81" + bytes([0x80 | MESSAGE_BYTES]) + bytes(4)
SERVER_FRAME_HEAD = b"\x81" + bytes([MESSAGE_BYTES])
SOCKET_KEY = base64.b64encode(bytes(16)).decode()
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3


def checksum(count: int) -> int:
    """Return the CRC-32 of the first `count` bytes of a body, which is `BLOCK` again and again."""
    crc = 0
    for start in range(0, count, len(BLOCK)):
        crc = zlib.crc32(memoryview(BLOCK)[: count - start], crc)
    return crc


def accept_for(key: str) -> str:
    """Return the `Sec-WebSocket-Accept` for `key` (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def message(number: int) -> bytes:
    """Return the text of one message; no two of a connection are the same."""
    return b"%0*d" % (MESSAGE_BYTES, number)
