"""How a node's view learns of changes: it polls Postgres, hears pushes through Redis, and says how far it has come.

Must not know: what the news are used for. Order matters in two places, and a comment stands there.
"""

import asyncio
import contextlib
from math import inf

import structlog

from gateway.clock import Clock
from gateway.consistency.background import Background, woken
from gateway.consistency.view import View
from gateway.errors import StoreUnavailable
from gateway.stores.postgres.changes import Change
from gateway.stores.postgres.revisions import NodeReport, RevisionLog
from gateway.stores.redis.channel import Batch, Channel
from gateway.stores.redis.seal import Seal
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.signs import signs_of

REPORT_SECONDS = 1.0
# Between two polls, however urgent: pushes that overtake each other close their gap themselves within less.
SHORTEST_PAUSE_SECONDS = 0.01
RETRY_SECONDS = 1.0  # after a poll that failed, however long the bound
# How long `start` waits for the first answer; without it the node starts, and is not ready.
START_SECONDS = 1.0
PRUNE_SECONDS = 60.0
# Replies that wait for a gap to close. A node that owes more has been cut off from Postgres for long.
MOST_OWED = 10_000

log = structlog.get_logger(__name__)


class Feed:
    """Keeps `view` fresh. Owns the background tasks that do; `channel` and `seal` are None without Redis.

    `node_id` names this process on the list of nodes: a new one for every start.
    """

    def __init__(
        self,
        view: View,
        revisions: RevisionLog,
        *,
        node_id: str,
        environment: str,
        version: str,
        clock: Clock,
        metrics: Metrics,
        channel: Channel | None = None,
        seal: Seal | None = None,
    ) -> None:
        self.view = view
        self.node_id = node_id
        self._revisions = revisions
        self._environment = environment
        self._version = version
        self._monotonic = clock.monotonic
        self._metrics = metrics
        self._channel = channel
        self._seal = seal
        self._poll_seconds = view.bound_seconds / 4
        self._background = Background()
        self._poll_now = asyncio.Event()
        self._report_now = asyncio.Event()
        self._reply_now = asyncio.Event()
        self._polled: asyncio.Future[None] | None = None
        self._is_polling = False
        self._failed_at = -inf
        self._is_away_told = False
        self._lost = 0  # of a past that the database has lost: the highest revision, until it has been skipped
        self._owed: set[tuple[str, int]] = set()
        metrics.revision.set_function(lambda: view.revision)
        metrics.view_age.set_function(lambda: view.age_seconds)
        if channel is not None:
            channel.listeners.append(self)

    async def start(self) -> None:
        """Begin. Returns with the first answer or after START_SECONDS: stores that are away do not make it fail."""
        self._polled = asyncio.get_running_loop().create_future()
        first = self._polled
        self._background.start(self._poll_forever)
        self._background.start(self._report_forever)
        self._background.start(self._prune_forever)
        if self._channel is not None:
            self._background.start(self._channel.listen_forever)
            self._background.start(self._reply_forever)
        await asyncio.wait({first}, timeout=START_SECONDS)

    async def close(self) -> None:
        """Stop, trust nothing any more, and strike the node off the list. For after the last request."""
        await self._background.close()
        if self._polled is not None and not self._polled.done():
            self._polled.set_result(None)
        # In this order: writers do not wait for a node that has left.
        self.view.retire()
        with contextlib.suppress(StoreUnavailable):
            await self._revisions.leave(self.node_id)

    async def refresh(self) -> None:
        """Poll now, once for all who ask; for a lookup that finds the view stale. Ask `view.is_fresh` afterwards.

        Returns at once where the last poll has failed a moment ago: during an outage nobody shall queue for the next.
        """
        if self.view.is_fresh or self._polled is None or self._monotonic() < self._failed_at + self._poll_seconds:
            return
        if not self._is_polling:
            self._poll_now.set()
        await asyncio.shield(self._polled)

    def apply_own(self, change: Change) -> None:
        """Take a change that this process has committed: the first to know."""
        self.view.apply_push(change.revision, change.invalidations)
        self._after_news()

    # -- what the channel tells

    def subscribed(self, at: float) -> None:
        """Begin to count pongs, after the next poll."""
        self.view.push_confirmed(at)

    def unsubscribed(self) -> None:
        """Live on polls; what is owed to writers they will read in the node's row."""
        self.view.push_lost()
        self._owed.clear()
        self._report_now.set()

    def ponged(self, ping_sent_at: float) -> None:
        """Everything published before that ping has been applied."""
        self.view.apply_pong(ping_sent_at)

    def pushed(self, batch: Batch) -> None:
        """Apply a change, and owe its writer a reply."""
        self.view.apply_push(batch.last, batch.invalidations)
        if batch.writer is None:
            self._report_now.set()
        elif batch.writer != self.node_id:
            self._owed.add((batch.writer, batch.last))
            if len(self._owed) > MOST_OWED:
                self._owed.clear()
                self.view.unregister()
        self._after_news()

    def replied(self, node_id: str, revision: int) -> None:
        """Ignore it: replies are for who has published."""

    def _after_news(self) -> None:
        if self.view.wants_poll:
            self._poll_now.set()
        if self._owed:
            self._reply_now.set()

    # -- polls

    async def _poll_forever(self) -> None:
        while True:
            self._poll_now.clear()
            began = self._monotonic()
            is_answered = await self._poll_once()
            self._tell_waiting()
            await asyncio.sleep(SHORTEST_PAUSE_SECONDS)
            if not is_answered or (self.view.is_fresh and not self.view.wants_poll):
                seconds = self._poll_seconds if is_answered else min(self._poll_seconds, RETRY_SECONDS)
                await woken(self._poll_now, seconds=began + seconds - self._monotonic())

    def _tell_waiting(self) -> None:
        told, self._polled = self._polled, asyncio.get_running_loop().create_future()
        if told is not None and not told.done():
            told.set_result(None)

    async def _poll_once(self) -> bool:
        """Ask Postgres what is new. Returns whether it answered."""
        view = self.view
        before = view.revision
        self._is_polling = True
        try:
            if self._seal is not None and not self._seal.is_known:
                self._seal.unlock(await self._revisions.seal_key())
            # In this order: a poll counts only if it was sent when writers already counted this node.
            if view.needs_registration:
                await self._report()
            question = view.ask()
            if view.is_started:
                self._lost = max(self._lost, view.apply_poll(await self._revisions.poll(question.cursor), question))
            else:
                view.apply_start(await self._revisions.start(view.retention_seconds), question)
            if self._lost:
                log.critical("revision_went_backwards", lost=self._lost, revision=view.revision)
                await self._revisions.skip_past(self._lost)
                self._lost = 0
        except StoreUnavailable as error:
            self._failed_at = self._monotonic()
            if not self._is_away_told:
                log.warning("poll_failed", error=str(error), is_fresh=view.is_fresh)
            self._is_away_told = True
            return False
        finally:
            self._is_polling = False
        if self._is_away_told:
            log.info("poll_answered_again", revision=view.revision)
            self._is_away_told = False
        if view.revision != before:
            self._report_now.set()
        self._after_news()
        return True

    # -- reports and replies

    async def _report_forever(self) -> None:
        while True:
            await woken(self._report_now, seconds=REPORT_SECONDS)
            self._report_now.clear()
            if self.view.is_started:
                # The poll tells of an outage already.
                with contextlib.suppress(StoreUnavailable):
                    await self._report()

    async def _report(self) -> None:
        asked_at = self._monotonic()
        age = self.view.age_seconds
        await self._revisions.report(
            NodeReport(
                self.node_id,
                self._environment,
                self._version,
                self.view.revision,
                None if age == inf else age,
                signs_of(self._metrics, is_fresh=self.view.is_fresh),
            )
        )
        self.view.registered(asked_at)

    async def _reply_forever(self) -> None:
        while True:
            await self._reply_now.wait()
            self._reply_now.clear()
            revision = self.view.revision
            due = {(writer, last) for writer, last in self._owed if last <= revision}
            self._owed -= due
            await asyncio.gather(*(self._reply(writer, revision) for writer in {writer for writer, _ in due}))

    async def _reply(self, writer: str, revision: int) -> None:
        assert self._channel is not None
        try:
            await self._channel.reply(writer, self.node_id, revision)
        except StoreUnavailable:
            # The writer may stop counting this node: it must be seen in Postgres before pongs count again.
            self.view.unregister()
            self._report_now.set()
            self._poll_now.set()

    async def _prune_forever(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_SECONDS)
            with contextlib.suppress(StoreUnavailable):
                await self._revisions.prune(2 * self.view.retention_seconds)
