"""What callers got, held against what was permitted. Pure: moments are handed in, monotonic seconds of this process.

Some things no fault permits: 401 or 403 for a good key, a bad key let through, a request that the upstream has answered
twice or sees under another's name, an answer that belongs to another request. All else is permitted by the fault under
way, and where none is, a good key is admitted.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Final

from tests.faults.permitted import ADMITTED, CALM, REFUSED, Permitted

WELL_SECONDS: Final = 1.0  # so long without anything but right answers, and all is well
STORIES: Final = 5  # of each kind of violation; of the others there is only the number
LATE: Final = frozenset({"503", "504", "sil"})  # how outcomes begin that may mean that somebody did not come to run
GAP_SECONDS: Final = 0.3  # right answers for so long end what was one refusal to callers


@dataclass(frozen=True)
class Heard:
    """One outcome: of a request sent then to a node, by a caller of a kind (permitted.py)."""

    kind: str
    node: int
    sent_at: float
    heard_at: float
    outcome: str
    is_good: bool
    story: str


@dataclass
class Lane:
    """What callers of one kind at one node got, as time goes."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong_since: float | None = None
    last_wrong_at: float | None = None
    longest_seconds: float = 0.0
    slowest_seconds: float = 0.0
    right_at: float | None = None

    def right(self, at: float) -> None:
        """They got what is due without any fault."""
        if self.wrong_since is not None and self.last_wrong_at is not None and at > self.last_wrong_at + GAP_SECONDS:
            self.wrong_since = None
        self.right_at = at

    def wrong(self, sent_at: float, at: float) -> None:
        """They got something else."""
        self.wrong_since = sent_at if self.wrong_since is None else self.wrong_since
        self.last_wrong_at = at
        self.longest_seconds = max(self.longest_seconds, at - self.wrong_since)


class Verdict:
    """Of one fault. `hurt_nodes` are those at which it may be felt; elsewhere everything is as always."""

    def __init__(self, permits: Permitted, hurt_nodes: frozenset[int]) -> None:
        self._permits = permits
        self._hurt_nodes = hurt_nodes
        self.hurt_at: float | None = None
        self.undone_at: float | None = None
        self.whole_at: float | None = None  # every node has every store in use again
        self.well_at: float | None = None  # and so long callers have had nothing but what is due
        self.broken: defaultdict[str, list[str]] = defaultdict(list)
        self.unsteady = 0
        self.heard: Counter[str] = Counter()
        self.lanes: defaultdict[tuple[str, int], Lane] = defaultdict(Lane)

    # -- phases

    def is_felt(self, sent_at: float, heard_at: float) -> bool:
        """Whether a request may have met the fault: it was under way at some moment between hurt and well."""
        if self.hurt_at is None or heard_at < self.hurt_at:
            return False
        return self.well_at is None or sent_at <= self.well_at

    def seconds_since_wrong(self, now: float) -> float:
        """For how long every lane has had nothing but right answers, and some."""
        waited = [lane for lane in self.lanes.values() if lane.right_at is not None or lane.last_wrong_at is not None]
        if any(lane.right_at is None or (lane.last_wrong_at or 0.0) > lane.right_at for lane in waited):
            return 0.0
        return now - max((lane.last_wrong_at or 0.0 for lane in waited), default=0.0)

    def unwell(self) -> str:
        """What has not come right, in words."""
        lanes = [
            f"{kind} at node {node}"
            for (kind, node), lane in self.lanes.items()
            if lane.last_wrong_at is not None and lane.last_wrong_at > (lane.right_at or 0.0)
        ]
        return ", ".join([*lanes, *(["a store is not in use"] if self.whole_at is None else [])])

    @property
    def whole_seconds(self) -> float:
        """From the moment when the fault was undone until every store was in use; the end of the wait if it was not."""
        assert self.undone_at is not None
        assert self.well_at is not None
        return (self.whole_at or self.well_at) - self.undone_at

    @property
    def recovery_seconds(self) -> float:
        """From the moment when the fault was undone to the last wrong answer; 0 where there was none."""
        assert self.undone_at is not None
        last = max((lane.last_wrong_at or 0.0 for lane in self.lanes.values()), default=0.0)
        return max(0.0, last - self.undone_at)

    # -- answers

    def judge(self, heard: Heard, *, is_steady: bool = True) -> None:
        """Count an outcome, and note what must not be. `is_steady`: this process came to run in time."""
        self.heard[heard.kind] += 1
        is_felt = self.is_felt(heard.sent_at, heard.heard_at)
        fault = self._fault(heard, is_felt=is_felt)
        if fault and heard.outcome[:3] in LATE and not is_steady:
            self.unsteady += 1
            return
        if fault:
            self.violate(fault, f"{heard.outcome} for {heard.kind} at node {heard.node}: {heard.story}")
        lane = self.lanes[heard.kind, heard.node]
        if is_felt:
            lane.outcomes[heard.outcome] += 1
            lane.slowest_seconds = max(lane.slowest_seconds, heard.heard_at - heard.sent_at)
        if heard.outcome == self._due(heard):
            lane.right(heard.heard_at)
        elif heard.kind != "live":
            lane.wrong(heard.sent_at, heard.heard_at)

    def _due(self, heard: Heard) -> str:
        return ADMITTED if heard.is_good else REFUSED

    def _fault(self, heard: Heard, *, is_felt: bool) -> str | None:
        is_refusal = heard.outcome[:3] in {"401", "403"}
        if heard.is_good and is_refusal:
            return "a good key is refused"
        if not heard.is_good and heard.outcome[:1] == "2":
            return "a bad key is admitted"
        permits = self._permits if is_felt and heard.node in self._hurt_nodes else CALM
        if heard.outcome in permits.of(heard.kind) or (heard.kind == "live" and heard.outcome == ADMITTED):
            return None
        if not heard.is_good and is_refusal:
            return None
        return "not permitted while it lasts" if is_felt else "nothing was wrong"

    def violate(self, what: str, story: str) -> None:
        """Note what no fault permits, or what this one does not; `what` is the kind of it."""
        self.broken[what].append(story)

    @property
    def violations(self) -> list[str]:
        """All of that, in words; empty where every promise was kept."""
        told = [f"{what}: {story}" for what, stories in self.broken.items() for story in stories[:STORIES]]
        more = [f"{what}: {len(stories)} times" for what, stories in self.broken.items() if len(stories) > STORIES]
        return [*told, *more]

    # -- the upstream's and the books' side

    def received(self, number: int, *, times: int, answered: int, is_repeatable: bool) -> None:
        """What the upstream has had of a request. Only one that it left without a byte may come again."""
        if answered > 1 or times - answered > 1 or (times > 1 and not is_repeatable):
            self.violate("done twice", f"request {number} came {times} times, and was answered {answered} times")

    def metered(self, counted: int, *, answered: int, received: int, lost_at_most: int) -> None:
        """Requests in the books: no fewer than were answered, no more than came."""
        if not answered - lost_at_most <= counted <= received:
            story = f"{counted} requests, of {answered} answered and {received} received upstream"
            self.violate("wrong usage", f"{story}; {lost_at_most} may be lost")
