"""Heads, read and written again: nothing is lost or gained on the way but what the design takes out and puts in.

Each line is generated together with its fate, so nothing here asks the gateway's own tables what they mean.
"""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.admission import Admitted
from gateway.auth.principal import AuthKind, Principal
from gateway.proxy.edge import Edge, TrustedProxies, address_in
from gateway.proxy.framing import ChunkedBody, UntilClose
from gateway.proxy.heads import reply_head, request_head
from gateway.proxy.response_head import body_of
from gateway.stores.records import SecretState
from tests.unit.reading import COUNT_LIMIT, RESERVED, SECRET, head, read, read_reply

HOST = b"Host: a.test"
HOST_LINE = b"Host: up.test:9001"
REQUEST_ID = b"X-Request-Id: r1"
IDENTITY = (b"X-User-Id: u1", b"X-Scopes: a:read b")
FORWARDED = (b"X-Forwarded-For: 192.0.2.7", b"X-Forwarded-Proto: http", b"X-Forwarded-Host: a.test")
CALLER = Admitted(
    Principal(AuthKind.KEY, "t1", "u1", "k1", SecretState.CURRENT, frozenset(), frozenset(), 0, head(*IDENTITY, b""))
)
EDGE = Edge(address_in(b"192.0.2.7"), "http", TrustedProxies([], header="X-Forwarded-For"))

TOKEN = "!#$%&'*+-.^_`|~09AZaz"
HOP_BY_HOP = (b"Keep-Alive", b"Proxy-Connection", b"Proxy-Authorization", b"Proxy-Authenticate", b"TE", b"Trailer")
FORWARDING = (b"Forwarded", b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Real-Ip", b"X-Forwarded-Port")


@dataclass(frozen=True)
class Line:
    """A header line, and whether it travels. `nominee` is the name that Connection has to give to end it here."""

    raw: bytes
    travels: bool
    nominee: bytes = b""


def spellings(names: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """These names in any case, with signs put in or taken out: all one to a forgiving reader."""

    @st.composite
    def spell(draw: st.DrawFn) -> bytes:
        name = draw(st.sampled_from(names)).decode()
        signs = st.sampled_from(["", "", "", "-", "_", ".", "~"])
        letters = [draw(st.sampled_from([sign.lower(), sign.upper()])) for sign in name if sign != "-"]
        return "".join(draw(signs) + letter for letter in letters).encode()

    return spell()


free_names = st.text(TOKEN, max_size=8).map(lambda text: b"Zq" + text.encode())
values = st.binary(max_size=20).map(lambda raw: b" \t" + bytes(b for b in raw if b == 9 or 32 <= b != 127))


def lines(strategy: st.SearchStrategy[bytes], *, travels: bool) -> st.SearchStrategy[Line]:
    return st.builds(lambda name, value: Line(name + b":" + value, travels), strategy, values)


free = lines(free_names, travels=True)
nominated = st.builds(
    lambda number, value, shout: Line(
        b"Named-%d:%b" % (number, value), False, b"NAMED-%d" % number if shout else b"named-%d" % number
    ),
    st.integers(0, 9),
    values,
    st.booleans(),
)
# The exact names of these are acted on, and so not drawn with any value; their twins go.
twins = spellings((b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"Expect", b"Upgrade")).filter(
    lambda name: name.lower() not in {b"content-length", b"transfer-encoding", b"host", b"connection", b"expect"}
)
request_lines = st.one_of(
    free,
    nominated,
    lines(spellings(RESERVED), travels=False),
    lines(spellings((*HOP_BY_HOP, *FORWARDING)), travels=False),
    lines(
        st.sampled_from([b"Authorization", b"x-api-key", b"X_Api_Key", b"X-Request-Id", b"x.request.id"]), travels=False
    ),
    lines(twins, travels=False),
    st.sampled_from([Line(b"Expect: 100-continue", False), Line(b"X-Api-Key: " + SECRET, False)]),
)
reply_lines = st.one_of(
    free,
    nominated,
    lines(spellings((*RESERVED, b"X-Request-Id")), travels=False),
    lines(spellings(HOP_BY_HOP), travels=False),
    lines(st.sampled_from([b"Set-Cookie", b"Authorization", b"X-Forwarded-For", b"Host", b"Expect"]), travels=True),
)
framings = st.sampled_from([None, b"Content-Length: 0", b"Content-Length: 7", b"Transfer-Encoding: chunked"])
options = st.sampled_from([b"", b"keep-alive", b"close", b"Upgrade"])
targets = st.text("ab/?&=%20._~-!$'()*+,:@", max_size=20).map(lambda text: b"/" + text.encode())
methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"REPORT"])


def connection(drawn: list[Line], option: bytes) -> list[bytes]:
    """The Connection line that ends the nominated ones here."""
    names = [option, *(line.nominee for line in drawn if line.nominee)]
    return [b"Connection: " + b" , ".join(names)] if any(names) else []


def raw_head(start: bytes, drawn: list[Line], framing: bytes | None, option: bytes, *more: bytes) -> bytes:
    return head(
        start, *more, *(line.raw for line in drawn), *([framing] if framing else []), *connection(drawn, option)
    )


@given(methods, targets, st.lists(request_lines, max_size=COUNT_LIMIT - 3), framings, options)
def test_a_request_keeps_all_that_may_travel(
    method: bytes, target: bytes, drawn: list[Line], framing: bytes | None, option: bytes
) -> None:
    """Upstream stand the client's own lines to the letter and in order, then ours; no other. R020, R023, R024, R341."""
    request = read(raw_head(method + b" " + target + b" HTTP/1.1", drawn, framing, option, HOST))
    for admitted, identity in ((CALLER, IDENTITY), (Admitted(None), ())):
        sent = request_head(request, request.target, HOST_LINE + b"\r\n", admitted, EDGE, REQUEST_ID + b"\r\n")
        assert sent.split(b"\r\n") == [
            method + b" " + target + b" HTTP/1.1",
            HOST_LINE,
            *(line.raw for line in drawn if line.travels),
            *identity,
            *FORWARDED,
            REQUEST_ID,
            *([framing] if framing else []),
            b"",
            b"",
        ]


@given(methods, targets, st.lists(request_lines, max_size=2), framings, options)
def test_a_request_that_is_written_twice_is_written_the_same(
    method: bytes, target: bytes, drawn: list[Line], framing: bytes | None, option: bytes
) -> None:
    """A gateway behind a gateway reads the same request, and believes nothing of what the first said. R020, R341."""
    first = read(raw_head(method + b" " + target + b" HTTP/1.1", drawn, framing, option, HOST))
    sent = request_head(first, first.target, HOST_LINE + b"\r\n", CALLER, EDGE, REQUEST_ID + b"\r\n")
    second = read(sent.removesuffix(b"\r\n\r\n"))
    assert (second.method, second.target, type(second.body)) == (first.method, first.target, type(first.body))
    assert second.kept == first.kept
    assert second.fields.reserved_removed == len(IDENTITY)
    assert second.credential is None
    assert second.keeps_alive
    assert second.fields.request_id == b"r1"
    again = request_head(second, second.target, HOST_LINE + b"\r\n", CALLER, EDGE, REQUEST_ID + b"\r\n")
    assert again.replace(b"X-Forwarded-Host: up.test:9001", b"X-Forwarded-Host: a.test") == sent


reasons = st.binary(max_size=10).map(lambda raw: bytes(b for b in raw if b == 9 or 32 <= b != 127))
statuses = st.one_of(st.sampled_from([200, 204, 304]), st.integers(200, 599))


@given(statuses, reasons, st.lists(reply_lines, max_size=8), framings, options, st.booleans(), st.booleans())
def test_a_reply_keeps_all_that_may_travel(
    status: int, reason: bytes, drawn: list[Line], framing: bytes | None, option: bytes, closes: bool, is_http_10: bool
) -> None:
    """To the client go the upstream's own lines to the letter and in order, then ours; no other. R024, R029, R343."""
    start = b"HTTP/1.1 %d %b" % (status, reason)
    fields = read_reply(raw_head(start, drawn, framing, option))
    is_chunked = isinstance(body_of(fields, b"GET"), ChunkedBody | UntilClose) and not is_http_10
    relayed = reply_head(fields, REQUEST_ID + b"\r\n", is_chunked=is_chunked, closes=closes, is_http_10=is_http_10)
    has_length = framing is not None and framing.startswith(b"Content-Length") and status != 204
    ending = b"Connection: close" if closes else b"Connection: keep-alive" if is_http_10 else None
    assert relayed.split(b"\r\n") == [
        start,
        *(line.raw for line in drawn if line.travels),
        *([framing] if has_length and framing else []),
        *([b"Transfer-Encoding: chunked"] if is_chunked else []),
        REQUEST_ID,
        *([ending] if ending else []),
        b"",
        b"",
    ]


@given(statuses, reasons, st.lists(reply_lines, max_size=8), framings, options, st.booleans())
def test_a_reply_that_is_relayed_twice_is_relayed_the_same(
    status: int, reason: bytes, drawn: list[Line], framing: bytes | None, option: bytes, closes: bool
) -> None:
    """What one gateway relays, another one reads as the same reply, and relays alike. R024."""
    fields = read_reply(raw_head(b"HTTP/1.1 %d %b" % (status, reason), drawn, framing, option))
    for method in (b"GET", b"HEAD"):
        is_chunked = isinstance(body_of(fields, method), ChunkedBody | UntilClose)
        relayed = reply_head(fields, REQUEST_ID + b"\r\n", is_chunked=is_chunked, closes=closes, is_http_10=False)
        again = read_reply(relayed.removesuffix(b"\r\n\r\n"))
        assert (again.status, again.start, again.length_line) == (fields.status, fields.start, fields.length_line)
        assert again.keeps_alive is not closes
        assert isinstance(body_of(again, method), ChunkedBody) is is_chunked
        once_more = reply_head(again, REQUEST_ID + b"\r\n", is_chunked=is_chunked, closes=closes, is_http_10=False)
        assert once_more == relayed
