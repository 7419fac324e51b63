"""Chunked bodies, in pieces: payload and end are h11's, and what h11 refuses is not accepted."""

import re

from gateway.proxy.framing import CHUNK_LINE_LIMIT, EXTENSIONS_LIMIT, BadFraming, Body, ChunkedBody, chunk
from gateway.proxy.heads import last_chunk
from tests.fuzz import parts
from tests.fuzz.reference import cuts, read_request

HEAD = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
BLANK_BEFORE_EXTENSION = re.compile(rb"(?m)^[0-9A-Fa-f]+[ \t]+;")
FRAMING_TRAILER = re.compile(rb"(?im)^(?:content-length|transfer-encoding):")


def read(body: Body, pieces: list[bytes]) -> tuple[bytes, bytes] | None:
    """The payload in `pieces` and what lies behind the body; None where they are refused."""
    payload, rest = b"", b""
    for piece in pieces:
        if body.is_complete:
            rest += piece
            continue
        try:
            found, rest = body.feed(piece)
        except BadFraming:
            return None
        payload += found
    return payload, rest


def check(data: bytes) -> None:
    """`data` is the body and what lies behind it."""
    bodies = [(ChunkedBody(), pieces) for pieces in cuts(data)]
    results = {(read(body, pieces), body.is_complete, tuple(body.trailers)) for body, pieces in bodies}
    body, pieces = bodies[0]
    result = read(ChunkedBody(), pieces)
    if result is None:
        assert {found for found, _, _ in results} == {None}, "the verdict depends on how the bytes arrive"
        return
    assert len(results) == 1, "the reading depends on how the bytes arrive"
    payload, rest = result
    seen = read_request(HEAD + data)
    assert seen is not None
    if seen.is_body_refused:
        assert is_deliberate(data), "accepted, and h11 refuses it"
    else:
        assert body.is_complete == seen.is_complete
        assert payload == seen.payload
        assert rest == (seen.rest if seen.is_complete else b"")
    assert len(data) - len(rest) >= len(payload)
    if body.is_complete:
        check_relayed(body, payload)


def is_deliberate(data: bytes) -> bool:
    """Whether `data` has what we take and h11 does not: see README.md."""
    return BLANK_BEFORE_EXTENSION.search(data) is not None or FRAMING_TRAILER.search(data) is not None


def check_relayed(body: ChunkedBody, payload: bytes) -> None:
    """What is written for the next hop is read there as the same payload, with no trailer that it may not have."""
    trailers = parts.response_reader().allowed_trailers(body.trailers)
    sent = (chunk(payload) if payload else b"") + last_chunk(trailers)
    again = read_request(HEAD + sent)
    assert again is not None
    assert again.is_complete
    assert (again.payload, again.rest) == (payload, b"")


SEEDS = [
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"1\r\na\r\n02\r\nbc\r\nA\r\n0123456789\r\n0\r\n\r\n",
    b"3\r\n\r\n\n\r\n0\r\n\r\n",
    b'5;x=1;y="a b;\\"";z\r\nhello\r\n0;q\r\n\r\n',
    b"5 ; x = 1\r\nhello\r\n0 ;y\r\n\r\n",
    b"0\r\nX-Sum: 1\r\nX-User-Id: root\r\nB:\r\nC: \xff\r\n\r\nrest",
    b"0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a\r\n\r\n",
    b"0000000000000003\r\nabc\r\n000\r\n\r\n",
    b"ffffffffffffffff\r\nabc",
    b"5\nhello\n0\n\n",
    b"1;" + b"a" * (CHUNK_LINE_LIMIT - 2) + b"\r\nx\r\n0\r\n\r\n",
    (b"1;" + b"a" * (CHUNK_LINE_LIMIT - 2) + b"\r\nx\r\n") * (EXTENSIONS_LIMIT // CHUNK_LINE_LIMIT) + b"0\r\n\r\n",
]
TOKENS = [
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"0\r\n", b"0\r\n\r\n", b";a=b", b' ; a = "b"', b'\\"', b"X-A: b\r\n"),
    *(b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"\t", b"10", b"FFFFFFFFFFFFFFFF"),
]
