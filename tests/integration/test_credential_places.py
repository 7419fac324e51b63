"""Keys of callers that can set no header: in the query, and in a WebSocket's subprotocols."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from tests.conftest import StartGateway
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import Caller, plant
from tests.fixtures.upstream import RecordingUpstream

PLACES = [{"header": "Authorization"}, {"query": "api_key"}, {"websocket_protocol": "ostiary-key"}]


@pytest.fixture
async def caller(postgres_dsn: str) -> Caller:
    return await plant(postgres_dsn)


async def ask(node: GatewayProcess, target: str, **headers: str) -> int:
    async with aiohttp.request("GET", node.proxy_url + target, headers=headers) as response:
        await response.read()
        return response.status


async def test_a_key_in_the_query(gateway: StartGateway, upstream: RecordingUpstream, caller: Caller) -> None:
    """A configured parameter admits, whenever it is sent, and neither upstream nor log ever sees it. R005."""
    node = await gateway({"credentials": PLACES})
    for _ in range(3):
        assert await ask(node, f"/orders/1?api_key={caller.secret}&page=2") == 200
    assert [request.target for request in upstream.requests] == ["/orders/1?page=2"] * 3
    assert upstream.last.header("X-User-Id") == caller.user_id
    assert await ask(node, "/orders/1?page=2") == 401
    assert await ask(node, f"/orders/1?api_key={caller.secret[:-1]}x") == 401
    assert await ask(node, f"/orders/1?api_key={caller.secret}", Authorization="Bearer x") == 400
    assert len(upstream.requests) == 3
    assert await ask(node, f"/public?x=1&api_key={caller.secret}") == 200
    assert upstream.last.target == "/public?x=1"
    assert caller.secret not in node.log


async def test_a_query_is_no_place_by_default(
    gateway: StartGateway, upstream: RecordingUpstream, caller: Caller
) -> None:
    """Where the place is not configured, a key in the query is no credential. R005."""
    node = await gateway()
    assert await ask(node, f"/orders/1?api_key={caller.secret}") == 401
    assert not upstream.requests


class SocketServer:
    """Tells each client which subprotocols it has offered; chooses `chat` where it can."""

    def __init__(self) -> None:
        self.port = 0
        self.offers: list[str | None] = []

    async def handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.offers.append(connection.request.headers.get("Sec-WebSocket-Protocol"))
        with contextlib.suppress(websockets.ConnectionClosed):
            await connection.send(connection.request.headers.get("X-User-Id", "nobody"))
            async for message in connection:
                await connection.send(message)


def choose(connection: ServerConnection, offered: object) -> Subprotocol | None:
    return Subprotocol("chat") if isinstance(offered, list | tuple) and "chat" in offered else None


@pytest.fixture
async def sockets() -> AsyncIterator[SocketServer]:
    server = SocketServer()
    async with serve(server.handle, "127.0.0.1", 0, select_subprotocol=choose) as listening:
        server.port = next(iter(listening.sockets)).getsockname()[1]
        yield server


async def test_a_key_in_the_subprotocols(gateway: StartGateway, sockets: SocketServer, caller: Caller) -> None:
    """A browser puts its key behind the configured name; the upstream is offered the others. R005."""
    upstreams = {"orders": {"targets": [f"http://127.0.0.1:{sockets.port}"]}}
    node = await gateway({"credentials": PLACES, "upstreams": upstreams})
    for offers, chosen, told in (
        (["ostiary-key", caller.secret], "ostiary-key", None),
        (["ostiary-key", caller.secret, "chat"], "chat", "chat"),
        (["other", "ostiary-key", caller.secret], "ostiary-key", "other"),
    ):
        url = f"ws://127.0.0.1:{node.proxy_port}/orders/socket"
        protocols = [Subprotocol(offer) for offer in offers]
        async with asyncio.timeout(10), connect(url, subprotocols=protocols, proxy=None) as connection:
            assert connection.subprotocol == chosen
            assert await connection.recv() == caller.user_id
            await connection.send("through")
            assert await connection.recv() == "through"
        assert sockets.offers[-1] == told
    assert caller.secret not in node.log


@pytest.mark.parametrize(
    "offers",
    [
        pytest.param(["ostiary-key", "nonsense"], id="a useless key"),
        pytest.param(["ostiary-key"], id="no key behind the name"),
        pytest.param(["chat"], id="no name"),
    ],
)
async def test_a_socket_without_a_good_key(gateway: StartGateway, sockets: SocketServer, offers: list[str]) -> None:
    """Without a good key the handshake is refused, and the upstream sees nothing. R010."""
    upstreams = {"orders": {"targets": [f"http://127.0.0.1:{sockets.port}"]}}
    node = await gateway({"credentials": PLACES, "upstreams": upstreams})
    url = f"ws://127.0.0.1:{node.proxy_port}/orders/socket"
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(url, subprotocols=[Subprotocol(offer) for offer in offers], proxy=None)
    assert refused.value.response.status_code == 401
    assert not sockets.offers
