"""Request heads: what we accept, h11 accepts and reads in the same way; what we write upstream is one request."""

import dataclasses
import re
from types import NoneType
from urllib.parse import unquote_to_bytes

from gateway.auth.admission import Admitted
from gateway.auth.credentials import Credential
from gateway.auth.refusal import Refusal
from gateway.auth.secrets import sha256_digest
from gateway.errors import GatewayError
from gateway.proxy.edge import Edge
from gateway.proxy.framing import ChunkedBody, LengthBody
from gateway.proxy.heads import request_head
from gateway.proxy.request_head import RequestHead, RequestReader
from tests.fuzz import parts
from tests.fuzz.credentials import secret_of
from tests.fuzz.reference import Fields, Request, read_request

HEAD_END = b"\r\n\r\n"
HOST_LINE = b"Host: up.test:9001\r\n"
REQUEST_ID_LINE = b"X-Request-Id: ours\r\n"

# What never goes on, in no spelling: case, and signs put in or left out.
HOP_BY_HOP = (
    *("Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "TE", "Trailer"),
    *("Upgrade", "HTTP2-Settings", "Transfer-Encoding", "Content-Length", "Host", "Expect"),
)
FORWARDED = (
    *("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port"),
    *("X-Forwarded-Prefix", "X-Forwarded-Ssl", "X-Real-Ip"),
)
IDENTITY = (
    *("X-User-Id", "X-Tenant-Id", "X-Key-Id", "X-Key-Environment", "X-Auth-Kind", "X-Scopes", "X-Plan"),
    *("X-Identity-Assertion", "X-Request-Id"),
)
CREDENTIALS = ("Authorization", "X-Api-Key")
NOT_NAMES = {b"close", b"keep-alive", b"upgrade"}  # options of Connection that name no field


def folded(name: bytes) -> bytes:
    """A name as the most forgiving reader takes it: letters and digits."""
    return re.sub(rb"[^0-9a-z]", b"", name.lower())


PROTOCOLS = b"Sec-WebSocket-Protocol"  # written anew, without the key that may stand in it
GONE = {folded(name.encode()) for name in (*HOP_BY_HOP, *FORWARDED, *IDENTITY, *CREDENTIALS)} | {folded(PROTOCOLS)}


def nominated(fields: Fields) -> set[bytes]:
    """The options of Connection."""
    values = [value for name, value in fields if name.lower() == b"connection"]
    return {option.strip(b" \t").lower() for value in values for option in value.split(b",")}


def going_on(fields: Fields) -> Fields:
    """The fields that travel, out of all those of a request."""
    offers, _ = offered(fields)
    rewritten = ((PROTOCOLS, b", ".join(offers)),) if offers else ()
    dropped = nominated(fields) - NOT_NAMES
    kept = (*(pair for pair in fields if folded(pair[0]) not in GONE), *rewritten)
    return tuple((name, value) for name, value in kept if name.lower() not in dropped)


def offered(fields: Fields) -> tuple[list[bytes], list[bytes]]:
    """The subprotocols that a client offers, and the keys that it has put among them."""
    values = b",".join(value for name, value in fields if name.lower() == PROTOCOLS.lower())
    offers = [offer.strip(b" \t") for offer in values.split(b",")]
    others: list[bytes] = []
    keys: list[bytes] = []
    while offers:
        offer = offers.pop(0)
        if offer == parts.PROTOCOL.encode():
            keys.append(offers.pop(0) if offers else b"")
        elif offer:
            others.append(offer)
    return others, keys


def asked_target(target: bytes) -> tuple[bytes, list[bytes]]:
    """A target without the keys in its query, and those keys."""
    path, question, query = target.partition(b"?")
    parameters = [(parameter, *(parameter.partition(b"=")[::2])) for parameter in query.split(b"&")]
    keys = [plain(value) for _, name, value in parameters if plain(name) == parts.QUERY.encode()]
    if not question or not keys:
        return target, []
    rest = b"&".join(parameter for parameter, name, _ in parameters if plain(name) != parts.QUERY.encode())
    return (path + question + rest if len(keys) < len(parameters) else path), keys


def plain(text: bytes) -> bytes:
    """A name or value of a query, decoded."""
    return unquote_to_bytes(text.replace(b"+", b"%20"))


def presented(request: Request) -> set[bytes]:
    """Everything in a request that is meant to be a key."""
    target, _ = origin_form(request.target, request.method)
    in_headers = [
        secret_of(name.encode(), value) for name in CREDENTIALS for value in request.all(name.lower().encode())
    ]
    return {*in_headers, *offered(request.fields)[1], *asked_target(target)[1]}


def check(data: bytes) -> None:
    """`data` holds the heads of one connection, one behind another."""
    reader = parts.request_reader()
    for head in data.split(HEAD_END):
        alone, request = outcome(parts.request_reader(), head), outcome(reader, head)
        if isinstance(alone, str) or isinstance(request, str):
            assert alone == request, "what a connection remembers has changed the verdict"
            return  # the connection ends here, and its reader with it
        assert said(alone) == said(request), "what a connection remembers has changed what is read"
        seen = read_request(head + HEAD_END)
        assert seen is not None
        assert not seen.rest
        check_reading(request, seen)
        check_writing(request, seen, parts.NOBODY, parts.edge(parts.STRANGER, "X-Forwarded-For"))
        for header in ("X-Forwarded-For", "Forwarded"):
            check_writing(request, seen, parts.CALLER, parts.edge(parts.TRUSTED, header))
        if not request.keeps_alive:
            return
        if not request.body.is_complete:
            reader = parts.request_reader()  # what follows is a body, and not this target's affair


def outcome(reader: RequestReader, head: bytes) -> RequestHead | str:
    """The request, or the name of the refusal. Anything else that is raised is a fault."""
    try:
        return reader.read(head)
    except GatewayError as error:
        return type(error).__name__


def said(request: RequestHead) -> tuple[object, ...]:
    """All that a head says."""
    line = (request.method, request.target, request.host, request.is_http_11)
    common = dataclasses.replace(request.fields, credential=None, content_length=None, request_id=None)
    own = (request.credential, request.content_length, request.request_id, getattr(request.body, "remaining", None))
    return (*line, request.keeps_alive, request.kept, common, *own)


def origin_form(target: bytes, method: bytes) -> tuple[bytes, bytes]:
    """Target in origin form and the authority it names, if it does."""
    if target.startswith(b"/") or target == b"*":
        return target, b""
    _, _, rest = target.partition(b"://")
    ends = [at for at in (rest.find(sign) for sign in (b"/", b"?")) if at >= 0]
    end = min(ends, default=len(rest))
    authority, path = rest[:end], rest[end:]
    if method == b"OPTIONS" and not path:
        return b"*", authority
    return (path if path.startswith(b"/") else b"/" + path), authority


def check_reading(request: RequestHead, seen: Request) -> None:
    """Agreement of the head that we have read with h11's reading."""
    target, authority = origin_form(seen.target, seen.method)
    target, _ = asked_target(target)
    host = authority or b"".join(seen.all(b"host"))
    assert (request.method, request.target, request.host) == (seen.method, target, host)
    assert request.is_http_11 == (seen.version == b"1.1")
    lengths, codings = seen.all(b"content-length"), seen.all(b"transfer-encoding")
    if codings:
        assert isinstance(request.body, ChunkedBody)
        assert not lengths
    elif lengths:
        assert isinstance(request.body, LengthBody)
        assert [request.body.remaining] == [int(length) for length in lengths]
    else:
        assert request.body.is_complete
        assert not isinstance(request.body, ChunkedBody | LengthBody)
    options = nominated(seen.fields)
    assert request.keeps_alive == (b"close" not in options and (request.is_http_11 or b"keep-alive" in options))
    assert request.fields.expects_continue == seen.expects_continue
    secrets = presented(seen)
    if secrets == {parts.SECRET}:
        assert request.credential == Credential(sha256_digest(parts.SECRET))
    else:
        assert isinstance(request.credential, Refusal if secrets else NoneType)
    kept = [line.partition(b":") for line in request.kept.split(b"\r\n")[:-1]]
    assert tuple((name, value.strip(b" \t")) for name, _, value in kept) == going_on(seen.fields)


def check_writing(request: RequestHead, seen: Request, admitted: Admitted, edge: Edge) -> None:
    """What goes upstream is exactly one request: our Host, what may travel, the identity, one framing."""
    head = request_head(request, request.target, HOST_LINE, admitted, edge, REQUEST_ID_LINE)
    assert head.endswith(HEAD_END)
    assert head.count(HEAD_END) == 1
    assert head.count(b"\r") == head.count(b"\n") == head.count(b"\r\n")
    assert b"\0" not in head
    sent = read_request(head)
    assert sent is not None
    assert not sent.rest
    assert (sent.method, sent.target, sent.version) == (seen.method, request.target, b"1.1")
    assert sent.all(b"content-length") == [b"%d" % int(length) for length in seen.all(b"content-length")]
    assert sent.all(b"transfer-encoding") == [b"chunked"] * len(seen.all(b"transfer-encoding"))
    ours = {folded(n.encode()) for n in (*HOP_BY_HOP, *FORWARDED, *IDENTITY)}
    assert tuple(pair for pair in sent.fields if folded(pair[0]) not in ours) == going_on(seen.fields)
    identity = (b"X-User-Id", b"X-Tenant-Id", b"X-Scopes") if admitted is parts.CALLER else ()
    names = [name for name, _ in sent.fields if folded(name) in ours]
    framing = [n for n in names if n in (b"Content-Length", b"Transfer-Encoding")]
    assert len(framing) <= 1
    told = [name for name in names if name.lower() not in {n.lower().encode() for n in FORWARDED}]
    assert told == [b"Host", *identity, b"X-Request-Id", *framing]
    check_forwarded(sent, str(edge.address))


def check_forwarded(sent: Request, address: str) -> None:
    """The chain ends in the address of the socket, and each of these fields stands there once."""
    chain = sent.all(b"x-forwarded-for")
    assert len(chain) == len(sent.all(b"x-forwarded-proto")) == 1
    assert len(sent.all(b"x-forwarded-host")) <= 1
    assert chain[0].split(b", ")[-1] == address.encode()
    if address == parts.STRANGER:
        assert chain[0] == address.encode()
        assert sent.all(b"x-forwarded-proto") == [b"http"]


def _head(*lines: bytes) -> bytes:
    return b"\r\n".join(lines)


HOST = b"Host: a.test"
SEEDS = [
    _head(b"GET / HTTP/1.1", HOST),
    _head(b"GET / HTTP/1.0"),
    _head(b"GET / HTTP/1.0", b"Connection: keep-alive"),
    _head(b"POST /a?b=c HTTP/1.1", HOST, b"Content-Length: 007", b"Accept: */*", b"X-B:\t c \t"),
    _head(b"PUT /a HTTP/1.1", HOST, b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Trailer: X"),
    _head(b"GET http://b.test:80/x?y HTTP/1.1", HOST),
    _head(b"OPTIONS * HTTP/1.1", HOST),
    _head(b"OPTIONS http://b.test HTTP/1.1", HOST),
    _head(b"PROPFIND /a HTTP/1.1", b"Host: [::1]:8080", b"Depth: 1"),
    _head(b"GET / HTTP/1.1", HOST, b"Authorization: Bearer " + parts.SECRET, b"X-Request-Id: abc-1"),
    _head(b"GET / HTTP/1.1", HOST, b"X-Api-Key: " + parts.SECRET, b"X-User-Id: root", b"x_user.id: root"),
    _head(b"GET / HTTP/1.1", HOST, b"Connection: close, X-Foo", b"X-Foo: 1", b"Keep-Alive: 5", b"Via: \xe9"),
    _head(b"GET / HTTP/1.1", HOST, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: A"),
    _head(b"GET / HTTP/1.1", HOST, b"X-Forwarded-For: 1.1.1.1, 2.2.2.2", b"X-Forwarded-Proto: https", b"Cookie: a=b"),
    _head(b"GET / HTTP/1.1", HOST, b"Forwarded: for=1.1.1.1;proto=https", b"X-Forwarded-Host: b.test", b"X-Real-Ip: 1"),
    _head(b"OPTIONS / HTTP/1.1", HOST, b"Origin: https://a.test", b"Access-Control-Request-Method: PUT"),
    _head(b"GET /a?b=c&api_key=" + parts.SECRET + b"&d HTTP/1.1", HOST, b"X-Api-Key: " + parts.SECRET),
    _head(b"GET /?%61pi_key=x&api%5fkey=+y HTTP/1.1", HOST),
    _head(
        b"GET /w HTTP/1.1", HOST, b"Sec-WebSocket-Protocol: chat, ostiary.key, " + parts.SECRET, b"Upgrade: websocket"
    ),
    _head(
        b"GET / HTTP/1.1", HOST, b'Forwarded: for="[2001:db8::1]:80", For=10.1.2.3;host=b.test', b"Forwarded: for=_x"
    ),
    HEAD_END.join(_head(b"GET /%d HTTP/1.1" % n, HOST, b"X-Trace: %d" % n, b"Accept: a") for n in (1, 1, 2, 3)),
    _head(b"TRACE / HTTP/1.1", HOST),
    _head(b"GET / HTTP/1.1", HOST, b"X: " + b"x" * 400),
    _head(b"GET / HTTP/1.1", HOST, b"(X): x"),
    HEAD_END.join(
        _head(b"GET / HTTP/1.1", HOST, b"A: 1", b"Connection: " + option, b"X-Trace: %d" % n, b"B: 1")
        for n, option in enumerate((b"A", b"A", b"A", b"keep-alive"))
    ),
    HEAD_END.join(_head(b"GET /?api_key=%d HTTP/1.1" % n, HOST, b"X-Trace: %d" % n) for n in range(3)),
    HEAD_END.join(_head(b"GET / HTTP/1.%d" % n, HOST, b"Connection: keep-alive", b"A: %d" % n) for n in (1, 0, 1)),
    HEAD_END.join(_head(b"POST / HTTP/1.1", HOST, b"Content-Length: 0", b"A: %d" % n) for n in (1, 1, 2)),
    HEAD_END.join(_head(b"%b / HTTP/1.1" % m, HOST, b"Date: x") for m in (b"GET", b"HEAD", b"DELETE", b"FOO")),
]
TOKENS = [
    *(b"\r\n", b"\r\n\r\n", b"\r\n ", b"\n", b"\r", b": ", b"HTTP/1.1", b"HTTP/1.0", b"http://", b"https://"),
    *(b"GET ", b"HEAD ", b"POST ", b"CONNECT ", b"TRACE ", b"OPTIONS ", b"M-SEARCH ", b"chunked", b"100-continue"),
    *(f"\r\n{name}: ".encode() for name in (*HOP_BY_HOP, *FORWARDED, *IDENTITY, *CREDENTIALS, "Origin", "Cookie")),
    *(b"close", b"keep-alive", b"websocket", b"Bearer ", parts.SECRET, b"?api_key=", b"&api%5Fkey=", b"ostiary.key, "),
    *(b"\r\nSec-WebSocket-Protocol: ", b"for=10.0.0.1", b";proto=https", b";host=b.test", b'for="[::1]:80"', b", "),
]
