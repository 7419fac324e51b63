"""Who is calling, as the upstream will be told. Built once per lookup from the record; immutable."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from gateway.auth.last_used import use_of
from gateway.auth.scopes import lacking, shared
from gateway.auth.signing import SigningKey
from gateway.limits.limit import Allowance, allowance_of
from gateway.stores.records import KeyRecord, SecretState

VISIBLE_ASCII = re.compile(r"[\x21-\x7e]*")


class AuthKind(StrEnum):
    """What kind of credential was presented."""

    __hash__ = str.__hash__  # Enum's own is a Python call, paid per request

    KEY = "key"
    OPERATOR = "operator"
    TOKEN = "token"  # noqa: S105  # a name, not a token


class Assertion(NamedTuple):
    """A header line that tells one upstream who is calling, signed by `signer`; sent until `until` (monotonic)."""

    line: bytes
    until: float
    signer: SigningKey


@dataclass(frozen=True, slots=True)
class Principal:
    """The resolved identity of a caller. `identity` holds the header lines that tell the upstream, ready to send.

    `assertions`, by upstream, is what has been signed about it lately (gateway.auth.assertions): it goes when the
    principal goes, so that nothing signed outlives what it rests on. None until something has.
    """

    kind: AuthKind
    tenant_id: str
    user_id: str
    key_id: str
    secret_state: SecretState
    scopes: frozenset[str]
    features: frozenset[str]
    tier: int
    identity: bytes
    plan: str | None = None
    allowance: Allowance | None = None  # of requests, by plan and entitlement; None where nothing is limited
    is_narrowed: bool = False  # by a token that was given fewer scopes than its key has
    use: str = ""  # what a use of it is noted as: its key and its secret (gateway.auth.last_used)
    assertions: dict[str, Assertion] | None = field(default=None, init=False, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class IdentityNames:
    """Under which header names the upstream is told (configurable)."""

    user_id: str
    tenant_id: str
    key_id: str
    environment: str
    auth_kind: str
    scopes: str
    plan: str


@lru_cache(maxsize=4096)
def _shared_set(names: tuple[str, ...]) -> frozenset[str]:
    """Equal sets are one object: 100,000 keys have few different ones, and an empty one costs 216 bytes."""
    return frozenset(names)


def principal_of(record: KeyRecord, names: IdentityNames, *, token_scopes: frozenset[str] | None = None) -> Principal:
    """The principal of an admissible record, or of a token that rests on it and was given `token_scopes`.

    Strings that many keys have in common are interned, to stay small.
    """
    kind = AuthKind(record.key_kind if record.key_kind == AuthKind.OPERATOR else AuthKind.KEY)
    scopes, is_narrowed = record.scopes, False
    if token_scopes is not None:
        kind = AuthKind.TOKEN
        scopes = shared(record.scopes, token_scopes)
        is_narrowed = bool(lacking(scopes, record.scopes))
    return Principal(
        kind=kind,
        tenant_id=sys.intern(record.tenant_id),
        user_id=sys.intern(record.user_id),
        key_id=record.key_id,
        secret_state=record.secret_state,
        scopes=_shared_set(scopes),
        features=_shared_set(tuple(name for name, value in record.features.items() if value is True)),
        tier=record.tier,
        identity=header_lines(
            {
                names.user_id: record.user_id,
                names.tenant_id: record.tenant_id,
                names.key_id: record.key_id,
                names.environment: record.environment,
                names.auth_kind: kind.value,
                names.scopes: " ".join(scopes),
                names.plan: record.plan or "",
            }
        ),
        plan=None if record.plan is None else sys.intern(record.plan),
        # What operators may do does not rest on what anybody has bought.
        allowance=None if kind is AuthKind.OPERATOR else allowance_of(record.limits, record.plan_limits),
        is_narrowed=is_narrowed,
        use=use_of(record.key_id, record.secret_id, record.secret_state),
    )


def header_lines(values: Mapping[str, str]) -> bytes:
    """`Name: value` lines, each with its CRLF; empty ones go. What cannot be a header is percent-encoded (R026)."""
    return b"".join(f"{name}: {_header_value(value)}\r\n".encode("ascii") for name, value in values.items() if value)


def _header_value(value: str) -> str:
    words = value.split(" ")
    return " ".join(word if VISIBLE_ASCII.fullmatch(word) else quote(word, safe="") for word in words)
