"""The origin of the transfers: a body of any length down, a body of any length up, an echo for WebSockets.

`GET /orders/bytes?N` brings N bytes. `POST /orders/bytes` is answered with their number, and behind `?check` with
their CRC-32 too. A WebSocket gets every text message back, as `transfer_workload` frames them. One thread a
connection. The port is printed on standard output once the socket listens.
"""

import re
import socket
import threading
import zlib

from bench.transfer_workload import (
    BLOCK,
    CLIENT_FRAME_BYTES,
    CLIENT_FRAME_HEAD,
    SERVER_FRAME_HEAD,
    accept_for,
)

_GET = re.compile(rb"GET /orders/bytes\?([0-9]+) ")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_KEY = re.compile(rb"\r\nsec-websocket-key: *(\S+)\r\n", re.IGNORECASE)
_RECEIVE_BYTES = 262_144


def _send_body(connection: socket.socket, count: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % count)
    block = memoryview(BLOCK)
    for start in range(0, count, len(BLOCK)):
        connection.sendall(block[: count - start])


def _take_body(connection: socket.socket, early: bytes, count: int, *, is_checked: bool) -> None:
    buffer = memoryview(bytearray(_RECEIVE_BYTES))
    missing, crc = count - len(early), zlib.crc32(early)
    while missing:
        size = connection.recv_into(buffer, min(missing, len(buffer)))
        if not size:
            return
        missing -= size
        if is_checked:
            crc = zlib.crc32(buffer[:size], crc)
    reply = b"%d %d" % (count, crc if is_checked else 0)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(reply) + reply)


def _echo(connection: socket.socket, key: str) -> None:
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_for(key).encode()
    )
    rest = b""
    while data := connection.recv(_RECEIVE_BYTES):
        data = rest + data
        end = len(data) - len(data) % CLIENT_FRAME_BYTES
        rest = data[end:]
        frames = [data[start : start + CLIENT_FRAME_BYTES] for start in range(0, end, CLIENT_FRAME_BYTES)]
        if not all(frame.startswith(CLIENT_FRAME_HEAD) for frame in frames):
            return  # somebody has changed them
        connection.sendall(b"".join(SERVER_FRAME_HEAD + frame[len(CLIENT_FRAME_HEAD) :] for frame in frames))


def _serve(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = b""
    with connection:
        while True:
            while b"\r\n\r\n" not in data:
                received = connection.recv(_RECEIVE_BYTES)
                if not received:
                    return None
                data += received
            head, _, data = data.partition(b"\r\n\r\n")
            head += b"\r\n"
            length = _LENGTH.search(head)
            if (key := _KEY.search(head)) is not None:
                return _echo(connection, key[1].decode())
            if (wanted := _GET.match(head)) is not None:
                _send_body(connection, int(wanted[1]))
            elif length is not None:
                _take_body(connection, data, int(length[1]), is_checked=b"?check " in head)
                data = b""
            else:
                return None


def _answer(connection: socket.socket) -> None:
    try:
        _serve(connection)
    except ConnectionError:
        return  # the proxy has ended it


def serve() -> None:
    """Listen on a free loopback port until the process is told to stop."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    serve()
