"""Keys in a query and in subprotocols: taken out whole, and only where configured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.credentials import AMBIGUOUS, INVALID, Credential, CredentialReader
from gateway.auth.refusal import Refusal
from gateway.auth.secrets import sha256_digest
from gateway.proxy.headers import REQUEST_FIELDS, Action, HeaderTable
from gateway.proxy.places import Places
from gateway.proxy.request_head import RequestHead, RequestReader
from tests.unit.reading import SECRET, SECRETS, head

OTHER = SECRETS.generate().encode()
FOUND = Credential(sha256_digest(SECRET))
PLACES = Places(frozenset({b"api_key"}), frozenset({b"ostiary-key"}))
TABLE = HeaderTable({**REQUEST_FIELDS, b"x-api-key": Action.CREDENTIAL, b"sec-websocket-protocol": Action.PROTOCOLS})


def read(target: bytes, *lines: bytes, places: Places = PLACES) -> RequestHead:
    reader = RequestReader(TABLE, CredentialReader(SECRETS), places, line_limit_bytes=8192, header_count_limit=100)
    request = head(b"GET %b HTTP/1.1" % target, b"Host: a.test", *lines)
    reader.read(head(b"GET / HTTP/1.1", b"Host: a.test", *lines))  # what is remembered of a section changes nothing
    return reader.read(request)


@pytest.mark.parametrize(
    ("target", "rest", "expected"),
    [
        pytest.param(b"/a?api_key=" + SECRET, b"/a", FOUND, id="alone"),
        pytest.param(b"/a?x=1&api_key=" + SECRET + b"&y=%20", b"/a?x=1&y=%20", FOUND, id="among others"),
        pytest.param(b"/a?api%5Fkey=" + SECRET, b"/a", FOUND, id="an encoded name"),
        pytest.param(b"/a?api_key=" + SECRET.replace(b"_", b"%5f"), b"/a", FOUND, id="an encoded value"),
        pytest.param(b"/a?api_key=" + SECRET + b"&api_key=" + SECRET, b"/a", FOUND, id="R009 the same twice"),
        pytest.param(b"/a?api_key=" + SECRET + b"&api_key=" + OTHER, b"/a", AMBIGUOUS, id="R009 two"),
        pytest.param(b"/a?api_key=", b"/a", INVALID, id="R010 empty"),
        pytest.param(b"/a?api_key", b"/a", INVALID, id="R010 without a value"),
        pytest.param(b"/a?api_key=" + SECRET + b"+", b"/a", INVALID, id="R006 with a blank behind it"),
        pytest.param(b"/a?API_KEY=" + SECRET, b"/a?API_KEY=" + SECRET, None, id="another name"),
        pytest.param(b"/a?xapi_key=1&&=&?", b"/a?xapi_key=1&&=&?", None, id="R025 bytes that mean nothing here"),
        pytest.param(b"http://a.test/a?api_key=" + SECRET, b"/a", FOUND, id="absolute form"),
    ],
)
def test_keys_in_the_query(target: bytes, rest: bytes, expected: Credential | Refusal | None) -> None:
    """A configured parameter is the credential, and no longer in the target. R005."""
    request = read(target)
    assert request.credential == expected
    assert request.target == rest


@pytest.mark.parametrize(
    ("lines", "kept", "expected", "marker"),
    [
        pytest.param([b"ostiary-key, " + SECRET], None, FOUND, b"ostiary-key", id="alone"),
        pytest.param([b"ostiary-key," + SECRET + b", chat"], b"chat", FOUND, b"ostiary-key", id="before another"),
        pytest.param([b"v2.chat, ostiary-key", SECRET + b", x"], b"v2.chat, x", FOUND, b"ostiary-key", id="two lines"),
        pytest.param([b"ostiary-key"], None, INVALID, b"ostiary-key", id="R010 a name without a key"),
        pytest.param([b"ostiary-key, nonsense"], None, INVALID, b"ostiary-key", id="R006 no key"),
        pytest.param(
            [b"ostiary-key, " + SECRET + b", ostiary-key, " + OTHER], None, AMBIGUOUS, b"ostiary-key", id="R009 two"
        ),
        pytest.param([b"chat, superchat"], b"chat, superchat", None, b"", id="none of ours"),
    ],
)
def test_keys_in_subprotocols(
    lines: list[bytes], kept: bytes | None, expected: Credential | Refusal | None, marker: bytes
) -> None:
    """Behind the configured name stands the key; neither is offered to the upstream. R005."""
    request = read(b"/", *(b"Sec-WebSocket-Protocol: " + line for line in lines))
    assert request.credential == expected
    assert request.kept == (b"" if kept is None else b"\r\nSec-WebSocket-Protocol: %b\r\n" % kept)[2:]
    assert request.fields.key_protocol == marker


def test_places_are_compared_with_headers() -> None:
    """Two different credentials are refused, wherever each of them stands; the same one is fine. R009, R010."""
    for line in (b"X-Api-Key: %b", b"Sec-WebSocket-Protocol: ostiary-key, %b"):
        assert read(b"/?api_key=" + SECRET, line % SECRET).credential == FOUND
        assert read(b"/?api_key=" + SECRET, line % OTHER).credential == AMBIGUOUS
        assert read(b"/?api_key=nonsense", line % SECRET).credential == AMBIGUOUS
        assert read(b"/", line % SECRET).credential == FOUND


def test_a_place_that_is_not_configured_is_none() -> None:
    """A key in a query is never accepted unless an operator has named that place. R005."""
    request = read(b"/?api_key=" + SECRET, places=Places())
    assert request.credential is None
    assert request.target == b"/?api_key=" + SECRET


@given(st.lists(st.sampled_from([b"api_key", b"api%5fkey", b"a", b"", b"=", b"%", b"+", SECRET]), max_size=8))
def test_no_spelling_of_the_place_stays(parts: list[bytes]) -> None:
    """Whatever stands around it, the configured parameter goes, and everything else stays to the byte. R005."""
    query = b"&".join(parts)
    target, secrets = PLACES.take_from_query(b"/?" + query)
    ours = [part for part in parts if part in (b"api_key", b"api%5fkey")]
    assert len(secrets) == len(ours)
    others = [part for part in query.split(b"&") if part not in ours]
    assert target == (b"/?" + b"&".join(others) if others or not ours else b"/")
