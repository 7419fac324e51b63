"""From what a store has told to an entry: what it is worth here, and for how long. Must not know: where it is kept.

How long: until it is looked up again, as configured, and never beyond the first moment at which the key, its secret,
the entitlement or the token ends by itself (R044, R045).
"""

from collections.abc import Callable
from math import inf

import structlog

from gateway.auth.credentials import INVALID
from gateway.auth.entries import Admitted, Entry, TokenEntry
from gateway.auth.principal import IdentityNames, Principal, principal_of
from gateway.auth.refusal import Refusal
from gateway.auth.retired import RetiredInUse
from gateway.auth.sources import View
from gateway.auth.tokens import INVALID_TOKEN, TOKEN_EXPIRED, Claims
from gateway.auth.verdict import ROTATED, first_deadline, standing_refusal, subjects_of
from gateway.stores.records import Finding, KeyRecord, SecretState
from gateway.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


class Appraisal:
    """Makes entries. `environment` is the one this gateway serves; the two lifetimes are as for Admission."""

    def __init__(
        self,
        *,
        environment: str,
        names: IdentityNames,
        view: View,
        monotonic: Callable[[], float],
        ttl_seconds: float,
        negative_ttl_seconds: float,
        metrics: Metrics,
    ) -> None:
        self.ttl_seconds = ttl_seconds
        self.negative_ttl_seconds = negative_ttl_seconds
        self._environment = environment
        self._names = names
        self._view = view
        self._monotonic = monotonic
        self._malformed_limits = metrics.malformed_limits
        self._retired = RetiredInUse(ttl_seconds)
        metrics.retired_in_use.follow(lambda: self._retired.counts(monotonic()))

    def of_key(self, finding: Finding) -> Entry:
        """The entry of a key, or of a digest behind which there is none."""
        now = self._monotonic()
        record = finding.record
        subjects = subjects_of(finding)
        if record is None or record.environment != self._environment:
            return Entry(finding.revision, subjects, INVALID, now + self.negative_ttl_seconds)
        standing = standing_refusal(record)
        if standing is not None:
            return Entry(finding.revision, subjects, standing, now + self.negative_ttl_seconds)
        deadline, after = first_deadline(record)
        principal = self._principal_of(record)
        if record.secret_state is SecretState.RETIRED and record.secret_expires_at is not None:
            self._retired.note(record.secret_id, self._view.to_monotonic(record.secret_expires_at), now)
        return Entry(
            finding.revision,
            subjects,
            Admitted(principal),
            warm_until=now + self.ttl_seconds,
            deadline=inf if deadline == inf else self._view.to_monotonic(deadline),
            after=after,
        )

    def of_token(self, claims: Claims, finding: Finding, subjects: tuple[str, ...]) -> TokenEntry:
        """A token is worth what its key is worth, for as long as the secret is good that it is bound to."""
        now = self._monotonic()
        record = finding.record
        is_theirs = record is not None and (record.environment, record.tenant_id, record.user_id) == (
            self._environment,
            claims.tenant_id,
            claims.user_id,
        )
        standing = standing_refusal(record) if record is not None and is_theirs else INVALID_TOKEN
        if record is None or standing is not None:
            assert standing is not None
            return TokenEntry(finding.revision, subjects, standing, now + self.negative_ttl_seconds)
        deadline, after = first_deadline(record)
        if claims.ends_at < deadline:
            deadline, after = claims.ends_at, TOKEN_EXPIRED
        elif after is ROTATED:
            after = INVALID_TOKEN
        # What the key has lost since, the token has lost too.
        principal = self._principal_of(record, claims.scopes)
        return TokenEntry(
            finding.revision,
            subjects,
            Admitted(principal),
            warm_until=now + self.ttl_seconds,
            deadline=self._view.to_monotonic(deadline),
            after=after,
            is_once=claims.is_once,
        )

    def of_disproved(self, refusal: Refusal, subjects: tuple[str, ...]) -> TokenEntry:
        """The entry of a token that is none of ours, or has ended, by what this node knows now."""
        return TokenEntry(self._view.revision, subjects, refusal, self._monotonic() + self.negative_ttl_seconds)

    def age_of(self, entry: Entry) -> float:
        """How long ago it was looked up, in seconds; one that serves past its time shows no more than that time."""
        ttl_seconds = self.negative_ttl_seconds if isinstance(entry.verdict, Refusal) else self.ttl_seconds
        return max(0.0, self._monotonic() - (entry.warm_until - ttl_seconds))

    def _principal_of(self, record: KeyRecord, token_scopes: frozenset[str] | None = None) -> Principal:
        principal = principal_of(record, self._names, token_scopes=token_scopes)
        if principal.allowance is not None and principal.allowance.malformed:
            self._malformed_limits.inc()
            log.warning("limits_malformed", user_id=record.user_id, windows=principal.allowance.malformed)
        return principal
