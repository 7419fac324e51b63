"""What callers of the management API and browsers send: any bytes are what is asked for, or a refusal that is told.

`data` is behind a byte that says what it is, and for bodies and queries another one that says of which call: a body, a
query string, a file of imports, an Idempotency-Key, the form of an entitlement, the cookie of a sign-in.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel

from gateway.control.admin_tokens import Administrator  # noqa: F401  # brings in all models
from gateway.control.bodies import ID_SHAPE, Body, parse_body
from gateway.control.explain import ExplainBody
from gateway.control.idempotency import InvalidIdempotencyKey, Once
from gateway.control.import_calls import ImportQuery
from gateway.control.import_rows import FileFormat, ImportRow, Mistake, read_rows
from gateway.control.me import OwnKeyBody
from gateway.control.pages import Query, parse_query
from gateway.control.portal.administration.users import wanted
from gateway.control.portal.attempt import Attempt, onward
from gateway.control.problems import InvalidBody, InvalidQuery, PayloadTooLarge
from gateway.control.usage import AllUsagePageQuery

NOT_EVERYWHERE = {"secret", "prefix"}  # whose own checks stand where they are used


def family(root: type[Any]) -> Iterator[type[Any]]:
    """All models under one, in an order that stays."""
    for model in sorted(root.__subclasses__(), key=lambda one: one.__name__):
        yield model
        yield from family(model)


BODIES: list[type[Body]] = list(family(Body))
QUERIES: list[type[Query]] = list(family(Query))
assert {ExplainBody, OwnKeyBody, ImportRow} <= set(BODIES)
assert {ImportQuery, AllUsagePageQuery} <= set(QUERIES)
FIELDS = ("plan", "valid_until", "features", "per_second", "per_minute", "per_hour", "per_day", "per_month")
LONGEST_TOLD = 4000


def check(data: bytes) -> None:
    """See above."""
    which, body = data[1:2] or b"\0", data[2:]
    match data[:1]:
        case b"b":
            check_body(body, BODIES[which[0] % len(BODIES)])
        case b"q":
            check_query(body, QUERIES[which[0] % len(QUERIES)])
        case b"i":
            check_file(body, FileFormat.CSV if which == b"c" else FileFormat.JSONL)
        case b"k":
            check_key(body.decode("latin-1"))
        case b"f":
            check_form(body.decode("utf-8", "surrogateescape" if which == b"s" else "replace"))
        case b"c":
            check_cookie(body.decode("latin-1"))
        case _:
            pass


def check_body(body: bytes, model: type[Body]) -> None:
    """A model of plain values, or issues."""
    try:
        read = parse_body(body, model)
    except InvalidBody as error:
        check_told(error)
        return
    check_values(read)


def check_query(body: bytes, model: type[Query]) -> None:
    """As a body."""
    sent = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, errors="surrogateescape"))
    try:
        read = parse_query(sent, model)
    except InvalidQuery as error:
        check_told(error)
        return
    check_values(read)


def check_told(error: InvalidBody | InvalidQuery) -> None:
    """Issues can be sent as JSON and stand in one line of the log, each."""
    issues = error.members["issues"]
    assert issues
    json.dumps(issues).encode()
    for issue in issues:
        assert issue["message"].isprintable()
        assert issue["place"].isprintable()
    assert str(error).encode()


def check_values(read: BaseModel) -> None:
    """No text that PostgreSQL does not take, nor one that forges a line."""
    for name, value in read:
        for text in texts_in(value):
            text.encode()
            assert name in NOT_EVERYWHERE or not re.search(r"[\0-\x1f\x7f]", text), name
        if name in ("user_id", "tenant_id", "id", "key_id") and value is not None:
            assert ID_SHAPE.fullmatch(value)


def texts_in(value: object) -> Iterator[str]:
    """Every text in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from texts_in(name)
            yield from texts_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_in(inner)


def check_file(body: bytes, file_format: FileFormat) -> None:
    """Each line is a row or a mistake, in order."""
    try:
        entries = list(read_rows(body, file_format))
    except (InvalidBody, PayloadTooLarge):
        return
    numbers = [number for number, _ in entries]
    assert numbers == sorted(set(numbers))
    assert len(numbers) <= body.count(b"\n") + 1
    for _, row in entries:
        if isinstance(row, Mistake):
            assert row.message.isprintable()
        else:
            check_values(row)


def check_key(key: str) -> None:
    """Printable ASCII, or refused."""
    try:
        once = Once.of(key, actor="a", method="POST", path="/v1/keys", body=b"")
    except InvalidIdempotencyKey:
        return
    assert key.isascii()
    assert key.isprintable()
    other = key + "x" if len(key) < 255 else key[1:]
    assert once.lookup != Once.of(other, actor="a", method="POST", path="/v1/keys", body=b"").lookup


def check_form(text: str) -> None:
    """What a form asks for can stand in a body, or is refused at a field."""
    lines = text.split("\f")
    filled = {name: lines[number] if number < len(lines) else "" for number, name in enumerate(FIELDS)}
    try:
        asked = wanted(filled, None)
    except InvalidBody as error:
        check_told(error)
        return
    check_body(json.dumps(asked).encode(), next(model for model in BODIES if model.__name__ == "EntitlementBody"))


def check_cookie(value: str) -> None:
    """A sign-in that leads to a page of ours, or none."""
    attempt = Attempt.of_cookie(value)
    assert onward(value).startswith("/portal/")
    if attempt is not None:
        assert attempt.onward.startswith("/portal/")
        assert "//" not in attempt.onward
        assert Attempt.of_cookie(attempt.cookie) == attempt


def _body(name: str, value: Any) -> bytes:
    return b"b" + bytes([[model.__name__ for model in BODIES].index(name)]) + json.dumps(value).encode()


def _query(name: str, text: str) -> bytes:
    return b"q" + bytes([[model.__name__ for model in QUERIES].index(name)]) + text.encode()


_ROW = {"secret_sha256": "0" * 64, "user_id": "u1", "name": "n", "scopes": ["a:read"], "expires_at": 2e9}
SEEDS = [
    _body("NewTenant", {"id": "t1", "name": "Ac\u0308me"}),
    _body("UserBody", {"tenant_id": "t1", "display_name": "\u202e", "roles": ["a"], "groups": [], "status": "active"}),
    _body("EntitlementBody", {"plan": "p", "features": {"a": 1.5, "b": "x"}, "limits": {"per_day": 2**53}}),
    _body("EntitlementBody", {"plan": "p", "valid_until": "2026-01-31T12:00:00.5+01:00", "features": {"a": [1]}}),
    _body("NewKeyBody", {"user_id": "u", "name": " n ", "expires_at": 1e300, "kind": "operator", "prefix": "\x00"}),
    _body("KeyChange", {"name": None, "scopes": ["a", "a"], "expires_at": "0001-01-01T00:00:00-23:59"}),
    _body("RotateBody", {"grace_seconds": True}),
    _body("RevokeBody", {"reason": "a\nb", "b\r\n": 1}),
    _body("TokenBody", {"expires_in": 10**30, "audience": ""}),
    _body("ExplainBody", {"method": "GET", "path": "/\u0000", "headers": {"A": "b"}, "secret": "s", "key_id": "k"}),
    _body("ImportRow", _ROW),
    b"b\0\xff",
    b"b\0" + b"[" * 500,
    b'b\0{"id":"\\ud800","name":"a"}',
    _query("AuditQuery", "cursor=MTI=&since=1700000000.5&until=2026-01-01T00:00Z&order=latest&action=key.create"),
    _query("AllUsagePageQuery", "step=day&by=key,route&cursor=WyIyMDI2LTAxLTAxVDAwOjAwOjAwWiIsICJhIl0=&limit=200"),
    _query("KeysQuery", "status=active&limit=01&user_id=%00&cursor=%ff"),
    _query("UsersQuery", "search=%0A&tenant_id=t&limit=99999&limit=1"),
    _query("ImportQuery", "dry_run=yes&a%0Ab=1"),
    b"il" + json.dumps(_ROW).encode() + b"\n\n" + json.dumps({**_ROW, "prefix": "a b"}).encode() + b"\r\n[]",
    b"ic\xef\xbb\xbfuser_id,secret_sha256, name ,scopes,expires_at\nu1," + b"0" * 64 + b',"a,b",x y,1700000000\n"',
    b"icuser_id\nu1",
    b"k\0" + b"k" * 255,
    b"k\0\x1f",
    'f-p\f2026-01-31T12:00\fa = 1\nb = "x"\nc=[\f1\f 2 \f\uff11\f-1\f'.encode(),
    b"f-p\f\fa = 1e999\n= 2\n",
    b'fsp\f\fa = "\\ud800"\f1_0',
    b"c\0" + b"A" * 43 + b":/portal/keys/k-1",
    b"c\0" + b"A" * 43 + b"://evil.test/",
]
TOKENS = [
    *(json.dumps(name).encode() for model in BODIES for name in model.model_fields),
    *(f"&{field.alias or name}=".encode() for model in QUERIES for name, field in model.model_fields.items()),
    *(
        b"null",
        b"true",
        b"NaN",
        b"1e999",
        b"[]",
        b"{}",
        b"\\ud800",
        b"\\u0000",
        b"%00",
        b"%ed%a0%80",
        b"2026-01-01T00:00",
    ),
    *(b"secret_sha256,user_id,name\n", b'"', b"\f", b"\r\n", b"/portal/", b"A" * 43),
]
