"""What one run of a load generator has measured."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figures:
    """Counts, and latencies in microseconds. `late_p99_us` is the generator's own delay, where it keeps a schedule."""

    requests: int
    seconds: float
    failures: int
    p50_us: float
    p99_us: float
    p999_us: float
    late_p99_us: float | None = None

    @property
    def latencies_ms(self) -> tuple[float, float, float]:
        """Return p50, p99 and p99.9 in milliseconds."""
        return self.p50_us / 1000, self.p99_us / 1000, self.p999_us / 1000

    @property
    def late_ms(self) -> float:
        """Return the generator's own delay in milliseconds; what is below that has not been measured."""
        assert self.late_p99_us is not None, "it kept no schedule"
        return self.late_p99_us / 1000


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of them do not exceed (nearest rank); 0 of none."""
    if not ascending:
        return 0.0
    return ascending[max(0, math.ceil(len(ascending) * share) - 1)]


def document_of(
    latencies: Sequence[float], seconds: float, failures: int, late: Sequence[float] | None = None
) -> dict[str, float | None]:
    """Return `Figures` as a document. Latencies and delays are in seconds."""
    ascending = sorted(latencies)
    p50, p99, p999 = (percentile(ascending, share) * 1e6 for share in (0.5, 0.99, 0.999))
    late_p99 = None if late is None else percentile(sorted(late), 0.99) * 1e6
    return asdict(Figures(len(ascending), seconds, failures, p50, p99, p999, late_p99))
