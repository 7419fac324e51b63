"""Heads of requests: what is read, what is refused, and that what is kept is exactly what may travel."""

import dataclasses
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.auth.credentials import AMBIGUOUS, INVALID, Credential
from gateway.auth.refusal import Reason, Refusal
from gateway.auth.secrets import sha256_digest
from gateway.errors import GatewayError
from gateway.proxy.errors import BadRequest, ExpectationFailed, HeadersTooLarge, MethodRefused, UriTooLong
from gateway.proxy.framing import NO_BODY, ChunkedBody, LengthBody
from gateway.proxy.headers import Action
from gateway.proxy.request_head import RequestHead, RequestReader
from tests.unit.reading import (
    COUNT_LIMIT,
    LINE_LIMIT,
    OTHER_SECRET,
    SECRET,
    head,
    portal_reader,
    read,
    request_reader,
    request_table,
)

GET = b"GET / HTTP/1.1"
HOST = b"Host: a.test"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"GET / HTTP/1.1", id="plain"),
        pytest.param(b"DELETE /a/b?c=d&e=%20 HTTP/1.1", id="query"),
        pytest.param(b"PATCH /a?b?c/d HTTP/1.1", id="question marks"),
        pytest.param(b"PROPFIND / HTTP/1.1", id="another method"),
        pytest.param(b'GET /a|b^c`{}"<> HTTP/1.1', id="signs that browsers leave in"),
        pytest.param(b"OPTIONS * HTTP/1.1", id="asterisk form"),
    ],
)
def test_a_request_line_is_taken_to_the_letter(line: bytes) -> None:
    """Method and target travel as they came. R341."""
    request = read(head(line, HOST))
    assert b" ".join((request.method, request.target, b"HTTP/1.1")) == line
    assert request.is_http_11
    assert request.keeps_alive
    assert request.body is NO_BODY


@pytest.mark.threat("methods in disguise", "path of two readings")
@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"GET", id="method alone"),
        pytest.param(b"GET /", id="HTTP/0.9"),
        pytest.param(b"GET  / HTTP/1.1", id="two spaces"),
        pytest.param(b"GET /  HTTP/1.1", id="two spaces behind the target"),
        pytest.param(b"GET\t/ HTTP/1.1", id="tab"),
        pytest.param(b" GET / HTTP/1.1", id="leading space"),
        pytest.param(b"GET / HTTP/1.1 ", id="trailing space"),
        pytest.param(b"GET / a HTTP/1.1", id="blank in the target"),
        pytest.param(b"GET / HTTP/1.1 HTTP/1.1", id="two versions"),
        pytest.param(b"GET /a\tb HTTP/1.1", id="tab in the target"),
        pytest.param(b"GET /\x80 HTTP/1.1", id="byte above 7F in the target"),
        pytest.param(b"GET /\x00 HTTP/1.1", id="NUL in the target"),
        pytest.param(b"GET /\x7f HTTP/1.1", id="DEL in the target"),
        pytest.param(b"GET / HTTP/1.2", id="HTTP/1.2"),
        pytest.param(b"GET / HTTP/2.0", id="HTTP/2.0"),
        pytest.param(b"GET / HTTP/0.9", id="HTTP/0.9 said"),
        pytest.param(b"GET / HTTP/1", id="no minor version"),
        pytest.param(b"GET / HTTP/1.10", id="two digits"),
        pytest.param(b"GET / HTTP/01.1", id="leading zero"),
        pytest.param(b"GET / http/1.1", id="lower-case version"),
        pytest.param(b"GET / HTTPS/1.1", id="HTTPS"),
        pytest.param(b"GET / ICY/1.1", id="another protocol"),
        pytest.param(b"get / HTTP/1.1", id="lower-case method"),
        pytest.param(b"GE(T / HTTP/1.1", id="method no token"),
        pytest.param(b"G\xc3\x89T / HTTP/1.1", id="method not ASCII"),
        pytest.param(b"M" * 33 + b" / HTTP/1.1", id="method too long"),
        pytest.param(b"GET * HTTP/1.1", id="asterisk for GET"),
        pytest.param(b"GET orders HTTP/1.1", id="no leading slash"),
        pytest.param(b"GET ?a HTTP/1.1", id="query alone"),
        pytest.param(b"GET a.test:80 HTTP/1.1", id="authority form"),
        pytest.param(b"GET /a#b HTTP/1.1", id="fragment"),
        pytest.param(b"GET /a?b#c HTTP/1.1", id="fragment behind a query"),
        pytest.param(b"GET http://a.test/#b HTTP/1.1", id="fragment in absolute form"),
        pytest.param(b"GET ftp://a.test/ HTTP/1.1", id="another scheme"),
        pytest.param(b"GET file:///etc/passwd HTTP/1.1", id="file scheme"),
        pytest.param(b"GET http:/a HTTP/1.1", id="scheme without authority"),
        pytest.param(b"GET http:///a HTTP/1.1", id="empty authority"),
        pytest.param(b"GET http://u:p@a.test/ HTTP/1.1", id="userinfo"),
        pytest.param(b"GET http://a.test\\@b.test/ HTTP/1.1", id="backslash in the authority"),
        pytest.param(b"GET http://a.test:99999/ HTTP/1.1", id="port out of range"),
    ],
)
def test_a_doubtful_request_line_is_refused(line: bytes) -> None:
    """A request line that readers could read in two ways is not read. RFC 9112 3."""
    with pytest.raises(BadRequest):
        read(head(line, HOST))


@pytest.mark.parametrize(
    ("target", "host", "reduced"),
    [
        (b"http://b.test/x?y", b"b.test", b"/x?y"),
        (b"HTTPS://b.test:8443/x", b"b.test:8443", b"/x"),
        (b"http://b.test", b"b.test", b"/"),
        (b"http://b.test?y=/z", b"b.test", b"/?y=/z"),
        (b"http://[::1]:80/x", b"[::1]:80", b"/x"),
    ],
)
def test_absolute_form_becomes_origin_form(target: bytes, host: bytes, reduced: bytes) -> None:
    """The authority of the target replaces Host, and nothing else is taken from it. R342."""
    request = read(head(b"GET %b HTTP/1.1" % target, HOST))
    assert (request.host, request.target) == (host, reduced)


def test_options_in_absolute_form_without_a_path_asks_for_the_server() -> None:
    """The last proxy writes `*` again. RFC 9112 3.2.4."""
    assert read(head(b"OPTIONS http://b.test HTTP/1.1", HOST)).target == b"*"
    assert read(head(b"OPTIONS http://b.test/ HTTP/1.1", HOST)).target == b"/"


@pytest.mark.threat("CONNECT", "methods in disguise")
@pytest.mark.parametrize("line", [b"CONNECT a.test:443 HTTP/1.1", b"CONNECT / HTTP/1.1", b"TRACE / HTTP/1.1"])
def test_connect_and_trace_are_refused_as_methods(line: bytes) -> None:
    """405, whatever stands behind them. R340."""
    with pytest.raises(MethodRefused):
        read(head(line, HOST))


@pytest.mark.parametrize(
    "value",
    [b"a", b"a.test", b"a.test.", b"A.Test:80", b"a-b_c.test", b"127.0.0.1:8080", b"[::1]", b"[fe80::1]:80", b"a:"],
)
def test_hosts_of_the_grammar_are_taken(value: bytes) -> None:
    """Host is a name or an address, with or without a port. RFC 9110 7.2."""
    assert read(head(GET, b"Host: " + value)).host == value


@pytest.mark.threat("Host as a lever")
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"a b",
        b"a,b",
        b"a/b",
        b"a\\b",
        b"a@b",
        b"a?b",
        b"a#b",
        b"a;b",
        b"a%00b",
        b"a..b",
        b".a",
        b"a:b",
        b"a:80:80",
        b"a:-1",
        b"a:65536",
        b"a:999999",
        b"[::1",
        b"::1",
        b"[::1]x",
        b"[a]b:80",
        b"x/#@y",
        b"a\xff",
        b"http://a",
        b"a\tb",
    ],
)
def test_other_hosts_are_refused(value: bytes) -> None:
    """A Host that is no host never reaches a route, a log or an upstream. R342."""
    with pytest.raises(BadRequest):
        read(head(GET, b"Host: " + value))


@pytest.mark.threat("Host as a lever")
@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([GET], id="none"),
        pytest.param([GET, HOST, HOST], id="twice the same"),
        pytest.param([GET, HOST, b"Host: b.test"], id="two hosts"),
        pytest.param([GET, HOST, b"host: b.test"], id="two hosts, another case"),
        pytest.param([b"GET / HTTP/1.0", HOST, b"Host: b.test"], id="two hosts in 1.0"),
        pytest.param([b"GET http://a.test/ HTTP/1.1"], id="none beside absolute form"),
    ],
)
def test_there_is_exactly_one_host(lines: list[bytes]) -> None:
    """HTTP/1.1 needs one Host, and nobody may send two. RFC 9112 3.2."""
    with pytest.raises(BadRequest):
        read(head(*lines))


@pytest.mark.parametrize("value", [b"1", b"30", b"99", b"100", b"599", b"600"])
def test_a_callers_patience_goes_on(value: bytes) -> None:
    """A whole number of seconds, from 1 to 600, is for the upstream to heed. R192."""
    line = b"Timeout-Seconds: " + value
    assert line in read(head(GET, HOST, line)).kept


@pytest.mark.parametrize("value", [b"", b"0", b"601", b"1000", b"-1", b"+5", b"5.5", b"1e2", b"5s", b"05", b"5, 5"])
def test_no_patience_that_makes_no_sense_goes_on(value: bytes) -> None:
    """No number of seconds, none, or more than ten minutes of them. R192."""
    with pytest.raises(BadRequest):
        read(head(GET, HOST, b"timeout-SECONDS: " + value))


def test_http_10_may_leave_host_out() -> None:
    """An HTTP/1.0 client need not send Host, and its connection ends unless it asks otherwise. RFC 9112 9.3."""
    request = read(b"GET / HTTP/1.0")
    assert request.host == b""
    assert not request.keeps_alive
    assert read(head(b"GET / HTTP/1.0", b"Connection: Keep-Alive")).keeps_alive


@pytest.mark.parametrize(
    ("line", "keeps"),
    [
        (b"Connection: close", False),
        (b"Connection: CLOSE", False),
        (b"Connection: keep-alive, close", False),
        (b"Connection: x, close", False),
        (b"Connection: keep-alive", True),
        (b"Connection: closed", True),
        (b"Connection:", True),
        (b"Proxy-Connection: close", True),
    ],
)
def test_connection_close_ends_the_connection(line: bytes, keeps: bool) -> None:
    """The option, and nothing that looks like it. RFC 9112 9.6."""
    assert read(head(GET, HOST, line)).keeps_alive is keeps


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"NoColon", id="no colon"),
        pytest.param(b"Accept", id="a known name without a colon"),
        pytest.param(b": empty", id="no name"),
        pytest.param(b"X-A : b", id="blank before the colon"),
        pytest.param(b"Content-Length : 0", id="blank before a framing field's colon"),
        pytest.param(b"Transfer-Encoding\t: chunked", id="tab before a framing field's colon"),
        pytest.param(b" folded", id="obs-fold"),
        pytest.param(b"\tfolded", id="obs-fold with a tab"),
        pytest.param(b" X-A: b", id="obs-fold that looks like a field"),
        pytest.param(b"X-A: b\nX-B: c", id="bare LF"),
        pytest.param(b"X-A: b\rX-B: c", id="bare CR"),
        pytest.param(b"X-A: b\r", id="CR before CRLF"),
        pytest.param(b"X-A: \x00", id="NUL"),
        pytest.param(b"X-A: \x1b[31m", id="escape"),
        pytest.param(b"X-A: \x7f", id="DEL"),
        pytest.param(b"X(A): b", id="name no token"),
        pytest.param(b"X\xc3\xa9: b", id="name not ASCII"),
        pytest.param(b'"Host": a', id="quoted name"),
    ],
)
def test_a_doubtful_header_line_is_refused(line: bytes) -> None:
    """Every line is `name: value` and ends in CRLF. RFC 9112 5."""
    for lines in ([GET, HOST, line], [GET, HOST, line, b"X: y"], [GET, HOST, b"X: y", line]):
        with pytest.raises(BadRequest):
            read(head(*lines))
    with pytest.raises(BadRequest):
        read(head(GET, line, HOST))


@pytest.mark.threat("content-length against transfer-encoding")
@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"Content-Length: 5", b"Transfer-Encoding: chunked"], id="CL.TE"),
        pytest.param([b"Transfer-Encoding: chunked", b"Content-Length: 5"], id="TE.CL"),
        pytest.param([b"Transfer-Encoding: chunked", b"Content-Length: 0"], id="TE.0"),
        pytest.param([b"Content-Length: 5", b"Content-Length: 6"], id="CL.CL"),
        pytest.param([b"Content-Length: 5", b"Content-Length: 5"], id="CL.CL, equal"),
        pytest.param([b"Content-Length: 5, 5"], id="list"),
        pytest.param([b"Content-Length: 5", b"Content-Length: x"], id="CL.nonsense"),
        pytest.param([b"Content-Length:"], id="empty"),
        pytest.param([b"Content-Length: -5"], id="negative"),
        pytest.param([b"Content-Length: +5"], id="plus"),
        pytest.param([b"Content-Length: 5 5"], id="two numbers"),
        pytest.param([b"Content-Length: 5;a"], id="parameter"),
        pytest.param([b"Content-Length: 0x5"], id="hex"),
        pytest.param([b"Content-Length: 99999999999999999999"], id="more than 64 bits"),
        pytest.param([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], id="TE.TE"),
        pytest.param([b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"], id="TE.TE, another"),
        pytest.param([b"Transfer-Encoding: chunked, identity"], id="chunked not last"),
        pytest.param([b"Transfer-Encoding: identity, chunked"], id="under chunked"),
        pytest.param([b"Transfer-Encoding: xchunked"], id="nearly chunked"),
        pytest.param([b"Transfer-Encoding: chunked;q=1"], id="with a parameter"),
        pytest.param([b"Transfer-Encoding: ,chunked"], id="comma"),
        pytest.param([b"Transfer-Encoding:"], id="no coding"),
        pytest.param([b"Transfer-Encoding: \x0bchunked"], id="vertical tab"),
    ],
)
def test_doubtful_framing_is_refused(lines: list[bytes]) -> None:
    """One length or one `chunked`; anything else is smuggling. RFC 9112 6."""
    with pytest.raises(BadRequest):
        read(head(b"POST / HTTP/1.1", HOST, *lines))


@pytest.mark.threat("content-length against transfer-encoding")
def test_chunked_in_http_10_is_refused() -> None:
    """HTTP/1.0 has no chunks: whoever stands behind would read the body otherwise. RFC 9112 6.1."""
    with pytest.raises(BadRequest):
        read(head(b"POST / HTTP/1.0", HOST, b"Transfer-Encoding: chunked"))


@pytest.mark.parametrize(
    "name", [b"Content_Length", b"content.length", b"ContentLength", b"Transfer_Encoding", b"Transfer-Encodin_g"]
)
def test_twins_of_framing_fields_frame_nothing_and_go_nowhere(name: bytes) -> None:
    """An upstream that folds names cannot be told another length. R022."""
    request = read(head(b"POST / HTTP/1.1", HOST, name + b": 5"))
    assert request.body is NO_BODY
    assert request.kept == b""


def test_bodies_follow_their_fields() -> None:
    """A length, chunks, or nothing. RFC 9112 6.3."""
    sized = read(head(b"POST / HTTP/1.1", HOST, b"Content-Length: \t007 ")).body
    assert isinstance(sized, LengthBody)
    assert sized.remaining == 7
    assert isinstance(read(head(b"POST / HTTP/1.1", HOST, b"Transfer-Encoding: Chunked")).body, ChunkedBody)
    assert read(head(b"POST / HTTP/1.1", HOST)).body is NO_BODY


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        pytest.param(
            [b"Accept: a", b"X-B:c", b"accept:\td "], b"Accept: a\r\nX-B:c\r\naccept:\td \r\n", id="as it came"
        ),
        pytest.param([b"TE: trailers", b"Trailer: X", b"Keep-Alive: 5"], b"", id="hop by hop"),
        pytest.param([b"Upgrade: h2c", b"HTTP2-Settings: AAA", b"Connection: Upgrade, HTTP2-Settings"], b"", id="h2c"),
        pytest.param([b"X-Api-Key: " + SECRET, b"X: y"], b"X: y\r\n", id="credential"),
        pytest.param([b"Authorization: Basic x"], b"", id="a foreign Authorization"),
        pytest.param([b"X_Api_Key: " + SECRET], b"", id="the credential's twin"),
        pytest.param([b"X-User-Id: root", b"x_user.id: root"], b"", id="identity"),
        pytest.param([b"X-Forwarded-For: 1.2.3.4", b"Forwarded: for=1", b"X-Real-Ip: 1"], b"", id="forwarded"),
        pytest.param([b"X-Request-Id: a"], b"", id="request id"),
        pytest.param([b"Expect: 100-continue"], b"", id="expect"),
        pytest.param([b"Connection: X-Foo", b"X-Foo: a", b"X-Bar: b"], b"X-Bar: b\r\n", id="nominated"),
        pytest.param([b"X-Foo: a", b"Connection: close, x-FOO"], b"", id="nominated later, in another case"),
        pytest.param([b"Connection: Accept", b"Connection: X-B", b"Accept: a", b"X-B: b"], b"", id="two Connections"),
    ],
)
def test_what_is_kept(lines: list[bytes], kept: bytes) -> None:
    """What does not belong to this hop, to the gateway or to the credential travels untouched. R023, R024."""
    assert read(head(GET, HOST, *lines)).kept == kept


def test_reserved_names_are_counted() -> None:
    """Every attempt counts once. R020."""
    assert read(head(GET, HOST, b"X-User-Id: a", b"X-User-Id: b", b"x_plan: c")).fields.reserved_removed == 3


@pytest.mark.threat("Connection takes our fields away")
@pytest.mark.parametrize("token", [b"host", b"content-length", b"transfer-encoding", b"authorization", b"x-api-key"])
def test_connection_cannot_name_what_the_message_rests_on(token: bytes) -> None:
    """Framing, host and credential stay what they are. R022."""
    request = read(
        head(b"POST / HTTP/1.1", HOST, b"Connection: " + token, b"Content-Length: 3", b"X-Api-Key: " + SECRET)
    )
    assert request.host == b"a.test"
    assert isinstance(request.body, LengthBody)
    assert request.fields.credential == Credential(sha256_digest(SECRET))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], None, id="none"),
        pytest.param([b"X-Api-Key: " + SECRET], Credential(sha256_digest(SECRET)), id="bare"),
        pytest.param([b"authorization: bEaReR  " + SECRET], Credential(sha256_digest(SECRET)), id="bearer"),
        pytest.param(
            [b"X-Api-Key: " + SECRET, b"Authorization: Bearer " + SECRET],
            Credential(sha256_digest(SECRET)),
            id="the same twice",
        ),
        pytest.param([b"X-Api-Key: " + SECRET, b"X-Api-Key: x"], Reason.AMBIGUOUS_CREDENTIALS, id="two"),
        pytest.param([b"X-Api-Key: " + SECRET + b", x"], Reason.INVALID_API_KEY, id="joined"),
        pytest.param([b"X-Api-Key:"], Reason.INVALID_API_KEY, id="empty"),
        pytest.param([b"Authorization: Bearer"], Reason.INVALID_API_KEY, id="empty bearer"),
        pytest.param([b"Authorization: Basic " + SECRET], Reason.INVALID_API_KEY, id="another scheme"),
        pytest.param([b"Authorization: " + SECRET], Reason.INVALID_API_KEY, id="no scheme"),
        pytest.param([b"X-Api-Key: \xff"], Reason.INVALID_API_KEY, id="not ASCII"),
    ],
)
def test_the_credential(lines: list[bytes], expected: Credential | Reason | None) -> None:
    """One credential, from any of the configured places; a useless one is not ignored. R001, R002, R004, R007, R009."""
    found = read(head(GET, HOST, *lines)).fields.credential
    assert (found.reason if isinstance(found, Refusal) else found) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"X-Request-Id: abc-1._:=+/"], b"abc-1._:=+/"),
        ([b"X-Request-Id: " + b"a" * 128], b"a" * 128),
        ([b"X-Request-Id: " + b"a" * 129], None),
        ([b"X-Request-Id:"], None),
        ([b"X-Request-Id: a b"], None),
        ([b'X-Request-Id: "a"'], None),
        ([b"X-Request-Id: \xff"], None),
        ([b"X-Request-Id: a", b"X-Request-Id: a"], None),
        ([b"X_Request_Id: a"], None),
    ],
)
def test_a_request_id_is_taken_only_if_it_is_harmless(lines: list[bytes], expected: bytes | None) -> None:
    """A client's id is propagated if it can be neither a log line nor a header. R030."""
    assert read(head(GET, HOST, *lines)).fields.request_id == expected


def test_expectations() -> None:
    """100-continue is ours to answer, in HTTP/1.1; another expectation cannot be met. RFC 9110 10.1.1."""
    post = b"POST / HTTP/1.1"
    assert read(head(post, HOST, b"Expect: 100-Continue", b"Content-Length: 1")).fields.expects_continue
    assert not read(head(b"POST / HTTP/1.0", HOST, b"Expect: 100-continue")).fields.expects_continue
    for value in (b"", b"200-ok", b"100-continue, 100-continue", b"100-continue;a"):
        with pytest.raises(ExpectationFailed):
            read(head(post, HOST, b"Expect: " + value))


@pytest.mark.threat("size bombs")
def test_limits_are_exact() -> None:
    """The limits themselves are allowed, one more is not. R345."""
    room = LINE_LIMIT - len(b"GET / HTTP/1.1")
    read(head(b"GET /%b HTTP/1.1" % (b"a" * room), HOST))
    with pytest.raises(UriTooLong):
        read(head(b"GET /%b HTTP/1.1" % (b"a" * (room + 1)), HOST))
    read(head(GET, HOST, b"X: " + b"a" * (LINE_LIMIT - 3)))
    with pytest.raises(HeadersTooLarge):
        read(head(GET, HOST, b"X: " + b"a" * (LINE_LIMIT - 2)))
    read(head(GET, HOST, *[b"X: y"] * (COUNT_LIMIT - 1)))
    with pytest.raises(HeadersTooLarge):
        read(head(GET, HOST, *[b"X: y"] * COUNT_LIMIT))


def test_a_remembered_section_says_the_same_again() -> None:
    """What a connection remembers of its last head changes no verdict. R341."""
    reader = request_reader()
    section = [HOST, b"X-Api-Key: " + SECRET, b"Content-Length: 2", b"Connection: keep-alive", b"A: b"]
    first = reader.read(head(b"POST /a HTTP/1.1", *section))
    first.keeps_alive = False
    first.body.feed(b"xy")
    again = reader.read(head(b"POST /b HTTP/1.1", *section))
    assert again.keeps_alive
    assert isinstance(again.body, LengthBody)
    assert again.body.remaining == 2
    assert again.fields is first.fields
    absolute = reader.read(head(b"POST http://b.test/c HTTP/1.1", *section))
    assert absolute.host == b"b.test"
    assert reader.read(head(b"POST /d HTTP/1.1", *section)).host == b"a.test"
    old = reader.read(head(b"POST /e HTTP/1.0", *section))
    assert not old.is_http_11
    with pytest.raises(MethodRefused):
        reader.read(head(b"TRACE /f HTTP/1.1", *section))
    with pytest.raises(BadRequest):
        reader.read(head(b"POST /#g HTTP/1.1", *section))


# Properties

TCHAR = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
names = st.one_of(
    st.text(TCHAR, min_size=1, max_size=12).map(str.encode),
    st.sampled_from([b"Accept", b"Cookie", b"X-User-Id", b"x_user_id", b"TE", b"X-Forwarded-For", b"Via", b"Date"]),
).filter(lambda name: request_table().classify(name) in (Action.KEEP, Action.DROP, Action.RESERVED, Action.FORWARDED))
values = st.binary(max_size=30).map(lambda raw: bytes(b for b in raw if b == 9 or 32 <= b != 127))
targets = st.text("abc/?&=%20._~-!$'()*+,:@", max_size=20).map(lambda text: b"/" + text.encode())
methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"REPORT"])


@given(methods, targets, st.lists(st.tuples(names, values), max_size=COUNT_LIMIT - 1))
def test_a_legal_head_keeps_exactly_its_legal_lines(
    method: bytes, target: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    """Every line that is neither ours nor this hop's travels, in order, byte for byte; no other does. R020, R024."""
    lines = [name + b":" + value for name, value in fields]
    request = read(head(b"%b %b HTTP/1.1" % (method, target), HOST, *lines))
    table = request_table()
    legal = [line for (name, _), line in zip(fields, lines, strict=True) if table.classify(name) is Action.KEEP]
    assert (request.method, request.target, request.host) == (method, target, b"a.test")
    assert request.kept == b"".join(line + b"\r\n" for line in legal)


STRICT_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
noise = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b":", b" ", b"\t", b"\x00", b",", b"Host: b", b"Content-Length: 1", b"chunked", b"\r\n "]
)


@given(st.binary(max_size=120))
@example(b"\r\n")
@example(b"GET / HTTP/1.1\r\n\r\nHost: a")
def test_random_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    """Noise raises nothing that is not a reply to the client. R075."""
    try:
        read(data)
    except BadRequest:
        return


@pytest.mark.threat("content-length against transfer-encoding")
@given(st.data())
def test_whatever_is_accepted_is_strict(data: st.DataObject) -> None:
    """Damage to a good head is refused, or leaves a head that a strict reader takes. R022, R341."""
    raw = bytearray(
        head(b"POST /a HTTP/1.1", HOST, b"Accept: x", b"X-User-Id: r", b"Transfer-Encoding: chunked", b"A: b")
    )
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw)))
        raw[place : place + data.draw(st.integers(0, 3))] = data.draw(st.one_of(noise, st.binary(max_size=2)))
    try:
        request = read(bytes(raw))
    except BadRequest:
        return
    assert re.fullmatch(rb"/[!-\"$-~]*", request.target)
    *kept, end = request.kept.split(b"\r\n")
    assert end == b""
    for line in kept:
        assert STRICT_LINE.fullmatch(line), line
        assert request_table().classify(line.partition(b":")[0]) is Action.KEEP
    assert not (request.fields.is_chunked and request.fields.content_length is not None)


LINES = st.sampled_from(
    [
        *(
            b"X-Trace: 1",
            b"X-Trace: 2",
            b"x-trace: 3",
            b"X-Trace:",
            b"X-Trace 4",
            b"X-Trace: \x01",
            b"X-T\x00: 5",
            b" fold",
        ),
        *(b"X-Other: a\rb", b"X-Other: c\nd", b"", b"Date: x", b"Host: a.test", b"Host: b.test", b"Cookie: a=b"),
        *(b"Connection: close", b"Connection: x-trace", b"Connection: keep-alive", b"Origin: https://a.example"),
        *(
            b"Content-Length: 3",
            b"Content-Length: 4",
            b"Transfer-Encoding: chunked",
            b"X-User-Id: eve",
            b"x_user_id: eve",
        ),
        *(b"Authorization: Bearer " + SECRET, b"X-Api-Key: nonsense", b"X-Request-Id: r1", b"X-Request-Id: r2"),
        *(
            b"Expect: 100-continue",
            b"Upgrade: websocket",
            b"X-Forwarded-For: 1.2.3.4",
            b"X-Forwarded-For: 5.6.7.8",
            b"x-forwarded-for: 9.9.9.9",
            b"X-Forwarded-Proto: https",
            b"X_Forwarded_For: 6.6.6.6",
            b"X-Trace: " + b"y" * LINE_LIMIT,
        ),
    ]
)


def meaning(request: RequestHead) -> object:
    """What the header section of a request says, however that was found out."""
    common = dataclasses.replace(request.fields, credential=None, content_length=None, request_id=None)
    own = request.credential, request.content_length, request.request_id, getattr(request.body, "remaining", None)
    return common, request.kept, own


@given(
    st.lists(
        st.tuples(
            st.sampled_from([GET, b"POST /a HTTP/1.1", b"GET / HTTP/1.0", b"TRACE / HTTP/1.1", b"FOO / HTTP/1.1"]),
            st.lists(LINES, min_size=1, max_size=4),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_what_a_connection_remembers_decides_nothing(requests: list[tuple[bytes, list[bytes]]]) -> None:
    """However alike a connection's heads are, each is read as a reader that has seen no other reads it. R022."""

    def outcome(reader: RequestReader, data: bytes) -> object:
        try:
            request = reader.read(data)
        except GatewayError as error:
            return type(error)
        return request.method, request.target, request.keeps_alive, type(request.body), meaning(request)

    reader = request_reader()
    for line, others in requests:
        data = head(line, HOST, *others)
        read_on, alone = outcome(reader, data), outcome(request_reader(), data)
        assert read_on == alone
        if not isinstance(alone, tuple) or not alone[2]:
            break  # the connection ends here, and its reader with it


VALUES = st.sampled_from(
    [
        *(b" 1", b" 2", b"", b"2", b" 1\r\nX-User-Id: eve", b" \r", b" \n", b" \x01", b" X-B: 2", b" " + b"y" * 99),
        *(b" 0", b" 2 ", b"\t07", b" +1", b" 1, 1", b" 2\r\nContent-Length: 3", b" " + b"9" * 30, b" id with blanks"),
        *(b" Bearer " + SECRET, b"bearer   " + OTHER_SECRET, b" Bearer nonsense", b" Basic abc", b" " + SECRET),
    ]
)


@given(
    st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=3, max_size=8),
    st.permutations(
        [
            *(b"X-A", b"X-B", b"Content-Length", b"X-Request-Id", b"Via", b"Authorization", b"X-Api-Key"),
            *(b"X-Forwarded-For", b"x-forwarded-for", b"X-Forwarded-Host", b"Forwarded"),
        ]
    ).map(lambda names: names[:4]),
)
def test_values_that_change_are_read_as_strictly_as_the_first(
    values: list[tuple[bytes, bytes, bytes]], names: list[bytes]
) -> None:
    """Sections that differ in values, of lengths and ids too: what is sent on, and refused, is as read anew. R341."""
    reader = request_reader()
    for drawn in values:
        lines = [name + b":" + value for name, value in zip(names, (*drawn, b" fixed"), strict=True)]
        data = head(GET, lines[0], HOST, *lines[1:])
        try:
            alone = request_reader().read(data)
        except GatewayError as error:
            with pytest.raises(type(error)):
                reader.read(data)
            break
        read_on = reader.read(data)
        assert meaning(read_on) == meaning(alone)


def test_a_changed_line_is_read_in_its_place() -> None:
    """A new trace id in an otherwise equal section is sent on where the old one stood."""
    reader = request_reader()
    for trace in (b"1", b"2", b"2", b"3"):
        request = reader.read(head(GET, HOST, b"A: b", b"X-Trace: " + trace, b"C: d"))
        assert request.kept == b"A: b\r\nX-Trace: %b\r\nC: d\r\n" % trace


def test_a_changed_length_or_request_id_is_this_requests_own() -> None:
    """Bodies of other sizes, and ids of the client's, cost no new reading and are never those of an earlier request."""
    reader = request_reader()
    first = None
    for length, request_id in ((b"5", b"a-1"), (b"6", b"a-2"), (b"7", b"a-2"), (b"0", b"no id"), (b"6", b"a-3")):
        lines = [HOST, b"Content-Length: " + length, b"A: b", b"X-Request-Id: " + request_id]
        request = reader.read(head(b"POST /a HTTP/1.1", *lines))
        first = first or request.fields
        assert request.fields is first
        assert (request.content_length, request.kept) == (int(length), b"A: b\r\n")
        assert request.request_id == (None if b" " in request_id else request_id)
        assert isinstance(request.body, LengthBody)
        assert request.body.remaining == int(length)
    with pytest.raises(BadRequest):
        reader.read(head(b"POST /a HTTP/1.1", HOST, b"Content-Length: -1", b"A: b", b"X-Request-Id: a"))


def test_a_changed_address_is_this_requests_own() -> None:
    """A proxy in front sends many clients' addresses on one connection: each request is its own client's. R297."""
    reader = request_reader()
    for last, proto in ((b"1", b"http"), (b"2", b"http"), (b"2", b"https"), (b"1", b"http"), (b"1", b"http")):
        lines = (b"X-Forwarded-For: 10.0.0." + last, b"A: b", b"X-Forwarded-Proto:" + proto, b"C: d")
        request = reader.read(head(GET, HOST, *lines))
        assert request.fields.forwarded == ((b"x-forwarded-for", b"10.0.0." + last), (b"x-forwarded-proto", proto))
        assert request.kept == b"A: b\r\nC: d\r\n"
    for last in (b"1", b"2", b"3"):
        twice = (b"X-Forwarded-For: 10.0.0." + last, b"X-Forwarded-For: 10.9.9.9")
        request = reader.read(head(GET, HOST, *twice))
        assert [value for _, value in request.fields.forwarded] == [b"10.0.0." + last, b"10.9.9.9"]
    for last in (b"1", b"2"):
        reader.read(head(b"GET / HTTP/1.0", b"X-Forwarded-For: 10.0.0." + last))
    assert reader.read(b"GET / HTTP/1.0").fields.forwarded == ()


def test_a_changed_key_is_this_requests_own() -> None:
    """A proxy in front sends many clients' keys on one connection: each request is its own caller's. R022."""
    reader = request_reader()
    first = None
    for key, expected in ((SECRET, SECRET), (OTHER_SECRET, OTHER_SECRET), (SECRET, SECRET), (b"nonsense", None)):
        request = reader.read(head(GET, HOST, b"A: b", b"Authorization: Bearer " + key, b"C: d"))
        first = first or request.fields
        assert request.fields is first
        assert request.kept == b"A: b\r\nC: d\r\n"
        assert request.credential == (INVALID if expected is None else Credential(sha256_digest(expected)))
    two = head(GET, HOST, b"A: b", b"Authorization: Bearer " + SECRET, b"X-Api-Key: " + OTHER_SECRET)
    assert reader.read(two).credential == AMBIGUOUS


SESSION = b"ostiary_session=" + b"s" * 43


@pytest.mark.parametrize(
    ("cookies", "kept", "own"),
    [
        ([SESSION], [], SESSION),
        ([b"__Host-" + SESSION + b"; a=b"], [b"a=b"], b"__Host-" + SESSION),
        ([b"a=b; " + SESSION + b"; c=d"], [b"a=b; c=d"], SESSION),
        ([b"a=b;ostiary_sign_in=x;" + SESSION, b"e=f"], [b"a=b", b"e=f"], b"ostiary_sign_in=x; " + SESSION),
        ([b"my_ostiary_session=1; a=ostiary_session=2"], [b"my_ostiary_session=1; a=ostiary_session=2"], b""),
    ],
)
@pytest.mark.parametrize("target", [b"/orders", b"/portal/keys", b"/portal/../orders", b"/portal/api"])
def test_a_session_of_the_portal_goes_to_its_pages_alone(
    target: bytes, cookies: list[bytes], kept: list[bytes], own: bytes
) -> None:
    """Where there is a portal, an API behind the gateway never sees who is signed in to it, whatever the path. R365."""
    line = b"GET %b HTTP/1.1" % target
    lines = [b"Cookie: " + cookie for cookie in cookies]
    reader = portal_reader()
    expected = b"".join(b"Cookie: %b\r\n" % value for value in kept)
    for _ in range(2):  # nor by what was remembered of the request before
        request = reader.read(head(line, HOST, *lines))
        assert request.kept == expected
        assert SESSION.decode() not in repr(request.fields)
    # By the portal's own route it goes on, once, and stands first.
    session = b"Cookie: %b\r\n" % own if own else b""
    for _ in range(2):
        request.keep_session()
        assert request.kept == session + expected


def test_cookies_of_an_api_are_not_lost_where_there_is_a_portal() -> None:
    """Nor when another line of the section changes from request to request, as that of a trace does. R024."""
    reader = portal_reader()
    for number in b"0123":
        trace = b"Traceparent: %c" % number
        request = reader.read(head(GET, HOST, b"cookie: a=b", trace, b"Cookie: c=d"))
        assert request.kept == b"cookie: a=b\r\n%b\r\nCookie: c=d\r\n" % trace
    request = reader.read(head(GET, HOST, b"cookie: a=b", b"Traceparent: 4", b"Cookie: " + SESSION))
    assert request.kept == b"Traceparent: 4\r\nCookie: a=b\r\n"
