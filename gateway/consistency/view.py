"""What a node knows of changes, and until when it may trust that. Pure: no I/O, no tasks; a Clock is handed in.

The rule itself, and why each clause is needed, stands in docs/consistency.md. In short: the cursor (`revision`) says up
to where every change is known; `fresh_until` says until when nothing can have been missed; what was invalidated lately
is remembered, so that an entry from outside of the process can be judged by the revision it was read at.
Must not know: how the news travel.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf

from gateway.clock import Clock
from gateway.stores.postgres.revisions import SKIP, PollAnswer
from gateway.stores.records import Invalidation

EVERYTHING = "all:"
# More than this many subjects are not remembered: the oldest go, and the floor rises over them. Some 20 MB at most.
MOST_REMEMBERED = 100_000
# Of a push that ran ahead of others, so many revisions are kept for when the gap closes. Beyond, a poll brings them.
MOST_AHEAD = 10_000
# A node that neither wrote its row for so long nor can be reached by a push trusts nothing. Well below the silence
# after which writers stop counting it (NODE_SILENCE_SECONDS of the confirmation).
MUTE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Question:
    """A poll under way: when it was sent (monotonic), from which cursor, and the highest revision heard of by then."""

    sent_at: float
    cursor: int
    heard: int


class View:
    """One node's knowledge of changes.

    `bound_seconds`: how long a piece of news may be taken to be the latest, counted from when it was asked for.
    `retention_seconds`: how long invalidations are remembered; at least as long as an entry lives in Redis.
    `is_push_enough`: whether pongs keep it fresh while Postgres is away; a split Redis could then fool it.

    The warm path reads two attributes: `fresh_until` (monotonic; 0.0 before the first answer) and `revision`.
    """

    def __init__(
        self, clock: Clock, *, bound_seconds: float, retention_seconds: float, is_push_enough: bool = True
    ) -> None:
        self.fresh_until = 0.0
        self.revision = 0
        self.floor = 0  # an entry stamped lower than this cannot be judged: a miss
        self.is_started = False
        self.polled_at = -inf  # when the last poll that counts was sent
        self.bound_seconds = bound_seconds
        self.retention_seconds = retention_seconds
        self._is_push_enough = is_push_enough
        self._monotonic = clock.monotonic
        self._remembered: dict[str, int] = {}
        self._order: deque[tuple[float, Invalidation]] = deque()
        self._ahead: set[int] = set()  # revisions beyond a gap, known in full
        self._heard = 0
        self._timeline = ""
        self._database_offset = -inf
        # A poll counts if it was sent after the registration. A pong counts once a poll has been answered that was
        # sent after both the registration and the subscription. `inf`: there is none.
        self._registered_at = inf
        self._subscribed_at = inf
        self._reported_at = -inf
        self._invalidated: list[Callable[[list[str], int], None]] = []
        self._reset: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<View revision={self.revision} floor={self.floor} fresh={self.is_fresh} gap={self.wants_poll}>"

    def listen(
        self,
        *,
        on_invalidated: Callable[[list[str], int], None] | None = None,
        on_reset: Callable[[], None] | None = None,
    ) -> None:
        """Have `on_invalidated(subjects, revision)` called with what became void, `on_reset()` when all did.

        Called in the same turn of the loop, before `fresh_until` moves: a listener that evicts leaves no moment in
        which an entry could be used against the rule.
        """
        if on_invalidated is not None:
            self._invalidated.append(on_invalidated)
        if on_reset is not None:
            self._reset.append(on_reset)

    # -- questions

    @property
    def is_fresh(self) -> bool:
        """Whether entries may be used now."""
        return self._monotonic() < self.fresh_until

    @property
    def wants_poll(self) -> bool:
        """Whether a revision is known to exist that has not been seen: only a poll can close the gap."""
        return self._heard > self.revision

    @property
    def needs_registration(self) -> bool:
        """Whether the node's row must be written (then `registered`) before any news count again.

        So at the start, and after a lapse or a failed acknowledgement: writers may have stopped counting this node.
        """
        self._note_lapse()
        return self._registered_at == inf

    @property
    def age_seconds(self) -> float:
        """How old the knowledge is; infinite before the first answer."""
        return self._monotonic() - (self.fresh_until - self.bound_seconds) if self.fresh_until else inf

    def is_usable(self, stamp: int, subjects: Iterable[str]) -> bool:
        """Whether no known change overtakes content read at revision `stamp` that depends on `subjects`.

        Says nothing of freshness: that is `fresh_until`, and must be asked as well.
        """
        if stamp < self.floor:
            return False
        remembered = self._remembered
        if remembered.get(EVERYTHING, 0) > stamp:
            return False
        return all(remembered.get(subject, 0) <= stamp for subject in subjects)

    def to_monotonic(self, database_epoch: float) -> float:
        """A moment in database time on this node's monotonic clock: never late, early by at most one poll's way.

        Before the first answer every moment has passed.
        """
        return database_epoch + self._database_offset

    def to_database(self, monotonic: float) -> float:
        """A moment of this node's monotonic clock in database time: never early, late by at most one poll's way."""
        return monotonic - self._database_offset

    # -- polls of Postgres

    def ask(self) -> Question:
        """Begin a poll. To be called before anything is sent; the answer goes to `apply_start` or `apply_poll`."""
        return Question(self._monotonic(), self.revision, self._heard)

    def apply_start(self, answer: PollAnswer, question: Question) -> None:
        """Take the first answer, to `start`: the current revision and what was invalidated lately.

        The floor is as low as what is retained reaches, so that Redis stays warm for a node that restarts.
        """
        heard = self._heard
        self._start_from(answer, floor=answer.revision if answer.is_truncated else answer.pruned_to)
        self._heard = max(heard, self.revision)  # pushed while the question was under way: a gap, to be polled for
        self._refresh(answer, question)

    def apply_poll(self, answer: PollAnswer, question: Question) -> int:
        """Take an answer to `poll(question.cursor)`.

        Returns 0, or, where the database has lost commits or may have (the revision went backwards, or there was a
        failover), the highest revision up to which stamps may be of a past that is no more.
        """
        is_same_past = answer.timeline == self._timeline and answer.revision >= question.heard
        lost = 0 if is_same_past else self._lost_to(answer)
        if not is_same_past or answer.is_truncated or question.cursor < answer.pruned_to:
            # What was pushed while the question was under way is forgotten with the rest, hence this answer makes
            # nothing fresh: the next one does.
            self._start_from(answer, floor=answer.revision)
            if not is_same_past:
                self.unregister()  # the node's row may have been of the past that is no more
            return lost
        self._void(self._remember(answer.invalidations))
        self.revision = max(self.revision, answer.revision)
        self._close_gap()
        self._refresh(answer, question)
        return 0

    def _lost_to(self, answer: PollAnswer) -> int:
        """Up to where stamps may be of another past than the answer's; 0 where another node has voided them already."""
        return 0 if answer.revision - self._heard >= SKIP else max(self._heard, answer.revision)

    def _start_from(self, answer: PollAnswer, *, floor: int) -> None:
        self._remembered.clear()
        self._order.clear()
        self._ahead.clear()
        self._timeline = answer.timeline
        self.revision = self._heard = answer.revision
        self.floor = floor
        self.fresh_until = 0.0
        self.polled_at = -inf
        self.is_started = True
        for reset in self._reset:
            reset()
        self._remember(answer.invalidations)

    def _refresh(self, answer: PollAnswer, question: Question) -> None:
        self._database_offset = question.sent_at - answer.database_time
        self._note_lapse()
        if question.sent_at >= self._registered_at:
            self.polled_at = question.sent_at
            self.fresh_until = max(self.fresh_until, question.sent_at + self.bound_seconds)

    # -- pushes through Redis

    def apply_push(self, last: int, invalidations: Sequence[Invalidation]) -> None:
        """Take a pushed batch: all that the revisions it names made void, `last` being the highest of them.

        It evicts at once, whatever is missing before it; the cursor moves only where that leaves no hole. A batch may
        be empty, where it would have been too long: then it is a hint to poll.
        """
        self._heard = max(self._heard, last)
        if not self.is_started:
            return  # nothing is held yet that it could void
        self._void(self._remember(invalidations))
        if len(self._ahead) < MOST_AHEAD:
            self._ahead.update(invalidation.revision for invalidation in invalidations)
        self._close_gap()

    def push_confirmed(self, at: float) -> None:
        """The subscription stands since `at`. What was pushed before is lost: its pongs count after the next poll."""
        self._subscribed_at = at

    def push_lost(self) -> None:
        """The subscription is gone, or is silent. Freshness is by polls alone."""
        self._subscribed_at = inf
        self._note_lapse()

    def apply_pong(self, ping_sent_at: float) -> None:
        """The subscription has answered a ping: all that was published before it was sent has been applied."""
        self._note_lapse()
        if not self._is_push_enough:
            return
        needed = max(self._registered_at, self._subscribed_at)
        if self.is_started and self.polled_at >= needed and not self.wants_poll and ping_sent_at >= needed:
            self.fresh_until = max(self.fresh_until, ping_sent_at + self.bound_seconds)

    def _close_gap(self) -> None:
        while self.revision + 1 in self._ahead:
            self.revision += 1
        self._heard = max(self._heard, self.revision)
        if self._ahead:
            self._ahead = {revision for revision in self._ahead if revision > self.revision}

    # -- standing among the writers

    def registered(self, at: float) -> None:
        """Take it that the node's row has been written, asked for at `at`: from now on writers count this node."""
        self._note_lapse()
        self._reported_at = max(self._reported_at, at)
        if self._registered_at == inf:
            self._registered_at = self._monotonic()

    def unregister(self) -> None:
        """Writers may not count this node (an acknowledgement failed): only registration and a poll help."""
        self._registered_at = inf

    def retire(self) -> None:
        """Trust nothing any more: the node is about to take its row away."""
        self.unregister()
        self.fresh_until = min(self.fresh_until, self._monotonic())

    def _note_lapse(self) -> None:
        now = self._monotonic()
        has_lapsed = now >= max(self.fresh_until, self._registered_at + self.bound_seconds)
        is_mute = self._subscribed_at == inf and now >= self._reported_at + MUTE_SECONDS
        if has_lapsed or is_mute:
            self._registered_at = inf
            self.polled_at = -inf

    # -- memory

    def _remember(self, invalidations: Iterable[Invalidation]) -> dict[int, list[str]]:
        """Keep them for `is_usable`; returns what was news, by revision."""
        now = self._monotonic()
        news: dict[int, list[str]] = {}
        for invalidation in invalidations:
            if self._remembered.get(invalidation.subject, 0) < invalidation.revision:
                if invalidation.revision > self.floor:
                    self._remembered[invalidation.subject] = invalidation.revision
                    self._order.append((now, invalidation))
                news.setdefault(invalidation.revision, []).append(invalidation.subject)
        self._forget_old(now - self.retention_seconds)
        return news

    def _void(self, news: dict[int, list[str]]) -> None:
        for revision in sorted(news):
            subjects = news[revision]
            if EVERYTHING in subjects:
                for reset in self._reset:
                    reset()
            else:
                for invalidated in self._invalidated:
                    invalidated(subjects, revision)

    def _forget_old(self, before: float) -> None:
        order = self._order
        while order and (order[0][0] < before or len(order) > MOST_REMEMBERED):
            _, gone = order.popleft()
            if gone.revision > self.floor:
                self.floor = gone.revision
            if self._remembered.get(gone.subject) == gone.revision:
                del self._remembered[gone.subject]
