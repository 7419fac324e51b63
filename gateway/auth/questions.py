"""Questions to the store that decides: not while it has just failed, and again when a change has overtaken the answer.

Keys and tokens ask through the same one, so that they share the back-off. Must not know: what is asked.
"""

from collections.abc import Awaitable, Callable
from math import inf
from typing import Final, TypeVar

from gateway.auth.entries import Entry
from gateway.auth.held import Held
from gateway.auth.sources import View
from gateway.errors import MalformedRow, Outage, StoreUnavailable
from gateway.stores.records import Finding, SecretState
from gateway.telemetry.stages import timed

T = TypeVar("T")

BACK_OFF_SECONDS: Final = 0.5  # after a failed lookup; less than Outage.retry_after_seconds (R052, R072)
MOST_REPEATS: Final = 5  # of a lookup that changes keep overtaking


class Questions:
    """Asks Postgres, by the rule of docs/consistency.md. `refresh` asks the feed for a fresh view now.

    `failed_at` (monotonic): when Postgres has failed last.
    """

    def __init__(
        self, view: View, refresh: Callable[[], Awaitable[None]], held: Held, monotonic: Callable[[], float]
    ) -> None:
        self.failed_at = -inf
        self._view = view
        self._refresh = refresh
        self._held = held
        self._monotonic = monotonic

    async def freshen(self) -> None:
        """Have a view that is fresh, before anything is asked. Raises Outage where nobody tells of changes."""
        if self._monotonic() >= self._view.fresh_until:
            await self._refresh()
            if self._monotonic() >= self._view.fresh_until:
                raise Outage("neither Postgres nor Redis has told of changes for longer than the bound")

    async def ask(
        self,
        digest: bytes,
        question: Callable[[], Awaitable[Finding]],
        subjects: Callable[[Finding], tuple[str, ...]],
    ) -> Finding | Entry:
        """What Postgres tells and nothing has overtaken; or, while it is away, the entry to go on with."""
        for _ in range(MOST_REPEATS):
            try:
                finding = await self.ask_once(question)
            except StoreUnavailable:
                known = self._held.still_good(digest, self._monotonic() + BACK_OFF_SECONDS)
                if known is None or self._monotonic() >= self._view.fresh_until:
                    raise  # nobody waits once more for news of a database that has just been waited for
                return known
            if self._view.is_usable(finding.revision, subjects(finding)):
                return finding
        raise Outage("a lookup was overtaken by changes several times in a row")

    async def ask_once(self, question: Callable[[], Awaitable[T]]) -> T:
        """What Postgres tells. Raises StoreUnavailable, at once where it has failed a moment ago (R052)."""
        is_still_away = self._view.polled_at <= self.failed_at
        if is_still_away and self._monotonic() < self.failed_at + BACK_OFF_SECONDS:
            raise StoreUnavailable("Postgres failed a moment ago; not asked again yet")
        try:
            with timed("postgres", self._monotonic):
                return await question()
        except MalformedRow:
            raise  # the fault of one key: the others are asked for all the same
        except StoreUnavailable:
            self.failed_at = self._monotonic()
            raise


def tier_of(finding: Finding) -> str:
    """Which tier has told what Postgres has: `retired` where it is a secret that was rotated out."""
    is_retired = finding.record is not None and finding.record.secret_state is SecretState.RETIRED
    return "retired" if is_retired else "postgres"
