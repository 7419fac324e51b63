"""How a key is looked up: Redis, then a replica, then Postgres (R041); what Postgres has told is left for other nodes.

What is found is used only where no change has overtaken it. Must not know: who waits for it, and for which route.
"""

import asyncio
from collections.abc import Callable

from gateway.auth.appraisal import Appraisal
from gateway.auth.entries import Answer, Entry
from gateway.auth.held import Held
from gateway.auth.questions import Questions, tier_of
from gateway.auth.secrets import Peppers
from gateway.auth.sources import Replicas, SharedCache, Truth, View
from gateway.auth.verdict import standing_refusal, subjects_of
from gateway.stores.records import Finding
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.stages import timed


class Lookup:
    """Looks keys up, tier by tier. `shared` and `replicas` are None where there are none."""

    def __init__(
        self,
        *,
        questions: Questions,
        appraisal: Appraisal,
        held: Held,
        view: View,
        peppers: Peppers,
        truth: Truth,
        shared: SharedCache | None,
        replicas: Replicas | None,
        monotonic: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._questions = questions
        self._appraisal = appraisal
        self._held = held
        self._view = view
        self._peppers = peppers
        self._truth = truth
        self._shared = shared
        self._replicas = replicas
        self._monotonic = monotonic
        self._events = metrics.cache_events
        self._writes: set[asyncio.Task[None]] = set()

    async def look_up(self, digest: bytes) -> Answer:
        """Look `digest` up, remember it, and say which tier answered. Raises Outage where nobody can tell."""
        await self._questions.freshen()
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
        found = await self._questions.ask(
            digest, lambda: self._truth.find(self._peppers.candidates(digest)), subjects_of
        )
        return (found, "local") if isinstance(found, Entry) else self._kept(digest, found)

    def _is_ours(self, digest: bytes, finding: Finding) -> bool:
        """Whether another node's finding answers what this one would ask: under the same peppers, and not overtaken."""
        is_same_question = finding.digests == self._peppers.candidates(digest)
        return is_same_question and self._view.is_usable(finding.revision, subjects_of(finding))

    def _is_told_by_replica(self, finding: Finding) -> bool:
        """Whether a replica's word will do: a good one by the rule; a bad one only where it does not lag."""
        if not self._view.is_usable(finding.revision, subjects_of(finding)):
            return False
        is_good = finding.record is not None and standing_refusal(finding.record) is None
        return is_good or finding.revision >= self._view.revision

    def _remember(self, digest: bytes, finding: Finding) -> Entry:
        entry = self._appraisal.of_key(finding)
        self._held.keep(digest, entry)
        return entry

    def _kept(self, digest: bytes, finding: Finding) -> Answer:
        """Remember what Postgres has told, here and for the other nodes."""
        entry = self._remember(digest, finding)
        self._share(digest, finding, entry.deadline - self._monotonic())
        return entry, tier_of(finding)

    def _share(self, digest: bytes, finding: Finding, seconds_left: float) -> None:
        """Leave the finding in Redis until it ends by itself (R044), without making the caller wait for it (R056)."""
        if self._shared is None or seconds_left <= 0:
            return
        is_nobody = finding.record is None
        worth = self._appraisal
        seconds = worth.negative_ttl_seconds if is_nobody else min(worth.ttl_seconds, seconds_left)
        write = asyncio.create_task(self._shared.put(digest, finding, seconds))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def close(self) -> None:
        """Cancel writes that are under way."""
        pending = list(self._writes)
        for write in pending:
            write.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
