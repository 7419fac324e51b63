"""Admission: from a credential to the permission to forward, a refusal, or an outage.

Two doors. `admit` is the warm one: plain calls, no await, answers from this process alone. Where it cannot, it returns
None and the caller waits at the other door, `resolve`: Redis, then Postgres, one lookup per digest however many ask.
The rule of docs/consistency.md is applied here: what is remembered is used only while the view is fresh, and a lookup
that a change has overtaken is repeated. Must not know: HTTP, sockets, SQL.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from gateway.auth.appraisal import Appraisal
from gateway.auth.credentials import Credential, Token
from gateway.auth.entries import ANONYMOUS, Admitted, Entry, TokenEntry
from gateway.auth.flights import PATIENCE_SECONDS, Flights
from gateway.auth.held import Held
from gateway.auth.lookup import Lookup
from gateway.auth.principal import AuthKind, IdentityNames
from gateway.auth.questions import MOST_REPEATS, Questions
from gateway.auth.refusal import Owner, Reason, Refusal
from gateway.auth.secrets import Peppers
from gateway.auth.sources import BothTruths, Replicas, SharedCache, TokenJudge, TokenTruth, Truth, View
from gateway.auth.token_lookup import TokenLookup
from gateway.auth.tokens import TOKEN_NOT_ALLOWED, TOKEN_USED
from gateway.auth.verdict import Access, authorize
from gateway.clock import Clock
from gateway.errors import Outage
from gateway.telemetry.metrics import Metrics

__all__ = ["ANONYMOUS", "Admission", "Admitted"]

MISSING: Final = Refusal(Reason.MISSING_API_KEY)


class Admission:
    """Decides about credentials. One per process.

    `refresh` asks the feed for a fresh view now; `environment` is the one this gateway serves; the two lifetimes are
    seconds after which an entry is looked up again. `isolated_seconds`: how long known keys are served beyond the bound
    when nobody tells of changes; anything above 0 gives the promise up for that long. `tokens` judges access tokens,
    and tells what stands behind them; None where there are none.
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
        self._view = view
        self._refresh = refresh
        self._monotonic = monotonic = clock.monotonic
        self._isolated_seconds = isolated_seconds
        self._replicas = replicas
        self._token_judge = None if tokens is None else tokens[0]
        self._like_this = partial(
            type(self),
            environment=environment,
            peppers=peppers,
            names=names,
            view=view,
            refresh=refresh,
            clock=clock,
            local_entries=local_entries,
            ttl_seconds=ttl_seconds,
            negative_ttl_seconds=negative_ttl_seconds,
            isolated_seconds=isolated_seconds,
        )
        self._held = held = Held(local_entries)
        self._appraisal = appraisal = Appraisal(
            environment=environment,
            names=names,
            view=view,
            monotonic=monotonic,
            ttl_seconds=ttl_seconds,
            negative_ttl_seconds=negative_ttl_seconds,
            metrics=metrics,
        )
        self._questions = questions = Questions(view, refresh, held, monotonic)
        self._flights = Flights(view, held, monotonic)
        self._lookup = Lookup(
            questions=questions,
            appraisal=appraisal,
            held=held,
            view=view,
            peppers=peppers,
            truth=truth,
            shared=shared,
            replicas=replicas,
            monotonic=monotonic,
            metrics=metrics,
        )
        self._token_lookup = None
        if tokens is not None:
            self._token_lookup = TokenLookup(
                *tokens, questions=questions, appraisal=appraisal, held=held, view=view, monotonic=monotonic
            )
        self._served_isolated = metrics.served_isolated
        self._auth = metrics.auth
        self._admitted_warm = {kind.value: metrics.auth.cell(kind.value, "local", "admitted") for kind in AuthKind}
        self._warm_hits = metrics.cache_events.cell("local", "hit")
        self._warm_misses = metrics.cache_events.cell("local", "miss")
        metrics.cache_entries.follow(held.sizes)

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
            return ANONYMOUS if access.mode == "optional" else self._refuse(MISSING, "local", "none")
        if isinstance(credential, Refusal):
            return self._refuse(credential, "local")
        entry = self._held.known(credential)
        if entry is None:
            if not isinstance(credential, Token):
                return None
            if not access.tokens:
                return self._refuse(TOKEN_NOT_ALLOWED, "local", credential.kind)
            token = self._held.known_token(credential)
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
        self._auth.inc(kind, tier, refusal.reason)
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
            look_up = partial(self._lookup.look_up, digest)
            use: Callable[[Entry], Awaitable[bool]] | None = None
            if isinstance(credential, Token):
                tokens = self._token_lookup
                assert tokens is not None, "where there are no tokens, the reader finds none"
                claims = await tokens.claims_of(credential)
                if isinstance(claims, Refusal):
                    return self._refuse(claims, "stream" if is_stream else "local", credential.kind)
                look_up = partial(tokens.look_up, digest, claims)
                use = partial(tokens.is_first_use, claims) if claims.is_once and not is_stream else None
            for _ in range(MOST_REPEATS):
                entry, tier = await self._flights.join(digest, look_up)
                if use is not None and self._would_admit(entry, access):
                    if not await use(entry):
                        return self._refuse_used(entry, tier)
                    use = None  # what has changed meanwhile decides nevertheless
                now = self._monotonic()
                # What is still held has not been evicted, also where the view no longer remembers as far back.
                is_usable = self._held.get(digest) is entry or self._view.is_usable(entry.revision, entry.subjects)
                if is_usable and now < self._view.fresh_until:
                    return self._judge(entry, access, now, "stream" if is_stream else tier)
            raise Outage("a lookup was overtaken by changes, or outlived the view, several times in a row")
        except Outage:
            self._auth.inc(credential.kind, "postgres", "outage")
            raise

    def _would_admit(self, entry: Entry, access: Access) -> bool:
        """Whether nothing but its one use stands between this entry and the upstream."""
        if isinstance(entry.verdict, Refusal) or self._monotonic() >= entry.deadline:
            return False
        principal = entry.verdict.principal
        return principal is not None and authorize(principal, access) is None

    async def _known_in_isolation(self, digest: bytes, is_stream: bool) -> Entry | None:
        """The entry to serve by although nobody has told of changes for longer than the bound (by configuration)."""
        held = self._held.get(digest)
        if held is None or self._monotonic() < self._view.fresh_until:
            return None
        if isinstance(held, TokenEntry) and held.is_once and not is_stream:
            return None  # nobody can tell whether it has been used
        await asyncio.wait({asyncio.ensure_future(self._refresh())}, timeout=PATIENCE_SECONDS)
        now, fresh_until = self._monotonic(), self._view.fresh_until
        return self._held.get(digest) if fresh_until <= now < fresh_until + self._isolated_seconds else None

    # -- what the view tells

    def evict(self, subjects: list[str]) -> None:
        """Forget what depends on these subjects: an invalidation has come."""
        self._held.evict(subjects)

    def forget_all(self) -> None:
        """Forget everything: the view has lost its place."""
        self._held.forget_all()

    # -- looking on

    def remembers(self, digest: bytes) -> bool:
        """Whether a credential is remembered that was good when it was looked up. Leaves no trace."""
        return self._held.has_good(digest)

    def held(self, digest: bytes) -> Entry | None:
        """What is remembered of `digest`, good for use or not. Leaves no trace."""
        return self._held.peek(digest)

    def held_digest_of(self, key_id: str) -> bytes | None:
        """The digest of the current secret of this key, if that is remembered, else of any secret of it that is."""
        return self._held.digest_of(key_id)

    def age_of(self, entry: Entry) -> float:
        """How long ago it was looked up, in seconds; one that serves past its time shows no more than that time."""
        return self._appraisal.age_of(entry)

    def apart(
        self, digest: bytes, *, truth: BothTruths, shared: SharedCache | None, is_replica_asked: bool, metrics: Metrics
    ) -> "Admission":
        """One that decides as this one would now, by what this one holds of `digest`, and leaves no trace here.

        It asks `truth` and `shared`, counts into `metrics`, and what it learns goes with it.
        """
        other = self._like_this(
            truth=truth,
            shared=shared,
            replicas=self._replicas if is_replica_asked else None,
            tokens=None if self._token_judge is None else (self._token_judge, truth),
            metrics=metrics,
        )
        other._questions.failed_at = self._questions.failed_at
        entry = self._held.peek(digest)
        if entry is not None:
            other._held.keep(digest, entry.apart())
        return other

    async def close(self) -> None:
        """Cancel lookups and writes that are under way."""
        await self._flights.close()
        await self._lookup.close()


def _owner_of(admitted: Admitted) -> Owner:
    principal = admitted.principal
    assert principal is not None, "entries are made of keys"
    return Owner(principal.key_id, principal.tenant_id, principal.user_id)
