"""`ostiary check`: is this configuration good, and if not, what is wrong with it, all at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.failures import MISTAKEN
from gateway.cli.options import Output, OutputOption
from gateway.cli.output import number_of, say, show_json


def check(
    file: Annotated[Path | None, typer.Argument(help="The configuration to check.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the file.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Check a configuration: exit 0 if it can be used, else 2 with every mistake on stderr.

    With -o json the mistakes are on stdout, each with its place, line and cure.
    """
    from gateway.configuration import ConfigurationError, json_schema, load

    if schema:
        show_json(json_schema())
        return
    if file is None:
        say("Name the file to check, or ask for --schema.", file=sys.stderr)
        raise typer.Exit(MISTAKEN)
    try:
        settings = load(file)
    except ConfigurationError as error:
        if output is Output.JSON:
            mistakes = [
                {"place": one.place, "line": one.line, "what": one.what, "cure": one.cure} for one in error.mistakes
            ]
            show_json({"file": str(file), "ok": False, "mistakes": mistakes})
        else:
            for line in error.lines():
                say(line, "red", file=sys.stderr)
        raise typer.Exit(MISTAKEN) from error
    if output is Output.JSON:
        show_json({"file": str(file), "ok": True, "mistakes": []})
        return
    routes, upstreams = number_of(len(settings.routes), "route"), number_of(len(settings.upstreams), "upstream")
    say(f"{file}: ok ({routes}, {upstreams})", "green")
