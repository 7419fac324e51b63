"""What a run has seen."""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

TWO_AT_ONCE = "two of these at once"


@dataclass
class Changed:
    """One kind of change. `seconds`: of a narrowing one, from the first call to the answer that it is done."""

    times: int = 0
    is_narrowing: bool = False
    pending: int = 0
    seconds: list[float] = field(default_factory=list)


@dataclass
class Tally:
    """Everything that is counted. The lists of texts hold the exact story of each case."""

    began_at: float = field(default_factory=time.monotonic)
    # Callers
    statuses: Counter[int] = field(default_factory=Counter)
    admitted: int = 0
    asked_after_an_answer: int = 0
    calls_by_admins: int = 0
    unavailable_in_faults: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    unavailable_unsteadily: int = 0
    late_seconds: float = 0.0
    stale: list[str] = field(default_factory=list)
    stale_by_poll: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    unavailable: list[str] = field(default_factory=list)
    # Writers. Seconds since the commit, as the gateway tells them
    changes: defaultdict[str, Changed] = field(default_factory=lambda: defaultdict(Changed))
    repeated_calls: int = 0
    calm_seconds: list[float] = field(default_factory=list)
    fault_seconds: list[float] = field(default_factory=list)
    # Faults. Of those that came alone: seconds until every node that felt it decided again whatever it was asked
    struck: Counter[str] = field(default_factory=Counter)
    recoveries: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def narrowed(self, what: str, seconds: float | None) -> None:
        """Something has been taken away, `seconds` after the first call; None where nobody answers for it."""
        changed = self.changes[what]
        changed.is_narrowing = True
        changed.times += 1
        if seconds is not None:
            changed.seconds.append(seconds)

    @property
    def narrowing(self) -> int:
        """How many narrowing changes there were."""
        return sum(changed.times for changed in self.changes.values() if changed.is_narrowing)

    @property
    def progress(self) -> str:
        """How far it is, on one line."""
        return (
            f"{self.narrowing:,} narrowing changes, {self.struck.total():,} faults,"
            f" {self.admitted:,} admissions, wrong: {len(self.faults())}"
        )

    def faults(self) -> list[str]:
        """What must not be, in words; empty where the promise was kept."""
        return [
            *(f"stale admission: {story}" for story in self.stale),
            *(f"stale admission, of a change typed into psql: {story}" for story in self.stale_by_poll),
            *(f"wrong refusal: {story}" for story in self.wrong),
            *(f"unavailable without an outage: {story}" for story in self.unavailable),
            *(f"stray: {story}" for story in self.strays),
            *(f"odd answer: {story}" for story in self.odd),
        ]
