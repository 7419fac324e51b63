"""What admission says about one credential, and every rule behind it, for `explain`.

The verdict is the real one: of an admission apart (`Admission.apart`), which decides by the same code on what this node
holds, and leaves no trace. The rules are told from the record that the stores show, one by one, also those that do not
matter any more since an earlier one has decided. Must not know: HTTP. No secret or digest is in what it tells (R218).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import inf
from typing import Any, Final, Protocol

from gateway.auth.admission import Admission
from gateway.auth.credentials import Credential, Token
from gateway.auth.entries import Entry
from gateway.auth.principal import AuthKind, IdentityNames, Principal, principal_of
from gateway.auth.refusal import Reason, Refusal
from gateway.auth.sources import BothTruths, SharedCache, TokenJudge
from gateway.auth.tokens import Claims
from gateway.auth.verdict import STANDING, Access, authorize, ends_of
from gateway.errors import Fault, GatewayError, Outage, StoreUnavailable
from gateway.stores.records import Finding, KeyRecord
from gateway.telemetry.metrics import Metrics

# What a rule asks. The name of a rule is the code of its refusal.
ASKED: Final[dict[Reason, str]] = {
    Reason.INVALID_API_KEY: "the key is known, and of this environment",
    Reason.KEY_REVOKED: "the key is not revoked",
    Reason.TENANT_SUSPENDED: "the tenant is active",
    Reason.USER_SUSPENDED: "the user is active",
    Reason.API_ACCESS_REQUIRED: "the entitlement includes API access",
    Reason.KEY_EXPIRED: "the key has not expired",
    Reason.KEY_ROTATED: "the secret is the current one, or in its grace window",
    Reason.SUBSCRIPTION_LAPSED: "the entitlement has not ended",
    Reason.INSUFFICIENT_SCOPE: "there is every scope that the route asks for",
    Reason.UPGRADE_REQUIRED: "the entitlement has the features and the tier that the route asks for",
    Reason.TOKEN_NOT_ALLOWED: "the route takes access tokens",
    Reason.INVALID_TOKEN: "the token is signed by this gateway, for it, and what it is bound to stands",
    Reason.TOKEN_EXPIRED: "the token has not expired",
    Reason.TOKEN_USED: "the token, which is for one request, has not been used",
}


class UnknownKey(GatewayError):
    """There is no key of this id."""

    code = "not_found"
    status = 404
    fault = Fault.CLIENT
    public = "There is no such key."


class KeyGivenTwice(GatewayError):
    """The request carries a credential, and a key is named beside it."""

    code = "ambiguous_credentials"
    status = 400
    fault = Fault.CLIENT
    public = "Name the key by `key_id`, or give its secret, or put it into the request. One of these."


class View(Protocol):
    """What this node knows of changes (gateway.consistency.view)."""

    revision: int

    @property
    def is_fresh(self) -> bool:
        """Whether cached answers may be used."""
        ...

    @property
    def age_seconds(self) -> float:
        """How old the knowledge is."""
        ...

    def to_database(self, monotonic: float) -> float:
        """A monotonic moment in database time."""
        ...


class KeyTruth(BothTruths, Protocol):
    """The store that decides, which here is only read (gateway.stores.postgres.lookup)."""

    async def find_key(self, key_id: str) -> Finding:
        """What stands behind the current secret of this key. Raises StoreUnavailable."""
        ...

    async def is_used(self, token_id: str) -> bool:
        """Whether a token that is for one request has met it. Raises StoreUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, and whether it is kept. `facts` are what it went by."""

    code: str
    is_kept: bool
    asked: str
    facts: dict[str, Any] = field(default_factory=dict)


class Asked:
    """The stores, as the admission apart asks them: nothing is written, and the last answers are kept."""

    def __init__(self, truth: KeyTruth, shared: SharedCache | None, key_id: str | None) -> None:
        self.found: Finding | None = None
        self.is_away = False
        self.is_used = False
        self.found_shared: Finding | None = None
        self._truth = truth
        self._shared = shared
        self._key_id = key_id

    async def find(self, digests: tuple[bytes, ...]) -> Finding:
        """As Truth; where a key was named instead of a secret, by its id."""
        if self._key_id is None:
            return await self._noted(self._truth.find(digests))
        return replace(await self._noted(self._truth.find_key(self._key_id)), digests=digests)

    async def find_bound(self, key_id: str, secret_id: str, signer_id: str) -> Finding:
        """As TokenTruth."""
        return await self._noted(self._truth.find_bound(key_id, secret_id, signer_id))

    async def use(self, token_id: str, ends_at: float) -> bool:
        """As TokenTruth; it is not used up by this."""
        self.is_used = await self._truth.is_used(token_id)
        return not self.is_used

    async def _noted(self, answer: Awaitable[Finding]) -> Finding:
        try:
            self.found = await answer
        except StoreUnavailable:
            self.is_away = True
            raise
        return self.found

    async def get(self, digest: bytes) -> Finding | None:
        """As SharedCache."""
        self.found_shared = None if self._shared is None else await self._shared.get(digest)
        return self.found_shared

    async def put(self, digest: bytes, finding: Finding, seconds: float) -> None:
        """As SharedCache; nothing is left there."""


class Hearing:
    """One credential (None where there is none, a Refusal for a useless one) before an admission apart."""

    def __init__(
        self, parts: "Hearings", credential: Credential | Refusal | None, key_id: str | None, digest: bytes
    ) -> None:
        self._parts = parts
        self._credential = credential
        self._digest = digest
        self._metrics = Metrics()
        self._asked = Asked(parts.truth, parts.shared, key_id)
        self._local = parts.admission.held(digest)
        self._claims: Claims | None = None
        self.admission = parts.admission.apart(
            digest,
            truth=self._asked,
            shared=None if parts.shared is None else self._asked,
            is_replica_asked=key_id is None,
            metrics=self._metrics,
        )

    async def look(self) -> None:
        """See what Redis and Postgres hold, whoever will be asked in the end."""
        credential = self._credential
        if not isinstance(credential, Credential):
            return
        try:
            if isinstance(credential, Token):
                said = None if self._parts.judge is None else await self._parts.judge.verify(credential.text)
                if isinstance(said, Claims):
                    self._claims = said
                    if said.is_once:
                        await self._asked.use(said.token_id, said.ends_at)
                    await self._asked.find_bound(said.key_id, said.secret_id, said.signer_id)
                return
            await self._asked.get(self._digest)
            await self._asked.find(self._parts.candidates(self._digest))
        except Outage:
            return

    @property
    def tier(self) -> str | None:
        """Which tier has decided; None where no credential was looked at."""
        counted = {
            sample.labels["tier"]
            for family in self._metrics.auth.collect()
            for sample in family.samples
            if sample.value and sample.labels["kind"] != "none"
        }
        return next(iter(counted), None)

    @property
    def is_admitted(self) -> bool:
        """Whether the credential was admitted."""
        return any(
            sample.value and sample.labels["result"] == "admitted"
            for family in self._metrics.auth.collect()
            for sample in family.samples
        )

    # -- what is told

    def cache(self) -> dict[str, Any]:
        """What each tier holds, of which revision, and the view that says whether it may be used."""
        view = self._parts.view
        age_seconds = view.age_seconds
        return {
            "view": {
                "revision": view.revision,
                "is_fresh": view.is_fresh,
                "age_seconds": None if age_seconds == inf else round(age_seconds, 3),
            },
            "local": self._told_local(self._local),
            "redis": _told_finding(self._asked.found_shared),
            "postgres": {"is_away": True} if self._asked.is_away else _told_finding(self._asked.found),
        }

    def _told_local(self, entry: Entry | None) -> dict[str, Any] | None:
        if entry is None:
            return None
        says = entry.verdict.reason.value if isinstance(entry.verdict, Refusal) else "admitted"
        return {
            "revision": entry.revision,
            "says": says,
            "age_seconds": round(self._parts.admission.age_of(entry), 3),
        }

    def rules(self, access: Access) -> list[Rule]:
        """Every rule about this credential on such a route, in the order in which they decide."""
        if not isinstance(self._credential, Credential):
            return []
        finding = self._asked.found or self._asked.found_shared
        record = None if finding is None else finding.record
        now = self._parts.now()
        told: list[Rule] = []
        is_token = isinstance(self._credential, Token)
        if is_token:
            told += self._token_rules(access, record, now)
        elif finding is not None:
            is_known = record is not None and record.environment == self._parts.environment
            told.append(_rule(Reason.INVALID_API_KEY, is_known))
        if record is None:
            return told
        told += [_rule(reason, not applies(record)) for reason, applies in STANDING]
        told += [_rule(end.reason, now < moment, {"ends_at": _iso(moment)}) for moment, end in ends_of(record)]
        scopes = None if self._claims is None else self._claims.scopes
        return told + _access_rules(principal_of(record, self._parts.names, token_scopes=scopes), access)

    def _token_rules(self, access: Access, record: KeyRecord | None, now: float) -> list[Rule]:
        claims = self._claims
        told = [_rule(Reason.TOKEN_NOT_ALLOWED, access.tokens)]
        if claims is None:
            return [*told, _rule(Reason.INVALID_TOKEN, False)]
        facts = {"signing_key": claims.signer_id, "bound_to": claims.secret_id}
        if record is not None or not self._asked.is_away:
            told.append(_rule(Reason.INVALID_TOKEN, record is not None, facts))
        told.append(_rule(Reason.TOKEN_EXPIRED, now < claims.ends_at, {"ends_at": _iso(claims.ends_at)}))
        return [*told, _rule(Reason.TOKEN_USED, not self._asked.is_used)] if claims.is_once else told

    def subject(self) -> dict[str, Any] | None:
        """Whose key it is."""
        finding = self._asked.found or self._asked.found_shared
        if finding is None or finding.record is None:
            return None
        record = finding.record
        return {
            "key_id": record.key_id,
            "kind": record.key_kind,
            "secret": record.secret_state.value,
            "user_id": record.user_id,
            "tenant_id": record.tenant_id,
            "environment": record.environment,
            "plan": record.plan,
            "tier": record.tier,
        }


class Hearings:
    """What hearings have in common. `truth` writes nothing; `now` is database time."""

    def __init__(
        self,
        admission: Admission,
        *,
        view: View,
        truth: KeyTruth,
        shared: SharedCache | None,
        judge: TokenJudge | None,
        names: IdentityNames,
        environment: str,
        monotonic: Callable[[], float],
        candidates: Callable[[bytes], tuple[bytes, ...]],
    ) -> None:
        self.admission = admission
        self.view = view
        self.truth = truth
        self.shared = shared
        self.judge = judge
        self.names = names
        self.environment = environment
        self.candidates = candidates
        self._monotonic = monotonic

    def now(self) -> float:
        """The moment, in database time."""
        return self.view.to_database(self._monotonic())

    async def of_key(self, key_id: str) -> tuple[Credential, Hearing] | None:
        """The current secret of a key, and its hearing; None where there is no such key. Raises StoreUnavailable."""
        held = self.admission.held_digest_of(key_id)
        if held is None:
            finding = await self.truth.find_key(key_id)
            if finding.record is None:
                return None
            held = finding.record.digest  # the digest of the secret itself, where there are no peppers
        credential = Credential(held)
        return credential, await self._heard(credential, key_id, held)

    async def of(self, credential: Credential | Refusal | None) -> Hearing:
        """The hearing of what a request carries."""
        digest = credential.digest if isinstance(credential, Credential) else b""
        return await self._heard(credential, None, digest)

    async def _heard(self, credential: Credential | Refusal | None, key_id: str | None, digest: bytes) -> Hearing:
        hearing = Hearing(self, credential, key_id, digest)
        await hearing.look()
        return hearing


def _access_rules(principal: Principal, access: Access) -> list[Rule]:
    """What the route asks for, each thing by itself, judged as ever."""
    asked = {
        "scopes": replace(access, features=frozenset(), tier=0),
        "features": replace(access, scopes=frozenset(), tier=0, admits_narrowed=True),
        "tier": replace(access, scopes=frozenset(), features=frozenset(), admits_narrowed=True),
    }
    has = {"scopes": sorted(principal.scopes), "features": sorted(principal.features), "tier": principal.tier}
    told = []
    for what, alone in asked.items():
        wanted = getattr(access, what)
        facts = {"about": what, "asked": wanted if what == "tier" else sorted(wanted), "has": has[what]}
        if principal.kind is AuthKind.OPERATOR and what != "scopes":
            facts["operator"] = True
        reason = Reason.INSUFFICIENT_SCOPE if what == "scopes" else Reason.UPGRADE_REQUIRED
        told.append(_rule(reason, authorize(principal, alone) is None, facts))
    return told


def _rule(reason: Reason, is_kept: bool, facts: dict[str, Any] | None = None) -> Rule:
    return Rule(reason.value, is_kept, ASKED[reason], facts or {})


def _told_finding(finding: Finding | None) -> dict[str, Any] | None:
    return None if finding is None else {"revision": finding.revision, "is_known": finding.record is not None}


def _iso(epoch: float) -> str | None:
    return None if epoch == inf else datetime.fromtimestamp(epoch, UTC).isoformat().replace("+00:00", "Z")
