"""The tables and pictures of the workloads: medians and spreads, from every sample, which the JSON keeps.

`results/requests/<workload>.json` and `.md` are one workload's; `results/requests.md` and the pictures are drawn from
all of these that are there, so that a workload measured anew replaces its own part alone.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench import plot, report
from bench.measure import Measured, Plan, Row, Sample
from bench.peers import Tunnel
from bench.workloads import WORKLOADS, Workload

_FOLDER = "requests"
_MEBIBYTE = 2**20
_OURS = "Ostiary"  # and whatever follows
_HEADLINE = "get"


def _values(row: Row, of: Callable[[Sample], float | None]) -> list[float]:
    return [value for sample in row.samples if (value := of(sample)) is not None]


def _cpu(row: Row) -> list[float]:
    return _values(row, lambda sample: sample.cpu_us_per_request)


def _middle(values: Sequence[float], form: Callable[[float], str]) -> str:
    return form(median(values)) if values else "-"


def _cells(row: Row, floor_us: float | None) -> list[str]:
    if row.version is None:
        return [row.name, "not installed", *["-"] * 9]
    if row.failure is not None:
        return [row.name, row.version, f"failed: {row.failure.splitlines()[-1][:120]}", *["-"] * 8]
    cpu = _cpu(row)
    spread = f"{min(cpu):.1f} - {max(cpu):.1f}" if cpu else "-"
    over = f"{median(cpu) - floor_us:+.1f}" if cpu and floor_us is not None else "-"
    peaks = _values(row, lambda sample: sample.peak_rss_bytes)
    return [
        row.name,
        row.version,
        _middle(cpu, lambda value: f"**{value:.1f}**"),
        spread,
        over,
        _middle(_values(row, lambda sample: sample.requests_per_second), lambda value: f"{value:,.0f}"),
        *(
            _middle(_values(row, of), lambda value: f"{value / 1000:.2f}")
            for of in (lambda sample: sample.p50_us, lambda sample: sample.p99_us, lambda sample: sample.p999_us)
        ),
        _middle(_values(row, lambda sample: sample.core_share), lambda value: f"{value:.0%}"),
        f"{max(peaks) / _MEBIBYTE:.0f}" if peaks else "-",
    ]


def table(rows: Sequence[Row], floor_name: str = Tunnel.name) -> str:
    """Return the Markdown table of one workload; `floor_name` names the row that the others are compared with."""
    header = [
        "proxy",
        "version",
        "CPU µs/request",
        "spread",
        "over the floor",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "core used",
        "peak MiB",
    ]
    floor = next((cpu for row in rows if row.name == floor_name and row.failure is None and (cpu := _cpu(row))), None)
    floor_us = median(floor) if floor else None
    lines = [header, ["---", "---", *["---:"] * 9], *(_cells(row, floor_us) for row in rows)]
    return report.markdown(lines)


def caption(measured: Measured, plan: Plan) -> str:
    """Return one paragraph that says what was measured and on what."""
    workload = measured.workload
    seconds = plan.seconds * workload.rounds_long
    parts = [
        f"Medians of {plan.rounds} interleaved rounds of {seconds:g} s, {workload.connections:,} "
        f"{'connections' if workload.connections > 1 else 'connection'}, load by {measured.load_name}."
    ]
    late = [value for row in measured.rows for value in _values(row, lambda sample: sample.late_p99_us)]
    if late:
        parts.append(f"The generator itself was late by {max(late) / 1000:.2f} ms at most (p99).")
    return " ".join([*parts, report.machine_sentence()])


def text(measured: Measured, plan: Plan) -> str:
    """Return the title, the table and the caption of one workload."""
    return f"**{measured.workload.title}**\n\n{table(measured.rows)}\n\n{caption(measured, plan)}"


def write(measured: Measured, plan: Plan) -> None:
    """Write the results of one workload, every sample included."""
    workload = measured.workload
    document: dict[str, object] = {
        "workload": workload.name,
        "title": workload.title,
        "connections": workload.connections,
        "rate": workload.rate,
        "plan": asdict(plan),
        "load_generator": measured.load_name,
        "rows": [asdict(row) for row in measured.rows],
    }
    report.write(f"{_FOLDER}/{workload.name}", text(measured, plan), document)


@dataclass(frozen=True)
class _Result:
    """What a file of results says."""

    workload: Workload
    rows: list[Row]
    machine: str


def _result(workload: Workload, document: dict[str, Any]) -> _Result:
    rows = [
        Row(row["name"], row["version"], row["failure"], [Sample(**sample) for sample in row["samples"]])
        for row in document["rows"]
    ]
    machine = document["machine"]
    return _Result(workload, rows, f"{machine['processor']}, {machine['cores']} cores, {machine['system']}")


def _results() -> list[_Result]:
    paths = [(workload, report.RESULTS / _FOLDER / f"{workload.name}.json") for workload in WORKLOADS]
    return [_result(workload, json.loads(path.read_text())) for workload, path in paths if path.exists()]


def overview(results: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """Return CPU microseconds per request as one table: a line for each peer, a column for each named workload."""
    names = list(dict.fromkeys(row.name for _, rows in results for row in rows if row.version and _cpu(row)))
    lines = [["CPU µs/request", *(name for name, _ in results)], ["---", *["---:"] * len(results)]]
    for name in names:
        cells = []
        for _, rows in results:
            row = next((row for row in rows if row.name == name), None)
            cells.append("-" if row is None else "failed" if row.failure else _middle(_cpu(row), "{:.1f}".format))
        lines.append([name, *cells])
    return report.markdown(lines)


def _bars(rows: Sequence[Row], of: Callable[[Row], Sequence[float]] = _cpu) -> list[plot.Bar]:
    measured = [(row.name, values) for row in rows if row.failure is None and (values := of(row))]
    return [
        plot.Bar(name, median(values), min(values), max(values), is_ours=name.startswith(_OURS))
        for name, values in measured
    ]


def _milliseconds(of: Callable[[Sample], float]) -> Callable[[Row], list[float]]:
    return lambda row: [of(sample) / 1000 for sample in row.samples]


def _draw_headline(result: _Result) -> None:
    bars = sorted(_bars(result.rows), key=lambda bar: bar.value)
    panel = plot.Panel(result.workload.title, bars)
    picture = plot.draw("CPU microseconds per authenticated request", result.machine, [panel], plot.ONE)
    report.write_whole("requests.svg", picture)


def _draw_latency(result: _Result) -> None:
    shares = {
        "p50": _milliseconds(lambda sample: sample.p50_us),
        "p99": _milliseconds(lambda sample: sample.p99_us),
        "p99.9": _milliseconds(lambda sample: sample.p999_us),
    }
    panels = [plot.Panel(title, _bars(result.rows, of), digits=2) for title, of in shares.items()]
    title = f"Milliseconds to the reply, {result.workload.rate:,.0f} requests a second offered to each"
    report.write_whole("latency.svg", plot.draw(title, result.machine, panels, plot.MANY))


def _draw_workloads(results: Sequence[_Result]) -> None:
    panels = [plot.Panel(result.workload.label, _bars(result.rows)) for result in results]
    picture = plot.draw("CPU microseconds per request, by workload", results[-1].machine, panels, plot.MANY)
    report.write_whole("workloads.svg", picture)


def write_overview() -> None:
    """Draw the pictures and the table of all workloads from the results that are there."""
    results = _results()
    for result in results:
        if result.workload.name == _HEADLINE:
            _draw_headline(result)
        if result.workload.rate is not None:
            _draw_latency(result)
    if results:
        _draw_workloads(results)
    sections = [overview([(result.workload.name, result.rows) for result in results])]
    sections += [(report.RESULTS / _FOLDER / f"{result.workload.name}.md").read_text().strip() for result in results]
    report.write_whole("requests.md", "\n\n".join(sections) + "\n")
