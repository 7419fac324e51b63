"""TLS on the public listener, with certificates that are replaced while it runs."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
import pytest
import trustme

from tests.conftest import StartGateway
from tests.fixtures.connections import closed
from tests.fixtures.crew import Traffic
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.raw_upstream import RawConnection, RawUpstream
from tests.fixtures.upstream import RecordingUpstream
from tests.fixtures.waiting import until


@dataclass
class Files:
    """Where the gateway looks for its certificate."""

    cert: Path
    key: Path

    def write(self, leaf: trustme.LeafCert) -> None:
        leaf.cert_chain_pems[0].write_to_path(self.cert)
        leaf.private_key_pem.write_to_path(self.key)
        for path in (self.cert, self.key):  # file systems keep coarse times
            os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "cert.pem", tmp_path / "key.pem")


async def status_trusting(authority: trustme.CA, node: GatewayProcess) -> int:
    """The status of a request by a client that trusts `authority` alone."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    url = f"https://127.0.0.1:{node.proxy_port}/public/x"
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as response:
        return response.status


async def test_callers_are_served_over_tls(gateway: StartGateway, upstream: RecordingUpstream, files: Files) -> None:
    """A verifying client gets its reply, and the upstream is told that it came by https."""
    authority = trustme.CA()
    files.write(authority.issue_cert("127.0.0.1"))
    node = await gateway({"listen": {"tls": {"cert": str(files.cert), "key": str(files.key)}}})
    assert await status_trusting(authority, node) == 200
    assert upstream.last.header("X-Forwarded-Proto") == "https"


async def test_replaced_certificate_is_taken_up(gateway: StartGateway, files: Files) -> None:
    """New files serve new connections without a restart; a pair that does not fit changes nothing."""
    old, new = trustme.CA(), trustme.CA()
    files.write(old.issue_cert("127.0.0.1"))
    node = await gateway({"listen": {"tls": {"cert": str(files.cert), "key": str(files.key)}}})
    files.key.write_text("no key at all")
    await until(lambda: "certificate_not_reloaded" in node.log)
    assert await status_trusting(old, node) == 200
    files.write(new.issue_cert("127.0.0.1"))
    await until(lambda: "certificate_reloaded" in node.log)
    assert await status_trusting(new, node) == 200
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await status_trusting(old, node)


async def test_replacing_a_certificate_loses_nothing(gateway: StartGateway, files: Files) -> None:
    """Connections that are made, and those that are kept, are served as the certificate changes, and changes back."""
    old, new = trustme.CA(), trustme.CA()
    files.write(old.issue_cert("127.0.0.1"))
    node = await gateway({"listen": {"tls": {"cert": str(files.cert), "key": str(files.key)}}})
    context = ssl.create_default_context()
    old.configure_trust(context)
    new.configure_trust(context)
    async with Traffic(node.proxy_port, tls=context).running() as traffic:
        for number, authority in enumerate((new, old)):
            files.write(authority.issue_cert("127.0.0.1"))
            await until(lambda done=number + 1: node.log.count("certificate_reloaded") == done)
            so_far = traffic.seen.total()
            await until(lambda before=so_far: traffic.seen.total() > before + 100)
    assert set(traffic.seen) == {200}, traffic.seen


async def test_unusable_certificate_stops_the_start(gateway: StartGateway, files: Files) -> None:
    """Without its certificate the gateway does not serve callers in the clear."""
    node = await gateway({"listen": {"tls": {"cert": str(files.cert), "key": str(files.key)}}}, is_ready_awaited=False)
    assert await node.wait_for_end() == 1
    assert "listen.tls" in node.log


async def test_a_handshake_under_way_is_finished(gateway: StartGateway, files: Files) -> None:
    """Who has connected just before the gateway is told to stop comes through, and gets a reply. R346."""
    authority = trustme.CA()
    files.write(authority.issue_cert("127.0.0.1"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    node = await gateway({"listen": {"tls": {"cert": str(files.cert), "key": str(files.key)}}})
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", node.proxy_port))
    await until(lambda: psutil.CONN_ESTABLISHED in statuses(node))
    node.signal(signal.SIGTERM)
    await until(lambda: psutil.CONN_LISTEN not in statuses(node))
    reader, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname="127.0.0.1")
    writer.write(b"GET /public HTTP/1.1\r\nHost: gw.test\r\n\r\n")
    reply = await reader.readuntil(b"\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in reply.lower()
    await closed(writer)
    assert await node.wait_for_end() == 0


def statuses(node: GatewayProcess) -> set[str]:
    """Of the sockets of the public listener."""
    connections = psutil.Process(node.pid).net_connections("tcp")
    return {connection.status for connection in connections if connection.laddr.port == node.proxy_port}


async def test_who_ends_tls_first_is_no_news(gateway: StartGateway, files: Files) -> None:
    """A client that says goodbye amid a request or a tunnel ends the connection, and writes nothing into the log."""
    authority = trustme.CA()
    files.write(authority.issue_cert("127.0.0.1"))
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def switched(connection: RawConnection) -> None:
        await connection.head()
        if b"Upgrade: chat" in connection.received:
            await connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nhi")
        await connection.until_ended()

    async with RawUpstream() as upstream:
        upstream.script = switched
        route = {"name": "all", "paths": ["/"], "upstream": "orders", "auth": "none", "upgrades": ["chat"]}
        changes = {"upstreams": {"orders": {"targets": [upstream.url]}}, "routes": [route]}
        node = await gateway({**changes, "listen": {"tls": {"cert": str(files.cert), "key": str(files.key)}}})
        for field in (b"X-A: b", b"Connection: Upgrade\r\nUpgrade: chat"):
            reader, writer = await asyncio.open_connection("127.0.0.1", node.proxy_port, ssl=context)
            writer.write(b"GET / HTTP/1.1\r\nHost: gw.test\r\n%b\r\n\r\n" % field)
            if b"chat" in field:
                assert (await reader.readuntil(b"\r\n\r\nhi")).startswith(b"HTTP/1.1 101 ")
            await upstream.until(lambda: bool(upstream.received))
            await closed(writer)
            await upstream.until_quiet()
            await upstream.reset()
            upstream.script = switched
        assert "eof_received" not in node.log


@pytest.mark.parametrize("is_behind_a_balancer", [False, True])
async def test_a_handshake_that_does_not_come_is_not_waited_for(
    gateway: StartGateway, files: Files, is_behind_a_balancer: bool
) -> None:
    """A connection without TLS is as short as one without a request: `client.head_timeout_seconds`, and no minute."""
    files.write(trustme.CA().issue_cert("127.0.0.1"))
    listen = {"tls": {"cert": str(files.cert), "key": str(files.key)}, "proxy_protocol": is_behind_a_balancer}
    node = await gateway({"listen": listen, "client": {"head_timeout_seconds": 0.5}, "trusted_proxies": ["127.0.0.1"]})
    reader, writer = await asyncio.open_connection("127.0.0.1", node.proxy_port)
    if is_behind_a_balancer:
        writer.write(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    await closed(writer)
