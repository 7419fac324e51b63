"""Counting on the warm path: plain numbers, exported when scraped.

prometheus_client's children take a lock and several calls per increment; the event loop is one thread, so a list cell
will do. The families come out of the same registry, under the same names and types.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

Exemplar = tuple[str, float, float]  # a trace id, what was observed in it, and when (epoch seconds)
Series = tuple[tuple[str, ...], Sequence[float], Mapping[int, Exemplar]]  # label values, numbers, exemplars by bucket

NO_EXEMPLARS: Final[Mapping[int, Exemplar]] = {}


class HotCounter(Collector):
    """A counter family. `cell(...)` gives the one-element list of a label set; the caller adds to `cell[0]`."""

    kind = "counter"

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self.name = name
        self.documentation = documentation
        self.labels = tuple(labels)
        self.bounds: tuple[float, ...] = ()
        self._cells: dict[tuple[str, ...], list[float]] = {}
        registry.register(self)

    def cell(self, *values: str) -> list[float]:
        """The cell of these label values, made on first use."""
        return self._cells.setdefault(values, [0.0])

    def share(self, cell: list[float], *values: str) -> None:
        """Show the cell of somebody else who counts."""
        self._cells[values] = cell

    def inc(self, *values: str) -> None:
        """Add one, where speed does not matter."""
        self.cell(*values)[0] += 1

    def series(self) -> list[Series]:
        """Every label set with its number."""
        return [(values, cell, NO_EXEMPLARS) for values, cell in self._cells.items()]

    def values(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Every label set with its number."""
        return ((labels, cell[0]) for labels, cell in self._cells.items())

    def collect(self) -> Iterator[Metric]:
        """As Collector."""
        family = CounterMetricFamily(self.name, self.documentation, labels=self.labels)
        for values, cell in self._cells.items():
            family.add_metric(values, cell[0])
        yield family

    def describe(self) -> list[Metric]:
        """As Collector: lets the registry see name clashes without collecting."""
        return [CounterMetricFamily(self.name, self.documentation, labels=self.labels)]


class HotGauge(Collector):
    """A gauge family that is read when it is scraped, all label sets at once. `follow` says by what."""

    kind = "gauge"

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self.name = name
        self.documentation = documentation
        self.labels = tuple(labels)
        self.bounds: tuple[float, ...] = ()
        self._readers: list[Callable[[], Iterable[tuple[tuple[str, ...], float]]]] = []
        registry.register(self)

    def follow(self, read: Callable[[], Iterable[tuple[tuple[str, ...], float]]]) -> None:
        """Show what `read` tells as well: label values, and the number."""
        self._readers.append(read)

    def series(self) -> list[Series]:
        """Every label set with its number."""
        return [(values, (number,), NO_EXEMPLARS) for read in self._readers for values, number in read()]

    def collect(self) -> Iterator[Metric]:
        """As Collector."""
        family = GaugeMetricFamily(self.name, self.documentation, labels=self.labels)
        for values, numbers, _ in self.series():
            family.add_metric(values, numbers[0])
        yield family

    def describe(self) -> list[Metric]:
        """As Collector."""
        return [GaugeMetricFamily(self.name, self.documentation, labels=self.labels)]


class Observations:
    """The observations of one label set: cumulative only when exported."""

    __slots__ = ("_bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float) -> None:
        """Count `value` in the first bucket that it does not exceed. Hot."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def exemplify(self, value: float, trace_id: str, at: float) -> None:
        """Name the trace of an observation, which is counted already; each bucket shows its last one."""
        self.exemplars[bisect_left(self._bounds, value)] = (trace_id, value, at)


class HotHistogram(Collector):
    """A histogram family with one label. `of(value)` gives the observations of that label's value."""

    kind = "histogram"

    def __init__(
        self, name: str, documentation: str, label: str, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self.name = name
        self.documentation = documentation
        self.labels = (label,)
        self.bounds = tuple(float(bound) for bound in buckets)
        self._observations: dict[str, Observations] = {}
        registry.register(self)

    def of(self, value: str) -> Observations:
        """The observations of one label value, made on first use."""
        found = self._observations.get(value)
        if found is None:
            found = self._observations[value] = Observations(self.bounds)
        return found

    def series(self) -> list[Series]:
        """Every label set with its counts, one for each bucket, not cumulative, and the sum of all behind them."""
        return [
            ((value,), [*observed.counts, observed.total], observed.exemplars)
            for value, observed in self._observations.items()
        ]

    def counts(self) -> list[int]:
        """How many observations there are in each bucket, and above the last, of all label values together."""
        totals = [0] * (len(self.bounds) + 1)
        for observed in self._observations.values():
            totals = [total + count for total, count in zip(totals, observed.counts, strict=True)]
        return totals

    def collect(self) -> Iterator[Metric]:
        """As Collector."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.labels)
        for value, observed in self._observations.items():
            running, buckets = 0, []
            for bound, count in zip((*map(str, self.bounds), "+Inf"), observed.counts, strict=True):
                running += count
                buckets.append((bound, running))
            family.add_metric((value,), buckets, observed.total)
        yield family

    def describe(self) -> list[Metric]:
        """As Collector."""
        return [HistogramMetricFamily(self.name, self.documentation, labels=self.labels)]


HotFamily = HotCounter | HotGauge | HotHistogram
