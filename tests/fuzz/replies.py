"""Replies of upstreams: what we accept, h11 accepts and reads in the same way; what we relay is one reply."""

from gateway.proxy.errors import UpstreamError
from gateway.proxy.framing import ChunkedBody, UntilClose
from gateway.proxy.heads import reply_head
from gateway.proxy.response_head import ResponseFields, body_of
from tests.fuzz import parts
from tests.fuzz.chunked_bodies import is_deliberate, read
from tests.fuzz.reference import Fields, Reply, cuts, read_reply
from tests.fuzz.request_heads import IDENTITY, NOT_NAMES, folded, nominated

HEAD_END = b"\r\n\r\n"
HOP_BY_HOP = (
    *("Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "TE", "Trailer"),
    *("Upgrade", "HTTP2-Settings", "Transfer-Encoding", "Content-Length"),
)
GONE = {folded(name.encode()) for name in (*HOP_BY_HOP, *IDENTITY)}
REQUEST_ID_LINE = b"X-Request-Id: ours\r\n"


def going_on(fields: Fields) -> Fields:
    """The fields that are relayed, out of all those of a reply."""
    dropped = nominated(fields) - NOT_NAMES
    return tuple((n, v) for n, v in fields if folded(n) not in GONE and n.lower() not in dropped)


def check(data: bytes) -> None:
    """`data` is one byte that picks the request's method, then what an upstream sends before it closes."""
    method = b"HEAD" if data[:1] == b"H" else b"GET"
    head, found, behind = data[1:].partition(HEAD_END)
    try:
        response = parts.response_reader().read(head)
    except UpstreamError:
        return
    seen = read_reply(head + HEAD_END, method, is_ended=False)
    assert seen is not None
    check_reading(response, seen)
    whole = read_reply(head + HEAD_END + behind, method, is_ended=True)
    assert whole is not None
    if found:
        check_body(response, method, behind, whole)
    for is_http_10 in (False, True):
        for closes in (False, True):
            check_writing(response, method, seen, is_http_10=is_http_10, closes=closes)


def check_reading(response: ResponseFields, seen: Reply) -> None:
    """Agreement of the head that we have read with h11's reading."""
    assert response.status == seen.status
    options = nominated(seen.fields)
    is_http_11 = seen.version == b"1.1"
    lengths, codings = seen.all(b"content-length"), seen.all(b"transfer-encoding")
    may_say_more = seen.status == 204 and (bool(codings) or any(map(int, lengths)))  # what may not be, and may come
    may_keep = b"close" not in options and (is_http_11 or b"keep-alive" in options)
    assert response.keeps_alive == (may_keep and not may_say_more)
    said = [] if response.content_length is None else [response.content_length]
    assert said == [int(length) for length in lengths]
    assert response.is_chunked == bool(codings)
    status_line, *kept = response.start.split(b"\r\n")[:-1]
    assert status_line == b"HTTP/1.1 %d %b" % (seen.status, seen.reason)
    pairs = [line.partition(b":") for line in kept]
    assert tuple((name, value.strip(b" \t")) for name, _, value in pairs) == going_on(seen.fields)


def check_body(response: ResponseFields, method: bytes, behind: bytes, seen: Reply) -> None:
    """Payload and end are h11's, in whatever pieces the bytes come."""
    bodies = [(body_of(response, method), pieces) for pieces in cuts(behind)]
    results = {read(body, pieces) for body, pieces in bodies}
    assert len(results) == 1, "the reading depends on how the bytes arrive"
    result, body = results.pop(), bodies[0][0]
    is_complete = body.is_complete or isinstance(body, UntilClose)
    if result is None:
        return
    if seen.is_body_refused:
        # h11 was told of the end, so an unfinished body is one that it refuses.
        assert not is_complete or is_deliberate(behind)
    else:
        assert is_complete
        assert result == (seen.payload, seen.rest)


def check_writing(response: ResponseFields, method: bytes, seen: Reply, *, is_http_10: bool, closes: bool) -> None:
    """The head that is relayed is one head: status, reason, what may travel, our request id, and one framing."""
    body = body_of(response, method)
    is_chunked = isinstance(body, ChunkedBody | UntilClose) and not is_http_10
    head = reply_head(response, REQUEST_ID_LINE, is_chunked=is_chunked, closes=closes, is_http_10=is_http_10)
    assert head.endswith(HEAD_END)
    assert head.count(HEAD_END) == 1
    assert head.count(b"\r") == head.count(b"\n") == head.count(b"\r\n")
    assert b"\0" not in head
    again = read_reply(head, method, is_ended=False)
    assert again is not None
    assert (again.status, again.reason, again.version) == (seen.status, seen.reason, b"1.1")
    ours = tuple(pair for pair in again.fields if folded(pair[0]) in GONE)
    assert tuple(pair for pair in again.fields if folded(pair[0]) not in GONE) == going_on(seen.fields)
    framing: Fields = ((b"Transfer-Encoding", b"chunked"),) if is_chunked else ()
    if seen.status != 204 and seen.status >= 200:
        framing = (*((b"Content-Length", b"%d" % int(length)) for length in seen.all(b"content-length")), *framing)
    ending = (b"Connection", b"close") if closes else (b"Connection", b"keep-alive")
    assert ours == (*framing, (b"X-Request-Id", b"ours"), *((ending,) if closes or is_http_10 else ()))


def _reply(*lines: bytes, body: bytes = b"", method: bytes = b"G") -> bytes:
    return method + b"\r\n".join(lines) + HEAD_END + body


OK = b"HTTP/1.1 200 OK"
SEEDS = [
    _reply(OK, b"Content-Length: 5", b"Server: x", body=b"hello"),
    _reply(OK, b"Content-Length: 5", body=b"hello, rest"),
    _reply(OK, b"Content-Length: 5", method=b"H"),
    _reply(OK, b"Transfer-Encoding: chunked", b"Trailer: X", body=b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"),
    _reply(OK, b"Set-Cookie: a", b"Set-Cookie:b ", body=b"until close"),
    _reply(b"HTTP/1.0 200", b"Connection: keep-alive", b"Content-Length: 007", body=b"0123456"),
    _reply(b"HTTP/1.1 204 No Content", b"Content-Length: 5"),
    _reply(b"HTTP/1.1 304 Not Modified", b"Content-Length: 5", b"ETag: a"),
    _reply(b"HTTP/1.1 103 Early Hints", b"Link: </a>; rel=preload"),
    _reply(b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade", b"Upgrade: websocket"),
    _reply(b"HTTP/1.1 404 Not  Found \xe9", b"Connection: close, X-A", b"X-A: 1", b"X-User-Id: u", b"x_plan: p"),
    _reply(b"HTTP/1.1 599 ", b"X-Request-Id: theirs", b"Keep-Alive: 5", b"Upgrade: h2c"),
    _reply(b"HTTP/1.0 200 OK", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
]
TOKENS = [
    *(b"\r\n", b"\r\n\r\n", b"\r\n ", b"\n", b": ", b"HTTP/1.1 ", b"HTTP/1.0 ", b" 204 ", b" 304 ", b" 100 ", b" 101 "),
    *(f"\r\n{name}: ".encode() for name in (*HOP_BY_HOP, *IDENTITY, "Set-Cookie")),
    *(b"chunked", b"close", b"keep-alive", b"0\r\n\r\n"),
]
