"""Streams through the gateway: they pass as they come, end with either side, and with their key."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.conftest import StartGateway
from tests.fixtures.connections import closed
from tests.fixtures.exposition import scraped
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.upstream import RecordingUpstream, Reply
from tests.fixtures.waiting import until


@dataclass
class Feed:
    """An upstream of server-sent events: `say` sends one to every listener, `left` counts listeners who went.

    `taken` is what uploads have brought, `finished` counts those that came to their end.
    """

    queues: list[asyncio.Queue[bytes]] = field(default_factory=list)
    resumed_from: list[str | None] = field(default_factory=list)
    left: int = 0
    taken: bytes = b""
    finished: int = 0

    def say(self, event: bytes) -> None:
        for queue in self.queues:
            queue.put_nowait(event)

    async def listen(self, request: web.Request) -> web.StreamResponse:
        self.resumed_from.append(request.headers.get("Last-Event-ID"))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.queues.append(queue)
        try:
            while event := await queue.get():
                await response.write(b"data: " + event + b"\n\n")
            assert request.transport is not None
            request.transport.abort()  # an empty event: break off
        finally:
            self.queues.remove(queue)
            self.left += 1
        return response

    async def take(self, request: web.Request) -> web.Response:
        async for piece in request.content.iter_any():
            self.taken += piece
        self.finished += 1
        return web.Response()


@dataclass
class World:
    node: GatewayProcess
    feed: Feed
    session: aiohttp.ClientSession
    token: str

    async def manage(self, method: str, path: str, body: dict[str, Any]) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"{self.node.admin_url}/v1{path}"
        async with self.session.request(method, url, json=body, headers=headers) as response:
            assert response.status in (200, 201), await response.text()
            return await response.json()

    async def key(self, name: str) -> Any:
        return await self.manage("POST", "/keys", {"user_id": "ada", "name": name})

    @contextlib.asynccontextmanager
    async def listening(self, secret: str, **headers: str) -> AsyncIterator[aiohttp.StreamReader]:
        """A stream that has begun."""
        before = len(self.feed.queues)
        all_headers = {"Authorization": f"Bearer {secret}", **headers}
        timeout = aiohttp.ClientTimeout(total=30)
        async with self.session.get(
            f"{self.node.proxy_url}/orders/feed", headers=all_headers, timeout=timeout
        ) as reply:
            assert reply.status == 200
            await until(lambda: len(self.feed.queues) > before)
            yield reply.content


@pytest.fixture
async def world(gateway: StartGateway, operator_token: str, aiohttp_server: Any) -> AsyncIterator[World]:
    feed = Feed()
    app = web.Application()
    app.router.add_get("/orders/feed", feed.listen)
    app.router.add_post("/orders/upload", feed.take)
    server = await aiohttp_server(app, shutdown_timeout=0.1)
    upstream = {"targets": [f"http://127.0.0.1:{server.port}"], "timeouts": {"idle": 2}}
    node = await gateway({"upstreams": {"orders": upstream}})
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        world = World(node, feed, session, operator_token)
        await world.manage("POST", "/tenants", {"id": "acme", "name": "Acme"})
        await world.manage("PUT", "/users/ada", {"tenant_id": "acme"})
        await world.manage("PUT", "/users/ada/entitlement", {"plan": "starter"})
        yield world


async def test_events_pass_as_they_come(world: World) -> None:
    """The first event is with the client before the upstream says the second; Last-Event-ID goes up. R190, R192."""
    secret = (await world.key("first"))["secret"]
    async with world.listening(secret, **{"Last-Event-ID": "41"}) as stream:
        for number in range(3):
            world.feed.say(b"%d" % number)
            assert await stream.readuntil(b"\n\n") == b"data: %d\n\n" % number
    assert world.feed.resumed_from == ["41"]


async def test_healthy_stream_has_no_total_timeout(world: World) -> None:
    """A stream that says something now and then lives longer than any timeout; a silent one is cut. R194."""
    secret = (await world.key("first"))["secret"]
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with world.listening(secret) as stream:
        while loop.time() < began + 4:  # twice the idle timeout
            world.feed.say(b"still here")
            assert await stream.readuntil(b"\n\n") == b"data: still here\n\n"
        with pytest.raises((aiohttp.ClientError, asyncio.IncompleteReadError)):
            await stream.readuntil(b"\n\n")


async def test_client_that_leaves_cancels_the_upstream(world: World) -> None:
    """The upstream learns at its next event that nobody listens any more. R193."""
    secret = (await world.key("first"))["secret"]
    async with world.listening(secret):
        pass

    async def has_left() -> bool:
        world.feed.say(b"anybody?")
        return world.feed.left == 1

    await until(has_left, seconds=5)


async def test_upstream_that_breaks_off_cuts_the_client(world: World) -> None:
    """The client can tell a broken stream from one that has ended. R193."""
    secret = (await world.key("first"))["secret"]
    async with world.listening(secret) as stream:
        world.feed.say(b"last words")
        await stream.readuntil(b"\n\n")
        world.feed.say(b"")
        with pytest.raises((aiohttp.ClientError, asyncio.IncompleteReadError)):
            await stream.readuntil(b"\n\n")


@pytest.mark.threat("streams of a revoked key")
async def test_stream_ends_with_its_key(world: World) -> None:
    """Within the bound a revoked key's stream is cut, and counted; another key's lives on. R197."""
    doomed_key, other_key = await world.key("first"), await world.key("second")
    async with world.listening(doomed_key["secret"]) as doomed, world.listening(other_key["secret"]) as unrelated:
        world.feed.say(b"before")
        assert await doomed.readuntil(b"\n\n") == await unrelated.readuntil(b"\n\n")
        await world.manage("POST", f"/keys/{doomed_key['id']}/revoke", {"reason": "test"})
        with pytest.raises((aiohttp.ClientError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(doomed.readuntil(b"\n\n"), 3)
        world.feed.say(b"after")
        assert await unrelated.readuntil(b"\n\n") == b"data: after\n\n"
    assert (await scraped(world.node)).sum("ostiary_streams_closed_total", reason="key_revoked") == 1


@pytest.mark.threat("streams of a revoked key")
async def test_upload_ends_with_its_key(world: World) -> None:
    """Within the bound an upload of a revoked key is refused, however long it would go on; another's goes on. R197."""
    doomed_key, other_key = await world.key("doomed"), await world.key("other")
    head = "POST /orders/upload HTTP/1.1\r\nHost: a\r\nX-Api-Key: {}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    (doomed, doomed_writer), (other, other_writer) = [
        await asyncio.open_connection("127.0.0.1", world.node.proxy_port) for _ in range(2)
    ]
    doomed_writer.write(head.format(doomed_key["secret"]).encode())
    other_writer.write(head.format(other_key["secret"]).encode())
    await until(lambda: world.feed.taken == b"xx")
    await world.manage("POST", f"/keys/{doomed_key['id']}/revoke", {"reason": "test"})
    said = await asyncio.wait_for(doomed.read(), 5)
    assert said.startswith(b"HTTP/1.1 401 ")
    assert b'"code": "key_revoked"' in said
    other_writer.write(b"1\r\ny\r\n0\r\n\r\n")
    assert (await asyncio.wait_for(other.readuntil(b"\r\n\r\n"), 5)).startswith(b"HTTP/1.1 200 ")
    assert (world.feed.taken, world.feed.finished) == (b"xxy", 1)
    assert (await scraped(world.node)).sum("ostiary_streams_closed_total", reason="key_revoked") == 1
    await closed(doomed_writer)
    await closed(other_writer)


async def test_slow_client_gets_its_last_reply_whole(gateway: StartGateway, upstream: RecordingUpstream) -> None:
    """A client that takes a moment before it reads loses nothing of a reply that ends its connection. R346."""
    size = 250_000  # more than the kernel takes at once, less than the gateway holds
    upstream.respond = lambda request: Reply(body=b"x" * size)
    node = await gateway()

    def read_late() -> int:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", node.proxy_port))
            client.settimeout(20)
            client.sendall(b"GET /public HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            time.sleep(4)  # longer than a connection lingers once its reply has been taken
            received = 0
            while data := client.recv(65_536):
                received += len(data)
            return received

    assert await asyncio.to_thread(read_late) > size
