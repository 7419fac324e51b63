"""An origin of server-sent events: every GET is answered with a stream that does not end.

Each has an event at once. On `SLOW` one a second follows, at moments of its own; on `FAST` as many as are taken, once
so many streams stand as the command line says. The port is printed on standard output once the socket listens.
"""

import asyncio
import random
import sys

import uvloop

SLOW, FAST = "/orders/slow", "/orders/fast"
MARK = b"~"  # stands in every event once, and nowhere else
_EVENT = b'id: 1729\ndata: {"order": 1729, "status": "shipped", "note": "' + b"x" * 80 + b'"}' + MARK + b"\n\n"
_CHUNK = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


class Stream(asyncio.Protocol):
    """One connection with one stream."""

    def __init__(self, fast: "set[Stream]", count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._fast = fast
        self._count = count
        self._is_paused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Begin. The request is in one piece, and the only one."""
        self._transport.write(_HEAD + _CHUNK)
        if not data.startswith(b"GET " + FAST.encode()):
            self._loop.call_later(random.random(), self._say_slowly)
            return
        self._fast.add(self)
        if len(self._fast) == self._count:
            for stream in self._fast:
                self._loop.call_soon(stream.say_fast)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody listens any more."""
        self._fast.discard(self)

    def pause_writing(self) -> None:
        """Say no more for now."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._is_paused = False
        self.say_fast()

    def _say_slowly(self) -> None:
        if not self._transport.is_closing():
            self._loop.call_later(1.0, self._say_slowly)
            self._transport.write(_CHUNK)

    def say_fast(self) -> None:
        """An event, and another one in the next turn of the loop, unless the last ones have not been taken."""
        if self in self._fast and not self._is_paused:
            self._loop.call_soon(self.say_fast)
            self._transport.write(_CHUNK)


async def serve(count: int) -> None:
    """Listen on a free loopback port until the process is told to stop."""
    fast: set[Stream] = set()
    server = await asyncio.get_running_loop().create_server(lambda: Stream(fast, count), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
