"""WebSockets through the gateway: a real client and a real server of the `websockets` library."""

import asyncio
import base64
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from tests.conftest import StartGateway
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.raw_upstream import RawConnection, RawUpstream
from tests.fixtures.waiting import until

BREAK_OFF = "break off"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3


@dataclass
class EchoServer:
    """Echoes every message but BREAK_OFF; remembers the heads of its handshakes, and how each connection was closed."""

    port: int
    heads: list[dict[str, str]] = field(default_factory=list)
    closed: list[int | None] = field(default_factory=list)


@pytest.fixture
async def echo() -> AsyncIterator[EchoServer]:
    server: EchoServer

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        server.heads.append(dict(connection.request.headers.raw_items()))
        with contextlib.suppress(websockets.ConnectionClosed):
            async for message in connection:
                if message == BREAK_OFF:
                    connection.transport.abort()
                await connection.send(message)
        server.closed.append(connection.close_code)

    async with serve(handle, "127.0.0.1", 0, max_size=None, subprotocols=None) as listening:
        server = EchoServer(next(iter(listening.sockets)).getsockname()[1])
        yield server


@dataclass
class World:
    """A gateway in front of the echo server, and a key."""

    node: GatewayProcess
    echo: EchoServer
    token: str
    key: dict[str, Any]

    def connect(self, path: str = "/orders/socket", *, secret: str | None = None, **options: Any) -> connect:
        headers = {"Authorization": f"Bearer {secret or self.key['secret']}"}
        uri = f"ws://127.0.0.1:{self.node.proxy_port}{path}"
        return connect(uri, additional_headers=headers, max_size=None, proxy=None, **options)

    async def manage(self, method: str, path: str, body: dict[str, Any]) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"{self.node.admin_url}/v1{path}"
        async with aiohttp.request(method, url, json=body, headers=headers) as response:
            assert response.status in (200, 201), await response.text()
            return await response.json()

    async def make_key(self, name: str) -> dict[str, Any]:
        key: dict[str, Any] = await self.manage("POST", "/keys", {"user_id": "ada", "name": name})
        return key


@pytest.fixture
async def world(gateway: StartGateway, operator_token: str, echo: EchoServer) -> World:
    node = await gateway({"upstreams": {"orders": {"targets": [f"http://127.0.0.1:{echo.port}"]}}})
    world = World(node, echo, operator_token, {})
    await world.manage("POST", "/tenants", {"id": "acme", "name": "Acme"})
    await world.manage("PUT", "/users/ada", {"tenant_id": "acme"})
    await world.manage("PUT", "/users/ada/entitlement", {"plan": "starter"})
    world.key = await world.make_key("first")
    return world


async def roundtrip(socket: ClientConnection, message: str | bytes) -> None:
    await socket.send(message)
    assert await socket.recv() == message


async def test_messages_pass_both_ways(world: World) -> None:
    """Text, binary, empty and fragmented messages, pings, and ten megabytes come back as they went."""
    async with world.connect() as socket:
        for message in ("hello", b"\x00\xff", "", "é" * 1000, secrets.token_bytes(10_000_000)):
            await roundtrip(socket, message)
        await socket.send(["in ", "three ", "fragments"])
        assert await socket.recv() == "in three fragments"
        await asyncio.wait_for(await socket.ping(), 5)


async def test_upstream_is_told_who_is_calling(world: World) -> None:
    """The handshake carries the identity and not the credential; extensions and subprotocols are untouched."""
    async with world.connect("/orders/a?b=c", compression="deflate") as socket:
        await roundtrip(socket, "x" * 100_000)
        assert [type(extension).__name__ for extension in socket.protocol.extensions] == ["PerMessageDeflate"]
    head = world.echo.heads[0]
    assert head["X-User-Id"] == "ada"
    assert "Authorization" not in head
    assert "permessage-deflate" in head["Sec-WebSocket-Extensions"]


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_close_codes_pass(world: World, code: int) -> None:
    """The code with which a client closes reaches the upstream, and the upstream's answer the client."""
    async with world.connect() as socket:
        await socket.close(code)
        assert socket.close_code == code
    await until(lambda: world.echo.closed == [code])


@pytest.mark.threat("upgrade without a switch")
async def test_handshake_without_a_key_reaches_nobody(world: World) -> None:
    """An upgrade is admitted like any request: refused, it is a 401 and the upstream saw nothing."""
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with world.connect(secret="ost_test_nonsense"):
            pass
    assert refused.value.response.status_code == 401
    assert world.echo.heads == []


@pytest.mark.threat("streams of a revoked key")
async def test_socket_of_a_revoked_key_is_closed(world: World) -> None:
    """Within the bound a revoked key's socket gets close code 1008; another key's lives on. R197."""
    other = await world.make_key("second")
    async with world.connect() as doomed, world.connect(secret=other["secret"]) as unrelated:
        await roundtrip(doomed, "before")
        await world.manage("POST", f"/keys/{world.key['id']}/revoke", {"reason": "test"})
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(doomed.recv(), 5)
        assert doomed.close_code == 1008
        await roundtrip(unrelated, "after")


@pytest.mark.threat("streams of a revoked key")
@pytest.mark.parametrize("size", [10_000, 1_000_000])
async def test_busy_sockets_are_told_as_well(world: World, size: int) -> None:
    """Sockets in the middle of messages, both ways, get close code 1008 too, and not a reset. R197."""
    message = secrets.token_bytes(size)

    async def keep_busy(socket: ClientConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await socket.send(message)
                assert await socket.recv() == message

    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(world.connect(compression=None)) for _ in range(6)]
        talks = asyncio.gather(*map(keep_busy, sockets))
        await world.manage("POST", f"/keys/{world.key['id']}/revoke", {"reason": "test"})
        await asyncio.wait_for(talks, 10)
        assert [socket.close_code for socket in sockets] == [1008] * 6


@pytest.mark.threat("streams of a revoked key")
async def test_socket_of_an_expiring_key_is_closed(world: World) -> None:
    """A key that expires while its socket is open takes it along. R197."""
    async with world.connect() as socket:
        await roundtrip(socket, "before")
        rotated = await world.manage("POST", f"/keys/{world.key['id']}/rotate", {"grace_seconds": 1})
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 10)
        assert socket.close_code == 1008
        async with world.connect(secret=rotated["secret"]) as renewed:
            await roundtrip(renewed, "with the new secret")


async def test_stopping_gateway_says_that_it_is_going(world: World) -> None:
    """SIGTERM closes sockets with 1001."""
    async with world.connect() as socket:
        await roundtrip(socket, "before")
        assert await world.node.stop() == 0
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1001


async def test_lost_upstream_ends_the_socket(world: World) -> None:
    """A client whose upstream breaks off learns it at once."""
    async with world.connect() as socket:
        await roundtrip(socket, "before")
        await socket.send(BREAK_OFF)
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 5)


async def test_half_closed_tunnel_ends_and_nothing_else_does(gateway: StartGateway) -> None:
    """An upstream that has sent its end, and a client that stays, are parted; other deadlines go on being kept."""
    async with RawUpstream() as upstream:

        async def switch_and_end(connection: RawConnection) -> None:
            await connection.head()
            answer = base64.b64encode(hashlib.sha1(KEY + GUID).digest())
            await connection.send(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Accept: " + answer + b"\r\n\r\n\x88\x02\x03\xe8"
            )
            await connection.close()

        upstream.script = switch_and_end
        config = {"targets": [upstream.url], "timeouts": {"idle": 1}}
        node = await gateway({"upstreams": {"orders": config}, "client": {"head_timeout_seconds": 1}})
        reader, writer = await asyncio.open_connection("127.0.0.1", node.proxy_port)
        writer.write(
            b"GET /public HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
        )
        assert (await asyncio.wait_for(reader.read(), 10)).endswith(b"\x88\x02\x03\xe8")
        await asyncio.sleep(2)  # past the tunnel's idle time, with the client still there
        idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", node.proxy_port)
        assert await asyncio.wait_for(idle_reader.read(), 5) == b"", "the sweep still closes who says nothing"
        assert "unforeseen" not in node.log
        for open_writer in (writer, idle_writer):
            open_writer.close()
