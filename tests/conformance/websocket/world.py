"""Echo servers, a gateway in front of them, and the question whether it makes a difference."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Generic, TypeVar

from websockets.asyncio.client import connect

from gateway.embedded.server_process import HOST
from tests.conformance.websocket.echo import SERVERS, EchoServer, Seen, autobahn_server
from tests.conformance.websocket.frames import ASKING
from tests.fixtures.edge import Line
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import ENVIRONMENT, Caller, plant

Told = TypeVar("Told")


@dataclass(frozen=True)
class Way:
    """How a client gets to a server."""

    port: int
    path: str
    headers: Mapping[str, str]

    def connect(self, **options: Any) -> connect:
        """A client of the `websockets` library."""
        options = {"max_size": None, "ping_interval": None, "proxy": None, **options}
        return connect(f"ws://{HOST}:{self.port}{self.path}", additional_headers=self.headers, **options)

    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        """A raw client, behind its handshake; what it has received begins with the server's head."""
        line = Line(*await asyncio.open_connection(HOST, self.port))
        try:
            fields = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            head = f"GET {self.path} HTTP/1.1\r\nHost: gw.test\r\n{fields}".encode()
            await line.send(head + ASKING + b"\r\n")
            await line.until(lambda received: b"\r\n\r\n" in received)
            assert line.received.startswith(b"HTTP/1.1 101 "), line.received
            yield line
        finally:
            await line.close()


@dataclass(frozen=True)
class Outcome(Generic[Told]):
    """What came of a connection: what the client tells, and what the server saw."""

    told: Told
    seen: Seen


@dataclass(frozen=True)
class World:
    """A gateway in front of `servers`, each behind a route of its name that wants a key."""

    gateway: GatewayProcess
    caller: Caller
    servers: Mapping[str, EchoServer]
    autobahn_port: int
    _numbers: "count[int]" = field(default_factory=count)

    @property
    def autobahn_urls(self) -> tuple[str, str]:
        """The server for the Autobahn cases, directly and through the gateway."""
        through = f"ws://{HOST}:{self.gateway.proxy_port}/autobahn?key={self.caller.secret}"
        return f"ws://{HOST}:{self.autobahn_port}/autobahn", through

    def through(self, name: str) -> Way:
        """A way through the gateway, for one connection."""
        credential = {"Authorization": f"Bearer {self.caller.secret}"}
        return Way(self.gateway.proxy_port, f"/{name}?{next(self._numbers)}", credential)

    def past(self, name: str) -> Way:
        """A way past the gateway, for one connection."""
        return Way(self.servers[name].port, f"/{name}?{next(self._numbers)}", {})

    async def outcome(self, name: str, act: Callable[[Way], Awaitable[Told]]) -> Outcome[Told]:
        """What comes of `act`, one connection to the server `name`; it is the same directly and through the gateway."""
        outcomes = [
            Outcome(await act(way), await self.servers[name].seen(way.path))
            for way in (self.past(name), self.through(name))
        ]
        direct, through = outcomes
        assert through == direct, f"the gateway makes a difference:\n{through}, not\n{direct}"
        return through


@asynccontextmanager
async def standing(folder: Path, dsn: str) -> AsyncIterator[World]:
    """All of it, on a migrated database."""
    async with AsyncExitStack() as stack:
        caller = await plant(dsn)
        servers = {
            name: await stack.enter_async_context(EchoServer().serving(options)) for name, options in SERVERS.items()
        }
        autobahn_port = await stack.enter_async_context(autobahn_server())
        ports = {name: server.port for name, server in servers.items()} | {"autobahn": autobahn_port}
        config = {
            "environment": ENVIRONMENT,
            "postgres": {"dsn": dsn},
            "credentials": [{"header": "Authorization"}, {"query": "key"}],
            "upstreams": {name: {"targets": [f"http://{HOST}:{port}"]} for name, port in ports.items()},
            "routes": [{"name": name, "paths": [f"/{name}"], "upstream": name} for name in ports],
        }
        gateway = GatewayProcess(folder / "gateway", config)
        await gateway.start()
        try:
            yield World(gateway, caller, servers, autobahn_port)
        finally:
            assert await gateway.stop() == 0
