"""Refusals: verdicts on the caller, as values. An outage is never one of them (see `gateway.errors.Outage`)."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Reason(StrEnum):
    """Why a caller was refused. The value is the public problem code and the metric label."""

    MISSING_API_KEY = "missing_api_key"
    INVALID_API_KEY = "invalid_api_key"
    AMBIGUOUS_CREDENTIALS = "ambiguous_credentials"
    KEY_REVOKED = "key_revoked"
    KEY_EXPIRED = "key_expired"
    KEY_ROTATED = "key_rotated"
    INVALID_TOKEN = "invalid_token"  # noqa: S105  # a name
    TOKEN_EXPIRED = "token_expired"  # noqa: S105  # a name
    TOKEN_USED = "token_used"  # noqa: S105  # a name
    TOKEN_NOT_ALLOWED = "token_not_allowed"  # noqa: S105  # a name
    TENANT_SUSPENDED = "tenant_suspended"
    USER_SUSPENDED = "user_suspended"
    API_ACCESS_REQUIRED = "api_access_required"
    SUBSCRIPTION_LAPSED = "subscription_lapsed"
    INSUFFICIENT_SCOPE = "insufficient_scope"
    UPGRADE_REQUIRED = "upgrade_required"


class Owner(NamedTuple):
    """Whose the credential is, where it is genuine."""

    key_id: str
    tenant_id: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """The caller may not pass. `details` are public facts for the reply (for instance the missing scopes).

    `owner` is there where it is known who was refused, for the meter alone: it is no part of the verdict.
    """

    reason: Reason
    details: dict[str, object] = field(default_factory=dict)
    owner: Owner | None = field(default=None, compare=False, repr=False)

    def of(self, owner: Owner) -> "Refusal":
        """The same, of somebody who is known."""
        return Refusal(self.reason, self.details, owner)
