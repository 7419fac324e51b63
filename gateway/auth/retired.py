"""Which rotated secrets callers still send, so that somebody can tell them before the windows end. Pure."""

from collections.abc import Iterator
from typing import Final

WITHIN: Final = {"hour": 3_600.0, "day": 86_400.0}  # closed: the values of a label
MOST: Final = 10_000  # beyond that the oldest are forgotten: the alert goes off all the same
QUIET_SECONDS: Final = 300.0  # beyond the time for which an answer is kept: who is silent for so long has moved on


class RetiredInUse:
    """Secrets in their grace window that were looked up here of late. Each is again when its answer grows old."""

    def __init__(self, ttl_seconds: float) -> None:
        self._horizon_seconds = ttl_seconds + QUIET_SECONDS
        self._seen: dict[str, tuple[float, float]] = {}  # by secret: when it ends, and when it was seen (monotonic)

    def note(self, secret_id: str, ends_at: float, now: float) -> None:
        """A retired secret was sent, and admitted, at `now`."""
        self._seen.pop(secret_id, None)  # the last that was seen stands last
        self._seen[secret_id] = (ends_at, now)
        if len(self._seen) > MOST:
            del self._seen[next(iter(self._seen))]

    def counts(self, now: float) -> Iterator[tuple[tuple[str, ...], float]]:
        """How many are in use and end within an hour, or a day."""
        oldest = now - self._horizon_seconds
        self._seen = {name: (ends, seen) for name, (ends, seen) in self._seen.items() if seen > oldest and ends > now}
        for label, seconds in WITHIN.items():
            yield (label,), float(sum(ends <= now + seconds for ends, _ in self._seen.values()))
