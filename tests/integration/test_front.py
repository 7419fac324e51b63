"""What stands in front: balancers that speak the PROXY protocol, trusted proxies, address rules, limits on connections.

The whole of 127.0.0.0/8 is this machine, so a client may come from any of these addresses.
"""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trustme
from proxyprotocol.result import ProxyResultIPv4, ProxyResultLocal
from proxyprotocol.v2 import ProxyProtocolV2

from gateway.embedded.server_process import HOST
from tests.conftest import StartGateway
from tests.fixtures.connections import closed
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.upstream import RecordingUpstream
from tests.fixtures.waiting import until

PROXY, STRANGER = "127.0.0.1", "127.0.0.9"
V1 = b"PROXY TCP4 192.0.2.7 192.0.2.99 1000 80\r\n"
V2 = ProxyProtocolV2().pack(ProxyResultIPv4((IPv4Address("192.0.2.7"), 1000), (IPv4Address("192.0.2.99"), 80)))
LOCAL = ProxyProtocolV2().pack(ProxyResultLocal())


@dataclass(frozen=True)
class Answer:
    """A reply to a raw client; status 0 where the connection was closed without one."""

    status: int
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


@contextlib.asynccontextmanager
async def connected(
    node: GatewayProcess, source: str = PROXY, tls: ssl.SSLContext | None = None, first: bytes = b""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection from `source`; `first` is sent in the clear, before TLS."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind((source, 0))
    await loop.sock_connect(sock, (HOST, node.proxy_port))
    await loop.sock_sendall(sock, first)
    reader, writer = await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=HOST if tls else None)
    try:
        yield reader, writer
    finally:
        await closed(writer)


async def ask(
    node: GatewayProcess,
    *lines: bytes,
    path: bytes = b"/public/x",
    source: str = PROXY,
    tls: ssl.SSLContext | None = None,
    first: bytes = b"",
) -> Answer:
    head = b"".join(line + b"\r\n" for line in (b"GET %b HTTP/1.1" % path, b"Host: gw.test", *lines))
    try:
        async with asyncio.timeout(10), connected(node, source, tls, first) as (reader, writer):
            writer.write(head + b"Connection: close\r\n\r\n")
            reply = await reader.read()
    except ConnectionError:
        reply = b""
    return Answer(int(reply[9:12]) if reply else 0, reply.partition(b"\r\n\r\n")[2])


async def proxied(gateway: StartGateway, **more: object) -> GatewayProcess:
    return await gateway({"listen": {"proxy_protocol": True}, "trusted_proxies": [f"{PROXY}/32"], **more})


@pytest.mark.parametrize("header", [pytest.param(V1, id="v1"), pytest.param(V2, id="v2")])
async def test_a_balancers_client_is_who_it_says(
    gateway: StartGateway, upstream: RecordingUpstream, header: bytes
) -> None:
    """The client of a PROXY header is the peer, for upstream and address rules; its own word is not believed."""
    node = await proxied(gateway, client={"addresses": {"allow": ["192.0.2.0/24"]}})
    assert (await ask(node, b"X-Forwarded-For: 6.6.6.6", first=header)).status == 200
    assert upstream.last.header("X-Forwarded-For") == "192.0.2.7"
    assert (await ask(node, first=b"PROXY TCP4 198.51.100.1 192.0.2.99 1 80\r\n")).code == "address_not_allowed"
    assert len(upstream.requests) == 1


async def test_a_header_is_a_must(gateway: StartGateway, upstream: RecordingUpstream) -> None:
    """Without a header, with a broken one, or from somebody who is not trusted, nothing is served or passed."""
    node = await proxied(gateway)
    for first, source in ((b"", PROXY), (b"PROXY nonsense\r\n", PROXY), (V1, STRANGER), (V2, STRANGER)):
        assert (await ask(node, first=first, source=source)).status == 0
    assert (await ask(node, first=V2[:20])).status in (0, 400)  # what comes behind is taken for the rest of it
    assert not upstream.requests
    assert (await ask(node, first=LOCAL)).status == 200
    assert upstream.last.header("X-Forwarded-For") == PROXY
    assert "Traceback" not in node.log


async def test_a_header_may_be_slow_but_not_endless(gateway: StartGateway, upstream: RecordingUpstream) -> None:
    """A header that comes byte by byte is read; a connection that never sends one is closed at the deadline."""
    node = await proxied(gateway, client={"head_timeout_seconds": 1})
    async with connected(node) as (reader, writer), connected(node) as (silent, _):
        for byte in V1 + b"GET /public HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        assert await silent.read() == b""
    assert upstream.last.header("X-Forwarded-For") == "192.0.2.7"


async def test_the_header_comes_before_tls(gateway: StartGateway, upstream: RecordingUpstream, tmp_path: Path) -> None:
    """Behind a balancer that passes TLS through, the header stands in the clear in front of the handshake."""
    authority = trustme.CA()
    leaf = authority.issue_cert(HOST)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    leaf.cert_chain_pems[0].write_to_path(cert)
    leaf.private_key_pem.write_to_path(key)
    listen = {"proxy_protocol": True, "tls": {"cert": str(cert), "key": str(key)}}
    node = await gateway({"listen": listen, "trusted_proxies": [PROXY]})
    context = ssl.create_default_context()
    authority.configure_trust(context)
    for header in (V1, V2):
        assert (await ask(node, tls=context, first=header)).status == 200
        assert upstream.last.header("X-Forwarded-For") == "192.0.2.7"
        assert upstream.last.header("X-Forwarded-Proto") == "https"
    assert (await ask(node, first=V1)).status == 0


async def test_proxied_connections_are_drained(gateway: StartGateway) -> None:
    """A gateway behind a balancer stops as any other: what is under way ends, what is idle closes. R346."""
    node = await proxied(gateway)
    async with connected(node, first=V1) as (reader, writer), connected(node) as (half, _):
        writer.write(b"GET /public HTTP/1.1\r\nHost: gw.test\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        assert await node.stop() == 0
        await reader.read()
        assert await half.read() == b""


async def test_the_standard_header_of_a_trusted_proxy(gateway: StartGateway, upstream: RecordingUpstream) -> None:
    """Where proxies write Forwarded, its client counts, and X-Forwarded-For is anybody's talk. R297."""
    node = await gateway({"trusted_proxies": [PROXY], "trusted_header": "Forwarded"})
    await ask(node, b"Forwarded: for=192.0.2.7;proto=https;host=shop.test", b"X-Forwarded-For: 6.6.6.6")
    assert upstream.last.header("X-Forwarded-For") == f"192.0.2.7, {PROXY}"
    assert upstream.last.header("X-Forwarded-Proto") == "https"
    assert upstream.last.header("X-Forwarded-Host") == "shop.test"
    assert upstream.last.header("Forwarded") is None
    await ask(node, b"Forwarded: for=192.0.2.7", source=STRANGER)
    assert upstream.last.header("X-Forwarded-For") == STRANGER


async def test_address_rules(gateway: StartGateway, upstream: RecordingUpstream) -> None:
    """Who comes from elsewhere gets 403 before his key is looked at; a route's rule stands in for the general one."""
    routes = [
        {"name": "public", "paths": ["/public"], "upstream": "orders", "auth": "none"},
        {"name": "orders", "paths": ["/orders"], "upstream": "orders"},
        {
            "name": "office",
            "paths": ["/office"],
            "upstream": "orders",
            "auth": "none",
            "addresses": {"allow": ["127.0.0.0/24"], "deny": [STRANGER]},
        },
    ]
    rule = {"deny": ["127.0.0.2", "192.0.2.0/24"]}
    node = await gateway({"routes": routes, "client": {"addresses": rule}, "trusted_proxies": ["127.0.0.8"]})

    async def status(path: bytes, source: str, *lines: bytes) -> int:
        return (await ask(node, *lines, path=path, source=source)).status

    assert await status(b"/public", "127.0.0.3") == 200
    assert await status(b"/office", "127.0.0.2") == 200
    assert await status(b"/public", "127.0.0.8", b"X-Forwarded-For: 198.51.100.1") == 200
    served = len(upstream.requests)
    for path, source, *lines in (
        (b"/public", "127.0.0.2"),
        (b"/public", "127.0.0.2", b"X-Forwarded-For: 127.0.0.3"),
        (b"/orders", "127.0.0.2", b"X-Api-Key: nonsense"),
        (b"/.ostiary/whoami", "127.0.0.2"),
        (b"/office", STRANGER),
        (b"/office", "127.1.0.1"),
        (b"/public", "127.0.0.8", b"X-Forwarded-For: 198.51.100.1, 192.0.2.7"),
    ):
        assert isinstance(path, bytes)
        assert isinstance(source, str)
        answer = await ask(node, *(line for line in lines if isinstance(line, bytes)), path=path, source=source)
        assert (answer.status, answer.code) == (403, "address_not_allowed")
    assert len(upstream.requests) == served
    assert await status(b"/orders", "127.0.0.3", b"X-Api-Key: nonsense") == 401


async def test_connections_of_one_address_are_bounded(gateway: StartGateway) -> None:
    """One address cannot take every connection; the others are served, and who leaves makes room."""
    node = await gateway({"client": {"address_connection_limit": 2}})
    async with connected(node, "127.0.0.2") as (_, first), connected(node, "127.0.0.2"):
        assert (await ask(node, source="127.0.0.2")).status == 0
        assert (await ask(node, source="127.0.0.3")).status == 200
        first.close()
        await until(lambda: is_served(node, "127.0.0.2"))
    assert node.log.count("connection_refused") == 1


async def test_connections_in_all_are_bounded(gateway: StartGateway) -> None:
    """Beyond the limit a connection is closed at once; below it all is well again."""
    node = await gateway({"client": {"connection_limit": 2}})
    async with connected(node, "127.0.0.2"), connected(node, "127.0.0.3"):
        assert (await ask(node, source="127.0.0.4")).status == 0
    await until(lambda: is_served(node, "127.0.0.4"))


async def is_served(node: GatewayProcess, source: str) -> bool:
    return (await ask(node, source=source)).status == 200
