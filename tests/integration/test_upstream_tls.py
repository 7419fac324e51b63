"""TLS to an upstream: it is verified, and shown our certificate, or it is told nothing."""

import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from tests.conftest import StartGateway
from tests.fixtures.upstream import RecordingUpstream


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def server_side(certificate: trustme.LeafCert, clients: trustme.CA | None = None) -> ssl.SSLContext:
    """What the upstream uses; with `clients` it demands a certificate of that authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def status_through(start: StartGateway, upstream: RecordingUpstream, tls: dict[str, str]) -> int:
    node = await start({"upstreams": {"orders": {"targets": [upstream.url], "tls": tls}}})
    async with aiohttp.ClientSession() as session, session.get(f"{node.proxy_url}/public/x") as response:
        return response.status


async def test_trusted_upstream_is_spoken_to(gateway: StartGateway, authority: trustme.CA, ca_file: str) -> None:
    """An upstream whose certificate is of the configured authority gets the request, over TLS."""
    async with RecordingUpstream(tls=server_side(authority.issue_cert("127.0.0.1"))) as upstream:
        assert await status_through(gateway, upstream, {"ca": ca_file}) == 200
        assert upstream.last.target == "/public/x"
        assert upstream.last.header("Host") == f"127.0.0.1:{upstream.port}"


@pytest.mark.parametrize(
    ("name", "is_known"),
    [pytest.param("127.0.0.1", False, id="unknown-authority"), pytest.param("other.test", True, id="another-name")],
)
async def test_impostor_is_told_nothing(
    gateway: StartGateway, authority: trustme.CA, ca_file: str, name: str, is_known: bool
) -> None:
    """A certificate that does not verify is a 502, and not one byte of the request was sent."""
    issuer = authority if is_known else trustme.CA()
    async with RecordingUpstream(tls=server_side(issuer.issue_cert(name))) as upstream:
        assert await status_through(gateway, upstream, {"ca": ca_file}) == 502
        assert upstream.requests == []


async def test_client_certificate_is_shown(
    gateway: StartGateway, authority: trustme.CA, ca_file: str, tmp_path: Path
) -> None:
    """An upstream that demands a certificate of its callers gets the configured one."""
    ours = authority.issue_cert("gateway.test")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls = {"ca": ca_file, "cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    async with RecordingUpstream(tls=server_side(authority.issue_cert("127.0.0.1"), clients=authority)) as upstream:
        assert await status_through(gateway, upstream, tls) == 200
        assert len(upstream.requests) == 1


async def test_unreadable_certificate_stops_the_start(gateway: StartGateway, upstream: RecordingUpstream) -> None:
    """A missing file is told with its place, and the gateway does not start without what protects its upstream."""
    targets = [upstream.url.replace("http:", "https:")]
    node = await gateway(
        {"upstreams": {"orders": {"targets": targets, "tls": {"ca": "/nowhere/ca.pem"}}}}, is_ready_awaited=False
    )
    assert await node.wait_for_end() == 1
    assert "upstreams.orders.tls" in node.log
