"""A gateway that is told to stop: nobody who has sent a request goes without an answer."""

import asyncio
import contextlib
import signal
from collections import Counter

from gateway.embedded.server_process import HOST
from tests.conftest import StartGateway
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.upstream import RecordingUpstream
from tests.fixtures.waiting import until

CLIENTS = 20
GET = b"GET /public HTTP/1.1\r\nHost: gw.test\r\n\r\n"


class Client:
    """Sends one request after another on one connection, until it is told that this was the last, or is cut off."""

    def __init__(self, pause_seconds: float) -> None:
        self._pause_seconds = pause_seconds
        self.ends: Counter[str] = Counter()

    async def run(self, node: GatewayProcess) -> None:
        reader, writer = await asyncio.open_connection(HOST, node.proxy_port)
        while not self.ends:
            with contextlib.suppress(ConnectionError):
                writer.write(GET)
            head = await self._head(reader)
            if not head:
                self.ends["unanswered"] += 1
            elif b"connection: close" in head.lower():
                self.ends["told"] += 1
            else:
                await asyncio.sleep(self._pause_seconds)
        writer.close()

    @staticmethod
    async def _head(reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        return head


async def test_no_request_is_lost(gateway: StartGateway, upstream: RecordingUpstream) -> None:
    """Each client of a stopping gateway gets the reply to what it has sent, and is told that it was the last. R346."""
    node = await gateway()
    clients = [Client(0.0 if number % 2 else 0.2) for number in range(CLIENTS)]
    running = [asyncio.create_task(client.run(node)) for client in clients]
    await until(lambda: len(upstream.requests) > 10 * CLIENTS)
    node.signal(signal.SIGTERM)
    await asyncio.gather(*running)
    assert sum((client.ends for client in clients), Counter()) == {"told": CLIENTS}
    assert await node.wait_for_end() == 0


async def test_idle_clients_do_not_hold_it_up(gateway: StartGateway) -> None:
    """Connections on which nothing comes any more are closed after a moment, and the gateway ends. R346."""
    node = await gateway()
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(HOST, node.proxy_port)
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        node.signal(signal.SIGTERM)
        await reader.read()
        assert await node.wait_for_end() == 0
        writer.close()
