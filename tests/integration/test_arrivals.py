"""Connections that have been accepted and have not got as far as a request: counted, bounded, and given back."""

import asyncio
import contextlib
import signal
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import trustme

from gateway.embedded.server_process import HOST
from tests.conftest import StartGateway
from tests.faults.limits import limit_descriptors, restore_descriptors
from tests.fixtures.connections import Streams, closed
from tests.fixtures.exposition import scraped
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.waiting import until

ADDRESS_LIMIT, LIMIT = 4, 10
FLOOD = 300
MANY, OTHER = "127.0.0.2", "127.0.0.3"
RESET = struct.pack("ii", 1, 0)
GET = b"GET /public HTTP/1.1\r\nHost: gw.test\r\n\r\n"
HELLO = b"\x16\x03\x01\x02\x00\x01\x00"  # the beginning of a ClientHello

REFUSED = "ostiary_connections_refused_total"


@dataclass(frozen=True)
class Door:
    """A listener with TLS, and what a client of it does."""

    node: GatewayProcess
    context: ssl.SSLContext
    is_behind_a_balancer: bool

    async def bare(self, address: str) -> socket.socket:
        """A connection from `address` that has said nothing but the header, where there is one."""
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((HOST if self.is_behind_a_balancer else address, 0))
        await loop.sock_connect(sock, (HOST, self.node.proxy_port))
        if self.is_behind_a_balancer:
            await loop.sock_sendall(sock, f"PROXY TCP4 {address} 192.0.2.99 1000 443\r\n".encode())
        return sock

    async def shaken(self, sock: socket.socket) -> Streams:
        """One whose handshake is over. Raises OSError where it has been closed."""
        return await asyncio.open_connection(sock=sock, ssl=self.context, server_hostname=HOST)

    async def is_served(self, address: str) -> bool:
        """Whether a request of another connection gets its reply."""
        writer = None
        try:
            reader, writer = await self.shaken(await self.bare(address))
            writer.write(GET)
            return (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        except (OSError, asyncio.IncompleteReadError):
            return False
        finally:
            if writer is not None:
                await closed(writer)

    def held(self) -> int:
        """How many connections it has."""
        connections = psutil.Process(self.node.pid).net_connections("tcp")
        return sum(
            connection.laddr.port == self.node.proxy_port and connection.status != psutil.CONN_LISTEN
            for connection in connections
        )


OpenDoor = Callable[..., Awaitable[Door]]


@pytest.fixture(params=[False, True], ids=["TLS", "PROXY and TLS"])
async def door(request: pytest.FixtureRequest, gateway: StartGateway, tmp_path: Path) -> OpenDoor:
    """Starts a gateway whose limits are `client`."""

    async def start(**client: float) -> Door:
        authority = trustme.CA()
        leaf = authority.issue_cert(HOST)
        cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        leaf.cert_chain_pems[0].write_to_path(cert)
        leaf.private_key_pem.write_to_path(key)
        context = ssl.create_default_context()
        authority.configure_trust(context)
        listen = {"tls": {"cert": str(cert), "key": str(key)}, "proxy_protocol": request.param}
        proxies = [f"{HOST}/32"] if request.param else []
        return Door(
            await gateway({"listen": listen, "client": client, "trusted_proxies": proxies}), context, request.param
        )

    return start


@contextlib.asynccontextmanager
async def silent(door: Door, address: str, number: int) -> AsyncIterator[list[socket.socket]]:
    """So many connections that begin no handshake."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(await door.bare(address)) for _ in range(number)]


@pytest.mark.threat("slow clients")
async def test_silent_connections_are_bounded(door: OpenDoor) -> None:
    """One address that connects and says nothing holds as many connections as its limit; the others are served."""
    them = await door(address_connection_limit=ADDRESS_LIMIT, connection_limit=LIMIT, head_timeout_seconds=60)
    async with silent(them, MANY, FLOOD):
        await until(lambda: them.held() == ADDRESS_LIMIT, what="all but a few to be closed")
        assert await them.is_served(OTHER)
        assert not await them.is_served(MANY)
        told = await scraped(them.node)
        assert told.sum(REFUSED) == FLOOD - ADDRESS_LIMIT + 1
        assert told.sum("ostiary_connections", side="client") == ADDRESS_LIMIT
    await until(lambda: them.is_served(MANY))


@pytest.mark.threat("slow clients")
async def test_silent_connections_of_many_are_bounded_in_all(door: OpenDoor) -> None:
    """Many addresses that say nothing hold as many connections as there may be."""
    them = await door(connection_limit=LIMIT, head_timeout_seconds=60)
    with contextlib.ExitStack() as stack:
        for number in range(2 * LIMIT):
            stack.enter_context(await them.bare(f"127.0.1.{number + 1}"))
        await until(lambda: them.held() == LIMIT, what="all but a few to be closed")
        assert not await them.is_served(OTHER)
        assert (await scraped(them.node)).sum(REFUSED, reason="total") == LIMIT + 1
    await until(lambda: them.is_served(OTHER))


@pytest.mark.threat("slow clients")
async def test_connections_without_a_header_are_bounded(gateway: StartGateway) -> None:
    """Those whose PROXY header does not come are among those that may be open in all, until they are refused or go."""
    listen = {"proxy_protocol": True}
    client = {"connection_limit": LIMIT, "head_timeout_seconds": 60}
    node = await gateway({"listen": listen, "client": client, "trusted_proxies": [f"{HOST}/32"]})
    them = Door(node, ssl.create_default_context(), False)
    async with silent(them, HOST, FLOOD):
        await until(lambda: them.held() == LIMIT, what="all but a few to be closed")
        assert (await scraped(node)).sum(REFUSED, reason="total") == FLOOD - LIMIT
    await until(lambda: them.held() == 0)
    for header in (b"PROXY nonsense\r\n", b"PROXY TCP4 192.0.2.7"):
        async with silent(them, HOST, LIMIT) as those:
            await until(lambda: them.held() == LIMIT)
            for sock in those:
                await asyncio.get_running_loop().sock_sendall(sock, header)
                sock.shutdown(socket.SHUT_WR)
            await until(lambda: them.held() == 0)
    assert (await scraped(node)).sum(REFUSED, reason="proxy_header") == 3 * LIMIT


# -- how they end


async def _leaves(door: Door, sock: socket.socket) -> None:
    sock.close()


async def _resets(door: Door, sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


async def _resets_amid_the_handshake(door: Door, sock: socket.socket) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, HELLO)
    await _resets(door, sock)


async def _speaks_no_tls(door: Door, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, GET)
    with contextlib.suppress(ConnectionError):
        while await loop.sock_recv(sock, 1000):
            pass
    sock.close()


async def _trusts_nobody(door: Door, sock: socket.socket) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection(sock=sock, ssl=ssl.create_default_context(), server_hostname=HOST)


async def _is_served(door: Door, sock: socket.socket) -> None:
    reader, writer = await door.shaken(sock)
    writer.write(GET)
    await reader.readuntil(b"\r\n\r\n")
    await closed(writer)


async def _resets_after_the_handshake(door: Door, sock: socket.socket) -> None:
    _, writer = await door.shaken(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
    await closed(writer)


ENDS = [
    *(_leaves, _resets, _resets_amid_the_handshake, _speaks_no_tls, _trusts_nobody),
    *(_is_served, _resets_after_the_handshake),
]


async def test_every_end_makes_room(door: OpenDoor) -> None:
    """However a connection ends, before its handshake, in it or after it, its place is free again, and no other's."""
    them = await door(address_connection_limit=2, connection_limit=3, head_timeout_seconds=60)
    for end in ENDS:
        both = [await them.bare(MANY) for _ in range(2)]
        await until(lambda: them.held() == 2)
        assert not await them.is_served(MANY), end.__name__
        for sock in both:
            await end(them, sock)
        await until(lambda: them.held() == 0, what=f"those to be gone of which each {end.__name__}")
        await until(lambda: is_told_to_be_empty(them))
    assert await them.is_served(MANY)
    assert "Traceback" not in them.node.log


async def test_who_is_late_makes_room(door: OpenDoor) -> None:
    """A connection whose handshake does not come in time has counted until then, and not beyond."""
    them = await door(address_connection_limit=2, connection_limit=3, head_timeout_seconds=2)
    async with silent(them, MANY, 3):
        await until(lambda: them.held() == 2)
        assert not await them.is_served(MANY)
        await until(lambda: them.held() == 0)
        assert await them.is_served(MANY)
    await until(lambda: is_told_to_be_empty(them))


async def is_told_to_be_empty(door: Door) -> bool:
    return (await scraped(door.node)).sum("ostiary_connections", side="client") == 0


async def test_without_descriptors_it_waits(door: OpenDoor) -> None:
    """Where none can be accepted for want of descriptors, that is told, and those who wait are served later."""
    them = await door()
    before = limit_descriptors(them.node.pid)
    try:
        asked = asyncio.create_task(them.is_served(MANY))
        await until(lambda: "accept_failed" in them.node.log)
    finally:
        restore_descriptors(before)
    assert await asked


# -- the gateway's end


async def test_a_slow_handshake_is_finished(door: OpenDoor) -> None:
    """Who has connected just before the end has two seconds to come through, not half a one, and gets a reply. R346."""
    them = await door()
    async with silent(them, OTHER, 1):
        sock = await them.bare(MANY)
        await until(lambda: them.held() == 2)
        them.node.signal(signal.SIGTERM)
        await asyncio.sleep(1.0)  # it is slow
        reader, writer = await them.shaken(sock)
        writer.write(GET)
        reply = await reader.readuntil(b"\r\n\r\n")
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in reply.lower()
        await closed(writer)
        assert await them.node.wait_for_end() == 0  # though one is silent
