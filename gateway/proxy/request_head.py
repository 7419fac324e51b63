"""The head of a request: read strictly, in one pass over its lines. Pure: no socket, no clock.

llhttp reads the head first; what it lets through that a strict reader would not is refused here. A refusal closes the
connection, so nothing behind a doubtful head is ever taken for a request.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import httptools

from gateway.auth.credentials import CredentialReader
from gateway.proxy.errors import BadRequest, ExpectationFailed, HeadersTooLarge, MethodRefused, UriTooLong
from gateway.proxy.fields import ALLOWED_BYTES, Fields
from gateway.proxy.framing import NO_BODY, BadFraming, Body, ChunkedBody, LengthBody, content_length, is_chunked
from gateway.proxy.headers import TIMEOUT, Action, HeaderTable, nominated, without
from gateway.proxy.places import Places
from gateway.proxy.remembered import Remembered, Said, request_id_in
from gateway.setting_values import SESSION_COOKIE, SIGN_IN_COOKIE

REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([\x21-\x7e]+) HTTP/1\.([01])")
ABSOLUTE_FORM: Final = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
_LABEL = rb"[A-Za-z0-9\-_~!$&'()*+=]+"
HOST: Final = re.compile(rb"(?:%b(?:\.%b)*\.?|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?" % (_LABEL, _LABEL))
# The hot ones by name: reading an enum's member costs a look-up a line.
KEEP, DROP, HOST_FIELD, CREDENTIAL, CONNECTION, PROTOCOLS, COOKIES, NOTED = (
    Action.KEEP,
    Action.DROP,
    Action.HOST,
    Action.CREDENTIAL,
    Action.CONNECTION,
    Action.PROTOCOLS,
    Action.COOKIES,
    Action.NOTED,
)
PATIENCE: Final = re.compile(rb"[1-9][0-9]?|[1-5][0-9]{2}|600")  # R192
ORDINARY_METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE"})
SLASH: Final = ord("/")
# Options of Connection that never name a field to drop: the hop's own, and what the meaning of the message rests on.
NEVER_NOMINATED: Final = frozenset(
    {b"close", b"keep-alive", b"upgrade", b"host", b"content-length", b"transfer-encoding", b"authorization"}
)


# The portal's own cookies are nobody else's to read: they go on by its own route alone.
OWN_COOKIE: Final = re.compile(
    rb"(?:^|;)[ \t]*(?:__Host-)?(?:%b|%b)[ \t]*=[^;]*" % (SESSION_COOKIE.encode(), SIGN_IN_COOKIE.encode())
)
COOKIE: Final = frozenset({b"cookie"})

UNMATCHED: Final = object()


class RequestHead:
    """A request without its body. `target` is in origin form (or `*`); `host` is the authority it is for.

    `kept` are the header lines to send on as they came, each with its CRLF; `content_length` and `request_id` are the
    client's own. All else that the header section says is in `fields`.

    `credential` is the one of all configured places, the query included; none is left in `target`.

    `route` is a place for whoever matches it to a route to leave the answer: a connection's next request is this very
    object where it is the same to the letter and has no body.
    """

    __slots__ = (
        "body",
        "content_length",
        "credential",
        "fields",
        "host",
        "is_http_11",
        "keeps_alive",
        "kept",
        "method",
        "request_id",
        "route",
        "target",
    )

    def __init__(self, method: bytes, target: bytes, is_http_11: bool, fields: Fields, said: Said) -> None:
        self.method = method
        self.target = target
        self.is_http_11 = is_http_11
        self.fields = fields
        self.kept = said.kept
        self.content_length = said.content_length
        self.request_id = said.request_id
        self.host = fields.host
        self.credential = said.credential
        self.keeps_alive = fields.keeps_alive
        self.route: Any = UNMATCHED  # the type is the router's, which is not known here
        self.body: Body = NO_BODY
        if fields.is_chunked:
            self.body = ChunkedBody()
        elif said.content_length is not None:
            self.body = LengthBody(said.content_length)

    def keep_session(self) -> None:
        """Have the portal's own cookies go on: the request is for its pages. They stand first, where these look."""
        if not self.kept.startswith(self.fields.session):
            self.kept = self.fields.session + self.kept


class RequestReader:
    """Reads request heads for one connection.

    `table` and `credentials` are shared by all connections; the limits are in bytes and lines. Clients of an API mostly
    repeat their header section to the letter: the last one is remembered with what it said, and compared as a whole.
    What is remembered is this connection's own bytes, for as long as it lasts.
    """

    __slots__ = (
        "_credentials",
        "_header_count_limit",
        "_last",
        "_last_minor",
        "_line_limit",
        "_parser",
        "_places",
        "_table",
    )

    def __init__(
        self,
        table: HeaderTable,
        credentials: CredentialReader,
        places: Places,
        *,
        line_limit_bytes: int,
        header_count_limit: int,
    ) -> None:
        self._table = table
        self._credentials = credentials
        self._places = places
        self._line_limit = line_limit_bytes
        self._header_count_limit = header_count_limit
        self._parser = _new_parser()
        self._last: Remembered | None = None
        self._last_minor = b""

    def read(self, head: bytes) -> RequestHead:
        """The head in `head` (up to, not with, its empty line). Raises BadRequest and its kin. Hot."""
        end = head.find(b"\r\n")
        line, section = (head, b"") if end < 0 else (head[:end], head[end:])
        if len(line) > self._line_limit:
            raise UriTooLong(f"a request line of {len(line)} bytes")
        request_line = REQUEST_LINE.fullmatch(line)
        if request_line is None:
            raise BadRequest("malformed request line")
        method, target, minor = request_line.groups()
        last, said = self._last, None
        if (
            last is not None
            and minor == self._last_minor
            and method in ORDINARY_METHODS
            and len(section) <= self._line_limit
        ):
            said = last.said_by(section)
        if last is None or said is None:
            last = self._read_section(head, section, minor)
            said = last.said
            self._last_minor = minor
            self._last = last if len(section) <= self._line_limit else None  # a longer one is never compared, as above
        fields = last.fields
        if method not in ORDINARY_METHODS and method in REFUSED_METHODS:
            raise MethodRefused(f"{method.decode()} is never forwarded")
        request = RequestHead(method, target, minor == b"1", fields, said)
        if target[0] != SLASH:
            reduce_target(request)
        if target.find(b"#") >= 0:  # `in` would first try to read the bytes as a number
            raise BadRequest("a fragment in the request target")
        if self._places.queries and target.find(b"?") >= 0:
            request.target, secrets = self._places.take_from_query(request.target)
            request.credential = self._credentials.read_more(request.credential, secrets)
        return request

    def _read_section(self, head: bytes, section: bytes, minor: bytes) -> Remembered:
        lines = section.split(b"\r\n")
        if section.translate(None, ALLOWED_BYTES) != b"\r\n" * (len(lines) - 1):
            raise BadRequest("a control character, or a bare CR or LF, in the head")
        if len(lines) - 1 > self._header_count_limit:
            raise HeadersTooLarge(f"{len(lines) - 1} header lines")
        if len(section) > self._line_limit and max(map(len, lines)) > self._line_limit:
            raise HeadersTooLarge("a header line over the limit")
        self._check_with_llhttp(head)
        kept: list[bytes] = []
        fields = self._sort_lines(lines, minor == b"1", kept)
        return Remembered(section, lines, kept, fields, self._table, self._credentials)

    def _check_with_llhttp(self, head: bytes) -> None:
        """Raise BadRequest unless llhttp takes the head too."""
        try:
            self._parser.feed_data(head + b"\r\n\r\n")
        except httptools.HttpParserUpgrade:
            self._parser = _new_parser()
        except httptools.HttpParserError as error:
            self._parser = _new_parser()
            raise BadRequest(f"llhttp: {error}") from error

    def _sort_lines(self, lines: list[bytes], is_http_11: bool, kept: list[bytes]) -> Fields:
        """Sort each header line by what its name means, then act on those that mean something to the gateway.

        Fills `kept` with the lines to send on.
        """
        special: dict[Action, list[tuple[bytes, bytes]]] = {}
        get = self._table.get
        for index in range(1, len(lines)):
            line = lines[index]
            name, colon, value = line.partition(b":")
            action = get(name)
            if action is None:
                action = self._table.classify(name)
            if action is KEEP:
                kept.append(line)
            elif action is not DROP:
                special.setdefault(action, []).append((name, value.strip(b" \t")))
                if action is COOKIES or action is NOTED:
                    kept.append(line)
            if not colon:
                raise BadRequest("a header line without a colon")
        fields = Fields(keeps_alive=is_http_11)
        fields.host = _the_host(special.pop(HOST_FIELD, ()), is_http_11)
        fields.credential = self._credentials.read(special.pop(CREDENTIAL, ()))
        if special:
            self._act_on(special, fields, is_http_11, kept)
        return fields

    def _act_on(
        self, special: dict[Action, list[tuple[bytes, bytes]]], fields: Fields, is_http_11: bool, kept: list[bytes]
    ) -> None:
        """Act on the fields that not every request has; change `kept` where they say so."""
        if PROTOCOLS in special:
            values = [value for _, value in special.pop(PROTOCOLS)]
            offers, secrets, fields.key_protocol = self._places.take_from_protocols(values)
            fields.credential = self._credentials.read_more(fields.credential, secrets)
            fields.is_variable = False
            if offers:
                kept.append(b"Sec-WebSocket-Protocol: " + b", ".join(offers))
        if COOKIES in special:
            values = [value for _, value in special.pop(COOKIES)]
            own = OWN_COOKIE.findall(b";".join(values))
            if own:
                kept[:] = without(kept, COOKIE)
                kept.extend(b"Cookie: " + value for value in others_of(values))
                fields.session = b"Cookie: %b\r\n" % b"; ".join(cookie.strip(b"; \t") for cookie in own)
                fields.is_variable = False
        connections = special.pop(CONNECTION, None)
        if connections is not None:
            options = nominated(value for _, value in connections)
            fields.keeps_alive = b"close" not in options and (is_http_11 or b"keep-alive" in options)
            names = options - NEVER_NOMINATED
            if names:
                kept[:] = without(kept, names)
                fields.is_variable = False
            upgrades = special.get(Action.UPGRADE, ())
            if b"upgrade" in options and is_http_11 and len(upgrades) == 1:
                fields.upgrade = upgrades[0][1].lower()
        if special:
            self._apply(special, fields, is_http_11)

    def _apply(self, special: dict[Action, list[tuple[bytes, bytes]]], fields: Fields, is_http_11: bool) -> None:
        """Act on the rarer fields."""
        if Action.INVALID in special:
            raise BadRequest("a header name that is not a token")
        lengths = [value for _, value in special.get(Action.CONTENT_LENGTH, ())]
        codings = [value for _, value in special.get(Action.TRANSFER_ENCODING, ())]
        if lengths or codings:
            self._frame(lengths, codings, fields, is_http_11)
        fields.forwarded = tuple((name.lower(), value) for name, value in special.get(Action.FORWARDED, ()))
        ids = special.get(Action.REQUEST_ID, ())
        if len(ids) == 1:
            fields.request_id = request_id_in(ids[0][1])
        fields.notes = tuple((name.lower(), value) for name, value in special.get(NOTED, ()))
        if any(name == TIMEOUT and PATIENCE.fullmatch(value) is None for name, value in fields.notes):
            raise BadRequest("Timeout-Seconds is not a whole number from 1 to 600")
        reserved = special.get(Action.RESERVED, ())
        fields.reserved_removed = len(reserved)
        fields.twins_removed = sum(self._table.is_twin(name) for name, _ in reserved)
        for _, value in special.get(Action.EXPECT, ()):
            if value.lower() != b"100-continue":
                raise ExpectationFailed("an unknown expectation")
            fields.expects_continue = is_http_11

    def _frame(self, lengths: list[bytes], codings: list[bytes], fields: Fields, is_http_11: bool) -> None:
        self._parser = _new_parser()  # the old one waits for the body, which it will not get
        try:
            if codings:
                if lengths or not is_http_11:
                    raise BadRequest("Transfer-Encoding beside Content-Length, or in HTTP/1.0")
                fields.is_chunked = is_chunked(codings)
            else:
                fields.content_length = content_length(lengths)
        except BadFraming as error:
            raise BadRequest(str(error)) from error


class _Ignored:
    """llhttp is asked for its verdict alone."""


_IGNORED: Final = _Ignored()


def _new_parser() -> httptools.HttpRequestParser:
    """A parser for heads. It is not asked whether the connection lives on: it would obey Proxy-Connection too."""
    parser = httptools.HttpRequestParser(_IGNORED)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def others_of(cookies: Sequence[bytes]) -> list[bytes]:
    """The values of Cookie without the portal's own; what is empty then goes."""
    rest = [OWN_COOKIE.sub(b"", value).strip(b"; \t") for value in cookies]
    return [value for value in rest if value]


def _the_host(hosts: Sequence[tuple[bytes, bytes]], is_http_11: bool) -> bytes:
    """Exactly one, of the grammar, in 1.1 (RFC 9112 3.2). The upstream's address never comes from it (R342)."""
    if not hosts and not is_http_11:
        return b""
    if len(hosts) != 1:
        raise BadRequest("not exactly one Host")
    check_authority(hosts[0][1])
    return hosts[0][1]


def check_authority(authority: bytes) -> None:
    """Raise BadRequest unless `authority` is a host with an optional port (RFC 3986 3.2)."""
    match = HOST.fullmatch(authority)
    if match is None or int(match[1] or 0) > 65_535:
        raise BadRequest("malformed Host")


def reduce_target(request: RequestHead) -> None:
    """Absolute form to origin form: its authority replaces Host (RFC 9112 3.2.2). `*` stays, or comes back (3.2.4)."""
    is_options = request.method == b"OPTIONS"
    if request.target == b"*" and is_options:
        return
    absolute = ABSOLUTE_FORM.fullmatch(request.target)
    if absolute is None:
        raise BadRequest("a request target of no known form")
    authority, rest = absolute.groups()
    check_authority(authority)
    request.host = authority
    if is_options and not rest:
        request.target = b"*"
    else:
        request.target = rest if rest.startswith(b"/") else b"/" + rest
