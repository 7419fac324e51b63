"""Messages whose end two readers would put in two places: refused, never forwarded, nothing behind them is read."""

import pytest

from tests.fixtures.edge import OURS, Edge

pytestmark = pytest.mark.asyncio(loop_scope="session")

POST = b"POST /a HTTP/1.1\r\nHost: gw.test\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: gw.test\r\n\r\n"

REFUSED = [
    pytest.param(
        POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG" + HIDDEN,
        id="CL.TE",
    ),
    pytest.param(
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + HIDDEN + b"\r\n0\r\n\r\n",
        id="TE.CL",
    ),
    pytest.param(
        POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        id="0.TE",
    ),
    pytest.param(
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN,
        id="TE.TE: identity behind",
    ),
    pytest.param(
        POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        id="TE.TE: identity before",
    ),
    pytest.param(
        POST + b"Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n\r\n0\r\n\r\n" + HIDDEN,
        id="TE.TE: an unknown coding",
    ),
    pytest.param(POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE: a nearly known coding"),
    pytest.param(POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE: chunked not last"),
    pytest.param(POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE: over another coding"),
    pytest.param(POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE: vertical tab"),
    pytest.param(POST + b"Transfer-Encoding:\x0cchunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE: form feed"),
    pytest.param(POST + b"Transfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE: NUL"),
    pytest.param(POST + b"Transfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE: no-break space"),
    pytest.param(POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE: space before the colon"),
    pytest.param(POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE: tab before the colon"),
    pytest.param(POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE: folded value"),
    pytest.param(POST + b" Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE: as a folded line"),
    pytest.param(POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + HIDDEN, id="TE: quoted"),
    pytest.param(POST + b"Transfer-Encoding: chunked;x\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE: parameter"),
    pytest.param(POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE: behind a bare LF"),
    pytest.param(POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="TE: behind a bare CR"),
    pytest.param(
        b"POST /a HTTP/1.0\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        id="TE: in HTTP/1.0",
    ),
    pytest.param(POST + b"Content-Length: 3\r\nContent-Length: 43\r\n\r\nabc" + HIDDEN, id="CL.CL: two lengths"),
    pytest.param(POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", id="CL.CL: the same twice"),
    pytest.param(POST + b"Content-Length: 3, 3\r\n\r\nabc", id="CL: list"),
    pytest.param(POST + b"Content-Length: 3\r\nContent-length: x\r\n\r\nabc", id="CL.CL: one is no number"),
    pytest.param(POST + b"Content-Length: +3\r\n\r\nabc", id="CL: plus"),
    pytest.param(POST + b"Content-Length: -3\r\n\r\nabc", id="CL: minus"),
    pytest.param(POST + b"Content-Length: 0x3\r\n\r\nabc", id="CL: hexadecimal"),
    pytest.param(POST + b"Content-Length: 3.0\r\n\r\nabc", id="CL: fraction"),
    pytest.param(POST + b"Content-Length: 1 3\r\n\r\nabc", id="CL: two numbers"),
    pytest.param(POST + b"Content-Length:\r\n\r\nabc", id="CL: empty"),
    pytest.param(POST + b"Content-Length: \r\n 3\r\n\r\nabc", id="CL: folded"),
    pytest.param(POST + b"Content-Length : 3\r\n\r\nabc", id="CL: space before the colon"),
    pytest.param(POST + b"Content-Length: 18446744073709551619\r\n\r\nabc", id="CL: 64 bits and 3"),
    pytest.param(POST + b"Content-Length: " + b"9" * 300 + b"\r\n\r\nabc", id="CL: 300 digits"),
    pytest.param(POST + b"Content-Length: \xd9\xa3\r\n\r\nabc", id="CL: a digit of another script"),
    pytest.param(POST + b"X-A: b\n\r\nabc", id="LF before CRLF"),
    pytest.param(POST + b"X-A: b\n\n" + HIDDEN, id="the head ends in two LF"),
    pytest.param(b"GET /a HTTP/1.1\nHost: gw.test\n\n", id="LF alone"),
    pytest.param(b"GET /a HTTP/1.1\r\nHost: gw.test\n\r\n", id="one LF among CRLF"),
    pytest.param(b"GET /a HTTP/1.1\rHost: gw.test\r\r\n\r\n", id="CR alone"),
    pytest.param(POST + b"X-A: b\r\r\n\r\n", id="CR before CRLF"),
    pytest.param(POST + b"X-A: b\r\n folded\r\n\r\n", id="obs-fold"),
    pytest.param(POST + b"X-A: b\r\n\t\r\n\r\n", id="obs-fold of a tab"),
    pytest.param(b"GET /a HTTP/1.1\r\n Host: gw.test\r\n\r\n", id="the first line folded"),
    pytest.param(b"GET /a HTTP/1.1\r\nHost: gw.test\r\nX-A b\r\n\r\n", id="no colon"),
    pytest.param(b"GET /a HTTP/1.1\r\nHost: gw.test\r\n: b\r\n\r\n", id="no name"),
    pytest.param(b"GET /a HTTP/1.1\r\nHost: gw.test\r\nX\x00A: b\r\n\r\n", id="NUL in a name"),
    pytest.param(b"GET /a HTTP/1.1\r\nHost: gw.test\r\nX-A: b\x00c\r\n\r\n", id="NUL in a value"),
    pytest.param(b"\nGET /a HTTP/1.1\r\nHost: gw.test\r\n\r\n", id="an empty line of LF in front"),
]


@pytest.mark.threat("content-length against transfer-encoding")
@pytest.mark.parametrize("sent", REFUSED)
@pytest.mark.parametrize("is_bytewise", [False, True], ids=["whole", "bytewise"])
async def test_a_message_of_two_readings_reaches_nobody(edge: Edge, sent: bytes, is_bytewise: bool) -> None:
    """400 and a close; the request hidden behind it is never served, however the bytes come. R341."""
    await edge.assert_refused(sent, 400, "bad_request", is_bytewise=is_bytewise)


@pytest.mark.threat("content-length against transfer-encoding")
@pytest.mark.parametrize(
    "name", [b"Content_Length", b"Content.Length", b"contentlength", b"Transfer_Encoding", b"transfer.encoding"]
)
async def test_twins_of_framing_fields_do_not_arrive(edge: Edge, name: bytes) -> None:
    """An upstream that takes `_` for `-` is told one length alone. R022."""
    value = b"chunked" if name.lower().startswith(b"t") else b"99"
    await edge.assert_forwarded(
        POST + name + b": " + value + b"\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
        b"POST /a HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"Content-Length: 3\r\n\r\nabc",
    )


@pytest.mark.threat("content-length against transfer-encoding")
async def test_a_key_is_not_what_makes_the_difference(edge: Edge) -> None:
    """A smuggled request with a good key is refused for its form, in front of and behind a good one. R341."""
    keyed = b"GET /keyed HTTP/1.1\r\nHost: gw.test\r\nX-Api-Key: @KEY@\r\n"
    await edge.assert_refused(
        keyed + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + keyed + b"\r\n",
        400,
        "bad_request",
    )


@pytest.mark.threat("content-length against transfer-encoding")
async def test_what_is_in_front_is_served_and_what_is_behind_is_not(edge: Edge) -> None:
    """A bad request costs nothing of the good one before it, and takes what follows with it. R341."""
    await edge.assert_refused(
        b"GET /first HTTP/1.1\r\nHost: gw.test\r\n\r\n"
        + POST
        + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"
        + HIDDEN,
        400,
        "bad_request",
        before=[b"GET /first HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"\r\n"],
    )
