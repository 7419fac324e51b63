"""The origin behind every proxy: answers each request with the same document, as cheaply as Python can.

Under `/orders/1729/report` it is a long one. `GET /.seen` is answered with the last request that was marked as a
proof, so that what a proxy sent can be looked at. The port is printed on standard output once the socket listens.
"""

import asyncio
import re

import uvloop

from bench.workload import reply_body, report_body

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
PROOF_MARK = b"proof="  # in the query
_MARK_WITHIN_BYTES = 96
_CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)


def _reply(body: bytes, connection: bytes = b"") -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        b"Cache-Control: no-store\r\n%b\r\n%b" % (len(body), connection, body)
    )


class Origin(asyncio.Protocol):
    """One connection. Several requests may come in one segment, or one in several; a body has a length."""

    short = _reply(reply_body())
    long = _reply(report_body())
    last = _reply(reply_body(), b"Connection: close\r\n")

    def __init__(self, seen: list[bytes]) -> None:
        self._seen = seen
        self._rest = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        while data:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                break
            if not data.startswith(b"GET "):
                length = _LENGTH.search(data, 0, end)
                end += int(length[1]) if length else 0
                if len(data) < end:
                    break
            request, data = data[:end], data[end:]
            self._answer(request)
        self._rest = data

    def _answer(self, request: bytes) -> None:
        if request.startswith(b"GET /.seen "):
            self._transport.write(_reply(self._seen[0]))
            return
        if PROOF_MARK in request[:_MARK_WITHIN_BYTES]:
            self._seen[0] = request
        if b"onnection: " in request and _CLOSE.search(request):
            self._transport.write(self.last)
            self._transport.close()
        else:
            self._transport.write(self.long if b"/report?" in request[:_MARK_WITHIN_BYTES] else self.short)


async def serve() -> None:
    """Listen on a free loopback port until the process is told to stop."""
    seen = [b""]
    server = await asyncio.get_running_loop().create_server(lambda: Origin(seen), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
