"""What a record is worth, and what a route asks for. Pure: a record in, a verdict out; no cache, no clock."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Final, Literal

from gateway.auth.credentials import INVALID
from gateway.auth.principal import AuthKind, Principal
from gateway.auth.refusal import Owner, Reason, Refusal
from gateway.auth.scopes import lacking
from gateway.stores.records import Finding, KeyRecord

# One each: every remembered key holds one of them, and 100,000 of their own would be 13 MB.
EXPIRED: Final = Refusal(Reason.KEY_EXPIRED)
ROTATED: Final = Refusal(Reason.KEY_ROTATED)
LAPSED: Final = Refusal(Reason.SUBSCRIPTION_LAPSED)


@dataclass(frozen=True, slots=True)
class Access:
    """What a route asks of a caller. `is_plain` where that is a key and nothing beside; `tokens`: or a token.

    A token that was given less than its key may is for routes that ask for scopes (R176), unless `admits_narrowed`.
    """

    mode: Literal["required", "optional", "none"]
    scopes: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()
    tier: int = 0
    tokens: bool = False
    admits_narrowed: bool = False
    is_plain: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_plain", not (self.scopes or self.features or self.tier))


def subjects_of(finding: Finding) -> tuple[str, ...]:
    """What a finding depends on. What changes a row of a key also names the key, so its digest need not be watched."""
    record = finding.record
    if record is None:
        return tuple(f"digest:{digest.hex()}" for digest in finding.digests)
    # Interned where many keys have them in common: they are held for as long as any of those is remembered.
    owners = (sys.intern(f"user:{record.user_id}"), sys.intern(f"tenant:{record.tenant_id}"))
    plan = () if record.plan is None else (sys.intern(f"plan:{record.plan}"),)
    return (f"key:{record.key_id}", *owners, *plan)


# Why a record admits nobody, however young: revoked, suspended, not entitled (R104, R250 to R252). The first decides.
STANDING: Final[tuple[tuple[Reason, Callable[[KeyRecord], bool]], ...]] = (
    (Reason.KEY_REVOKED, lambda record: record.is_revoked),
    (Reason.TENANT_SUSPENDED, lambda record: not record.is_tenant_active),
    (Reason.USER_SUSPENDED, lambda record: not record.is_user_active),
    (
        Reason.API_ACCESS_REQUIRED,
        lambda record: record.key_kind != "operator" and record.features.get("api_access") is not True,
    ),
)


def standing_refusal(record: KeyRecord) -> Refusal | None:
    """Why this record admits nobody, if it does not."""
    owner = Owner(record.key_id, record.tenant_id, record.user_id)
    return next((Refusal(reason, owner=owner) for reason, applies in STANDING if applies(record)), None)


def ends_of(record: KeyRecord) -> list[tuple[float, Refusal]]:
    """The moments (database epoch seconds; inf for never) at which the record stops admitting, each with its reason."""
    ends = [
        (record.key_expires_at, EXPIRED),
        (record.secret_expires_at, ROTATED),
    ]
    if record.key_kind != "operator":
        ends.append((record.entitlement_valid_until, LAPSED))
    return [(inf if moment is None else moment, refusal) for moment, refusal in ends]


def first_deadline(record: KeyRecord) -> tuple[float, Refusal]:
    """The first moment (database epoch seconds) at which the record stops admitting, and what is said from then on."""
    return min(ends_of(record), key=lambda end: end[0])


def refusal_at(record: KeyRecord, environment: str, now: float) -> Refusal | None:
    """Why the record admits nobody at `now` (database epoch seconds) where `environment` is served; None if it does."""
    if record.environment != environment:
        return INVALID
    deadline, after = first_deadline(record)
    return standing_refusal(record) or (after if now >= deadline else None)


def authorize(principal: Principal, access: Access) -> Refusal | None:
    """Whether the principal has what the route asks for: scopes, features, tier. Hot."""
    if not access.scopes <= principal.scopes:
        missing = lacking(principal.scopes, access.scopes)
        if missing:
            return Refusal(Reason.INSUFFICIENT_SCOPE, {"missing_scopes": missing})
    if principal.is_narrowed and not access.scopes and not access.admits_narrowed:
        return Refusal(Reason.INSUFFICIENT_SCOPE)
    if principal.kind is AuthKind.OPERATOR:
        return None
    if not access.features <= principal.features:
        missing = sorted(access.features - principal.features)
        return Refusal(Reason.UPGRADE_REQUIRED, {"missing_features": missing})
    if access.tier > principal.tier:
        tiers: dict[str, object] = {
            "required_tier": access.tier,
            "current_tier": principal.tier,
            "plan": principal.plan,
        }
        return Refusal(Reason.UPGRADE_REQUIRED, tiers)
    return None
