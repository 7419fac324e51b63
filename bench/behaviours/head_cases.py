"""Lines, names and values of a request's head, its version, its size, its host."""

from bench.behaviours.stage import GET, GOOD, KEY_LINE, Case, request

_START = b"GET /orders HTTP/1.1\r\n"
_HOST = b"Host: api.test\r\n"


def _line(line: bytes) -> bytes:
    return GET + line + b"\r\n\r\n"


HEADS = [
    request("bare LF at every line's end", GOOD.replace(b"\r\n", b"\n"), rb"[^\r]\n"),
    request("bare LF before a hidden field", _line(b"X-A: b\nX-Hidden: 1"), rb"b\nx-hidden"),
    request("bare CR in a value", _line(b"X-A: b\rX-Hidden: 1"), rb"b\rx-hidden"),
    request("NUL in a value", _line(b"X-A: b\x00c"), rb"\x00"),
    request("another control character in a value", _line(b"X-A: b\x01c"), rb"\x01"),
    request("bytes over 0x7F in a value (legal)", _line(b"X-A: b\xe9c"), body=b""),
    request("obs-fold", _line(b"X-A: b\r\n folded"), rb"\n[ \t]+folded"),
    request("space before the first field", _START + b" X-A: b\r\n" + GET.removeprefix(_START) + b"\r\n", rb"\n +x-a"),
    request("space before a colon", _line(b"X-A : b"), rb"x-a +:"),
    request("a name that is no token", _line(b"X[A]: b"), rb"x\[a\]"),
    request("an empty name", _line(b": b"), rb"\n: b"),
    request("a line without a colon", _line(b"nothing"), rb"nothing"),
    request("an empty line before the request (legal)", b"\r\n" + GOOD),
    request("two spaces in the request line", GOOD.replace(b"GET ", b"GET  ", 1), rb"GET  "),
    request("a tab in the request line", GOOD.replace(b"GET ", b"GET\t", 1), rb"GET\t"),
    request("method `get`", GOOD.replace(b"GET", b"get", 1), rb"get /"),
    request("method `FROB` (legal)", GOOD.replace(b"GET", b"FROB", 1)),
    request("HTTP/1.0 without `Host` (legal)", b"GET /orders HTTP/1.0\r\n" + KEY_LINE + b"\r\n"),
    request("HTTP/1.2", GOOD.replace(b"/1.1", b"/1.2", 1), rb"HTTP/1\.2"),
    request("HTTP/2.0", GOOD.replace(b"/1.1", b"/2.0", 1), rb"HTTP/2\.0"),
    request("HTTP/0.9 (`GET /orders`)", b"GET /orders\r\n"),
    request("request line of 20 KB", GOOD.replace(b"/orders", b"/orders/" + b"a" * 20_480, 1)),
    request("header line of 20 KB", _line(b"X-A: " + b"b" * 20_480)),
    request("head of 100 KB", _line(b"\r\n".join(b"X-%d: " % number + b"b" * 1000 for number in range(99)))),
    request("200 header lines", _line(b"\r\n".join(b"X-%d: b" % number for number in range(198)))),
]

HOSTS = [
    request("`Host` missing", _START + KEY_LINE + b"\r\n", rb"(?s)\A(?!.*\nhost:)"),
    request("`Host` twice, the same", _START + _HOST * 2 + KEY_LINE + b"\r\n", rb"host:(?s:.*)\nhost:"),
    request(
        "`Host` twice, different",
        _START + _HOST + b"Host: b.test\r\n" + KEY_LINE + b"\r\n",
        rb"host:(?s:.*)\nhost:|\nhost: *api\.test, *b",
    ),
    request("`Host` empty", _START + b"Host: \r\n" + KEY_LINE + b"\r\n", rb"\nhost: *\r\n"),
    request("`Host: user@api.test`", _START + b"Host: user@api.test\r\n" + KEY_LINE + b"\r\n", rb"user@"),
    request("`Host: api.test/x`", _START + b"Host: api.test/x\r\n" + KEY_LINE + b"\r\n", rb"api\.test/x"),
    request(
        "absolute form, another `Host` (legal)",
        GOOD.replace(b"/orders", b"http://b.test/orders", 1),
        rb"GET http|\nhost: *api\.test",
    ),
]

GROUPS: dict[str, list[Case]] = {"Head of a request": HEADS, "Host": HOSTS}
