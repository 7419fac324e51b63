"""A finding as bytes, and back. What comes back is checked field by field: anything odd is no finding (R055)."""

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from math import isfinite
from typing import Any

from gateway.stores.records import Finding, KeyRecord, SecretState

# Raised with every change of KeyRecord or of its meaning: nodes of two versions share one Redis during an upgrade.
VERSION = 2
LARGEST_BYTES = 65_536
DIGEST_BYTES = 32


def pack(finding: Finding) -> bytes:
    """The finding as JSON."""
    record = None
    if finding.record is not None:
        record = asdict(finding.record) | {"digest": finding.record.digest.hex()}
    whole = {
        "version": VERSION,
        "revision": finding.revision,
        "digests": [digest.hex() for digest in finding.digests],
        "record": record,
    }
    return json.dumps(whole, separators=(",", ":"), allow_nan=False).encode()


def unpack(body: bytes) -> Finding | None:
    """The finding that `pack` made, or None for anything else. Never raises."""
    if len(body) > LARGEST_BYTES:
        return None
    try:
        whole = json.loads(body, parse_constant=_refuse)
        if not isinstance(whole, dict) or whole.keys() != {"version", "revision", "digests", "record"}:
            return None
        if not _is_whole(whole["version"]) or whole["version"] != VERSION or not _is_whole(whole["revision"]):
            return None
        if not isinstance(whole["digests"], list) or not whole["digests"]:
            return None
        digests = tuple(_read_digest(text) for text in whole["digests"])
        record = None if whole["record"] is None else _read_record(whole["record"])
    except (ValueError, RecursionError):
        return None
    if record is not None and record.digest not in digests:
        return None
    return Finding(whole["revision"], digests, record)


def _read_record(found: object) -> KeyRecord:
    if not isinstance(found, dict) or found.keys() != _CHECKS.keys():
        raise ValueError("not the fields of a record")
    for name, is_good in _CHECKS.items():
        if not is_good(found[name]):
            raise ValueError(f"{name} is not of its type")
    return KeyRecord(
        **found
        | {
            "digest": _read_digest(found["digest"]),
            "secret_state": SecretState(found["secret_state"]),
            "scopes": tuple(found["scopes"]),
        }
    )


def _read_digest(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("not a digest")
    digest = bytes.fromhex(text)  # which passes over blanks
    if len(digest) != DIGEST_BYTES:
        raise ValueError("not a digest")
    return digest


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != "" and _is_utf8(value)


def _is_utf8(text: str) -> bool:
    """Whether it can be written: JSON can spell halves of characters, which break whoever encodes them."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _is_text_or_nothing(value: object) -> bool:
    return value is None or _is_text(value)


def _is_moment_or_nothing(value: object) -> bool:
    # A float that JSON spells finitely may still overflow to infinity; an int may be too large for a float.
    return value is None or (isinstance(value, float) and isfinite(value)) or (_is_whole(value) and value < 2**53)  # type: ignore[operator]


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and _is_utf8(item) for item in value)


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "digest": _is_text,
    "secret_id": _is_text,
    "secret_state": lambda value: value in tuple(SecretState),
    "secret_expires_at": _is_moment_or_nothing,
    "key_id": _is_text,
    "key_kind": _is_text,
    "key_name": _is_text,
    "environment": _is_text,
    "scopes": _is_texts,
    "key_expires_at": _is_moment_or_nothing,
    "is_revoked": _is_flag,
    "user_id": _is_text,
    "is_user_active": _is_flag,
    "tenant_id": _is_text,
    "is_tenant_active": _is_flag,
    "plan": _is_text_or_nothing,
    "tier": _is_whole,
    "features": _is_table,
    "limits": _is_table,
    "entitlement_valid_until": _is_moment_or_nothing,
    "plan_limits": _is_table,
}
assert _CHECKS.keys() == {field.name for field in fields(KeyRecord)}, "a field of KeyRecord has no check"
