"""What others have put into the stores: any bytes are a finding, a message, a row, or none; and no identity is forged.

`data` is behind a byte that says where it stands: a cached entry or a message (their seals are good: whoever has the
key is a node, and may be of another version), something that is not sealed, or values that are laid over a good row of
PostgreSQL.
"""

import json
from typing import Any

from gateway.auth.principal import IdentityNames, principal_of
from gateway.auth.verdict import first_deadline, standing_refusal, subjects_of
from gateway.errors import MalformedRow
from gateway.stores.postgres.lookup import finding_of
from gateway.stores.records import Finding, KeyRecord, SecretState
from gateway.stores.redis.channel import Batch, read_message
from gateway.stores.redis.entry_format import pack, unpack
from gateway.stores.redis.seal import VERSION, Seal
from tests.fuzz.reference import read_request

DIGEST = bytes(range(32))
LINES = {
    "user_id": "X-User-Id",
    "tenant_id": "X-Tenant-Id",
    "key_id": "X-Key-Id",
    "environment": "X-Key-Environment",
    "auth_kind": "X-Auth-Kind",
    "scopes": "X-Scopes",
    "plan": "X-Plan",
}
NAMES = IdentityNames(**LINES)
ROW: dict[str, Any] = {
    "revision": 5,
    "digest": DIGEST.hex(),
    "secret_id": "sec_1",
    "secret_expires_at": None,
    "key_id": "key_1",
    "key_kind": "user",
    "key_name": "name",
    "environment": "test",
    "scopes": ["a:read"],
    "key_expires_at": 1.5,
    "is_revoked": False,
    "user_id": "u1",
    "is_user_active": True,
    "tenant_id": "t1",
    "is_tenant_active": True,
    "plan": "starter",
    "tier": 2,
    "features": '{"api_access": true}',
    "limits": '{"per_minute": 60}',
    "plan_limits": "{}",
    "entitlement_valid_until": None,
}
SEAL = Seal()
SEAL.unlock(bytes(32))
RECORD = KeyRecord(
    **{name: value for name, value in ROW.items() if name != "revision"}
    | {"digest": DIGEST, "secret_state": SecretState.CURRENT, "scopes": ("a:read",)}
    | {name: json.loads(ROW[name]) for name in ("features", "limits", "plan_limits")}
)


def check(data: bytes) -> None:
    """See above."""
    kind, body = data[:1], data[1:]
    if kind == b"e":
        found = unpack(body)
        if found is not None:
            assert unpack(pack(found)) == found
            check_finding(found)
    elif kind == b"m":
        check_message(body)
    elif kind == b"r":
        check_row(body)
    elif kind == b"s":
        assert SEAL.open("name", body) is None, "nobody has sealed it"
        assert SEAL.open("name", SEAL.close("name", body)) == body
        assert SEAL.open("other", SEAL.close("name", body)) is None


def check_finding(found: Finding) -> None:
    """What admission makes of it: one line for each name at most, and nothing beside them."""
    assert found.digests
    assert all(len(digest) == len(DIGEST) for digest in found.digests)
    record = found.record
    assert all(subject.encode() for subject in subjects_of(found))
    if record is None:
        return
    assert record.digest in found.digests
    standing_refusal(record)
    assert isinstance(first_deadline(record)[0], float | int)
    lines = principal_of(record, NAMES).identity
    head = read_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
    assert head is not None
    assert not head.rest
    names = [name for name, _ in head.fields][1:]
    assert len(set(names)) == len(names)
    assert set(names) <= {name.encode() for name in LINES.values()}


def check_message(body: bytes) -> None:
    """A change, a reply, or neither."""
    message = read_message(body)
    if isinstance(message, Batch):
        assert isinstance(message.last, int)
        assert all(isinstance(one.revision, int) and isinstance(one.subject, str) for one in message.invalidations)
    elif message is not None:
        assert isinstance(message[0], str)
        assert isinstance(message[1], int)


def check_row(body: bytes) -> None:
    """A row is what the schema promises in every column, or an outage of that key alone."""
    try:
        laid_over = json.loads(body)
    except (ValueError, RecursionError):
        return
    if not isinstance(laid_over, dict):
        return
    row = ROW | {name: value for name, value in laid_over.items() if name in ROW}
    if isinstance(row["digest"], str) and row["digest"] == DIGEST.hex():
        row["digest"] = DIGEST
    try:
        found = finding_of(row, SecretState.CURRENT, (DIGEST,))
    except MalformedRow:
        return
    assert found.revision == row["revision"]
    if found.record is None:
        assert row["key_id"] is None
        return
    for name in ("key_id", "user_id", "tenant_id", "is_revoked", "is_user_active", "is_tenant_active", "tier"):
        value = getattr(found.record, name)
        assert (type(value), value) == (type(ROW[name]), row[name])


def _laid_over(**changes: Any) -> bytes:
    return b"r" + json.dumps(changes).encode()


_ENTRY = json.loads(pack(Finding(7, (DIGEST,), RECORD)))
SEEDS = [
    b"e" + pack(Finding(7, (DIGEST,), RECORD)),
    b"e" + pack(Finding(7, (DIGEST, bytes(32)), None)),
    b"e" + json.dumps({**_ENTRY, "version": 1}).encode(),
    b"e" + json.dumps({**_ENTRY, "record": {**_ENTRY["record"], "user_id": "Zoë \r\nX-Scopes: *"}}).encode(),
    b"e" + json.dumps({**_ENTRY, "record": {**_ENTRY["record"], "tenant_id": "\ud800"}}).encode(),
    b"e" + json.dumps({**_ENTRY, "digests": [" " * 64], "record": None}).encode(),
    b"e" + b"[" * 500,
    b"s" + VERSION + bytes(32) + b"{}",
    b"s",
    b'm{"node":"node_1","revision":5}',
    b'm{"last":5,"invalidations":[[5,"key:k"],[5,"user:u"]],"writer":"w"}',
    b'm{"last":Infinity,"invalidations":[],"writer":null}',
    b'm{"node":1,"revision":"5"}',
    b"m" + b"[" * 2000,
    b"m\xff",
    _laid_over(),
    _laid_over(key_id=None),
    _laid_over(tier=True),
    _laid_over(is_revoked=0),
    _laid_over(features="[]"),
    _laid_over(limits='{"per_minute": 1e999}'),
    _laid_over(scopes=[1]),
    _laid_over(key_expires_at=float("inf")),
    _laid_over(plan=None, user_id="\ud800"),
    b"",
]
TOKENS = [
    *(json.dumps(name).encode() for name in (*ROW, *_ENTRY, "node", "last", "invalidations", "writer")),
    *(b"null", b"true", b"false", b"-1", b"1e999", b"NaN", b"Infinity", b"[]", b"{}", b'""', b"\\ud800", b"\\r\\n"),
]
