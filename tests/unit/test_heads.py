"""The heads that the gateway writes: exact bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.admission import Admitted
from gateway.auth.principal import AuthKind, Principal, header_lines
from gateway.proxy.edge import Edge, TrustedProxies, address_in
from gateway.proxy.heads import reply_head, request_head
from gateway.proxy.request_head import RequestHead
from gateway.stores.records import SecretState
from tests.unit.reading import head, read, read_reply

HOST = b"Host: a.test"
IDENTITY = b"X-User-Id: u1\r\nX-Plan: pro\r\n"
CALLER = Admitted(
    Principal(
        kind=AuthKind.KEY,
        tenant_id="t1",
        user_id="u1",
        key_id="k1",
        secret_state=SecretState.CURRENT,
        scopes=frozenset(),
        features=frozenset(),
        tier=0,
        identity=IDENTITY,
    )
)
NOBODY = Admitted(None)


def edge_of(address: str) -> Edge:
    return Edge(address_in(address.encode()), "http", TrustedProxies([], header="X-Forwarded-For"))


def written(request: RequestHead, admitted: Admitted = NOBODY, edge: Edge | None = None) -> bytes:
    return request_head(
        request,
        request.target,
        b"Host: up.test:9001\r\n",
        admitted,
        edge or edge_of("192.0.2.7"),
        b"X-Request-Id: r1\r\n",
    )


OURS = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\nX-Request-Id: r1\r\n"


@pytest.mark.parametrize(
    ("line", "lines", "expected"),
    [
        pytest.param(
            b"GET /a?b HTTP/1.1",
            [b"Accept: x"],
            b"GET /a?b HTTP/1.1\r\nHost: up.test:9001\r\nAccept: x\r\n" + OURS + b"\r\n",
            id="no body",
        ),
        pytest.param(
            b"POST / HTTP/1.1",
            [b"Content-Length: 007", b"Accept: x"],
            b"POST / HTTP/1.1\r\nHost: up.test:9001\r\nAccept: x\r\n" + OURS + b"Content-Length: 7\r\n\r\n",
            id="a length",
        ),
        pytest.param(
            b"POST / HTTP/1.1",
            [b"Content-Length: 0"],
            b"POST / HTTP/1.1\r\nHost: up.test:9001\r\n" + OURS + b"Content-Length: 0\r\n\r\n",
            id="an empty body",
        ),
        pytest.param(
            b"POST / HTTP/1.1",
            [b"transfer-encoding:CHUNKED"],
            b"POST / HTTP/1.1\r\nHost: up.test:9001\r\n" + OURS + b"Transfer-Encoding: chunked\r\n\r\n",
            id="chunks",
        ),
        pytest.param(
            b"GET / HTTP/1.0",
            [b"Connection: keep-alive"],
            b"GET / HTTP/1.1\r\nHost: up.test:9001\r\n" + OURS + b"\r\n",
            id="HTTP/1.0",
        ),
    ],
)
def test_the_head_upstream(line: bytes, lines: list[bytes], expected: bytes) -> None:
    """One canonical head: our Host, the client's own lines, ours, one framing. R024, R341, R342."""
    assert written(read(head(line, HOST, *lines))) == expected


def test_identity_comes_behind_the_clients_lines() -> None:
    """What the upstream is told of the caller was put there by the gateway. R021."""
    request = read(head(b"GET / HTTP/1.1", HOST, b"X-User-Id: root", b"Accept: x"))
    assert b"Accept: x\r\n" + IDENTITY + b"X-Forwarded-For" in written(request, CALLER)
    assert b"root" not in written(request, CALLER)
    assert b"X-User-Id" not in written(request, NOBODY)


def test_an_untrusted_clients_forwarding_is_replaced() -> None:
    """Only the socket tells who is there. R297."""
    request = read(head(b"GET / HTTP/1.1", HOST, b"X-Forwarded-For: 1.1.1.1", b"X-Forwarded-Proto: https"))
    assert OURS in written(request)
    assert b"1.1.1.1" not in written(request)


@pytest.mark.parametrize(
    ("lines", "is_chunked", "closes", "is_http_10", "end"),
    [
        ([b"Content-Length: 5"], False, False, False, b"Content-Length: 5\r\nX-Request-Id: r1\r\n\r\n"),
        (
            [b"Content-Length: 5"],
            False,
            True,
            False,
            b"Content-Length: 5\r\nX-Request-Id: r1\r\nConnection: close\r\n\r\n",
        ),
        (
            [b"Content-Length: 5"],
            False,
            False,
            True,
            b"Content-Length: 5\r\nX-Request-Id: r1\r\nConnection: keep-alive\r\n\r\n",
        ),
        ([], True, False, False, b"Transfer-Encoding: chunked\r\nX-Request-Id: r1\r\n\r\n"),
        ([], False, True, True, b"X-Request-Id: r1\r\nConnection: close\r\n\r\n"),
    ],
)
def test_the_head_to_the_client(
    lines: list[bytes], is_chunked: bool, closes: bool, is_http_10: bool, end: bytes
) -> None:
    """The upstream's lines, one framing, the request's id, and what becomes of the connection. R024, R030."""
    fields = read_reply(head(b"HTTP/1.1 200 OK", b"A: b", *lines))
    raw = reply_head(fields, b"X-Request-Id: r1\r\n", is_chunked=is_chunked, closes=closes, is_http_10=is_http_10)
    assert raw == b"HTTP/1.1 200 OK\r\nA: b\r\n" + end


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("u1", b"X: u1\r\n"),
        ("a:read b:write", b"X: a:read b:write\r\n"),
        ("", b""),
        ("größe", b"X: gr%C3%B6%C3%9Fe\r\n"),
        ("a\r\nX-User-Id: root", b"X: a%0D%0AX-User-Id%3A root\r\n"),
        ("a\x00b", b"X: a%00b\r\n"),
        ("日本 pro", b"X: %E6%97%A5%E6%9C%AC pro\r\n"),
    ],
)
def test_identity_values_are_encoded_or_plain(value: str, line: bytes) -> None:
    """What cannot be a header is percent-encoded, never injected. R026."""
    assert header_lines({"X": value}) == line


@given(st.text(max_size=40))
def test_no_identity_value_makes_a_second_line(value: str) -> None:
    """Whatever a record holds, it stays within its line and within ASCII. R026."""
    if any(0xD800 <= ord(character) < 0xE000 for character in value):
        return  # no text of the database holds a lone surrogate
    lines = header_lines({"X": value})
    assert lines.count(b"\r") == lines.count(b"\n") == (1 if value else 0)
    assert all(byte in b"\r\n" or 0x20 <= byte < 0x7F for byte in lines)
