"""A wire between the gateway and the upstream: it remembers what passes, and can hold either direction back."""

import asyncio
import contextlib
from dataclasses import dataclass

from gateway.embedded.server_process import HOST

HEAD_END = b"\r\n\r\n"
READ_BYTES = 65_536


@dataclass
class Hold:
    """Let the head and `body_bytes` after it pass, nothing more until `released` is set."""

    body_bytes: int
    released: asyncio.Event


class Direction:
    """What passes one way. `seen` has come to the tap, `passed` counts the bytes that have left it."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.passed = 0
        self._hold: Hold | None = None

    def forget(self) -> None:
        """Begin anew: the next byte is the first of a head. Lets go of what is held."""
        self.release()
        self.seen.clear()
        self.passed = 0

    def hold_after(self, body_bytes: int) -> None:
        """Stop the next message that many bytes behind its head."""
        self._hold = Hold(body_bytes, asyncio.Event())

    def release(self) -> None:
        """Let everything pass."""
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.released.set()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes until the reader's end. While held, nothing is read: the sender feels it."""
        while data := await reader.read(READ_BYTES):
            self.seen += data
            while data:
                part = data[: self._room()]
                writer.write(part)
                self.passed += len(part)
                await writer.drain()
                data = data[len(part) :]
                if data and self._hold is not None:
                    await self._hold.released.wait()

    def _room(self) -> int:
        if self._hold is None:
            return READ_BYTES
        end = self.seen.find(HEAD_END)
        limit = len(self.seen) if end < 0 else end + len(HEAD_END) + self._hold.body_bytes
        return max(0, limit - self.passed)


class Tap:
    """Listens on `url` and passes everything on to the upstream's `port`. For one exchange at a time."""

    def __init__(self, upstream_port: int) -> None:
        self.request = Direction()
        self.reply = Direction()
        self.connections = 0
        self.url = ""
        self._upstream_port = upstream_port
        self._server: asyncio.Server | None = None
        self._carriers: set[asyncio.Task[None]] = set()

    def forget(self) -> None:
        """Begin anew, for the next exchange."""
        self.request.forget()
        self.reply.forget()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.url = f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        self.forget()
        assert self._server is not None, "not started"
        self._server.close()
        for carrier in list(self._carriers):
            carrier.cancel()
        await asyncio.gather(*self._carriers, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        carrier = asyncio.ensure_future(self._carry(reader, writer))
        self._carriers.add(carrier)
        carrier.add_done_callback(self._carriers.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(HOST, self._upstream_port)
        pumps = (
            asyncio.ensure_future(self.request.pump(reader, up_writer)),
            asyncio.ensure_future(self.reply.pump(up_reader, writer)),
        )
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (up_writer, writer):
                end.close()
                with contextlib.suppress(ConnectionError):
                    await end.wait_closed()
