"""What callers do to those beside them: they leave, they trickle, they hold connections. Nobody else notices."""

import asyncio
import contextlib
import itertools
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from gateway.embedded.server_process import HOST
from tests.faults.catalogue import fault
from tests.faults.people import Secret, good
from tests.faults.stage import HEAD_SECONDS, Node, Stage
from tests.faults.traffic import written
from tests.faults.upstreams import LARGE, NOBODYS
from tests.fixtures.connections import connected
from tests.fixtures.waiting import until

LEAVING: Final = 20  # clients at once
SLOW_CLIENTS: Final = 200
UPLOAD_BYTES: Final = 1_000_000
READ_BYTES: Final = 20_000
TRICKLE_SECONDS: Final = 0.3
PATIENCE_SECONDS: Final = 2.0  # beyond the gateway's own
SPARE_DESCRIPTORS: Final = 3_000  # for all that is no idle connection
OPENED_AT_ONCE: Final = 20
OPENING_PAUSE_SECONDS: Final = 0.03

Client = Callable[[Node, Secret], Awaitable[None]]


async def _beside(stage: Stage, count: int, client: Client) -> AsyncIterator[None]:
    """So many of these, again and again, with a key of their own."""
    (key,) = await stage.stand.insert_keys(1)

    async def go_on(node: Node) -> None:
        while True:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await client(node, good(key))
            await asyncio.sleep(TRICKLE_SECONDS)

    nodes = itertools.cycle(stage.nodes)
    tasks = [asyncio.create_task(go_on(next(nodes))) for _ in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                stage.wrongs.append(f"a client of its own: {result}")


@fault("clients leave in upload", peers="clients leave", what=f"{LEAVING} at a time, with half of a body sent")
async def leave_in_upload(stage: Stage) -> AsyncIterator[None]:
    """The upstream never takes half a request for a whole one."""

    async def leave(node: Node, secret: Secret) -> None:
        async with connected(node.process.proxy_port) as (_, writer):
            head, half = written("POST", f"/orders/{NOBODYS}", secret, b"x" * UPLOAD_BYTES), UPLOAD_BYTES // 2
            writer.write(head[:-half])
            await writer.drain()
            writer.transport.abort()

    before = stage.orders.received[NOBODYS]
    async for _ in _beside(stage, LEAVING, leave):
        yield
    if stage.orders.received[NOBODYS] != before:
        stage.wrongs.append("half an upload was taken for a whole one")


@fault("clients leave in download", peers="clients leave", what=f"{LEAVING} at a time, in the middle of a reply")
async def leave_in_download(stage: Stage) -> AsyncIterator[None]:
    """What they asked for is not read to the end for nobody."""

    async def leave(node: Node, secret: Secret) -> None:
        async with connected(node.process.proxy_port) as (reader, writer):
            writer.write(written("GET", f"{LARGE}{NOBODYS}", secret))
            await reader.readexactly(READ_BYTES)
            writer.transport.abort()

    async for _ in _beside(stage, LEAVING, leave):
        yield


@fault(
    "slowloris",
    peers="clients slow",
    what=f"{SLOW_CLIENTS} clients who send a head byte by byte",
)
async def slowloris(stage: Stage) -> AsyncIterator[None]:
    """Each is told 408 after `client.head_timeout_seconds`, and is gone."""

    async def trickle(node: Node, secret: Secret) -> None:
        async with connected(node.process.proxy_port) as (reader, writer):
            began, answer = time.monotonic(), asyncio.ensure_future(reader.read())
            try:
                for byte in written("GET", f"/orders/{NOBODYS}", secret):
                    writer.write(bytes([byte]))
                    await asyncio.wait({answer}, timeout=TRICKLE_SECONDS)
                    if answer.done():
                        break
                    if time.monotonic() > began + HEAD_SECONDS + PATIENCE_SECONDS:
                        stage.wrongs.append("a client who trickles is waited for")
                        return
                if not (await answer).startswith(b"HTTP/1.1 408 "):
                    stage.wrongs.append(f"a client who trickles is told {(await answer)[:50]!r}")
            finally:
                answer.cancel()

    async for _ in _beside(stage, SLOW_CLIENTS, trickle):
        yield


@fault(
    "idle connections",
    peers="clients idle",
    what="spread over all nodes: each asks once, and stays",
)
async def idle(stage: Stage) -> AsyncIterator[None]:
    """As many as were asked for, and as this process may have descriptors."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(stage.idle, limit - SPARE_DESCRIPTORS)
    nodes, loop = itertools.cycle(stage.nodes), asyncio.get_running_loop()
    opened: list[Idler] = []
    try:
        for number in range(count):
            port = next(nodes).process.proxy_port
            opened.append((await loop.create_connection(Idler, HOST, port))[1])
            if number % OPENED_AT_ONCE == 0:
                await asyncio.sleep(OPENING_PAUSE_SECONDS)
        await until(lambda: all(one.is_answered for one in opened), what="all of them to be answered")
        yield
        closed = sum(one.is_closed for one in opened)
        if closed:
            stage.wrongs.append(f"{closed} of {count} idle connections were closed")
        stage.notes.append(f"{count:,} connections")
    finally:
        for number, one in enumerate(opened):
            one.leave()
            if number % OPENED_AT_ONCE == 0:
                await asyncio.sleep(OPENING_PAUSE_SECONDS)


class Idler(asyncio.Protocol):
    """Asks once, without a key, and stays."""

    def __init__(self) -> None:
        self.is_answered = self.is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(f"GET /orders/{NOBODYS} HTTP/1.1\r\nHost: api\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self.is_answered = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_answered = self.is_closed = True

    def leave(self) -> None:
        """Reset."""
        self._transport.abort()
