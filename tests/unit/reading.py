"""Readers as the application makes them, for the tests of heads."""

from gateway.auth.credentials import CredentialReader
from gateway.auth.secrets import SecretFormat
from gateway.proxy.headers import REQUEST_FIELDS, RESPONSE_FIELDS, Action, HeaderTable
from gateway.proxy.places import Places
from gateway.proxy.request_head import RequestHead, RequestReader
from gateway.proxy.response_head import ResponseFields, ResponseReader

SECRETS = SecretFormat("ost", "test")
SECRET = SECRETS.generate().encode()
OTHER_SECRET = SECRETS.generate().encode()
RESERVED = (
    b"X-User-Id",
    b"X-Tenant-Id",
    b"X-Key-Id",
    b"X-Key-Environment",
    b"X-Auth-Kind",
    b"X-Scopes",
    b"X-Plan",
    b"X-Identity-Assertion",
)
LINE_LIMIT = 200
COUNT_LIMIT = 10


def request_table() -> HeaderTable:
    """The default configuration's table for requests."""
    credentials = {b"authorization": Action.CREDENTIAL, b"x-api-key": Action.CREDENTIAL}
    return HeaderTable(
        {**REQUEST_FIELDS, **credentials, b"x-request-id": Action.REQUEST_ID},
        reserved=RESERVED,
    )


def response_table() -> HeaderTable:
    """The default configuration's table for replies."""
    return HeaderTable(RESPONSE_FIELDS, reserved=[*RESERVED, b"X-Request-Id"])


def request_reader() -> RequestReader:
    """A reader with small limits: `LINE_LIMIT` bytes a line, `COUNT_LIMIT` header lines."""
    return RequestReader(
        request_table(),
        CredentialReader(SECRETS),
        Places(),
        line_limit_bytes=LINE_LIMIT,
        header_count_limit=COUNT_LIMIT,
    )


def portal_reader() -> RequestReader:
    """A reader of a gateway with a portal."""
    table = HeaderTable({**REQUEST_FIELDS, b"cookie": Action.COOKIES}, reserved=RESERVED)
    return RequestReader(
        table, CredentialReader(SECRETS), Places(), line_limit_bytes=LINE_LIMIT, header_count_limit=COUNT_LIMIT
    )


def read(head: bytes) -> RequestHead:
    """A request's head, read by a reader of its own."""
    return request_reader().read(head)


def read_reply(head: bytes) -> ResponseFields:
    """A reply's head, read by a reader of its own."""
    return ResponseReader(response_table()).read(head)


def head(*lines: bytes) -> bytes:
    """Lines as a head without its empty line."""
    return b"\r\n".join(lines)
