"""How many requests of one holder are under way at once, on this node. Pure. Must not know: HTTP, whose they are."""

from collections import Counter

from gateway.telemetry.metrics import Metrics


class Concurrency:
    """Counts requests by holder (a key, an upstream). `limiter` is its kind in metrics.

    What is under way is known to the node that does it, so this is counted by each node alone in every mode.
    """

    def __init__(self, limit: int, *, limiter: str, metrics: Metrics) -> None:
        self.limit = limit
        self._busy: Counter[str] = Counter()
        self._refused = metrics.limited.cell(limiter, "enforced")

    @property
    def busy(self) -> int:
        """How many requests are under way, of all holders."""
        return self._busy.total()

    def enter(self, holder: str) -> bool:
        """Count a request in, if it may be. Then, and only then, `leave` is due."""
        busy = self._busy[holder]
        if busy >= self.limit:
            self._refused[0] += 1
            return False
        self._busy[holder] = busy + 1
        return True

    def leave(self, holder: str) -> None:
        """Count it out."""
        if self._busy[holder] > 1:
            self._busy[holder] -= 1
        else:
            del self._busy[holder]
