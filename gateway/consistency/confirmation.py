"""When a change has reached every node: what its writer may answer, and when.

`verdict.py` decides; here is done what is to be done. A change is confirmed when every live node has said that its view
is at or past it, or when the bound has passed since it was published: a node that is silent by then trusts nothing
(docs/consistency.md). No lock is held, and any number of changes propagate at once (R238).
"""

import asyncio
import contextlib
from dataclasses import dataclass

import structlog

from gateway.clock import Clock
from gateway.consistency.background import Background, woken
from gateway.consistency.feed import Feed
from gateway.consistency.verdict import NODE_SILENCE_SECONDS, Confirmation, Silences
from gateway.errors import Outage, StoreUnavailable
from gateway.stores.postgres.changes import Change, Changes
from gateway.stores.postgres.revisions import NodeRow, RevisionLog
from gateway.stores.redis.channel import Batch, Channel
from gateway.stores.redis.entries import RedisEntries
from gateway.telemetry.metrics import Metrics

ROLL_CALL_SECONDS = 0.05
PUBLISH_AGAIN_SECONDS = 0.25
CONFIRMED = "confirmed"
UNCONFIRMED = "unconfirmed"
DIGEST = "digest:"

log = structlog.get_logger(__name__)


class RevocationPending(Outage):
    """The change is committed, but whether every node knows of it cannot be told yet. Relays finish it (R232, R234)."""

    code = "revocation_pending"
    public = "The change is stored and is still being applied on every node. Repeat the call to wait for it."


@dataclass(frozen=True, slots=True)
class Propagation:
    """How far a change has come.

    `state` is `confirmed`, or `unconfirmed` for a widening change that some node may learn of only by its next poll.
    `nodes` is how many live nodes were known, `reported` how many of them have said that they have it; the others
    trust nothing. `seconds` is how long it took since the commit.
    """

    state: str
    revision: int
    nodes: int
    reported: int
    seconds: float


class Propagator:
    """Brings changes to all nodes and says when they are there.

    `feed` is this process's own node (None outside of one, as in a command), `channel` and `entries` are None without
    Redis. All writers and nodes of an environment must agree on whether there is a Redis.
    """

    def __init__(
        self,
        changes: Changes,
        revisions: RevisionLog,
        *,
        environment: str,
        bound_seconds: float,
        clock: Clock,
        metrics: Metrics,
        feed: Feed | None = None,
        channel: Channel | None = None,
        entries: RedisEntries | None = None,
    ) -> None:
        self._changes = changes
        self._revisions = revisions
        self._environment = environment
        self._bound_seconds = bound_seconds
        self._monotonic = clock.monotonic
        self._seconds = metrics.propagation_seconds
        self._feed = feed
        self._channel = channel
        self._entries = entries
        self._open: dict[Confirmation, asyncio.Event] = {}  # and what says that there is news of it
        self._silences = Silences(bound_seconds=bound_seconds)
        self._roll_call_now = asyncio.Event()
        self._background = Background()
        if channel is not None:
            channel.listeners.append(self)

    async def start(self) -> None:
        """Be ready to propagate."""
        self._background.start(self._call_roll_forever)

    async def close(self) -> None:
        """Stop. Changes under way stay in the outbox."""
        await self._background.close()

    async def propagate(self, change: Change, *, is_narrowing: bool) -> Propagation:
        """Bring a committed change to all nodes; returns when it is confirmed.

        Raises RevocationPending where that cannot be known of a narrowing change; it stays in the outbox, and calling
        again, here or anywhere, resumes.
        """
        began = self._monotonic()
        if change.revision == 0:
            return Propagation(CONFIRMED, 0, 0, 0, 0.0)
        if self._feed is not None:
            self._feed.apply_own(change)
        confirmation = Confirmation(
            change.revision,
            began_at=began,
            bound_seconds=self._bound_seconds,
            has_push=self._channel is not None,
        )
        news = self._open[confirmation] = asyncio.Event()
        self._roll_call_now.set()
        telling = asyncio.create_task(self._tell(change, confirmation, news))
        try:
            is_confirmed = await self._decided(confirmation, news)
        finally:
            del self._open[confirmation]
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        return await self._conclude(change, confirmation, is_confirmed=is_confirmed, is_narrowing=is_narrowing)

    async def _decided(self, confirmation: Confirmation, news: asyncio.Event) -> bool:
        while True:
            news.clear()
            if self._feed is not None:
                confirmation.reached(self._feed.node_id, self._feed.view.revision)
            verdict = confirmation.verdict(self._monotonic())
            if verdict is not None:
                return verdict
            await woken(news, seconds=confirmation.deadline - self._monotonic())

    async def _tell(self, change: Change, confirmation: Confirmation, news: asyncio.Event) -> None:
        """Publish until it is published, then take the entries away that it voids."""
        if self._channel is None:
            return
        is_told = False
        while True:
            subscription = self._channel.subscription
            try:
                await self._channel.publish(change.revision, change.invalidations)
                break
            except StoreUnavailable as error:
                if not is_told:
                    log.warning("publish_failed", revision=change.revision, error=str(error))
                is_told = True
            await asyncio.sleep(PUBLISH_AGAIN_SECONDS)
        confirmation.published(self._monotonic(), subscription=subscription)
        news.set()
        if self._entries is not None:
            await self._entries.delete(_digests(change))

    async def _conclude(
        self, change: Change, confirmation: Confirmation, *, is_confirmed: bool, is_narrowing: bool
    ) -> Propagation:
        now = self._monotonic()
        silent = confirmation.silent
        live = confirmation.live or ()
        seconds = now - confirmation.began_at
        if not is_confirmed:
            log.warning("propagation_unconfirmed", target=change.target, revision=change.revision, silent=silent)
            if is_narrowing:
                raise RevocationPending(f"{change.target} at revision {change.revision}: no word from {silent}")
            return Propagation(UNCONFIRMED, change.revision, len(live), len(live) - len(silent), seconds)
        self._silences.missed(silent, now, subscription=confirmation.subscription)
        self._seconds.observe(seconds)
        if is_narrowing:
            try:
                await self._changes.settle(change)
            except StoreUnavailable as error:
                # It is confirmed all the same; a relay will confirm it again.
                log.warning("settle_failed", target=change.target, revision=change.revision, error=str(error))
        return Propagation(CONFIRMED, change.revision, len(live), len(live) - len(silent), seconds)

    # -- who lives, and how far they are

    async def _call_roll_forever(self) -> None:
        while True:
            if not self._open:
                await self._roll_call_now.wait()
            self._roll_call_now.clear()
            # In this order: an answer tells a change of the live nodes only if it was asked for after its commit.
            asking = tuple(self._open.items())
            # The changes' own deadlines go on meanwhile.
            with contextlib.suppress(StoreUnavailable):
                rows = await self._living(await self._revisions.nodes(self._environment))
                for confirmation, news in asking:
                    confirmation.listed(rows)
                    news.set()
            await woken(self._roll_call_now, seconds=ROLL_CALL_SECONDS)

    async def _living(self, rows: list[NodeRow]) -> list[NodeRow]:
        """The rows without those that are dead beyond doubt, which are struck off the list."""
        dead = self._silences.dead(
            rows,
            self._monotonic(),
            has_push=self._channel is not None,
            subscription=0 if self._channel is None else self._channel.subscription,
            heard_until=0.0 if self._channel is None else self._channel.heard_until,
        )
        for row in dead:
            log.warning("node_counted_out", node=row.id, silent_seconds=round(row.seen_seconds_ago))
            await self._revisions.forget(row.id, silent_seconds=NODE_SILENCE_SECONDS)
        return [row for row in rows if row not in dead]

    # -- what the channel tells

    def replied(self, node_id: str, revision: int) -> None:
        """A node has applied everything up to `revision`."""
        self._silences.heard(node_id)
        for confirmation, news in self._open.items():
            confirmation.reached(node_id, revision)
            news.set()

    def subscribed(self, at: float) -> None:
        """Replies can be heard: the channel says so in `subscription`."""

    def unsubscribed(self) -> None:
        """Replies cannot be heard; the nodes' rows tell."""

    def ponged(self, ping_sent_at: float) -> None:
        """All replies published by then have been heard: the channel says so in `heard_until`."""

    def pushed(self, batch: Batch) -> None:
        """Others' changes are for the feed."""


def _digests(change: Change) -> list[bytes]:
    subjects = (invalidation.subject for invalidation in change.invalidations)
    return [bytes.fromhex(subject.removeprefix(DIGEST)) for subject in subjects if subject.startswith(DIGEST)]
