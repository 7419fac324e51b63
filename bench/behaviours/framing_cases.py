"""How long a request is: two lengths, odd codings, broken chunks."""

from bench.behaviours.stage import GET, KEY_LINE, POST, Case, request

_CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
_HELLO = b"5\r\nhello\r\n0\r\n\r\n"
_HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: api.test\r\n" + KEY_LINE + b"\r\n"
_TWO_LENGTHS = rb"content-length: *[0-9+]+ *(\r\n(.*\r\n)*content-length|, *[0-9])"
_BOTH = rb"content-length:(?s:.*)transfer-encoding:|transfer-encoding:(?s:.*)content-length:"


def _length(value: bytes) -> bytes:
    return POST + b"Content-Length: " + value + b"\r\n\r\nhello"


def _coding(line: bytes) -> bytes:
    return POST + line + b"\r\n\r\n" + _HELLO


def _chunks(title: str, chunks: bytes, doubt: bytes, *, body: bytes | None = None) -> Case:
    return request(title, _CHUNKED, doubt, body=body, then=chunks)


LENGTHS = [
    request(
        "`Transfer-Encoding: chunked` and `Content-Length`",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n" % len(_HELLO) + _HELLO,
        _BOTH,
        body=b"hello",
    ),
    request(
        "the same, a request hidden behind the last chunk",
        POST
        + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % (len(_HELLO) + len(_HIDDEN))
        + _HELLO
        + _HIDDEN,
        _BOTH,
    ),
    request(
        "two `Content-Length`, the same", POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", _TWO_LENGTHS
    ),
    request(
        "two `Content-Length`, different", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", _TWO_LENGTHS
    ),
    request("`Content-Length: 5, 5`", _length(b"5, 5"), _TWO_LENGTHS, body=b"hello"),
    request("`Content-Length: +5`", _length(b"+5"), rb"content-length: *\+", body=b"hello"),
    request("`Content-Length: 0x5`", _length(b"0x5"), rb"content-length: *0x"),
    request("`Content-Length` empty", _length(b""), rb"content-length: *\r\n"),
    request(
        "`Content-Length` of 2^64 + 5", _length(b"18446744073709551621"), rb"content-length: *18446744073709551621"
    ),
    request("`Transfer-Encoding: identity`", _coding(b"Transfer-Encoding: identity"), rb"identity"),
    request("`Transfer-Encoding: gzip, chunked`", _coding(b"Transfer-Encoding: gzip, chunked"), rb"gzip"),
    request("`Transfer-Encoding: xchunked`", _coding(b"Transfer-Encoding: xchunked"), rb"xchunked"),
    request(
        "`Transfer-Encoding: chunked` twice",
        _coding(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        rb"chunked(?s:.*)chunked",
        body=b"hello",
    ),
    request("`Transfer-Encoding:` VT `chunked`", _coding(b"Transfer-Encoding:\x0bchunked"), rb"\x0b"),
    request(
        "`Transfer-Encoding: chunked` TAB (legal)",
        _coding(b"Transfer-Encoding: chunked\t"),
        rb"chunked\t",
        body=b"hello",
    ),
    request("`Transfer-Encoding : chunked`", _coding(b"Transfer-Encoding : chunked"), rb"encoding +:"),
    request(
        "`Transfer-Encoding: chunked` in HTTP/1.0",
        _coding(b"Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        rb"HTTP/1\.0(?s:.*)chunked",
        body=b"hello",
    ),
    request("`GET` with a body (legal)", GET + b"Content-Length: 5\r\n\r\nhello", body=b"hello"),
]

CHUNKS = [
    _chunks("chunk extension", b"5;a=b\r\nhello\r\n0\r\n\r\n", rb";a=b", body=b"hello"),
    _chunks("chunk extension of 20 KB", b"5;a=" + b"b" * 20_480 + b"\r\nhello\r\n0\r\n\r\n", rb";a=b"),
    _chunks("bare LF in a chunk extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n", rb";a\nb"),
    _chunks("bare LF behind a chunk size", b"5\nhello\r\n0\r\n\r\n", rb"5\nhello", body=b"hello"),
    _chunks("no CRLF behind a chunk's data", b"5\r\nhello0\r\n\r\n", rb"hello0"),
    _chunks("LF alone behind a chunk's data", b"5\r\nhello\n0\r\n\r\n", rb"hello\n0"),
    _chunks("chunk size `0x5`", b"0x5\r\nhello\r\n0\r\n\r\n", rb"0x5"),
    _chunks("chunk size `+5`", b"+5\r\nhello\r\n0\r\n\r\n", rb"\+5"),
    _chunks("chunk size `-5`", b"-5\r\nhello\r\n0\r\n\r\n", rb"-5"),
    _chunks("space behind a chunk size", b"5 \r\nhello\r\n0\r\n\r\n", rb"5 +\r\nhello", body=b"hello"),
    _chunks("chunk size of 17 digits", b"10000000000000005\r\nhello\r\n0\r\n\r\n", rb"10000000000000005"),
    _chunks("trailers (legal)", b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", rb"x-sum", body=b"hello"),
    _chunks(
        "a trailer `X-User-Id`", b"5\r\nhello\r\n0\r\nX-User-Id: root\r\n\r\n", rb"x-user-id: *root", body=b"hello"
    ),
    _chunks("a trailer without a colon", b"5\r\nhello\r\n0\r\nnothing\r\n\r\n", rb"nothing"),
]

GROUPS: dict[str, list[Case]] = {"Length of a request": LENGTHS, "Chunks of a request": CHUNKS}
