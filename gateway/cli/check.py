"""`ostiary check`: is this configuration good, and if not, what is wrong with it, all at once."""

import json
from pathlib import Path
from typing import Annotated

import typer

from gateway.configuration import ConfigurationError, json_schema, load


def check(
    file: Annotated[Path | None, typer.Argument(help="The configuration to check.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the file.")] = False,
) -> None:
    """Check a configuration: exit 0 if it can be used, else 2 with every mistake on stderr.

    Settings that this version does not act on are told as warnings on stderr; they do not fail the check.
    """
    if schema:
        typer.echo(json.dumps(json_schema(), indent=2))
        return
    if file is None:
        typer.echo("Name the file to check, or ask for --schema.", err=True)
        raise typer.Exit(2)
    try:
        settings = load(file)
    except ConfigurationError as error:
        for line in error.lines():
            typer.echo(line, err=True)
        raise typer.Exit(2) from error
    routes, upstreams = _count(len(settings.routes), "route"), _count(len(settings.upstreams), "upstream")
    typer.echo(f"{file}: ok ({routes}, {upstreams})")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
