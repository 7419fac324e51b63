"""The load of the transfers: one body down or up, or WebSocket messages that come back.

Reads one JSON document on standard input, so that no secret stands in a command line: `what` (`download`, `upload` or
`messages`), `port`, `secret`, `count` (of bytes or messages), `connections`, `window`, `is_checked`. Prints one:
`{"seconds", "crc"}`. Ends with 1 and a line on standard error when anything is not as it must be.
"""

import asyncio
import json
import socket
import sys
import time
import zlib
from collections.abc import Callable

import uvloop

from bench.transfer_workload import (
    BLOCK,
    CLIENT_FRAME_HEAD,
    SERVER_FRAME_BYTES,
    SERVER_FRAME_HEAD,
    SOCKET_KEY,
    accept_for,
    message,
)

_RECEIVE_BYTES = 262_144
_CONNECT_SECONDS = 10.0


class LoadError(Exception):
    """The proxy did not carry what it was given."""


def _head(start: str, port: int, secret: str, *fields: str) -> bytes:
    lines = [start, f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {secret}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(_RECEIVE_BYTES)
        if not received:
            raise LoadError(f"the connection ended inside a head: {data!r}")
        data += received
    head, _, rest = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise LoadError(f"answered by {head[:100]!r}")
    return head, rest


def download(port: int, secret: str, count: int, *, is_checked: bool) -> int:
    """Fetch `count` bytes; return their CRC-32, or 0 where it is not wanted."""
    with socket.create_connection(("127.0.0.1", port), _CONNECT_SECONDS) as connection:
        connection.settimeout(None)
        connection.sendall(_head(f"GET /orders/bytes?{count} HTTP/1.1", port, secret))
        _, early = _read_head(connection)
        buffer = memoryview(bytearray(_RECEIVE_BYTES))
        missing, crc = count - len(early), zlib.crc32(early)
        while missing:
            size = connection.recv_into(buffer, min(missing, len(buffer)))
            if not size:
                raise LoadError(f"{missing} bytes are missing")
            missing -= size
            if is_checked:
                crc = zlib.crc32(buffer[:size], crc)
        return crc if is_checked else 0


def upload(port: int, secret: str, count: int, *, is_checked: bool) -> int:
    """Send `count` bytes; return the CRC-32 that the origin read, or 0 where it is not wanted."""
    with socket.create_connection(("127.0.0.1", port), _CONNECT_SECONDS) as connection:
        connection.settimeout(None)
        target = "/orders/bytes?check" if is_checked else "/orders/bytes"
        connection.sendall(_head(f"POST {target} HTTP/1.1", port, secret, f"Content-Length: {count}"))
        block = memoryview(BLOCK)
        for start in range(0, count, len(BLOCK)):
            connection.sendall(block[: count - start])
        _, reply = _read_head(connection)
        while len(reply.split()) < 2:
            reply += connection.recv(_RECEIVE_BYTES)
        arrived, crc = map(int, reply.split())
        if arrived != count:
            raise LoadError(f"{arrived} of {count} bytes arrived")
        return crc


class Socket(asyncio.Protocol):
    """One WebSocket, up to `window` messages under way. `end` learns when all are back, or why they will not be."""

    def __init__(self, head: bytes, count: int, window: int, end: asyncio.Future[None]) -> None:
        self._head = head
        self._count = count
        self._window = window
        self._end = end
        self._sent = self._returned = 0
        self._buffer = b""
        self._is_open = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask for the switch."""
        self._transport = transport
        transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        """Compare what came back, and send as many messages again."""
        data = self._buffer + data
        if not self._is_open:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._buffer = head
                return
            if not head.startswith(b"HTTP/1.1 101") or accept_for(SOCKET_KEY).encode() not in head:
                self._fail(f"answered by {head!r}")
                return
            self._is_open = True
            self._send(self._window)
        whole = len(data) // SERVER_FRAME_BYTES
        for position in range(whole):
            start = position * SERVER_FRAME_BYTES
            if data[start : start + SERVER_FRAME_BYTES] != SERVER_FRAME_HEAD + message(self._returned):
                self._fail(f"message {self._returned} came back changed")
                return
            self._returned += 1
        self._buffer = data[whole * SERVER_FRAME_BYTES :]
        if self._returned == self._count:
            self._end.set_result(None)
            self._transport.close()
        else:
            self._send(whole)

    def _send(self, count: int) -> None:
        last = min(self._sent + count, self._count)
        self._transport.write(b"".join(CLIENT_FRAME_HEAD + message(number) for number in range(self._sent, last)))
        self._sent = last

    def _fail(self, what: str) -> None:
        if not self._end.done():
            self._end.set_exception(LoadError(what))

    def connection_lost(self, exc: Exception | None) -> None:
        """Messages that are missing now stay so."""
        self._fail(f"the connection ended behind message {self._returned}: {exc}")


async def messages(port: int, secret: str, count: int, connections: int, window: int) -> None:
    """Send `count` messages over `connections` sockets; return when all have come back."""
    loop = asyncio.get_running_loop()
    head = _head(
        "GET /orders/socket HTTP/1.1",
        port,
        secret,
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {SOCKET_KEY}",
    )
    ends: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]

    def socket_for(end: asyncio.Future[None]) -> Callable[[], Socket]:
        return lambda: Socket(head, count // connections, window, end)

    for end in ends:
        await loop.create_connection(socket_for(end), "127.0.0.1", port)
    await asyncio.gather(*ends)


def main() -> int:
    """Read the order, carry it out, print the figures."""
    order = json.load(sys.stdin)
    port, secret, count = order["port"], order["secret"], order["count"]
    started, crc = time.perf_counter(), 0
    try:
        if order["what"] == "messages":
            uvloop.run(messages(port, secret, count, order["connections"], order["window"]))
        else:
            carry = download if order["what"] == "download" else upload
            crc = carry(port, secret, count, is_checked=order["is_checked"])
    except (LoadError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"seconds": time.perf_counter() - started, "crc": crc}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
