"""Admission: from a credential to the permission to forward, a refusal, or an outage.

Two doors. `admit` is the warm one: plain calls, no await, answers from this process alone. Where it cannot, it returns
None and the caller waits at the other door, `resolve`: Redis, then Postgres, one lookup per digest however many ask.
The rule of docs/consistency.md is applied here: what is remembered is used only while the view is fresh, and a lookup
that a change has overtaken is repeated. Must not know: HTTP, sockets, SQL.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any, ClassVar, Final, Protocol, TypeVar

import structlog

from gateway.auth.credentials import INVALID, Credential, Token
from gateway.auth.principal import AuthKind, IdentityNames, Principal, principal_of
from gateway.auth.refusal import Owner, Reason, Refusal
from gateway.auth.retired import RetiredInUse
from gateway.auth.secrets import Peppers
from gateway.auth.tokens import INVALID_TOKEN, TOKEN_EXPIRED, TOKEN_NOT_ALLOWED, TOKEN_USED, Claims, Disproved
from gateway.auth.verdict import ROTATED, Access, authorize, first_deadline, standing_refusal, subjects_of
from gateway.clock import Clock
from gateway.errors import MalformedRow, Outage, StoreUnavailable
from gateway.stores.local import LocalCache
from gateway.stores.records import Finding, KeyRecord, SecretState
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.stages import timed

T = TypeVar("T")

log = structlog.get_logger(__name__)

NEGATIVE_ENTRIES: Final = 10_000  # apart from the good ones: a flood of unknown keys evicts none of them
LONGEST_QUEUE: Final = 1_000  # digests being looked up at once; more is an outage, not a queue without end
BACK_OFF_SECONDS: Final = 0.5  # after a failed lookup; less than Outage.retry_after_seconds (R052, R072)
MOST_REPEATS: Final = 5  # of a lookup that changes keep overtaking
PATIENCE_SECONDS: Final = 0.05  # for the refresh of an entry that may still be believed; it goes on by itself

MISSING: Final = Refusal(Reason.MISSING_API_KEY)


class View(Protocol):
    """What this node knows of changes (gateway.consistency.view)."""

    fresh_until: float
    polled_at: float
    revision: int

    def is_usable(self, stamp: int, subjects: tuple[str, ...]) -> bool:
        """Whether nothing that is known overtakes content read at revision `stamp`."""
        ...

    def to_monotonic(self, database_epoch: float) -> float:
        """A moment in database time, on this node's monotonic clock."""
        ...


class Truth(Protocol):
    """The store that decides (gateway.stores.postgres.lookup)."""

    async def find(self, digests: tuple[bytes, ...]) -> Finding:
        """What stands behind any of these stored digests. Raises StoreUnavailable."""
        ...


class TokenJudge(Protocol):
    """Whether a token is one of ours, and what it says (gateway.auth.tokens)."""

    async def verify(self, token: bytes) -> Claims | Disproved:
        """What it says. Raises Outage where that cannot be told."""
        ...


class TokenTruth(Protocol):
    """The store that decides whether what a token is bound to still stands (gateway.stores.postgres.lookup)."""

    async def find_bound(self, key_id: str, secret_id: str, signer_id: str) -> Finding:
        """The key, as of that secret. Raises StoreUnavailable."""
        ...

    async def use(self, token_id: str, ends_at: float) -> bool:
        """Use up a token that is for one request; False where it has been used before. Raises StoreUnavailable."""
        ...


class BothTruths(Truth, TokenTruth, Protocol):
    """The store that decides, whatever is asked of it."""


class SharedCache(Protocol):
    """What the nodes leave for each other (gateway.stores.redis). Never raises: a failure is a miss."""

    async def get(self, digest: bytes) -> Finding | None:
        """What another node found, or None."""
        ...

    async def put(self, digest: bytes, finding: Finding, seconds: float) -> None:
        """Leave a finding for the other nodes, for so long."""
        ...


class Replicas(Protocol):
    """Copies of the truth that may lag behind (gateway.stores.postgres.replicas). Never raises: a failure is None."""

    async def find(self, digests: tuple[bytes, ...]) -> Finding | None:
        """What stands behind any of these stored digests, honestly stamped, or None where no replica can tell."""
        ...


@dataclass(frozen=True, slots=True)
class Admitted:
    """The permission to forward. Only this module makes one; `principal` is None for an anonymous caller."""

    principal: Principal | None


ANONYMOUS: Final = Admitted(None)


@dataclass(slots=True)
class Entry:
    """What is remembered of one digest, and how long it may be believed (monotonic seconds).

    Past `warm_until` it is looked up again; if nobody can answer then, it serves on until `deadline`, since a fresh
    view proves that nothing was revoked unseen. From `deadline` on the answer is `after`, whatever a cache says (R045).
    """

    revision: int
    subjects: tuple[str, ...]
    verdict: Admitted | Refusal
    kind: ClassVar[str] = "key"
    warm_until: float
    deadline: float = inf
    after: Refusal = INVALID


@dataclass(slots=True)
class TokenEntry(Entry):
    """The same of a token. Tokens have caches of their own: however many there are, they evict no key.

    `is_once`: it admits one request, whichever node that meets; Postgres decides which. `is_used` is known for good.
    """

    kind: ClassVar[str] = "token"
    is_once: bool = False
    is_used: bool = False


class Admission:
    """Decides about credentials. One per process.

    `refresh` asks the feed for a fresh view now; `environment` is the one this gateway serves; the two lifetimes are
    seconds after which an entry is looked up again. `isolated_seconds`: how long known keys are served beyond the bound
    when nobody tells of changes; anything above 0 gives the promise up for that long. `tokens` judges access tokens,
    and tells what stands behind them; None where there are none. They are not shared in Redis: what a node has to ask
    about one is a single question to Postgres, and minutes later the token is gone.
    """

    def __init__(
        self,
        *,
        environment: str,
        peppers: Peppers,
        names: IdentityNames,
        view: View,
        refresh: Callable[[], Awaitable[None]],
        truth: Truth,
        shared: SharedCache | None,
        clock: Clock,
        metrics: Metrics,
        local_entries: int,
        ttl_seconds: float,
        negative_ttl_seconds: float,
        replicas: Replicas | None = None,
        isolated_seconds: float = 0.0,
        tokens: tuple[TokenJudge, TokenTruth] | None = None,
    ) -> None:
        self._environment = environment
        self._peppers = peppers
        self._names = names
        self._view = view
        self._refresh = refresh
        self._truth = truth
        self._shared = shared
        self._monotonic = clock.monotonic
        self._ttl_seconds = ttl_seconds
        self._negative_ttl_seconds = negative_ttl_seconds
        self._replicas = replicas
        self._isolated_seconds = isolated_seconds
        self._local_entries = local_entries
        self._tokens = tokens
        self._failed_at = -inf
        self._begin_empty(metrics)
        metrics.retired_in_use.follow(lambda: self._retired.counts(self._monotonic()))
        metrics.cache_entries.follow(self._sizes)

    def _begin_empty(self, metrics: Metrics) -> None:
        """Hold nothing, have nothing under way, and count into `metrics`."""
        self._good: LocalCache[Entry] = LocalCache(self._local_entries)
        self._bad: LocalCache[Entry] = LocalCache(NEGATIVE_ENTRIES)
        self._good_tokens: LocalCache[TokenEntry] = LocalCache(self._local_entries)
        self._bad_tokens: LocalCache[TokenEntry] = LocalCache(NEGATIVE_ENTRIES)
        self._flights: dict[bytes, asyncio.Task[tuple[Entry, str]]] = {}
        self._writes: set[asyncio.Task[None]] = set()
        self._retired = RetiredInUse(self._ttl_seconds)
        self._malformed_limits = metrics.malformed_limits
        self._served_isolated = metrics.served_isolated
        self._auth = metrics.auth
        self._admitted_warm = {kind.value: metrics.auth.cell(kind.value, "local", "admitted") for kind in AuthKind}
        self._events = metrics.cache_events
        self._warm_hits = metrics.cache_events.cell("local", "hit")
        self._warm_misses = metrics.cache_events.cell("local", "miss")

    # -- the warm door

    def admit(
        self, credential: Credential | Refusal | None, access: Access, *, is_stream: bool = False
    ) -> Admitted | Refusal | None:
        """Decide now, or None where only a lookup can tell. Hot: no await, no I/O; guarded by `make bench`.

        `is_stream`: asked again about a reply that is under way; counted apart, as tier `stream`.
        """
        if access.mode == "none":
            return ANONYMOUS
        if credential is None:
            return ANONYMOUS if access.mode == "optional" else self._refuse(MISSING, "local")
        if isinstance(credential, Refusal):
            return self._refuse(credential, "local")
        entry = self._known(credential)
        if entry is None:
            if not isinstance(credential, Token):
                return None
            if not access.tokens:
                return self._refuse(TOKEN_NOT_ALLOWED, "local", credential.kind)
            token = self._good_tokens.get(credential.digest) or self._bad_tokens.get(credential.digest)
            if token is None:
                return None
            if token.is_once and not is_stream:
                return self._refuse_used(token, "local") if token.is_used else None
            entry = token
        now = self._monotonic()
        if now >= self._view.fresh_until or now >= entry.warm_until:
            return None
        self._warm_hits[0] += 1
        return self._judge(entry, access, now, "stream" if is_stream else "local")

    def _known(self, credential: Credential) -> Entry | None:
        """What is remembered of a key. A connection's requests mostly bring the very same credential. Hot."""
        good = self._good
        if credential.epoch is good.epoch:
            entry: Entry = credential.entry
            return entry
        found = good.get(credential.digest)
        if found is None:
            return self._bad.get(credential.digest)
        credential.entry, credential.epoch = found, good.epoch
        return found

    def _judge(self, entry: Entry, access: Access, now: float, tier: str) -> Admitted | Refusal:
        """An entry's verdict for one route, at `now`. The entry may be used: the caller has applied the rule."""
        verdict = entry.verdict
        if now >= entry.deadline:
            after = entry.after if isinstance(verdict, Refusal) else entry.after.of(_owner_of(verdict))
            return self._refuse(after, tier, entry.kind)
        if isinstance(verdict, Refusal):
            return self._refuse(verdict, tier, entry.kind)
        principal = verdict.principal
        assert principal is not None, "entries are made of keys"
        if not access.is_plain or principal.is_narrowed:
            refusal = authorize(principal, access)
            if refusal is not None:
                return self._refuse(refusal.of(_owner_of(verdict)), tier, entry.kind)
        if tier == "local":
            self._admitted_warm[principal.kind][0] += 1
        else:
            self._auth.inc(principal.kind, tier, "admitted")
        return verdict

    def _refuse(self, refusal: Refusal, tier: str, kind: str = "key") -> Refusal:
        self._auth.inc("none" if refusal.reason is Reason.MISSING_API_KEY else kind, tier, refusal.reason)
        return refusal

    def _refuse_used(self, entry: Entry, tier: str) -> Refusal:
        assert isinstance(entry.verdict, Admitted), "nothing else uses a token up"
        return self._refuse(TOKEN_USED.of(_owner_of(entry.verdict)), tier, entry.kind)

    # -- the cold door

    async def resolve(self, credential: Credential, access: Access, *, is_stream: bool = False) -> Admitted | Refusal:
        """Decide by asking Redis and Postgres. Raises Outage where nobody can tell. `is_stream` as for `admit`."""
        digest = credential.digest
        if isinstance(credential, Token) and not access.tokens:
            return self._refuse(TOKEN_NOT_ALLOWED, "local", credential.kind)
        self._warm_misses[0] += 1
        if self._isolated_seconds and (known := await self._known_in_isolation(digest, is_stream)) is not None:
            self._served_isolated.inc()
            return self._judge(known, access, self._monotonic(), "stream" if is_stream else "local")
        try:
            fill = partial(self._fill, digest)
            once: Claims | None = None
            if isinstance(credential, Token):
                claims = await self._claims_of(credential)
                if isinstance(claims, Refusal):
                    return self._refuse(claims, "stream" if is_stream else "local", credential.kind)
                fill = partial(self._fill_token, digest, claims)
                once = claims if claims.is_once and not is_stream else None
            for _ in range(MOST_REPEATS):
                entry, tier = await self._shared_flight(digest, fill)
                if once is not None and self._would_admit(entry, access):
                    if not await self._is_first_use(once, entry):
                        return self._refuse_used(entry, tier)
                    once = None  # what has changed meanwhile decides nevertheless
                now = self._monotonic()
                # What is still held has not been evicted, also where the view no longer remembers as far back.
                is_usable = self._held(digest) is entry or self._view.is_usable(entry.revision, entry.subjects)
                if is_usable and now < self._view.fresh_until:
                    return self._judge(entry, access, now, "stream" if is_stream else tier)
            raise Outage("a lookup was overtaken by changes, or outlived the view, several times in a row")
        except Outage:
            self._auth.inc(credential.kind, "postgres", "outage")
            raise

    async def _known_in_isolation(self, digest: bytes, is_stream: bool) -> Entry | None:
        """The entry to serve by although nobody has told of changes for longer than the bound (by configuration)."""
        held = self._held(digest)
        if held is None or self._monotonic() < self._view.fresh_until:
            return None
        if isinstance(held, TokenEntry) and held.is_once and not is_stream:
            return None  # nobody can tell whether it has been used
        await asyncio.wait({asyncio.ensure_future(self._refresh())}, timeout=PATIENCE_SECONDS)
        now, fresh_until = self._monotonic(), self._view.fresh_until
        return self._held(digest) if fresh_until <= now < fresh_until + self._isolated_seconds else None

    async def _shared_flight(
        self, digest: bytes, fill: Callable[[], Coroutine[Any, Any, tuple[Entry, str]]]
    ) -> tuple[Entry, str]:
        """Join the lookup of `digest` that is under way, or start it. It is a task of its own (R048 to R050)."""
        flight = self._flights.get(digest)
        if flight is None:
            if len(self._flights) >= LONGEST_QUEUE:
                known = self._still_good(digest)
                if known is None or self._monotonic() >= self._view.fresh_until:
                    raise Outage("too many lookups are waiting for the key store")
                return known, "local"  # a flood of strangers locks nobody out who is known
            flight = asyncio.create_task(fill())
            self._flights[digest] = flight
            flight.add_done_callback(lambda done: self._land(digest, done))
        if self._held(digest) is not None and self._monotonic() < self._view.fresh_until:
            await asyncio.wait({flight}, timeout=PATIENCE_SECONDS)
            known = None if flight.done() else self._still_good(digest)
            if known is not None:
                return known, "local"
        return await asyncio.shield(flight)

    def _land(self, digest: bytes, flight: asyncio.Task[tuple[Entry, str]]) -> None:
        del self._flights[digest]
        if not flight.cancelled():
            flight.exception()  # whoever waited has it; where all have left, nobody is owed it

    async def _fill(self, digest: bytes) -> tuple[Entry, str]:
        """Look `digest` up, remember it, and say which tier answered."""
        await self._freshen()
        if self._shared is not None:
            with timed("redis", self._monotonic):
                finding = await self._shared.get(digest)
            if finding is not None and self._is_ours(digest, finding):
                return self._remember(digest, finding), "redis"
        if self._replicas is not None:
            with timed("replica", self._monotonic):
                finding = await self._replicas.find(self._peppers.candidates(digest))
            if finding is not None and self._is_told_by_replica(finding):
                self._events.inc("replica", "hit")
                return self._kept(digest, finding)
            self._events.inc("replica", "failed" if finding is None else "stale")
        found = await self._ask_truth(digest, lambda: self._truth.find(self._peppers.candidates(digest)), subjects_of)
        return (found, "local") if isinstance(found, Entry) else self._kept(digest, found)

    async def _ask_truth(
        self,
        digest: bytes,
        ask: Callable[[], Awaitable[Finding]],
        subjects: Callable[[Finding], tuple[str, ...]],
    ) -> Finding | Entry:
        """What Postgres tells and nothing has overtaken; or, while it is away, the entry to go on with."""
        for _ in range(MOST_REPEATS):
            try:
                finding = await self._ask_once(ask)
            except StoreUnavailable:
                known = self._still_good(digest)
                if known is None or self._monotonic() >= self._view.fresh_until:
                    raise  # nobody waits once more for news of a database that has just been waited for
                return known
            if self._view.is_usable(finding.revision, subjects(finding)):
                return finding
        raise Outage("a lookup was overtaken by changes several times in a row")

    def _kept(self, digest: bytes, finding: Finding) -> tuple[Entry, str]:
        """Remember what Postgres has told, here and for the other nodes."""
        entry = self._remember(digest, finding)
        self._share(digest, finding, entry.deadline - self._monotonic())
        retired = finding.record is not None and finding.record.secret_state is SecretState.RETIRED
        return entry, "retired" if retired else "postgres"

    def _is_told_by_replica(self, finding: Finding) -> bool:
        """Whether a replica's word will do: a good one by the rule; a bad one only where it does not lag."""
        if not self._view.is_usable(finding.revision, subjects_of(finding)):
            return False
        is_good = finding.record is not None and standing_refusal(finding.record) is None
        return is_good or finding.revision >= self._view.revision

    def _is_ours(self, digest: bytes, finding: Finding) -> bool:
        """Whether another node's finding answers what this one would ask: under the same peppers, and not overtaken."""
        is_same_question = finding.digests == self._peppers.candidates(digest)
        return is_same_question and self._view.is_usable(finding.revision, subjects_of(finding))

    async def _freshen(self) -> None:
        if self._monotonic() >= self._view.fresh_until:
            await self._refresh()
            if self._monotonic() >= self._view.fresh_until:
                raise Outage("neither Postgres nor Redis has told of changes for longer than the bound")

    async def _ask_once(self, ask: Callable[[], Awaitable[T]]) -> T:
        is_still_away = self._view.polled_at <= self._failed_at
        if is_still_away and self._monotonic() < self._failed_at + BACK_OFF_SECONDS:
            raise StoreUnavailable("Postgres failed a moment ago; not asked again yet")
        try:
            with timed("postgres", self._monotonic):
                return await ask()
        except MalformedRow:
            raise  # the fault of one key: the others are asked for all the same
        except StoreUnavailable:
            self._failed_at = self._monotonic()
            raise

    def _still_good(self, digest: bytes) -> Entry | None:
        """An entry past its refresh age, kept in use while Postgres is away (R059)."""
        entry = self._held(digest)
        if entry is not None:
            entry.warm_until = self._monotonic() + BACK_OFF_SECONDS
        return entry

    def _held(self, digest: bytes) -> Entry | None:
        return (
            self._good.get(digest)
            or self._bad.get(digest)
            or self._good_tokens.get(digest)
            or self._bad_tokens.get(digest)
        )

    def _remember(self, digest: bytes, finding: Finding) -> Entry:
        entry = self._entry_of(finding)
        kept, other = (self._bad, self._good) if isinstance(entry.verdict, Refusal) else (self._good, self._bad)
        other.pop(digest, None)
        kept.put(digest, entry)
        return entry

    def _entry_of(self, finding: Finding) -> Entry:
        now = self._monotonic()
        record = finding.record
        subjects = subjects_of(finding)
        if record is None or record.environment != self._environment:
            return Entry(finding.revision, subjects, INVALID, now + self._negative_ttl_seconds)
        standing = standing_refusal(record)
        if standing is not None:
            return Entry(finding.revision, subjects, standing, now + self._negative_ttl_seconds)
        deadline, after = first_deadline(record)
        principal = self._principal_of(record)
        if record.secret_state is SecretState.RETIRED and record.secret_expires_at is not None:
            self._retired.note(record.secret_id, self._view.to_monotonic(record.secret_expires_at), now)
        return Entry(
            finding.revision,
            subjects,
            Admitted(principal),
            warm_until=now + self._ttl_seconds,
            deadline=inf if deadline == inf else self._view.to_monotonic(deadline),
            after=after,
        )

    def _principal_of(self, record: KeyRecord, token_scopes: frozenset[str] | None = None) -> Principal:
        principal = principal_of(record, self._names, token_scopes=token_scopes)
        if principal.allowance is not None and principal.allowance.malformed:
            self._malformed_limits.inc()
            log.warning("limits_malformed", user_id=record.user_id, windows=principal.allowance.malformed)
        return principal

    def _share(self, digest: bytes, finding: Finding, seconds_left: float) -> None:
        """Leave the finding in Redis until it ends by itself (R044), without making the caller wait for it (R056)."""
        if self._shared is None or seconds_left <= 0:
            return
        seconds = self._negative_ttl_seconds if finding.record is None else min(self._ttl_seconds, seconds_left)
        write = asyncio.create_task(self._shared.put(digest, finding, seconds))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    # -- tokens

    async def _claims_of(self, token: Token) -> Claims | Refusal:
        """What a token says that is ours and has not ended. Asks no store about one that is not (R162, R169)."""
        assert self._tokens is not None, "where there are no tokens, the reader finds none"
        judge, _ = self._tokens
        claims = await judge.verify(token.text)
        if isinstance(claims, Disproved):
            return self._disproved(token, claims.refusal, claims.subjects)
        if self._monotonic() >= self._view.to_monotonic(claims.ends_at):
            await self._freshen()  # before the first poll every moment has passed
            if self._monotonic() >= self._view.to_monotonic(claims.ends_at):
                owner = Owner(claims.key_id, claims.tenant_id, claims.user_id)
                return self._disproved(token, TOKEN_EXPIRED.of(owner), claims.subjects)
        return claims

    def _disproved(self, token: Token, refusal: Refusal, subjects: tuple[str, ...]) -> Refusal:
        warm_until = self._monotonic() + self._negative_ttl_seconds
        self._remember_token(token.digest, TokenEntry(self._view.revision, subjects, refusal, warm_until))
        return refusal

    async def _fill_token(self, digest: bytes, claims: Claims) -> tuple[Entry, str]:
        """Look up what a verified token is bound to, remember the verdict, and say which tier answered."""
        assert self._tokens is not None
        _, truth = self._tokens
        await self._freshen()

        def subjects(finding: Finding) -> tuple[str, ...]:
            return claims.subjects if finding.record is None else (*subjects_of(finding), claims.subjects[-1])

        found = await self._ask_truth(
            digest, lambda: truth.find_bound(claims.key_id, claims.secret_id, claims.signer_id), subjects
        )
        if isinstance(found, Entry):
            return found, "local"
        entry = self._token_entry(claims, found, subjects(found))
        self._remember_token(digest, entry)
        is_retired = found.record is not None and found.record.secret_state is SecretState.RETIRED
        return entry, "retired" if is_retired else "postgres"

    def _would_admit(self, entry: Entry, access: Access) -> bool:
        """Whether nothing but its one use stands between this entry and the upstream."""
        if isinstance(entry.verdict, Refusal) or self._monotonic() >= entry.deadline:
            return False
        principal = entry.verdict.principal
        return principal is not None and authorize(principal, access) is None

    async def _is_first_use(self, claims: Claims, entry: Entry) -> bool:
        """Use the token up. Raises StoreUnavailable: it may then have been used, and admits nobody (R149)."""
        assert self._tokens is not None
        assert isinstance(entry, TokenEntry)
        _, truth = self._tokens
        is_first = await self._ask_once(lambda: truth.use(claims.token_id, claims.ends_at))
        entry.is_used = True
        return is_first

    def _token_entry(self, claims: Claims, finding: Finding, subjects: tuple[str, ...]) -> TokenEntry:
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
            return TokenEntry(finding.revision, subjects, standing, now + self._negative_ttl_seconds)
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
            warm_until=now + self._ttl_seconds,
            deadline=self._view.to_monotonic(deadline),
            after=after,
            is_once=claims.is_once,
        )

    def _remember_token(self, digest: bytes, entry: TokenEntry) -> None:
        is_refusal = isinstance(entry.verdict, Refusal)
        kept, other = (self._bad_tokens, self._good_tokens) if is_refusal else (self._good_tokens, self._bad_tokens)
        other.pop(digest, None)
        kept.put(digest, entry)

    # -- what the view tells

    def evict(self, subjects: list[str]) -> None:
        """Forget what depends on these subjects: an invalidation has come."""
        for cache in (self._good, self._bad, self._good_tokens, self._bad_tokens):
            cache.evict(subjects)

    def forget_all(self) -> None:
        """Forget everything: the view has lost its place."""
        self._good = LocalCache(self._local_entries)  # clearing entry by entry would stop the loop
        self._bad = LocalCache(NEGATIVE_ENTRIES)
        self._good_tokens = LocalCache(self._local_entries)
        self._bad_tokens = LocalCache(NEGATIVE_ENTRIES)

    # -- looking on

    def _sizes(self) -> Iterator[tuple[tuple[str, ...], float]]:
        caches: dict[str, LocalCache[Any]] = {
            "keys": self._good,
            "no_keys": self._bad,
            "tokens": self._good_tokens,
            "no_tokens": self._bad_tokens,
        }
        return (((name,), float(len(cache))) for name, cache in caches.items())

    def remembers(self, digest: bytes) -> bool:
        """Whether a credential is remembered that was good when it was looked up. Leaves no trace."""
        return digest in self._good or digest in self._good_tokens

    def held(self, digest: bytes) -> Entry | None:
        """What is remembered of `digest`, good for use or not. Leaves no trace."""
        caches = (self._good, self._bad, self._good_tokens, self._bad_tokens)
        return next((entry for cache in caches if (entry := cache.peek(digest)) is not None), None)

    def held_digest_of(self, key_id: str) -> bytes | None:
        """The digest of the current secret of this key, if that is remembered, else of any secret of it that is."""
        found = None
        for cache in (self._bad, self._good):
            for digest in cache.digests_of(f"key:{key_id}"):
                entry = cache.peek(digest)
                principal = entry.verdict.principal if entry and isinstance(entry.verdict, Admitted) else None
                if found is None or (principal is not None and principal.secret_state is SecretState.CURRENT):
                    found = digest
        return found

    def age_of(self, entry: Entry) -> float:
        """How long ago it was looked up, in seconds; one that serves past its time shows no more than that time."""
        ttl_seconds = self._negative_ttl_seconds if isinstance(entry.verdict, Refusal) else self._ttl_seconds
        return max(0.0, self._monotonic() - (entry.warm_until - ttl_seconds))

    def apart(
        self, digest: bytes, *, truth: BothTruths, shared: SharedCache | None, is_replica_asked: bool, metrics: Metrics
    ) -> "Admission":
        """One that decides as this one would now, by what this one holds of `digest`, and leaves no trace here.

        It asks `truth` and `shared`, counts into `metrics`, and what it learns goes with it.
        """
        other = copy.copy(self)
        other._begin_empty(metrics)
        other._truth, other._shared = truth, shared
        other._replicas = self._replicas if is_replica_asked else None
        other._tokens = None if self._tokens is None else (self._tokens[0], truth)
        entry = self.held(digest)
        if entry is None:
            return other
        verdict = entry.verdict
        if isinstance(verdict, Admitted) and verdict.principal is not None:
            verdict = Admitted(replace(verdict.principal))
        copied = replace(entry, verdict=verdict)
        if isinstance(copied, TokenEntry):
            other._remember_token(digest, copied)
        else:
            (other._bad if isinstance(verdict, Refusal) else other._good).put(digest, copied)
        return other

    async def close(self) -> None:
        """Cancel lookups and writes that are under way."""
        pending = [*self._flights.values(), *self._writes]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def _owner_of(admitted: Admitted) -> Owner:
    principal = admitted.principal
    assert principal is not None, "entries are made of keys"
    return Owner(principal.key_id, principal.tenant_id, principal.user_id)
