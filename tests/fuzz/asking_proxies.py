"""What proxies say of requests: the one that they ask about, its trace, its client. Refused, or one that could be sent.

`data` is the end of the target of the question, a line's end, and its header lines.
"""

import re

from gateway.errors import GatewayError
from gateway.proxy.assembly import places_of
from gateway.proxy.door import DOOR
from gateway.proxy.edge import address_in
from gateway.proxy.naming import Naming
from gateway.proxy.request_head import others_of
from gateway.setting_values import SESSION_COOKIE, SIGN_IN_COOKIE
from gateway.telemetry import trace_context
from tests.fuzz import parts
from tests.fuzz.reference import Refused, Request, read_request

NAMES = {
    "method": (b"x-forwarded-method", b"x-original-method"),
    "target": (b"x-forwarded-uri", b"x-original-uri", b"x-original-url"),
    "host": (b"x-forwarded-host", b"x-original-host"),
}
SPAN = ("ab" * 16, "cd" * 8)
CONTEXT = re.compile(r"[0-9a-f]{32}")


def check(data: bytes) -> None:
    """See above."""
    end, _, lines = data.partition(b"\n")
    head = b"GET " + DOOR + end + b" HTTP/1.1\r\nHost: a.test\r\n" + lines.removesuffix(b"\r\n")
    try:
        asking = parts.request_reader().read(head)
        seen = read_request(head + b"\r\n\r\n")
    except GatewayError:
        return
    assert seen is not None
    check_trace(asking.kept)
    check_cookies(seen)
    for value in seen.all(b"x-forwarded-for"):
        address = address_in(value)
        assert address is None or address_in(str(address).encode()) == address
    naming = Naming(parts.credential_reader(), places_of(parts.settings()), parts.settings().client.line_limit_bytes)
    try:
        named = naming.named(asking)
    except GatewayError:
        return
    said = {kind: {value for name in names for value in seen.all(name)} for kind, names in NAMES.items()}
    assert all(len(values) <= 1 for values in said.values()), "chosen between two names"
    if not named.target:
        return
    sent = b"%b %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (named.method, named.target, named.host or b"a.test")
    again = read_request(sent)
    assert again is not None
    assert (again.method, again.target, again.rest) == (named.method, named.target, b"")
    assert not said["method"] or said["method"] == {named.method}


def check_trace(lines: bytes) -> None:
    """A context is one of the grammar, and what replaces it stands alone."""
    found = trace_context.read(lines)
    if found is not None:
        assert CONTEXT.fullmatch(found.trace_id)
        assert found.trace_id.strip("0")
        assert found.parent_id.strip("0")
        assert found.state.isascii()
    state = "" if found is None else found.state
    head = trace_context.replaced(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n", *SPAN, state)
    try:
        sent = read_request(head)
    except Refused:
        raise AssertionError("a head that nobody can read") from None
    assert sent is not None
    assert not sent.rest
    assert sent.all(b"traceparent") == [f"00-{SPAN[0]}-{SPAN[1]}-01".encode()]
    assert len(sent.all(b"tracestate")) == (1 if state.strip() else 0)


def check_cookies(seen: Request) -> None:
    """The portal's own go, however they are spelled; the others stay."""
    left = others_of(seen.all(b"cookie"))
    for value in left:
        assert value.strip(b"; \t")
        names = {pair.partition(b"=")[0].strip(b" \t") for pair in value.split(b";")}
        own = {prefix + name.encode() for name in (SESSION_COOKIE, SIGN_IN_COOKIE) for prefix in (b"", b"__Host-")}
        assert not names & own


def _question(end: bytes, *lines: bytes) -> bytes:
    return end + b"\n" + b"\r\n".join(lines)


SEEDS = [
    _question(b"", b"X-Forwarded-Method: POST", b"X-Forwarded-Uri: /orders?api_key=x", b"X-Forwarded-Host: b.test"),
    _question(b"", b"X-Original-Method: GET", b"X-Original-URL: https://b.test/a", b"X-Original-Host: b.test:1"),
    _question(b"", b"X-Original-URI: /a", b"X-Forwarded-Uri: /b"),
    _question(b"", b"X-Forwarded-Uri: /a#b", b"X-Forwarded-Method: CONNECT"),
    _question(b"/orders/42?a=b", b"X-Forwarded-Host: b.test, c.test"),
    _question(b"?a", b"X-Forwarded-Uri:", b"X-Forwarded-Method: "),
    _question(b"", b"traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"tracestate: a=1, b=2"),
    _question(b"", b"traceparent: 01-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00-x", b"tracestate:", b"TraceState: \t"),
    _question(b"", b"traceparent: 00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01", b"Traceparent: x"),
    _question(b"", b"tracestate: \xff"),
    _question(b"", b"Cookie: a=b; ostiary_session=x; __Host-ostiary_session=y", b"Cookie: c"),
    _question(b"", b"X-Forwarded-For: [2001:db8::1]:80", b"X-Forwarded-For: ::ffff:1.2.3.4"),
    b"",
]
TOKENS = [
    *(b"\r\n" + name + b": " for names in NAMES.values() for name in names),
    *(
        b"\r\ntraceparent: ",
        b"\r\ntracestate: ",
        b"\r\nCookie: ",
        b"\r\nX-Forwarded-For: ",
        b"http://",
        b"; ",
        b"__Host-",
    ),
    *(SESSION_COOKIE.encode(), SIGN_IN_COOKIE.encode(), b"a" * 32, b"-01", b"00-", b"*", b"OPTIONS", b"GET", b"::1"),
]
