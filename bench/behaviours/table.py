"""The table: Markdown between two markers of `docs/http.md`, JSON in `bench/results/`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import report
from bench.behaviours.verdicts import MEANINGS
from bench.behaviours.wire import LIMIT_SECONDS, PATIENCE_SECONDS

DOCUMENT = Path(__file__).parents[2] / "docs" / "http.md"
BEGIN, END = "<!-- behaviours: begin -->", "<!-- behaviours: end -->"
_SETTING = (
    "Everything is at its default, but for what an API-key gateway needs and for the waits, which are "
    f"{LIMIT_SECONDS} s wherever a setting bounds them. "
    "Ostiary: `serve`, two routes. "
    "nginx: a key check in Lua, `client_max_body_size 0`, kept upstream connections, the WebSocket recipe of its "
    "documentation (which passes any `Upgrade` on). "
    "Envoy: its default connection manager with `api_key_auth` and `upgrade_configs` for WebSockets; neither "
    "`normalize_path` nor `headers_with_underscores_action` is set, as neither is by default. "
    "HAProxy: a map of keys, `http-reuse always`. "
    "Each can be made stricter than it is here."
)


@dataclass(frozen=True)
class Column:
    """A proxy: its name, its version, and its cells by group and title."""

    name: str
    version: str
    cells: Mapping[str, Mapping[str, str]]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _row(title: str, cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in (title, *cells)) + " |"


def _group(group: str, columns: Sequence[Column]) -> list[str]:
    """A heading, a row for each case in which the proxies differ, and a sentence on the others."""
    differing, alike = [], dict[str, list[str]]()
    for title in columns[0].cells[group]:
        cells = [column.cells[group][title] for column in columns]
        if len(set(cells)) > 1:
            differing.append(_row(title, cells))
        else:
            alike.setdefault(cells[0], []).append(title)
    lines = ["", f"### {group}"]
    if differing:
        lines += ["", _row("", [column.name for column in columns]), "|---" * (len(columns) + 1) + "|", *differing]
    if alike:
        parts = [f"*{cell}* ({'; '.join(titles)})" for cell, titles in alike.items()]
        lines += ["", f"Alike in all: {', '.join(parts)}."]
    return lines


def markdown(columns: Sequence[Column]) -> str:
    """Return the whole block."""
    versions = ", ".join(f"{column.name} {column.version}" for column in columns)
    seen = {cell for column in columns for cells in column.cells.values() for cell in cells.values()}
    met = {word: meaning for word, meaning in MEANINGS.items() if any(word in cell for cell in seen)}
    unmet = [f"*{word}* ({meaning})" for word, meaning in MEANINGS.items() if word not in met]
    lines = [
        f"Measured: {versions}. {_SETTING}",
        "",
        f"An answer is waited for {PATIENCE_SECONDS:g} s, under “Slowness” {2.5 * LIMIT_SECONDS:g} s. “legal” marks "
        "what a proxy has no reason to refuse. A number is the status of an answer that the proxy gave by itself; "
        "beside it, the cells are made of these words:",
        "",
        _row("", ["meaning"]),
        "|---|---|",
        *(_row(word, [meaning]) for word, meaning in met.items()),
    ]
    if unmet:
        lines += ["", f"Looked for, but not met: {'; '.join(unmet)}."]
    for group in columns[0].cells:
        lines += _group(group, columns)
    return "\n".join(lines)


def write(columns: Sequence[Column], text: str) -> None:
    """Put `text` between the markers, and the cells into `results/behaviours.json`."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"{DOCUMENT} has no markers"
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
    versions = {column.name: column.version for column in columns}
    rows = [
        {"group": group, "case": title, **{column.name: column.cells[group][title] for column in columns}}
        for group, titles in columns[0].cells.items()
        for title in titles
    ]
    report.write_document("behaviours", {"versions": versions, "rows": rows})
