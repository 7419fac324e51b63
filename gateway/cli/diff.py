"""`ostiary diff`: what changes, and for whom, from one configuration to another, in terms of who gets in."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gateway.cli.failures import MISTAKEN
from gateway.cli.options import Output, OutputOption
from gateway.cli.output import say, show_json, show_rows

if TYPE_CHECKING:
    from gateway.cli.difference import Change
    from gateway.settings import Settings

CHANGED: Final = 3  # not 1: a deployment must tell "there are changes" from "it failed"


def diff(
    old: Annotated[Path, typer.Argument(help="The configuration as it is.", metavar="OLD")],
    new: Annotated[Path, typer.Argument(help="The configuration as it is to be.", metavar="NEW")],
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit code 3 where there are changes.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell what changes from OLD to NEW, and for whom: what opens something, what closes something, and the rest.

    Order, defaults that are written out and other spellings of the same are no changes. Secrets are compared and never
    shown. Exit code 0; 2 where a file has mistakes; with --exit-code 3 where there are changes.
    """
    before, after = _both(old, new)
    from gateway.cli.difference import Danger, changes

    found = changes(before, after)
    if output is Output.JSON:
        summary = {danger.value: sum(one.danger is danger for one in found) for danger in Danger}
        show_json({"changes": [one.shown() for one in found], "summary": summary})
    else:
        _show(found)
    if found and exit_code:
        raise typer.Exit(CHANGED)


def _both(old: Path, new: Path) -> "tuple[Settings, Settings]":
    """Both configurations, or every mistake of both."""
    import sys

    from gateway.configuration import ConfigurationError, load

    read, mistakes = [], []
    for file in (old, new):
        try:
            read.append(load(file))
        except ConfigurationError as error:
            mistakes += error.lines()
    if mistakes:
        for line in mistakes:
            say(line, "red", file=sys.stderr)
        raise typer.Exit(MISTAKEN)
    return read[0], read[1]


def _show(found: "list[Change]") -> None:
    if not found:
        say("nothing changes in effect", "green")
        return
    show_rows(
        [{"danger": one.danger.value, "for whom": one.whom, "what": one.text} for one in found],
        ("danger", "for whom", "what"),
    )
