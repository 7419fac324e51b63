"""Medians and spreads as a Markdown table, the facts of the machine, and the files in `results/`."""

import json
import os
import platform
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.measure import Plan, Row
from bench.workload import BODY_BYTES

RESULTS = Path(__file__).with_name("results")


def machine_facts() -> dict[str, str]:
    """Return what a reader needs to compare figures, and nothing that names the machine."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
    }


def machine_sentence() -> str:
    """Return the facts of the machine as a sentence."""
    facts = machine_facts()
    return f"{facts['processor']}, {facts['cores']} cores, {facts['system']}, Python {facts['python']}."


def markdown(lines: list[list[str]]) -> str:
    """Return a Markdown table of `lines`, the header and its rule among them."""
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def _spread(values: list[float]) -> str:
    return f"{min(values):.1f} - {max(values):.1f}"


def _cells(row: Row, floor_us: float | None) -> list[str]:
    if row.version is None:
        return [row.name, "not installed", *["-"] * 7]
    if row.failure is not None:
        return [row.name, row.version, f"failed: {row.failure.splitlines()[-1][:120]}", *["-"] * 6]
    rate = median(sample.requests_per_second for sample in row.samples)
    p50, p99 = (median(getattr(sample, name) for sample in row.samples) / 1000 for name in ("p50_us", "p99_us"))
    cpu = [sample.cpu_us_per_request for sample in row.samples if sample.cpu_us_per_request is not None]
    shares = [sample.core_share for sample in row.samples if sample.core_share is not None]
    cost = ["-"] * 3
    if cpu:
        over = "-" if floor_us is None else f"{median(cpu) - floor_us:+.1f}"
        cost = [f"**{median(cpu):.1f}**", _spread(cpu), over]
    share = f"{median(shares):.0%}" if shares else "-"
    return [row.name, row.version, *cost, f"{rate:,.0f}", f"{p50:.2f}", f"{p99:.2f}", share]


def table(rows: list[Row], floor_name: str) -> str:
    """Return the Markdown table; `floor_name` names the row that the others are compared with."""
    header = [
        "proxy",
        "version",
        "CPU µs/request",
        "spread",
        "over the floor",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "core used",
    ]
    floor = next((row for row in rows if row.name == floor_name and row.samples), None)
    floor_us = median(sample.cpu_us_per_request or 0.0 for sample in floor.samples) if floor else None
    lines = [header, ["---", "---", *["---:"] * 7], *(_cells(row, floor_us) for row in rows)]
    return markdown(lines)


def caption(plan: Plan, load_name: str) -> str:
    """Return one paragraph that says what was measured and on what."""
    return (
        f"Medians of {plan.rounds} interleaved rounds of {plan.seconds:g} s, {plan.connections} keep-alive "
        f"connections, load by {load_name}, {BODY_BYTES}-byte replies. "
        f"{machine_sentence()}"
    )


def write(name: str, text: str, document: dict[str, object]) -> None:
    """Write `results/<name>.md` and `results/<name>.json`, each whole or not at all."""
    _write_whole(f"{name}.md", text + "\n")
    write_document(name, document)


def write_document(name: str, document: dict[str, object]) -> None:
    """Write `results/<name>.json` alone, with the time and the machine."""
    stamped = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine_facts(), **document}
    _write_whole(f"{name}.json", json.dumps(stamped, indent=2, ensure_ascii=False) + "\n")


def _write_whole(name: str, content: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    part = RESULTS / f"{name}.tmp"
    part.write_text(content)
    part.replace(RESULTS / name)


def write_http(rows: list[Row], plan: Plan, load_name: str, text: str) -> None:
    """Write the results of the HTTP benchmark, every sample included, and `text`."""
    document: dict[str, object] = {
        "plan": asdict(plan),
        "load_generator": load_name,
        "rows": [asdict(row) for row in rows],
    }
    write("latest", text, document)
