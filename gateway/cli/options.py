"""Options that many commands have, spelled once. Must not import what costs a start its time."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Output(StrEnum):
    """The formats."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print the result.")]
ConfigOption = Annotated[Path | None, typer.Option("-c", "--config", help="The configuration: work on its stores.")]
NeededConfigOption = Annotated[Path, typer.Option("-c", "--config", help="The configuration: work on its stores.")]
ApiOption = Annotated[
    str | None, typer.Option("--api", metavar="URL", help="URL of the management API: work through it.")
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file", help="A file with the admin token for --api. Default: OSTIARY_ADMIN_TOKEN, or a line of stdin."
    ),
]
SinceOption = Annotated[str | None, typer.Option("--since", help="From then on: ISO 8601, or seconds since 1970.")]
UntilOption = Annotated[str | None, typer.Option("--until", help="Before then.")]
TenantOption = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.")]
UserOption = Annotated[str | None, typer.Option("--user", help="Only this user's.")]
ReasonOption = Annotated[str | None, typer.Option(help="Why, for the record.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
EITHER_DOOR = (
    "Either straight on the stores (-c FILE), or by the management API (--api URL, with an admin token in"
    " OSTIARY_ADMIN_TOKEN, in --token-file or on stdin)."
)


def as_moment(text: str) -> str | float:
    """A moment as the API takes it: a number if it looks like one."""
    try:
        return float(text)
    except ValueError:
        return text


def named(**values: str | None) -> dict[str, str]:
    """Those that were given."""
    return {name: value for name, value in values.items() if value is not None}
