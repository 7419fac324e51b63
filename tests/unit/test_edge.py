"""Who is there: what trusted proxies say, in either header, and from where one may come."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.edge import AddressRule, Edge, TrustedProxies, address_in, address_of, read_forwarded
from tests.unit.reading import head, read

HOST = b"Host: a.test"
TRUSTED = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]


def edge_of(address: str, *, header: str = "X-Forwarded-For") -> Edge:
    return Edge(address_in(address.encode()), "http", TrustedProxies(TRUSTED, header=header))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(
            [],
            b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\n",
            id="says nothing",
        ),
        pytest.param(
            [b"X-Forwarded-For: 1.1.1.1", b"x-forwarded-for: 2.2.2.2"],
            b"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\n",
            id="appended",
        ),
        pytest.param(
            [b"X-Forwarded-Proto: https", b"X-Forwarded-Host: shop.test"],
            b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\n",
            id="scheme and host",
        ),
        pytest.param(
            [b"Forwarded: for=1.1.1.1", b"X-Real-Ip: 1.1.1.1", b"X-Forwarded-Port: 1"],
            b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\n",
            id="names that are not passed on",
        ),
    ],
)
def test_a_trusted_proxy_is_believed(lines: list[bytes], expected: bytes) -> None:
    """What a configured proxy says is kept, and its own address appended. R297."""
    said = read(head(b"GET / HTTP/1.1", HOST, *lines)).fields.forwarded
    assert edge_of("10.0.0.1").forwarded_lines(said, b"a.test") == expected


@pytest.mark.parametrize("is_trusted", [False, True])
def test_a_client_without_a_host_forwards_none(is_trusted: bool) -> None:
    """There is never an empty X-Forwarded-Host, also behind a request that had one. R024."""
    edge = edge_of("10.0.0.1" if is_trusted else "192.0.2.7")
    nothing = read(head(b"GET / HTTP/1.0", b"X-Forwarded-For: 1.1.1.1")).fields.forwarded
    for host in (b"", b"a.test", b"", b"b.test", b"b.test", b""):
        lines = edge.forwarded_lines(nothing, host)
        assert lines.count(b"X-Forwarded-Host:") == (1 if host else 0)
        assert not host or b"X-Forwarded-Host: %b\r\n" % host in lines


@pytest.mark.parametrize(
    ("peername", "expected"),
    [
        (("192.0.2.7", 80), "192.0.2.7"),
        (("2001:db8::1", 80, 0, 0), "2001:db8::1"),
        (("fe80::1%eth0", 80, 0, 2), "fe80::1"),
        (("::ffff:192.0.2.7", 80, 0, 0), "192.0.2.7"),
        ("", None),
        (None, None),
    ],
)
def test_addresses_are_bare(peername: object, expected: str | None) -> None:
    """One spelling per client, or trust and limits could be walked around. R297."""
    assert address_of(peername) == (None if expected is None else ip_address(expected))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(
            [b"Forwarded: for=1.1.1.1;proto=https;host=shop.test"],
            b"X-Forwarded-For: 1.1.1.1, 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\n",
            id="all of it",
        ),
        pytest.param(
            [b'Forwarded: For="[2001:db9::1]:4711" ; Proto=https, for="2.2.2.2:80"', b"forwarded: by=_x;for=3.3.3.3"],
            b"X-Forwarded-For: 2001:db9::1, 2.2.2.2, 3.3.3.3, 10.0.0.1\r\n"
            b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: a.test\r\n",
            id="several elements, lines and spellings",
        ),
        pytest.param(
            [b"Forwarded: for=unknown, for=_hidden, for=4.4.4.4"],
            b"X-Forwarded-For: unknown, unknown, 4.4.4.4, 10.0.0.1\r\n"
            b"X-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\n",
            id="nodes that hide",
        ),
        pytest.param(
            [b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-Host: evil.test"],
            b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\n",
            id="the other kind is the client's talk",
        ),
        pytest.param(
            [b"Forwarded: for=1.1.1.1, for=2.2.2.2 junk"],
            b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\n",
            id="malformed says nothing",
        ),
        pytest.param(
            [b'Forwarded: for=1.1.1.1;host="a b";proto="h t"'],
            b"X-Forwarded-For: 1.1.1.1, 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\n",
            id="a host and a scheme that are none",
        ),
    ],
)
def test_a_trusted_proxy_may_speak_the_standard(lines: list[bytes], expected: bytes) -> None:
    """Where the proxies write Forwarded (RFC 7239), that alone is read, and told as X-Forwarded-*. R297."""
    said = read(head(b"GET / HTTP/1.1", HOST, *lines)).fields.forwarded
    assert edge_of("10.0.0.1", header="Forwarded").forwarded_lines(said, b"a.test") == expected
    assert b"1.1.1.1" not in edge_of("192.0.2.7", header="Forwarded").forwarded_lines(said, b"a.test")


@given(st.binary(max_size=60).filter(lambda text: not set(text) & set(b"\r\n\0")))
def test_no_forwarded_is_too_odd(value: bytes) -> None:
    """Whatever a proxy writes, it is read or it is not, and what is passed on is clean."""
    said = read_forwarded([(b"forwarded", value)])
    for part in (*said.chain, said.proto, said.host):
        assert part.isascii()
        assert not set(part) & set(b' ,;"\r\n')


@pytest.mark.parametrize(
    ("peer", "chain", "expected"),
    [
        pytest.param("192.0.2.7", b"", "192.0.2.7", id="the socket"),
        pytest.param("192.0.2.7", b"1.1.1.1", "192.0.2.7", id="nobody's word"),
        pytest.param("10.0.0.1", b"", "10.0.0.1", id="a proxy for itself"),
        pytest.param("10.0.0.1", b"1.1.1.1", "1.1.1.1", id="a proxy's client"),
        pytest.param("10.0.0.1", b"6.6.6.6, 1.1.1.1", "1.1.1.1", id="what the client itself says of others"),
        pytest.param("10.0.0.1", b"6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1", id="through two proxies"),
        pytest.param("10.0.0.1", b"10.0.0.9, 10.0.0.2", "10.0.0.9", id="proxies alone"),
        pytest.param("10.0.0.1", b"1.1.1.1:8080", "1.1.1.1", id="with a port"),
        pytest.param("10.0.0.1", b"[2001:db9::1]:8080", "2001:db9::1", id="bracketed"),
        pytest.param("10.0.0.1", b"1.1.1.1, nonsense", None, id="not an address"),
    ],
)
def test_the_client_is_the_last_one_not_trusted(peer: str, chain: bytes, expected: str | None) -> None:
    """Address rules see the address that a trusted proxy saw, never one that a client may choose. R297."""
    said = [(b"x-forwarded-for", chain)] if chain else []
    edge = edge_of(peer)
    only_it = AddressRule((ip_network(expected or "9.9.9.9"),), ())
    assert edge.is_admitted(only_it, said) is (expected is not None)
    if expected is not None:
        assert not edge.is_admitted(AddressRule((), (ip_network(expected),)), said)


@pytest.mark.parametrize(
    ("allow", "deny", "address", "expected"),
    [
        ([], ["192.0.2.0/24"], "192.0.2.7", False),
        ([], ["192.0.2.0/24"], "192.0.3.7", True),
        (["192.0.2.0/24"], [], "192.0.2.7", True),
        (["192.0.2.0/24"], [], "192.0.3.7", False),
        (["192.0.2.0/24"], ["192.0.2.7"], "192.0.2.7", False),
        (["192.0.2.0/24"], ["192.0.2.7"], "192.0.2.8", True),
        (["2001:db8::/32"], [], "2001:db8::5", True),
        (["2001:db8::/32"], [], "192.0.2.7", False),
        (["192.0.2.0/24"], [], None, False),
        ([], ["192.0.2.0/24"], None, True),
    ],
)
def test_address_rules(allow: list[str], deny: list[str], address: str | None, expected: bool) -> None:
    """Denied wins over allowed; an address that is not known is in no network."""
    rule = AddressRule(tuple(map(ip_network, allow)), tuple(map(ip_network, deny)))
    assert rule.admits(None if address is None else ip_address(address)) is expected
