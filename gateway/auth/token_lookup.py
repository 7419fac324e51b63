"""How a token is looked up: what it says, whether the key and secret that it is bound to still stand, its one use.

Tokens are not shared in Redis: what a node has to ask about one is a single question to Postgres, and minutes later the
token is gone.
"""

from collections.abc import Callable

from gateway.auth.appraisal import Appraisal
from gateway.auth.credentials import Token
from gateway.auth.entries import Answer, Entry, TokenEntry
from gateway.auth.held import Held
from gateway.auth.questions import Questions, tier_of
from gateway.auth.refusal import Owner, Refusal
from gateway.auth.sources import TokenJudge, TokenTruth, View
from gateway.auth.tokens import TOKEN_EXPIRED, Claims, Disproved
from gateway.auth.verdict import subjects_of
from gateway.stores.records import Finding


class TokenLookup:
    """Looks tokens up. `judge` tells what one says, `truth` what stands behind it."""

    def __init__(
        self,
        judge: TokenJudge,
        truth: TokenTruth,
        *,
        questions: Questions,
        appraisal: Appraisal,
        held: Held,
        view: View,
        monotonic: Callable[[], float],
    ) -> None:
        self._judge = judge
        self._truth = truth
        self._questions = questions
        self._appraisal = appraisal
        self._held = held
        self._view = view
        self._monotonic = monotonic

    async def claims_of(self, token: Token) -> Claims | Refusal:
        """What a token says that is ours and has not ended. Asks no store about one that is not (R162, R169)."""
        claims = await self._judge.verify(token.text)
        if isinstance(claims, Disproved):
            return self._disproved(token, claims.refusal, claims.subjects)
        if self._monotonic() >= self._view.to_monotonic(claims.ends_at):
            await self._questions.freshen()  # before the first poll every moment has passed
            if self._monotonic() >= self._view.to_monotonic(claims.ends_at):
                owner = Owner(claims.key_id, claims.tenant_id, claims.user_id)
                return self._disproved(token, TOKEN_EXPIRED.of(owner), claims.subjects)
        return claims

    def _disproved(self, token: Token, refusal: Refusal, subjects: tuple[str, ...]) -> Refusal:
        self._held.keep(token.digest, self._appraisal.of_disproved(refusal, subjects))
        return refusal

    async def look_up(self, digest: bytes, claims: Claims) -> Answer:
        """Look up what a verified token is bound to, remember the verdict, and say which tier answered."""
        await self._questions.freshen()

        def subjects(finding: Finding) -> tuple[str, ...]:
            return claims.subjects if finding.record is None else (*subjects_of(finding), claims.subjects[-1])

        found = await self._questions.ask(
            digest, lambda: self._truth.find_bound(claims.key_id, claims.secret_id, claims.signer_id), subjects
        )
        if isinstance(found, Entry):
            return found, "local"
        entry = self._appraisal.of_token(claims, found, subjects(found))
        self._held.keep(digest, entry)
        return entry, tier_of(found)

    async def is_first_use(self, claims: Claims, entry: Entry) -> bool:
        """Use the token up. Raises StoreUnavailable: it may then have been used, and admits nobody (R149)."""
        assert isinstance(entry, TokenEntry)
        is_first = await self._questions.ask_once(lambda: self._truth.use(claims.token_id, claims.ends_at))
        entry.is_used = True
        return is_first
