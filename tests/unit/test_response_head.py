"""Heads of replies: read as strictly as a request's; anything doubtful is the upstream's fault."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.proxy.errors import UpstreamError
from gateway.proxy.framing import NO_BODY, Body, ChunkedBody, LengthBody, UntilClose
from gateway.proxy.headers import Action
from gateway.proxy.response_head import LINES_LIMIT, ResponseReader, body_of
from tests.unit.reading import head, read_reply, response_table

OK = b"HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("line", "relayed"),
    [
        (b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK"),
        (b"HTTP/1.0 200 OK", b"HTTP/1.1 200 OK"),
        (b"HTTP/1.1 404 Not  Found", b"HTTP/1.1 404 Not  Found"),
        (b"HTTP/1.1 200 ", b"HTTP/1.1 200 "),
        (b"HTTP/1.1 200", b"HTTP/1.1 200 "),
        (b"HTTP/1.1 599 \xe9t\xe9", b"HTTP/1.1 599 \xe9t\xe9"),
    ],
)
def test_the_status_line_is_relayed(line: bytes, relayed: bytes) -> None:
    """Status and reason come through; the version is the gateway's own. R347."""
    reply = read_reply(head(line, b"Content-Length: 0"))
    assert reply.start == relayed + b"\r\n"
    assert reply.status == int(line.split()[1])


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1 20",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 600 OK",
        b"HTTP/1.1 999 OK",
        b"HTTP/1.1 2x0 OK",
        b"HTTP/1.1 -200 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK",
        b" HTTP/1.1 200 OK",
        b"HTTP/1.1 200\tOK",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 OK\r",
        b"HTTP/2.0 200 OK",
        b"HTTP/0.9 200 OK",
        b"HTTP/1.2 200 OK",
        b"http/1.1 200 OK",
        b"RTSP/1.0 200 OK",
        b"ICY 200 OK",
        b"GET / HTTP/1.1",
        b"<html>",
    ],
)
def test_a_doubtful_status_line_is_the_upstreams_fault(line: bytes) -> None:
    """It becomes a 502 and is never relayed. RFC 9112 4."""
    with pytest.raises(UpstreamError):
        read_reply(head(line, b"Content-Length: 0"))


@pytest.mark.threat("broken replies")
@pytest.mark.parametrize(
    "line",
    [
        b"NoColon",
        b": empty",
        b"X-A : b",
        b"Content-Length : 0",
        b" folded",
        b"\tfolded",
        b"X-A: b\nSet-Cookie: c",
        b"X-A: b\rSet-Cookie: c",
        b"X-A: \x00",
        b"X-A: \x1b",
        b"X(A): b",
        b"X\xe9: b",
    ],
)
def test_a_doubtful_header_line_is_the_upstreams_fault(line: bytes) -> None:
    """No reply can be split by what an upstream puts into a value. RFC 9112 5."""
    for lines in ([OK, line], [OK, b"A: b", line, b"C: d"]):
        with pytest.raises(UpstreamError):
            read_reply(head(*lines))


@pytest.mark.threat("broken replies")
@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"Content-Length: 5", b"Transfer-Encoding: chunked"], id="CL.TE"),
        pytest.param([b"Content-Length: 5", b"Content-Length: 6"], id="two lengths"),
        pytest.param([b"Content-Length: 5", b"Content-Length: 5"], id="twice the same"),
        pytest.param([b"Content-Length: 5, 5"], id="list"),
        pytest.param([b"Content-Length: -5"], id="negative"),
        pytest.param([b"Content-Length: five"], id="word"),
        pytest.param([b"Content-Length:"], id="empty"),
        pytest.param([b"Transfer-Encoding: gzip"], id="another coding"),
        pytest.param([b"Transfer-Encoding: gzip, chunked"], id="under chunked"),
        pytest.param([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], id="chunked twice"),
    ],
)
def test_doubtful_framing_is_the_upstreams_fault(lines: list[bytes]) -> None:
    """Where the reply ends must be certain, or the next client gets its rest. RFC 9112 6.3."""
    with pytest.raises(UpstreamError):
        read_reply(head(OK, *lines))


def test_chunked_in_a_10_reply_is_the_upstreams_fault() -> None:
    """HTTP/1.0 has no chunks. RFC 9112 6.1."""
    with pytest.raises(UpstreamError):
        read_reply(head(b"HTTP/1.0 200 OK", b"Transfer-Encoding: chunked"))


@pytest.mark.parametrize(
    ("status", "lines", "method", "body"),
    [
        pytest.param(200, [b"Content-Length: 5"], b"GET", LengthBody, id="length"),
        pytest.param(200, [b"Transfer-Encoding: chunked"], b"GET", ChunkedBody, id="chunked"),
        pytest.param(200, [], b"GET", UntilClose, id="until close"),
        pytest.param(200, [b"Content-Length: 5"], b"HEAD", None, id="HEAD"),
        pytest.param(200, [b"Transfer-Encoding: chunked"], b"HEAD", None, id="HEAD, chunked"),
        pytest.param(200, [], b"HEAD", None, id="HEAD without a length"),
        pytest.param(204, [], b"GET", None, id="204"),
        pytest.param(204, [b"Content-Length: 5"], b"GET", None, id="204 with a length"),
        pytest.param(304, [b"Content-Length: 5"], b"GET", None, id="304"),
        pytest.param(304, [], b"POST", None, id="304 to POST"),
        pytest.param(100, [], b"GET", None, id="interim"),
        pytest.param(404, [], b"POST", UntilClose, id="error until close"),
    ],
)
def test_where_the_reply_ends(status: int, lines: list[bytes], method: bytes, body: type[Body] | None) -> None:
    """Status, method and framing say it. RFC 9112 6.3."""
    found = body_of(read_reply(head(b"HTTP/1.1 %d X" % status, *lines)), method)
    assert found is NO_BODY if body is None else type(found) is body


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        pytest.param([b"Set-Cookie: a", b"Set-Cookie:b "], b"Set-Cookie: a\r\nSet-Cookie:b \r\n", id="as it came"),
        pytest.param([b"Connection: X-Foo, close", b"x-foo: 1", b"A: b"], b"A: b\r\n", id="nominated"),
        pytest.param(
            [b"Keep-Alive: 5", b"Proxy-Authenticate: x", b"Trailer: y", b"Upgrade: h2c"], b"", id="hop by hop"
        ),
        pytest.param([b"X-User-Id: a", b"x_plan: b", b"X-Request-Id: c"], b"", id="the gateway's own"),
        pytest.param([b"Cache-Control: no-store"], b"Cache-Control: no-store\r\n", id="no-store stays"),
        pytest.param([b"WWW-Authenticate: Basic"], b"WWW-Authenticate: Basic\r\n", id="the upstream's own 401"),
    ],
)
def test_what_is_relayed(lines: list[bytes], kept: bytes) -> None:
    """Hop-by-hop fields and the gateway's own names stop here, the rest is untouched. R024, R029, R343."""
    reply = read_reply(head(OK, b"Content-Length: 0", *lines))
    assert reply.start == OK + b"\r\n" + kept


def test_length_lines_are_written_anew() -> None:
    """The length is canonical; a reply that has no body announces none, but HEAD and 304 may. RFC 9110 8.6."""
    assert read_reply(head(OK, b"content-length:\t007")).length_line == b"Content-Length: 7\r\n"
    assert read_reply(head(b"HTTP/1.1 304 X", b"Content-Length: 7")).length_line == b"Content-Length: 7\r\n"
    assert read_reply(head(b"HTTP/1.1 204 X", b"Content-Length: 7")).length_line == b""


@pytest.mark.parametrize(
    ("lines", "keeps"),
    [
        ([OK], True),
        ([OK, b"Connection: close"], False),
        ([OK, b"Connection: Keep-Alive, Close"], False),
        ([b"HTTP/1.0 200 OK"], False),
        ([b"HTTP/1.0 200 OK", b"Connection: keep-alive"], True),
    ],
)
def test_whether_the_upstreams_connection_can_be_kept(lines: list[bytes], keeps: bool) -> None:
    """As the upstream says. RFC 9112 9.3."""
    assert read_reply(head(*lines, b"Content-Length: 0")).keeps_alive is keeps


@pytest.mark.threat("size bombs")
def test_very_many_lines_are_the_upstreams_fault() -> None:
    """A reply's head is bounded."""
    read_reply(head(OK, *[b"A: b"] * (LINES_LIMIT - 1)))
    with pytest.raises(UpstreamError):
        read_reply(head(OK, *[b"A: b"] * LINES_LIMIT))


def test_a_remembered_head_says_the_same_again() -> None:
    """What a connection remembers of its last reply changes nothing, and where the body ends is asked anew."""
    reader = ResponseReader(response_table())
    raw = head(OK, b"Content-Length: 3")
    first = reader.read(raw)
    body_of(first, b"GET").feed(b"abc")
    again = reader.read(raw)
    assert again is first
    assert not body_of(again, b"GET").is_complete
    assert body_of(again, b"HEAD") is NO_BODY


names = st.one_of(
    st.text("!#$%&'*+-.^_`|~09AZaz", min_size=1, max_size=10).map(str.encode),
    st.sampled_from([b"Set-Cookie", b"Server", b"X-User-Id", b"X_Plan", b"Keep-Alive", b"Date", b"Vary"]),
).filter(lambda name: response_table().classify(name) in (Action.KEEP, Action.DROP, Action.RESERVED))
values = st.binary(max_size=30).map(lambda raw: bytes(b for b in raw if b == 9 or 32 <= b != 127))


@given(st.integers(200, 599), st.lists(st.tuples(names, values), max_size=8))
def test_a_legal_head_keeps_exactly_its_legal_lines(status: int, fields: list[tuple[bytes, bytes]]) -> None:
    """Every line that is neither the gateway's nor this hop's is relayed, in order, byte for byte. R024, R029."""
    lines = [name + b":" + value for name, value in fields]
    reply = read_reply(head(b"HTTP/1.1 %d Fine" % status, *lines))
    table = response_table()
    legal = [line for (name, _), line in zip(fields, lines, strict=True) if table.classify(name) is Action.KEEP]
    assert reply.start == b"HTTP/1.1 %d Fine\r\n" % status + b"".join(line + b"\r\n" for line in legal)


@given(st.binary(max_size=120))
@example(b"HTTP/1.1 200 OK\r\n\r\nA: b")
def test_random_bytes_are_the_upstreams_fault_and_nothing_else(data: bytes) -> None:
    """Noise raises nothing that is not a 502. R340."""
    try:
        read_reply(data)
    except UpstreamError:
        return


@pytest.mark.threat("broken replies")
@given(st.data())
def test_whatever_is_relayed_cannot_split_a_reply(data: st.DataObject) -> None:
    """Damage to a good head is refused, or leaves lines of which each is one line."""
    raw = bytearray(head(OK, b"A: b", b"Set-Cookie: c", b"Content-Length: 5", b"Connection: A"))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw)))
        raw[place : place + data.draw(st.integers(0, 3))] = data.draw(
            st.one_of(st.sampled_from([b"\r\n", b"\n", b"\r", b":", b" ", b"\x00", b"\r\n "]), st.binary(max_size=2))
        )
    try:
        reply = read_reply(bytes(raw))
    except UpstreamError:
        return
    assert reply.start.endswith(b"\r\n")
    for line in reply.start[:-2].split(b"\r\n"):
        assert line.translate(None, b"\r\n\x00") == line
        assert line
