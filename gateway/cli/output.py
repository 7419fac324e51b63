"""How a command tells what it did: a table for people, JSON for programs. Secrets go to stdout alone, once."""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.telemetry.logs import write_logs

WIDE = 240  # for a pipe, which has no width: rather a long line than a cut id


def log_to_stderr() -> None:
    """Send warnings to stderr, and nothing else: stdout is the result."""
    write_logs(sys.stderr, level=logging.WARNING)


class Output(StrEnum):
    """The formats."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print the result.")]


def show_list(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], output: Output) -> None:
    """Print rows; a table shows these `columns` alone, JSON all there is."""
    if output is Output.JSON:
        typer.echo(json.dumps({"items": list(rows)}, indent=2))
        return
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    _print(table)


def show_one(thing: Mapping[str, Any], output: Output) -> None:
    """Print one object. Its secret, if it has one, stands alone on the last line of a table's output."""
    if output is Output.JSON:
        typer.echo(json.dumps(thing, indent=2))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in thing.items():
        if name not in {"secret", "token"}:
            table.add_row(name, _cell(value))
    _print(table)
    for name in ("secret", "token"):
        if name in thing:
            typer.echo(f"\nThe {name}; nothing can show it again:\n{thing[name]}")


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def _cell(value: Any) -> Text:
    """A value as plain text: names are chosen by users, and must not be read as markup."""
    match value:
        case None:
            return Text("-")
        case list():
            return Text(" ".join(str(item) for item in value) or "-")
        case dict():
            return Text(", ".join(f"{name}={item}" for name, item in value.items()))
        case _:
            return Text(str(value))
