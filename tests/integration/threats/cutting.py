"""A wire to a store that breaks after so many bytes, and remembers what it carried."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from math import inf
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from gateway.embedded.server_process import HOST
from tests.fixtures.ports import free_port

Side = Literal["requests", "replies"]


@dataclass(eq=False)
class Link:
    """One connection through the wire: what has passed since the wire was last armed or disarmed."""

    carried: dict[Side, bytearray] = field(default_factory=lambda: {"requests": bytearray(), "replies": bytearray()})


class CuttingWire:
    """A TCP proxy on loopback in front of the server that `url` names; `url` afterwards names the proxy.

    While it is armed, each connection breaks, with a reset on both sides, once so many bytes have passed in one
    direction; those that stood before count from the arming.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.port is not None
        self._server_port = parts.port
        self._port = free_port()
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{self._port}")))
        self.links: list[Link] = []
        self.cuts = 0
        self._side: Side = "replies"
        self._limit = inf
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "CuttingWire":
        self._server = await asyncio.start_server(self._accept, HOST, self._port)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def arm(self, side: Side, limit: float) -> None:
        """From now on break each connection after `limit` bytes in this direction."""
        self._side, self._limit = side, limit
        for link in self.links:
            link.carried = {"requests": bytearray(), "replies": bytearray()}

    def disarm(self) -> None:
        """From now on carry everything."""
        self.arm("replies", inf)

    def longest(self, side: Side) -> bytes:
        """The most that one connection has carried in this direction since the wire was armed or disarmed."""
        return bytes(max((link.carried[side] for link in self.links), key=len, default=b""))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        link = Link()
        self.links.append(link)
        from_server, to_server = await asyncio.open_connection(HOST, self._server_port)
        ways = [
            asyncio.create_task(self._copy(link, "requests", from_client, to_server)),
            asyncio.create_task(self._copy(link, "replies", from_server, to_client)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.links.remove(link)
            for way in ways:
                way.cancel()
            for writer in (to_client, to_server):
                writer.transport.abort()

    async def _copy(self, link: Link, side: Side, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                is_cut = self._side == side and len(link.carried[side]) >= self._limit
                data = b"" if is_cut else await reader.read(65_536)
                if self._side == side:
                    data = data[: max(0, int(min(self._limit - len(link.carried[side]), len(data))))]
                    is_cut = len(link.carried[side]) + len(data) >= self._limit
                link.carried[side] += data
                if data:
                    writer.write(data)
                    await writer.drain()
                if is_cut:
                    self.cuts += 1
                if is_cut or not data:
                    return
