"""The two heads that the gateway writes: every request upstream and every relayed reply starts here."""

from ipaddress import ip_address
from typing import Final

from gateway.auth.admission import Admitted
from gateway.proxy.cors import without_cors
from gateway.proxy.request_head import Fields, RequestHead
from gateway.proxy.response_head import ResponseFields

CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"


class Edge:
    """Who is at the other end of a client's connection, as the upstream is told.

    `address` is the socket's peer, without port; `scheme` is `http` or `https`; `is_trusted` is true for one of the
    configured proxies, and only then is believed what it says of its own client (R297).
    """

    __slots__ = ("_address", "_last", "_lines", "_scheme", "is_trusted")

    def __init__(self, address: str, scheme: str, *, is_trusted: bool) -> None:
        self._address = address.encode("ascii", "replace")
        self._scheme = scheme.encode()
        self.is_trusted = is_trusted
        self._lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (self._address, self._scheme)
        self._last = (b"", self._lines)  # (host, lines): a client rarely changes the host it talks to

    def forwarded_lines(self, fields: Fields, host: bytes) -> bytes:
        """`X-Forwarded-For`, `-Proto` and `-Host`, each with its CRLF. Hot."""
        if self.is_trusted and fields.forwarded:
            return self._appended(fields, host)
        if host != self._last[0]:
            self._last = (host, b"%bX-Forwarded-Host: %b\r\n" % (self._lines, host) if host else self._lines)
        return self._last[1]

    def _appended(self, fields: Fields, host: bytes) -> bytes:
        said: dict[bytes, bytes] = {}
        for name, value in fields.forwarded:
            said[name] = said[name] + b", " + value if name in said else value
        chain = said.get(b"x-forwarded-for", b"")
        lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (
            chain + b", " + self._address if chain else self._address,
            said.get(b"x-forwarded-proto", self._scheme),
        )
        host = said.get(b"x-forwarded-host", host)
        return lines + (b"X-Forwarded-Host: %b\r\n" % host if host else b"")


def request_head(
    request: RequestHead,
    target: bytes,
    host_line: bytes,
    admitted: Admitted,
    edge: Edge,
    request_id_line: bytes,
    upgrade: bytes = b"",
) -> bytes:
    """The head of the request to the upstream. Takes the permission; there is no other way to make one. Hot.

    `upgrade` is the protocol to switch to, where the route allows it. Reserved names, hop-by-hop fields and the
    credential are not among the kept lines: the reader left them out.
    """
    fields, principal = request.fields, admitted.principal
    return b"".join(
        (
            request.method,
            b" ",
            target,
            b" HTTP/1.1\r\n",
            host_line,
            fields.kept,
            b"" if principal is None else principal.identity,
            edge.forwarded_lines(fields, request.host),
            request_id_line,
            b"Connection: Upgrade\r\nUpgrade: %b\r\n" % upgrade if upgrade else b"",
            b"\r\n" if request.body.is_complete and fields.content_length is None else _framing(fields),
        )
    )


def _framing(fields: Fields) -> bytes:
    if fields.content_length is not None:
        return b"Content-Length: %d\r\n\r\n" % fields.content_length
    return CHUNKED + b"\r\n"


def reply_head(
    fields: ResponseFields,
    request_id_line: bytes,
    is_chunked: bool,
    closes: bool,
    is_http_10: bool,
    cors_lines: bytes = b"",
) -> bytes:
    """The head of the reply to the client; `cors_lines` stand in for whatever the upstream says of origins. Hot."""
    end = b"Connection: close\r\n\r\n" if closes else b"Connection: keep-alive\r\n\r\n" if is_http_10 else b"\r\n"
    start = without_cors(fields.start) + cors_lines if cors_lines else fields.start
    return b"".join((start, fields.length_line, CHUNKED if is_chunked else b"", request_id_line, end))


def switch_head(fields: ResponseFields, request_id_line: bytes) -> bytes:
    """The head of a relayed 101."""
    return b"%b%bConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % (fields.start, request_id_line, fields.upgrade)


def last_chunk(trailers: list[bytes]) -> bytes:
    """The end of a chunked body, with its trailer section."""
    return b"\r\n".join((b"0", *trailers, b"", b""))


def bare_address(peername: object) -> str:
    """The address of a socket's peer; `unknown` for one without (a Unix socket). An IPv4-mapped one reads as IPv4."""
    if not isinstance(peername, tuple):
        return "unknown"
    address = ip_address(str(peername[0]).partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
