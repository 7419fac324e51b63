"""Where bodies end: tables, and properties over every way in which bytes can be cut into pieces."""

import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.proxy.framing import (
    CHUNK_LINE_LIMIT,
    EXTENSIONS_LIMIT,
    LAST_CHUNK,
    NO_BODY,
    TRAILERS_LIMIT,
    BadFraming,
    Body,
    ChunkedBody,
    LengthBody,
    UntilClose,
    chunk,
    content_length,
    is_chunked,
)

BEHIND = b"GET /next HTTP/1.1\r\n"


def feed(body: Body, pieces: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Payload and what lies behind, fed piece by piece as a connection would."""
    payload, rest = b"", b""
    for piece in pieces:
        if body.is_complete:
            rest += piece
        else:
            found, rest = body.feed(piece)
            payload += found
    return payload, rest


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """`data` cut at `places`; no empty pieces, since no socket gives any."""
    ends = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[start:end] for start, end in pairwise(ends)]


def bytewise(data: bytes) -> list[bytes]:
    return cut(data, range(len(data)))


GOOD_CHUNKED = [
    pytest.param(b"0\r\n\r\n", b"", id="empty"),
    pytest.param(b"5\r\nhello\r\n0\r\n\r\n", b"hello", id="one chunk"),
    pytest.param(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc", id="two chunks"),
    pytest.param(b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", id="upper-case hex"),
    pytest.param(b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789", id="lower-case hex"),
    pytest.param(b"005\r\nhello\r\n000\r\n\r\n", b"hello", id="leading zeros"),
    pytest.param(b"0000000000000005\r\nhello\r\n0\r\n\r\n", b"hello", id="sixteen digits"),
    pytest.param(b"5\r\n\r\n\r\n\n\r\n0\r\n\r\n", b"\r\n\r\n\n", id="payload of line ends"),
    pytest.param(b"5;x\r\nhello\r\n0\r\n\r\n", b"hello", id="extension"),
    pytest.param(b'5;x=1;y="a b;\\""\r\nhello\r\n0\r\n\r\n', b"hello", id="quoted extension"),
    pytest.param(b"5 ; x = 1\r\nhello\r\n0 ;y\r\n\r\n", b"hello", id="blanks around an extension"),
    pytest.param(b"0\r\nX-Sum: 1\r\n\r\n", b"", id="trailer"),
    pytest.param(b"0\r\nA: 1\r\nB:\r\nC: \xff\r\n\r\n", b"", id="trailers"),
]


@pytest.mark.parametrize(("raw", "payload"), GOOD_CHUNKED)
def test_a_chunked_body_reads_the_same_however_it_is_cut(raw: bytes, payload: bytes) -> None:
    """The payload, and where the body ends, do not depend on how the bytes arrive. R025."""
    data = raw + BEHIND
    ways = [[data], bytewise(data), *([data[:place], data[place:]] for place in range(1, len(data)))]
    for pieces in ways:
        body = ChunkedBody()
        assert feed(body, pieces) == (payload, BEHIND), pieces
        assert body.is_complete


BAD_CHUNKED = [
    pytest.param(b"\r\n", id="no size"),
    pytest.param(b"x\r\n", id="not hex"),
    pytest.param(b"0x5\r\nhello\r\n", id="0x"),
    pytest.param(b"+5\r\nhello\r\n", id="plus sign"),
    pytest.param(b"-5\r\nhello\r\n", id="minus sign"),
    pytest.param(b"5_0\r\n", id="underscore"),
    pytest.param(b" 5\r\nhello\r\n", id="blank before the size"),
    pytest.param(b"5 \r\nhello\r\n", id="blank behind the size"),
    pytest.param(b"5\t\r\nhello\r\n", id="tab behind the size"),
    pytest.param(b"10000000000000005\r\nhello\r\n", id="seventeen digits: more than 64 bits"),
    pytest.param(b"5\nhello\r\n0\r\n\r\n", id="LF ends the size"),
    pytest.param(b"5\rhello\r\n0\r\n\r\n", id="CR ends the size"),
    pytest.param(b"5\r\nhello0\r\n\r\n", id="no CRLF behind the data"),
    pytest.param(b"5\r\nhello\n0\r\n\r\n", id="LF behind the data"),
    pytest.param(b"5\r\nhello\r0\r\n\r\n", id="CR behind the data"),
    pytest.param(b"5\r\nhello!!0\r\n\r\n", id="data longer than said"),
    pytest.param(b"5;\r\nhello\r\n", id="extension without a name"),
    pytest.param(b"5;a=\r\nhello\r\n", id="extension without a value"),
    pytest.param(b"5;a\nb\r\nhello\r\n", id="LF in an extension"),
    pytest.param(b"5;a\rb\r\nhello\r\n", id="CR in an extension"),
    pytest.param(b'5;a="x\r\n"\r\nhello\r\n', id="CRLF in a quoted extension"),
    pytest.param(b'5;a="\x00"\r\nhello\r\n', id="NUL in a quoted extension"),
    pytest.param(b"5,5\r\nhello\r\n", id="comma"),
    pytest.param(b"5 5\r\nhello\r\n", id="two sizes"),
    pytest.param(b"0\r\n bad: 1\r\n\r\n", id="trailer folded"),
    pytest.param(b"0\r\nbad\r\n\r\n", id="trailer without a colon"),
    pytest.param(b"0\r\nbad : 1\r\n\r\n", id="blank before a trailer's colon"),
    pytest.param(b"0\r\n: 1\r\n\r\n", id="trailer without a name"),
    pytest.param(b"0\r\na: 1\n\r\n", id="LF ends a trailer"),
    pytest.param(b"0\r\na: \x001\r\n\r\n", id="NUL in a trailer"),
    pytest.param(b"0\r\n\n", id="LF ends the body"),
    pytest.param(b"5" + b"0" * CHUNK_LINE_LIMIT + b"\r\n", id="endless size"),
    pytest.param(b"5;" + b"a" * CHUNK_LINE_LIMIT + b"\r\n", id="endless extension"),
    pytest.param(b"5;" + b"a" * (CHUNK_LINE_LIMIT + 10), id="endless extension, unfinished"),
    pytest.param((b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 5, id="extensions add up"),
    pytest.param(b"1;a\r\nx\r\n" * (EXTENSIONS_LIMIT // 2 + 1), id="a short extension on very many chunks"),
    pytest.param(b"0\r\n" + b"a: " + b"b" * TRAILERS_LIMIT + b"\r\n\r\n", id="endless trailer"),
    pytest.param(b"0\r\n" + b"a: b\r\n" * (TRAILERS_LIMIT // 6 + 1) + b"\r\n", id="trailers add up"),
]


@pytest.mark.threat("chunk lines", "size bombs")
@pytest.mark.parametrize("raw", BAD_CHUNKED)
def test_a_malformed_chunked_body_is_refused_however_it_is_cut(raw: bytes) -> None:
    """CRLF alone ends the lines of the coding, and overhead is bounded (CVE-2024-22019, CVE-2025-55315). R345."""
    with pytest.raises(BadFraming):
        feed(ChunkedBody(), [raw])
    with pytest.raises(BadFraming):
        feed(ChunkedBody(), bytewise(raw))


def test_a_chunk_line_may_be_as_long_as_the_limit_however_it_is_cut() -> None:
    """The limit itself is allowed, also when CR and LF arrive apart. R345."""
    line = b"1;" + b"a" * (CHUNK_LINE_LIMIT - 2)
    data = line + b"\r\nx\r\n0\r\n\r\n"
    assert feed(ChunkedBody(), [data]) == (b"x", b"")
    assert feed(ChunkedBody(), [line + b"\r", b"\nx\r\n0\r\n\r\n"]) == (b"x", b"")


@pytest.mark.threat("trailers")
def test_trailers_are_kept_apart_from_the_payload() -> None:
    """Trailers never become part of a body or of a head. R022."""
    body = ChunkedBody()
    assert feed(body, [b"1\r\na\r\n0\r\nX-User-Id: root\r\nX: y\r\n\r\n"]) == (b"a", b"")
    assert body.trailers == [b"X-User-Id: root", b"X: y"]


# An independent model: one expression over the whole coding. It says nothing of unfinished or over-long input.
TOKEN = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[ \t]*" + TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + TOKEN + rb"|" + QUOTED + rb"))?)*\r\n"
)
TRAILERS = re.compile(rb"(?:" + TOKEN + rb":[\t -~\x80-\xff]*\r\n)*\r\n")


def model(data: bytes) -> tuple[bytes, bytes] | None:
    """Payload and rest of a complete, well-formed chunked body; None for anything else."""
    payload, position = b"", 0
    while True:
        line = SIZE_LINE.match(data, position)
        if line is None:
            return None
        size, position = int(line[1], 16), line.end()
        if size == 0:
            end = TRAILERS.match(data, position)
            return None if end is None else (payload, data[end.end() :])
        if data[position + size : position + size + 2] != b"\r\n":
            return None
        payload += data[position : position + size]
        position += size + 2


@st.composite
def codings(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A legal chunked body and its payload."""
    payloads = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    extensions = st.sampled_from([b"", b";x", b" ;x=1", b';q="a\\"b"', b"; a = b ;c"])
    raw = b"".join(
        b"%x%b\r\n%b\r\n" % (len(payload), draw(extensions), payload)
        if draw(st.booleans())
        else b"%03X%b\r\n%b\r\n" % (len(payload), draw(extensions), payload)
        for payload in payloads
    )
    trailers = draw(st.lists(st.sampled_from([b"A: b\r\n", b"X-User-Id: root\r\n", b"C:\r\n"]), max_size=3))
    return raw + b"0%b\r\n%b\r\n" % (draw(extensions), b"".join(trailers)), b"".join(payloads)


places = st.lists(st.integers(0, 400), max_size=12)


@given(codings(), st.binary(max_size=20), places)
def test_any_legal_coding_in_any_pieces_gives_its_payload(
    coding: tuple[bytes, bytes], behind: bytes, where: list[int]
) -> None:
    """Decoding gives back what was encoded, and nothing that lies behind it. R025."""
    raw, payload = coding
    assert model(raw + behind) == (payload, behind)
    for pieces in ([raw + behind], bytewise(raw + behind), cut(raw + behind, where)):
        body = ChunkedBody()
        assert feed(body, pieces) == (payload, behind)
        assert body.is_complete


@given(codings(), st.data())
def test_damaged_codings_are_read_as_the_model_reads_them(coding: tuple[bytes, bytes], data: st.DataObject) -> None:
    """Whatever happens to the bytes, the decoder completes exactly where the model does, in any pieces. R025."""
    raw = bytearray(coding[0])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b"\n", b"\r", b"\r\n", b";", b" ", b"0", b"5", b"\x00", b"f", b'"'])
        )
        if not raw:
            raw = bytearray(b"0")
    expected = model(bytes(raw))
    for pieces in ([bytes(raw)], bytewise(bytes(raw)), cut(bytes(raw), data.draw(places))):
        body = ChunkedBody()
        try:
            seen = feed(body, pieces)
        except BadFraming:
            assert expected is None, pieces
            continue
        assert body.is_complete == (expected is not None), pieces
        if expected is not None:
            assert seen == expected, pieces


@given(st.binary(max_size=200), places)
@example(b"\r\n\r\n", [1])
def test_random_bytes_raise_nothing_but_bad_framing(data: bytes, where: list[int]) -> None:
    """Noise is refused or waited for, never a crash. R075."""
    body = ChunkedBody()
    try:
        payload, rest = feed(body, cut(data, where))
    except BadFraming:
        return
    assert len(payload) + len(rest) <= len(data)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6))
def test_re_encoding_is_read_back_as_the_same_payload(payloads: list[bytes]) -> None:
    """What the gateway writes as chunks is what it read. R025."""
    raw = b"".join(chunk(payload) for payload in payloads) + LAST_CHUNK
    body = ChunkedBody()
    assert feed(body, [raw]) == (b"".join(payloads), b"")
    assert body.is_complete
    assert body.trailers == []


@given(st.binary(max_size=60), st.binary(max_size=20), places)
def test_a_body_of_known_length_ends_there(payload: bytes, behind: bytes, where: list[int]) -> None:
    """Content-Length bytes belong to the body, and not one more. R025."""
    body = LengthBody(len(payload))
    assert feed(body, cut(payload + behind, where)) == (payload, behind)
    assert body.is_complete


def test_bodies_without_an_end_and_without_a_beginning() -> None:
    """A body that ends with the connection never completes by itself; no body takes nothing."""
    endless = UntilClose()
    assert endless.feed(b"all") == (b"all", b"")
    assert not endless.is_complete
    assert NO_BODY.feed(b"next") == (b"", b"next")
    assert NO_BODY.is_complete
    assert LengthBody(0).is_complete


@pytest.mark.parametrize(
    ("values", "length"),
    [
        pytest.param([b"0"], 0, id="zero"),
        pytest.param([b"42"], 42, id="a number"),
        pytest.param([b"007"], 7, id="leading zeros"),
        pytest.param([b"9999999999999999999"], 9_999_999_999_999_999_999, id="nineteen digits"),
    ],
)
def test_one_plain_number_is_a_length(values: list[bytes], length: int) -> None:
    """Content-Length is digits. RFC 9112 6.3."""
    assert content_length(values) == length


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="none"),
        pytest.param([b""], id="empty"),
        pytest.param([b"+1"], id="plus"),
        pytest.param([b"-1"], id="minus"),
        pytest.param([b"1 "], id="blank"),
        pytest.param([b"1_0"], id="underscore"),
        pytest.param([b"0x1"], id="hex"),
        pytest.param([b"1.0"], id="fraction"),
        pytest.param([b"1e3"], id="exponent"),
        pytest.param([b"1, 1"], id="list of equals"),
        pytest.param([b"1", b"1"], id="twice the same"),
        pytest.param([b"1", b"2"], id="two lengths"),
        pytest.param([b"\xb2"], id="superscript two"),
        pytest.param([b"\xd9\xa3"], id="arabic digit"),
        pytest.param([b"1" * 20], id="twenty digits"),
        pytest.param([b"1" * 5000], id="five thousand digits"),
        pytest.param([b"1\n"], id="newline"),
    ],
)
def test_anything_else_is_not_a_length(values: list[bytes]) -> None:
    """Two readers might read it in two ways, so nobody reads it. RFC 9112 6.3."""
    with pytest.raises(BadFraming):
        content_length(values)


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b"CHUNKED"])
def test_chunked_is_chunked(value: bytes) -> None:
    """The name of the coding has no case. RFC 9112 7."""
    assert is_chunked([value])


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="none"),
        pytest.param([b""], id="empty"),
        pytest.param([b"identity"], id="identity"),
        pytest.param([b"gzip"], id="gzip"),
        pytest.param([b"gzip, chunked"], id="gzip under chunked"),
        pytest.param([b"chunked, gzip"], id="chunked not last"),
        pytest.param([b"chunked, chunked"], id="chunked twice"),
        pytest.param([b"chunked", b"chunked"], id="two fields"),
        pytest.param([b"chunked;a=b"], id="parameter"),
        pytest.param([b'"chunked"'], id="quoted"),
        pytest.param([b"xchunked"], id="prefix"),
        pytest.param([b"chunkedx"], id="suffix"),
        pytest.param([b",chunked"], id="leading comma"),
        pytest.param([b"chunked,"], id="trailing comma"),
        pytest.param([b"chunked\x0b"], id="vertical tab"),
        pytest.param([b"chunked\n"], id="newline"),
        pytest.param([b"chun\xe2\x84\xaaed"], id="Kelvin sign"),
    ],
)
def test_any_other_coding_is_refused(values: list[bytes]) -> None:
    """Only one coding exists here. RFC 9112 6.1."""
    with pytest.raises(BadFraming):
        is_chunked(values)
