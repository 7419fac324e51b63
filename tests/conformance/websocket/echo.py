"""Servers that echo, of two libraries; those of `websockets` note what they saw."""

import contextlib
import hashlib
import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp.web
from websockets import ConnectionClosed
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from gateway.embedded.server_process import HOST
from tests.fixtures.waiting import until

OFFERED: Final = ("Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Sec-WebSocket-Version", "Origin")


def digest(messages: Sequence[str | bytes]) -> str:
    """Equal for equal messages in the same order."""
    whole = hashlib.sha256()
    for message in messages:
        data = message.encode() if isinstance(message, str) else message
        whole.update(b"%d %d " % (isinstance(message, str), len(data)))
        whole.update(data)
    return whole.hexdigest()


@dataclass(frozen=True)
class Seen:
    """A connection that has ended, as the server saw it. `code` and `reason` are of the client's close frame."""

    offered: tuple[tuple[str, str], ...]
    messages: str
    count: int
    code: int | None
    reason: str | None


@dataclass
class EchoServer:
    """Echoes; a message that begins with `!` is an order: `!close 1000 why`, `!drop`, `!reset`."""

    ended: dict[str, Seen] = field(default_factory=dict)  # by the target of the handshake
    _server: Server | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @asynccontextmanager
    async def serving(self, options: Mapping[str, Any]) -> AsyncIterator["EchoServer"]:
        """Serve until the end of the block; `options` are the library's."""
        async with serve(self._echo, HOST, 0, max_size=None, ping_interval=None, **options) as self._server:
            yield self

    async def seen(self, target: str) -> Seen:
        """The connection whose handshake was for `target`, once it has ended."""
        await until(lambda: target in self.ended, what=f"the server to see the end of {target}")
        return self.ended[target]

    async def _echo(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        headers = connection.request.headers
        messages: list[str | bytes] = []
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                messages.append(message)
                if isinstance(message, str) and message.startswith("!"):
                    await _obey(connection, message)
                else:
                    await connection.send(message)
        await connection.wait_closed()
        offered = tuple((name, value) for name in OFFERED for value in headers.get_all(name))
        received = connection.protocol.close_rcvd
        code, reason = (None, None) if received is None else (received.code, received.reason)
        self.ended[connection.request.path] = Seen(offered, digest(messages), len(messages), code, reason)


async def _obey(connection: ServerConnection, order: str) -> None:
    verb, _, rest = order.partition(" ")
    if verb == "!close":
        code, _, reason = rest.partition(" ")
        await connection.close(int(code), reason)
    elif verb == "!drop":
        connection.transport.close()
    else:
        assert verb == "!reset", order
        linger = struct.pack("ii", 1, 0)
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.transport.abort()


def _deflate(**options: Any) -> dict[str, Any]:
    return {"compression": None, "extensions": [ServerPerMessageDeflateFactory(**options)]}


SERVERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "plain": {"compression": None},
    "deflate": {"compression": "deflate"},
    "smallest-windows": _deflate(server_max_window_bits=9, client_max_window_bits=9),
    "no-takeover": _deflate(server_no_context_takeover=True, client_no_context_takeover=True),
    "protocols": {"compression": None, "subprotocols": ["chat.v2", "chat.v1"]},
}


@asynccontextmanager
async def autobahn_server() -> AsyncIterator[int]:
    """An echo server of aiohttp's, without limits, as the Autobahn cases want it. Yields its port."""

    async def echo(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        socket = aiohttp.web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    application = aiohttp.web.Application()
    application.router.add_get("/autobahn", echo)
    runner = aiohttp.web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = aiohttp.web.TCPSite(runner, HOST, 0)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
