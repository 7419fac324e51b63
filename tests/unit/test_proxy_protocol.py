"""PROXY headers: read to their last byte and no further."""

import contextlib
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxyprotocol.result import ProxyResultIPv4, ProxyResultIPv6, ProxyResultLocal
from proxyprotocol.v2 import ProxyProtocolV2

from gateway.proxy.edge import IpAddress, address_in
from gateway.proxy.proxy_protocol import LONGEST_HEADER, BadHeader, read_header

BEHIND = b"GET / HTTP/1.1\r\n"
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class Wire:
    """A connection on which some bytes have come, a few at a time."""

    def __init__(self, data: bytes, piece: int) -> None:
        self.rest = data
        self._piece = piece

    async def receive(self, most: int, is_line: bool) -> bytes:
        assert most > 0
        size = min(most, self._piece, len(self.rest))
        if is_line and b"\n" in self.rest[:size]:
            size = self.rest.index(b"\n") + 1
        data, self.rest = self.rest[:size], self.rest[size:]
        return data


def v2(source: str) -> bytes:
    address = ip_address(source)
    if isinstance(address, IPv4Address):
        return ProxyProtocolV2().pack(ProxyResultIPv4((address, 1000), (IPv4Address("192.0.2.99"), 443)))
    return ProxyProtocolV2().pack(ProxyResultIPv6((address, 1000), (IPv6Address("2001:db8::99"), 443)))


@pytest.mark.parametrize("piece", [1, 3, 10_000])
@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(b"PROXY TCP4 192.0.2.7 192.0.2.99 1000 443\r\n", "192.0.2.7", id="v1 IPv4"),
        pytest.param(b"PROXY TCP6 2001:db8::7 2001:db8::99 1000 443\r\n", "2001:db8::7", id="v1 IPv6"),
        pytest.param(b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1000 443\r\n", "192.0.2.7", id="v1 mapped"),
        pytest.param(b"PROXY UNKNOWN\r\n", None, id="v1 unknown"),
        pytest.param(v2("192.0.2.7"), "192.0.2.7", id="v2 IPv4"),
        pytest.param(v2("2001:db8::7"), "2001:db8::7", id="v2 IPv6"),
        pytest.param(ProxyProtocolV2().pack(ProxyResultLocal()), None, id="v2 the balancer itself"),
    ],
)
async def test_headers(header: bytes, expected: str | None, piece: int) -> None:
    """Both versions tell who the client is, however the bytes come; what stands behind the header stays there."""
    wire = Wire(header + BEHIND, piece)
    address: IpAddress | None = await read_header(wire.receive)
    assert address == (None if expected is None else address_in(expected.encode()))
    assert wire.rest == BEHIND


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(BEHIND, id="none at all"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"PROXY TCP4 192.0.2.7", id="broken off"),
        pytest.param(b"PROXY TCP4 192.0.2.7 192.0.2.99 1000 443\n", id="v1 a bare LF"),
        pytest.param(b"PROXY TCP4 nonsense 192.0.2.99 1000 443\r\n", id="v1 no address"),
        pytest.param(b"PROXY TCP4 192.0.2.7 192.0.2.99 1000 99999\r\n", id="v1 no port"),
        pytest.param(b"PROXY TCP9 1 2 3 4\r\n", id="v1 no family"),
        pytest.param(b"PROXY " + b"x" * 200 + b"\r\n", id="v1 too long"),
        pytest.param(V2_SIGNATURE + b"\x31\x11\x00\x0c" + b"x" * 12, id="v2 another version"),
        pytest.param(V2_SIGNATURE + b"\x21\x11\x00\x04" + b"x" * 4, id="v2 too short for its addresses"),
        pytest.param(V2_SIGNATURE + b"\x21\x11\xff\xff" + b"x" * 65_535, id="v2 too long"),
    ],
)
async def test_what_is_none(data: bytes) -> None:
    """What is not a header is an error, never an address, and never read without end."""
    wire = Wire(data, 10_000)
    with pytest.raises(BadHeader):
        await read_header(wire.receive)
    assert len(data) - len(wire.rest) <= LONGEST_HEADER


STARTS = [b"", b"PROXY ", b"PROXY TCP4 ", V2_SIGNATURE, V2_SIGNATURE + b"\x21\x11"]


@given(st.binary(max_size=80), st.sampled_from(STARTS))
async def test_nothing_is_too_odd(data: bytes, start: bytes) -> None:
    """Any bytes give an address, none, or BadHeader."""
    with contextlib.suppress(BadHeader):
        await read_header(Wire(start + data, 7).receive)
