"""The wire between one node and one of its stores, which can be slow, hold back, fall silent, and lose."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from gateway.embedded.server_process import HOST
from tests.fixtures.ports import free_port

Side = Literal["requests", "replies"]


@dataclass(eq=False)
class Held:
    """What is waited for on a wire, and is held back once it has come: on one connection, in one direction."""

    marker: bytes
    side: Side
    caught: asyncio.Event = field(default_factory=asyncio.Event)
    _released: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: tuple[asyncio.StreamWriter, ...] = ()

    def release(self) -> None:
        """Let it go where it was going."""
        self._released.set()

    def lose(self) -> None:
        """Break the connection; what was held never arrives."""
        for writer in self._writers:
            writer.transport.abort()
        self._released.set()

    async def wait_until_caught(self, seconds: float = 5.0) -> None:
        """Return once it has come. Fails after `seconds`."""
        async with asyncio.timeout(seconds):
            await self.caught.wait()

    def catch(self, *writers: asyncio.StreamWriter) -> None:
        """It has come."""
        self._writers = writers
        self.caught.set()

    async def wait_until_released(self) -> None:
        """Return once it may go on."""
        await self._released.wait()


class Wire:
    """A TCP proxy on loopback in front of the server that `url` names. `url` afterwards names the proxy."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.port is not None
        self._server_port = parts.port
        self._port = free_port()
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{self._port}")))
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self.delay_seconds = 0.0  # what each reply comes later by
        self._waiting: list[Held] = []
        self._links: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._link, HOST, self._port)

    async def stop(self) -> None:
        """Cut everything."""
        assert self._server is not None
        self._server.close()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)
        await self._server.wait_closed()

    def silence(self) -> None:
        """From now on nothing passes, in either direction; connections stand, and new ones seem to."""
        self._open.clear()

    def restore(self) -> None:
        """Undo `silence`: what was kept back arrives."""
        self._open.set()

    def hold_request(self, marker: bytes) -> Held:
        """Hold the next bytes towards the server that contain `marker`, and what follows them on their connection."""
        return self._hold(Held(marker, "requests"))

    def hold_reply(self, marker: bytes) -> Held:
        """Let the next bytes with `marker` through to the server, and hold what it answers on their connection."""
        return self._hold(Held(marker, "replies"))

    def _hold(self, held: Held) -> Held:
        self._waiting.append(held)
        return held

    def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.ensure_future(self._carry(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _carry(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            await self._open.wait()
            from_server, to_server = await asyncio.open_connection(HOST, self._server_port)
        except OSError:
            to_client.transport.abort()
            return
        on_replies: list[Held] = []
        try:
            await asyncio.gather(
                self._carry_requests(from_client, to_server, to_client, on_replies),
                self._carry_replies(from_server, to_client, on_replies),
            )
        finally:
            to_client.transport.abort()
            to_server.transport.abort()

    async def _carry_requests(
        self,
        from_client: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        to_client: asyncio.StreamWriter,
        on_replies: list[Held],
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await _read(from_client):
                held = next((held for held in self._waiting if held.marker in data), None)
                if held is not None:
                    self._waiting.remove(held)
                    held.catch(to_client, to_server)
                    if held.side == "requests":
                        await held.wait_until_released()
                    else:
                        on_replies.append(held)
                await self._open.wait()
                to_server.write(data)
                await to_server.drain()
            to_server.write_eof()

    async def _carry_replies(
        self, from_server: asyncio.StreamReader, to_client: asyncio.StreamWriter, on_replies: list[Held]
    ) -> None:
        # A client that has left does not stop its last request: that was sent already.
        while data := await _read(from_server):
            for held in on_replies:
                await held.wait_until_released()
            await self._open.wait()
            await asyncio.sleep(self.delay_seconds)
            with contextlib.suppress(ConnectionError):
                to_client.write(data)
                await to_client.drain()
        if not to_client.transport.is_closing():
            with contextlib.suppress(OSError):
                to_client.write_eof()


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65536)
    except ConnectionError:
        return b""
