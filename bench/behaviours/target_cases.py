"""Methods with targets of their own, and paths that two readers may take for different ones."""

import re

from bench.behaviours.stage import GOOD, KEY_LINE, Case, request

_KEYLESS = b"GET %b HTTP/1.1\r\nHost: api.test\r\n\r\n"


def _path(title: str, target: bytes) -> Case:
    return request(title, GOOD.replace(b"/orders", target, 1), re.escape(b"GET " + target + b" "))


def _keyless(target: bytes) -> Case:
    return request(f"`{target.decode()}`", _KEYLESS % target, re.escape(b"GET " + target + b" "))


METHODS = [
    request("`OPTIONS *` (legal)", GOOD.replace(b"GET /orders", b"OPTIONS *", 1)),
    request("`GET *`", GOOD.replace(b"/orders", b"*", 1), rb"GET \*"),
    request("`CONNECT api.test:443`", GOOD.replace(b"GET /orders", b"CONNECT api.test:443", 1), rb"CONNECT"),
    request("`TRACE /orders`", GOOD.replace(b"GET", b"TRACE", 1), rb"TRACE"),
    request("a target without a slash", GOOD.replace(b"/orders", b"orders", 1), rb"GET orders"),
]

PATHS = [
    _path("`//orders`", b"//orders"),
    _path("`/a/./orders`", b"/a/./orders"),
    _path("`/a/../orders`", b"/a/../orders"),
    _path("`/../orders` (above the root)", b"/../orders"),
    _path("`/a%2forders`", b"/a%2forders"),
    _path("`/a/%2e%2e/orders`", b"/a/%2e%2e/orders"),
    _path("`/a/%252e%252e/orders`", b"/a/%252e%252e/orders"),
    _path("`/a/..;b/orders`", b"/a/..;b/orders"),
    _path("`/orders;a=b` (legal)", b"/orders;a=b"),
    _path("`/a%00`", b"/a%00"),
    _path("`/a\\orders`", b"/a\\orders"),
    _path("`/a%5c..%5corders`", b"/a%5c..%5corders"),
    _path("`/orders#a`", b"/orders#a"),
    _path("`/orders%zz`", b"/orders%zz"),
    _path("raw bytes over 0x7F", b"/orders\xc3\xa9"),
    request("a space in the target", GOOD.replace(b"/orders", b"/a b", 1), rb"/a b"),
]

KEYLESS = [
    _keyless(b"/open/../orders"),
    _keyless(b"/open/%2e%2e/orders"),
    _keyless(b"/open/..%2forders"),
    _keyless(b"/open/..;/orders"),
    _keyless(b"/open/..\\orders"),
    _keyless(b"/open/..%5corders"),
    request(
        "`http://api.test/open/../orders`",
        _KEYLESS % b"http://api.test/open/../orders",
        rb"GET \S*/open/\.\./orders ",
    ),
    request(
        "two keys, the good one first",
        GOOD.replace(KEY_LINE, KEY_LINE + b"Authorization: Bearer wrong\r\n"),
        rb"authorization",
    ),
    request(
        "two keys, the good one last",
        GOOD.replace(KEY_LINE, b"Authorization: Bearer wrong\r\n" + KEY_LINE),
        rb"authorization",
    ),
]

GROUPS: dict[str, list[Case]] = {
    "Methods": METHODS,
    "Paths, with a key": PATHS,
    "From the open `/open/` to the keyed `/orders` without a key; two keys": KEYLESS,
}
