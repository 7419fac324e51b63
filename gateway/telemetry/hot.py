"""Counting on the warm path: plain numbers, exported when scraped.

prometheus_client's children take a lock and several calls per increment; the event loop is one thread, so a list cell
will do. The families come out of the same registry, under the same names and types.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class HotCounter(Collector):
    """A counter family. `cell(...)` gives the one-element list of a label set; the caller adds to `cell[0]`."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._cells: dict[tuple[str, ...], list[float]] = {}
        registry.register(self)

    def cell(self, *values: str) -> list[float]:
        """The cell of these label values, made on first use."""
        return self._cells.setdefault(values, [0.0])

    def inc(self, *values: str) -> None:
        """Add one, where speed does not matter."""
        self.cell(*values)[0] += 1

    def collect(self) -> Iterator[Metric]:
        """As Collector."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, cell in self._cells.items():
            family.add_metric(values, cell[0])
        yield family

    def describe(self) -> list[Metric]:
        """As Collector: lets the registry see name clashes without collecting."""
        return [CounterMetricFamily(self._name, self._documentation, labels=self._labels)]


class Observations:
    """The observations of one label set: cumulative only when exported."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count `value` in the first bucket that it does not exceed. Hot."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class HotHistogram(Collector):
    """A histogram family with one label. `of(value)` gives the observations of that label's value."""

    def __init__(
        self, name: str, documentation: str, label: str, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._label = label
        self._buckets: Final = tuple(buckets)
        self._observations: dict[str, Observations] = {}
        registry.register(self)

    def of(self, value: str) -> Observations:
        """The observations of one label value, made on first use."""
        found = self._observations.get(value)
        if found is None:
            found = self._observations[value] = Observations(self._buckets)
        return found

    def collect(self) -> Iterator[Metric]:
        """As Collector."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=(self._label,))
        for value, observed in self._observations.items():
            running, buckets = 0, []
            for bound, count in zip((*map(str, self._buckets), "+Inf"), observed.counts, strict=True):
                running += count
                buckets.append((bound, running))
            family.add_metric((value,), buckets, observed.total)
        yield family

    def describe(self) -> list[Metric]:
        """As Collector."""
        return [HistogramMetricFamily(self._name, self._documentation, labels=(self._label,))]
