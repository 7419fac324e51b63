"""What a writer may conclude from what it has heard of the nodes. Pure: no I/O, and times are handed in.

Times are monotonic seconds. Must not know: how nodes are heard.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from gateway.stores.postgres.revisions import NodeRow

# A node that has not written its row for so long may be dead: it is counted out once it is silent in all other ways.
# At least twice MUTE_SECONDS of the view.
NODE_SILENCE_SECONDS = 30.0
# On top of the bound: for the grain of timers.
MARGIN_SECONDS = 0.05


class Confirmation:
    """One change on its way. `began_at` (monotonic) is after its commit; without a push it counts as published then."""

    def __init__(self, revision: int, *, began_at: float, bound_seconds: float, has_push: bool) -> None:
        self.revision = revision
        self.began_at = began_at
        self.live: tuple[str, ...] | None = None  # node ids; None while the list could not be read
        self.subscription = 0
        self._bound_seconds = bound_seconds
        self._published_at = inf if has_push else began_at
        self._reached: set[str] = set()

    def published(self, at: float, *, subscription: int) -> None:
        """Redis has taken it, by `at`; replies are heard through that subscription (0: not at all)."""
        self._published_at = at
        self.subscription = subscription

    def reached(self, node_id: str, revision: int) -> None:
        """A node has said how far it is."""
        if revision >= self.revision:
            self._reached.add(node_id)

    def listed(self, rows: Iterable[NodeRow]) -> None:
        """The live nodes, as listed by a query that was sent after the commit."""
        rows = tuple(rows)
        self.live = tuple(row.id for row in rows)
        for row in rows:
            self.reached(row.id, row.revision)

    @property
    def silent(self) -> tuple[str, ...]:
        """Live nodes that have not reached it."""
        return tuple(node_id for node_id in self.live or () if node_id not in self._reached)

    @property
    def deadline(self) -> float:
        """The moment by which it is decided.

        Once published: when the last view lapses that may have missed it. Before: when a node that still lives on
        polls must have reported in Postgres; who has not may live on pushes alone, and does not know.
        """
        if self._published_at < inf:
            return self._published_at + self._bound_seconds + MARGIN_SECONDS
        return self.began_at + 1.25 * self._bound_seconds + MARGIN_SECONDS

    def verdict(self, now: float) -> bool | None:
        """Whether every node has it or trusts nothing; None while that is open."""
        if self.live is not None and not self.silent:
            return True
        return self._published_at < inf if now >= self.deadline else None


@dataclass(frozen=True, slots=True)
class Silence:
    """A node that let a whole confirmation pass: since when, and under which subscription of the writer's."""

    since: float
    subscription: int


class Silences:
    """Which nodes are dead beyond doubt, so that nobody waits for them any more.

    A node that writes no row may still live on pushes alone, and must not be counted out before its view has lapsed:
    it has to have let a confirmation pass whose publication succeeded, and the writer must have been able to hear it
    all along. A node that lapsed comes back only through a new row.
    """

    def __init__(self, *, bound_seconds: float) -> None:
        self._bound_seconds = bound_seconds
        self._silent: dict[str, Silence] = {}

    def missed(self, node_ids: Iterable[str], now: float, *, subscription: int) -> None:
        """These nodes let a confirmation pass; replies were heard through that subscription (0: not at all)."""
        for node_id in node_ids:
            known = self._silent.get(node_id)
            if known is None or known.subscription != subscription:
                self._silent[node_id] = Silence(now, subscription)

    def heard(self, node_id: str) -> None:
        """The node has replied."""
        self._silent.pop(node_id, None)

    def dead(
        self, rows: Iterable[NodeRow], now: float, *, has_push: bool, subscription: int, heard_until: float
    ) -> list[NodeRow]:
        """Those of the listed nodes that are dead. `heard_until`: every reply published by then has been heard."""
        mute = {row.id: row for row in rows if row.seen_seconds_ago > NODE_SILENCE_SECONDS}
        self._silent = {node_id: silence for node_id, silence in self._silent.items() if node_id in mute}
        dead = []
        for node_id, silence in self._silent.items():
            has_ear = silence.subscription != 0 and silence.subscription == subscription
            is_heard = has_ear and heard_until > silence.since + self._bound_seconds
            if now >= silence.since + 2 * self._bound_seconds and (is_heard or not has_push):
                dead.append(mute[node_id])
        return dead
