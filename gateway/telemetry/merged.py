"""The metrics of several processes as those of one. Pure functions, on what `Metrics.report` says.

Counters and histograms are added up, label set by label set: the sum is what one process would have counted that had
seen all of it. Gauges have no sum in general: each has a rule, declared with it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from gateway.telemetry.hot import Exemplar, HotFamily, Series

HotReport = Mapping[str, Sequence[Sequence[Any]]]  # by family: label values, numbers, exemplars by bucket

Rule = Callable[[Iterable[float]], float]  # from a gauge's value in each process to the one of all

CUMULATIVE: Final = frozenset({"counter", "histogram"})
CREATED: Final = "_created"  # when a counter began, a gauge beside it: that of all began with the first


def parsed(exposition: str) -> list[Metric]:
    """The families of an exposition."""
    return list(text_string_to_metric_families(exposition))


def merged(parts: Iterable[Sequence[Metric]], rules: Mapping[str, Rule]) -> list[Metric]:
    """One family for each that occurs in `parts`, the order kept.

    Raises KeyError for a gauge without a rule, and ValueError for a type that the gateway does not export.
    """
    same: dict[str, list[Metric]] = {}
    for family in (family for part in parts for family in part):
        same.setdefault(family.name, []).append(family)
    return [_merged_family(families, _rule_of(families[0], rules)) for families in same.values()]


def lasting(families: Iterable[Metric]) -> list[Metric]:
    """What still counts of a process that has ended, or does not answer: a counter never falls (R079)."""
    return [family for family in families if family.type in CUMULATIVE or family.name.endswith(CREATED)]


def exposition_of(families: Sequence[Metric]) -> bytes:
    """The text format of families."""
    return generate_latest(registry_of(families))


def merged_hot(
    reports: Iterable[HotReport], families: Sequence[HotFamily], rules: Mapping[str, Rule]
) -> dict[str, list[Series]]:
    """The series of each hot family: counters and histograms added up number by number, gauges by their rules."""
    parts = list(reports)
    return {
        family.name: _merged_series(
            [series for part in parts for series in part.get(family.name, ())],
            sum if family.kind in CUMULATIVE else rules[family.name],
        )
        for family in families
    }


def _merged_series(parts: Iterable[Sequence[Any]], rule: Rule) -> list[Series]:
    numbers: dict[tuple[str, ...], list[Sequence[float]]] = {}
    exemplars: dict[tuple[str, ...], dict[int, Exemplar]] = {}
    for labels, values, told in parts:
        name = tuple(labels)
        numbers.setdefault(name, []).append(values)
        for place, (trace_id, value, at) in told.items():  # in JSON, places are texts
            kept = exemplars.setdefault(name, {})
            if int(place) not in kept or kept[int(place)][2] < at:
                kept[int(place)] = (trace_id, value, at)
    return [
        (
            name,
            list(found[0]) if len(found) == 1 else [rule(of_all) for of_all in zip(*found, strict=True)],
            exemplars.get(name, {}),
        )
        for name, found in numbers.items()
    ]


def lasting_hot(report: HotReport, families: Sequence[HotFamily]) -> HotReport:
    """As `lasting`."""
    return {family.name: report.get(family.name, ()) for family in families if family.kind in CUMULATIVE}


def registry_of(families: Sequence[Metric], *, is_open: bool = False) -> CollectorRegistry:
    """Families that are there already, for prometheus_client's writers.

    In OpenMetrics a counter's beginning is part of it, and a family of that name is none.
    """
    registry = CollectorRegistry()
    registry.register(_Given([one for one in families if not (is_open and one.name.endswith(CREATED))]))
    return registry


def _rule_of(family: Metric, rules: Mapping[str, Rule]) -> Rule:
    if family.type in CUMULATIVE:
        return sum
    if family.type != "gauge":
        raise ValueError(f"{family.name} is a {family.type}")
    return min if family.name.endswith(CREATED) else rules[family.name]


def _merged_family(families: Sequence[Metric], rule: Rule) -> Metric:
    values: dict[tuple[str, frozenset[tuple[str, str]]], list[float]] = {}
    labels_of: dict[tuple[str, frozenset[tuple[str, str]]], dict[str, str]] = {}
    for sample in (sample for family in families for sample in family.samples):
        identity = (sample.name, frozenset(sample.labels.items()))
        values.setdefault(identity, []).append(sample.value)
        labels_of.setdefault(identity, sample.labels)
    result = Metric(families[0].name, families[0].documentation, families[0].type)
    for identity, found in values.items():
        result.add_sample(identity[0], dict(labels_of[identity]), rule(found))
    return result


class _Given(Collector):
    """Families that are there already, for prometheus_client's writer."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)
