"""A node's vital signs, as it tells them to the others with each report: few, of closed sets, without any secret."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from gateway.telemetry.metrics import REQUEST_BUCKETS, Metrics

BOUNDS: Final = (*map(str, REQUEST_BUCKETS), "+Inf")


def signs_of(metrics: Metrics, *, is_fresh: bool) -> Mapping[str, Any]:
    """What a node has counted since its start.

    `is_fresh`: whether it may answer by what it remembers. `decisions`: how many credentials were judged, by where the
    knowledge came from. `dependencies`: which of them answer. `durations`: how many requests have taken up to so many
    seconds and longer than the bound before; nothing stands for none.
    """
    decisions: dict[str, int] = defaultdict(int)
    for (kind, tier, _), number in metrics.auth.values():
        if kind != "none":
            decisions[tier] += int(number)
    answering = (sample for family in metrics.dependency_up.collect() for sample in family.samples)
    counted = zip(BOUNDS, metrics.request_seconds.counts(), strict=True)
    return {
        "is_fresh": is_fresh,
        "decisions": {tier: number for tier, number in decisions.items() if number},
        "dependencies": {sample.labels["dependency"]: sample.value > 0 for sample in answering},
        "durations": {bound: number for bound, number in counted if number},
    }
