"""`ostiary doctor`: what an operator would look at when it does not work, a line each, with the next step."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.failures import FAILED
from gateway.cli.options import Output, OutputOption
from gateway.cli.output import cell, console, log_to_stderr, show_json, waiting

if TYPE_CHECKING:
    from gateway.cli.examination import Finding


def doctor(
    config: Annotated[Path, typer.Option("-c", "--config", help="The configuration to look after.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Look at everything that the gateway needs: a line each, ok, warning or failed, with what to do next.

    Configuration, PostgreSQL, schema, clocks, nodes, signing keys, Redis, ports, upstreams, sign-in, certificates,
    trusted proxies, open files. Nothing is changed. Exit code 0 where nothing failed (warnings do not count), else 1.
    """
    log_to_stderr(is_silent=True)  # what fails is told as a finding
    from gateway.cli.examination import Status, examined

    with waiting("looking at everything"):
        found = examined(config)
    if output is Output.JSON:
        summary = {status.value: sum(one.status is status for one in found) for status in Status}
        show_json({"checks": [one.shown() for one in found], "summary": summary})
    else:
        _show(found)
    if any(one.status is Status.FAILED for one in found):
        raise typer.Exit(FAILED)


def _show(found: "list[Finding]") -> None:
    from rich.text import Text

    printer = console()
    width = max(len(one.check) for one in found)
    for one in found:
        line = Text.assemble(cell(one.status.value), " " * (9 - len(one.status.value)), f"{one.check:<{width}}  ")
        printer.print(line.append_text(cell(one.text)), soft_wrap=True)
        if one.next_step is not None:
            printer.print(Text(f"{'':9}{'':<{width}}  -> {one.next_step}", "bold"), soft_wrap=True)
