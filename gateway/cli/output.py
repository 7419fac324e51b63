"""How a command tells what it did: a table for people, JSON for programs. Secrets go to stdout alone, once.

A terminal gets colour, unless NO_COLOR is set; a pipe never does. The libraries are imported when something is told.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO

from gateway.cli.options import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType
    from rich.text import Text

FRACTION: Final = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d+Z$")
WIDE: Final = 240  # for a pipe, which has no width: rather a long line than a cut id
SECRETS: Final = ("secret", "token")
# A word that stands alone in a cell and says how something is.
STYLES: Final = {
    "active": "green", "ok": "green", "fresh": "green", "ready": "green", "created": "green", "passed": "green",
    "suspended": "yellow", "expired": "yellow", "stale": "yellow", "warning": "yellow", "unchanged": "dim",
    "closes": "yellow", "revoked": "red", "failed": "red", "refused": "red", "silent": "red", "unready": "red",
    "opens": "red", "blind": "red", "unreachable": "red", "down": "red",
}  # fmt: skip


def log_to_stderr(*, is_silent: bool = False) -> None:
    """Send warnings to stderr, and nothing else: stdout is the result. Not even these where it `is_silent`."""
    from gateway.telemetry.logs import write_logs

    write_logs(sys.stderr, level="critical" if is_silent else "warning")


def console(file: TextIO | None = None) -> "Console":
    """What prints to stdout, or to `file`: in colour on a terminal alone, and not where NO_COLOR is set."""
    from rich.console import Console

    file = file or sys.stdout
    is_plain = not file.isatty() or bool(os.environ.get("NO_COLOR"))
    return Console(
        file=file,
        width=None if file.isatty() else WIDE,
        color_system=None if is_plain else "auto",
        force_terminal=None if file.isatty() else False,
        highlight=False,
    )


def show_json(value: object) -> None:
    """Print a value for programs."""
    print(json.dumps(value, indent=2))


def show_list(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], output: Output) -> None:
    """Print rows; a table shows these `columns` alone, JSON all there is."""
    if output is Output.JSON:
        show_json({"items": list(rows)})
    else:
        show_rows(rows, columns)


def show_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print rows as a table. The first column is never broken: it is what one copies."""
    from rich import box
    from rich.table import Table

    printer = console()
    is_terminal = printer.is_terminal
    table = Table(box=box.SIMPLE_HEAD if is_terminal else None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0 or not is_terminal, overflow="fold")
    for row in rows:
        table.add_row(*(cell(row.get(column)) for column in columns))
    _print(printer, table)


def show_one(thing: Mapping[str, Any], output: Output) -> None:
    """Print one object. Its secret, if it has one, stands alone on the last line of a table's output."""
    if output is Output.JSON:
        show_json(thing)
        return
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in thing.items():
        if name not in SECRETS:
            table.add_row(name, cell(value))
    _print(console(), table)
    for name in SECRETS:
        if name in thing:
            print(f"\nThe {name}; nothing can show it again:\n{thing[name]}")


def say(text: str, style: str = "", *, file: TextIO | None = None) -> None:
    """Print a line, in this style on a terminal. It is no markup, and it is not broken."""
    from rich.text import Text

    console(file).print(Text(text, style), soft_wrap=True)


def number_of(number: int, noun: str) -> str:
    """`1 route`, `2 routes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@contextmanager
def counting(what: str) -> "Iterator[Callable[[int], None]]":
    """A number on stderr that grows while the work goes on, on a terminal; it appears with the second call."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    status = console(sys.stderr).status(what)
    calls = 0

    def told(count: int) -> None:
        nonlocal calls
        calls += 1
        status.update(f"{what}: {count}")
        if calls == 2:
            status.start()

    try:
        yield told
    finally:
        status.stop()


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on stderr, on a terminal, that something may take long."""
    if not sys.stderr.isatty():
        yield
        return
    with console(sys.stderr).status(what):
        yield


def cell(value: Any) -> "Text":
    """A value as plain text: names are chosen by users, and must neither be read as markup nor reach the terminal."""
    from rich.text import Text

    match value:
        case None:
            return Text("-", "dim")
        case bool():
            return Text(str(value).lower())
        case list():
            return Text(_printable(" ".join(map(_short, value))) or "-")
        case dict():
            return Text(_printable(", ".join(f"{name}={_short(item)}" for name, item in value.items())) or "-")
        case _:
            text = _printable(_short(value))
            return Text(text, STYLES.get(text, ""))


def _short(value: Any) -> str:
    """A value as people read it: fractions of milliseconds and microseconds are for programs."""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return FRACTION.sub(r"\1Z", str(value))


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _print(printer: "Console", table: "RenderableType") -> None:
    if printer.is_terminal:
        printer.print(table)
        return
    with printer.capture() as captured:
        printer.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))
