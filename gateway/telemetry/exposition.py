"""The page that a scrape gets: Prometheus' text format, or OpenMetrics with exemplars. Pure, but for what it remembers.

The library's writer takes some three microseconds a line, and there are thousands where there are many routes. The hot
families have a writer of their own: a line's beginning never changes, and a series that has not moved is not written
again.
"""

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import generate_latest as generate_open

from gateway.telemetry.hot import Exemplar, HotFamily, Series


def is_open_wanted(accept: str) -> bool:
    """Whether who says `accept` is to get OpenMetrics."""
    return choose_encoder(accept)[1].startswith("application/openmetrics-text")


def content_type(*, is_open: bool) -> str:
    """That of a page."""
    return CONTENT_TYPE_LATEST if is_open else CONTENT_TYPE_PLAIN_0_0_4


def library_page(registry: CollectorRegistry, *, is_open: bool) -> bytes:
    """The families of prometheus_client. In OpenMetrics nothing may follow."""
    return generate_open(registry) if is_open else generate_latest(registry)  # type: ignore[no-untyped-call]


class Writer:
    """Writes one hot family, again and again."""

    def __init__(self, family: HotFamily) -> None:
        self._family = family
        self._starts: dict[tuple[str, ...], list[str]] = {}  # of each line of a series
        self._patterns: dict[tuple[str, ...], str] = {}  # all lines of a series, for `%`
        self._written: dict[tuple[str, ...], tuple[list[float], str]] = {}

    def page(self, series: Sequence[Series], *, is_open: bool) -> str:
        """The family as it is now."""
        family = self._family
        name = family.name if is_open or family.kind != "counter" else family.name + "_total"
        head = f"# HELP {name} {family.documentation}\n# TYPE {name} {family.kind}\n"
        return head + "".join([self._text(one, is_open=is_open) for one in series])

    def _text(self, series: Series, *, is_open: bool) -> str:
        labels, numbers, exemplars = series
        known = self._written.get(labels)
        if known is not None and known[0] == numbers and not (is_open and exemplars):
            return known[1]
        pattern = self._patterns.get(labels)
        if pattern is None:
            starts = self._starts[labels] = self._starts_of(labels)
            pattern = self._patterns[labels] = "".join(start.replace("%", "%%") + "%r\n" for start in starts)
        shown = self._shown(numbers)
        if is_open and exemplars:
            lines = zip(self._starts[labels], shown, strict=True)
            return "".join(_told(start, number, exemplars.get(place)) for place, (start, number) in enumerate(lines))
        text = pattern % tuple(shown)
        self._written[labels] = (list(numbers), text)
        return text

    def _shown(self, numbers: Sequence[float]) -> list[float]:
        """The numbers of a series' lines: of a histogram the running counts, their sum, and the total."""
        if self._family.kind != "histogram":
            return [float(number) for number in numbers]
        running, shown = 0.0, []
        for count in numbers[:-1]:
            running += count
            shown.append(running)
        return [*shown, running, float(numbers[-1])]

    def _starts_of(self, labels: tuple[str, ...]) -> list[str]:
        family = self._family
        pairs = [f'{name}="{_escaped(value)}"' for name, value in zip(family.labels, labels, strict=True)]
        if family.kind != "histogram":
            suffix = "_total" if family.kind == "counter" else ""
            return [f"{family.name}{suffix}{{{','.join(pairs)}}} " if pairs else f"{family.name}{suffix} "]
        bounds = [*(repr(bound) for bound in family.bounds), "+Inf"]
        return [
            *(f'{family.name}_bucket{{{",".join(pairs)},le="{bound}"}} ' for bound in bounds),
            *(f"{family.name}_{part}{{{','.join(pairs)}}} " for part in ("count", "sum")),
        ]


def _told(start: str, number: float, exemplar: Exemplar | None) -> str:
    if exemplar is None:
        return f"{start}{number!r}\n"
    trace_id, value, at = exemplar
    return f'{start}{number!r} # {{trace_id="{trace_id}"}} {value!r} {at:.3f}\n'


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class Pages:
    """Writes pages of these hot families, with those of the library behind them."""

    def __init__(self, families: Sequence[HotFamily]) -> None:
        self._writers = {family.name: Writer(family) for family in families}

    def page(
        self, series: Mapping[str, Sequence[Series]], registry: CollectorRegistry, *, is_open: bool = False
    ) -> bytes:
        """`series` are those of the hot families, by their names; `registry` has the others."""
        hot = "".join([writer.page(series.get(name, ()), is_open=is_open) for name, writer in self._writers.items()])
        return hot.encode() + library_page(registry, is_open=is_open)
