"""What a lookup finds: plain facts, as one snapshot of the truth showed them. Shared by every tier."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple


class SecretState(StrEnum):
    """Whether the secret that was sent is its key's current one."""

    CURRENT = "current"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """The facts behind one secret. Times are seconds since the epoch in database time; None means no end.

    `features` and `limits` are the plan's with the entitlement's laid over them, `plan_limits` the plan's own; `plan`
    is None where the user has no entitlement. `digest` is the stored digest that was found (32 bytes).
    """

    digest: bytes = field(repr=False)
    secret_id: str
    secret_state: SecretState
    secret_expires_at: float | None
    key_id: str
    key_kind: str
    key_name: str
    environment: str
    scopes: tuple[str, ...]
    key_expires_at: float | None
    is_revoked: bool
    user_id: str
    is_user_active: bool
    tenant_id: str
    is_tenant_active: bool
    plan: str | None
    tier: int
    features: dict[str, Any]
    limits: dict[str, Any]
    entitlement_valid_until: float | None
    plan_limits: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer of one lookup: a record, or the certainty that there is none, as of `revision`.

    `revision` was read in the same snapshot as the record (DESIGN: the stamp). For an absence it is the older of the
    snapshots that showed it. `digests` are the stored forms that were asked for.
    """

    revision: int
    digests: tuple[bytes, ...] = field(repr=False)
    record: KeyRecord | None


@dataclass(frozen=True, slots=True)
class Invalidation:
    """All that was believed of `subject` before `revision` is void.

    `subject` is `kind:id`: `digest:<hex>`, `key:`, `user:`, `tenant:`, `plan:` with an id, or `all:`.
    """

    revision: int
    subject: str


class UsedRow(NamedTuple):
    """What one key did on one route, with one outcome. The three ids are empty where nobody is known."""

    key_id: str
    tenant_id: str
    user_id: str
    route: str
    outcome: str
    code: str
    requests: int
    received_bytes: int
    sent_bytes: int
