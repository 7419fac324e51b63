"""The origin behind every proxy: answers each GET with the same document, as cheaply as Python can.

`GET /.seen` is answered with the head of the request before it, so that what a proxy sent can be looked at.
The port is printed on standard output once the socket listens.
"""

import asyncio

import uvloop

from bench.workload import reply_body


class Origin(asyncio.Protocol):
    """One connection. Requests have no body; several may come in one segment, or one in several."""

    def __init__(self, reply: bytes, seen: list[bytes]) -> None:
        self._reply = reply
        self._seen = seen
        self._rest = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every head that is complete."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not data.endswith(b"\r\n\r\n"):
            data, separator, self._rest = data.rpartition(b"\r\n\r\n")
            data += separator
            if not data:
                return
        if data.startswith(b"GET /.seen "):
            last = self._seen[0]
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(last) + last
            )
            return
        self._seen[0] = data
        self._transport.write(self._reply * data.count(b"\r\n\r\n"))


async def serve() -> None:
    """Listen on a free loopback port until the process is told to stop."""
    body = reply_body()
    reply = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        b"Cache-Control: no-store\r\n\r\n" % len(body)
    ) + body
    seen = [b""]
    server = await asyncio.get_running_loop().create_server(lambda: Origin(reply, seen), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
