"""`ostiary nodes`: the fleet, as it reports itself, and as its status listeners tell it."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gateway.cli.doors import Door, through
from gateway.cli.options import ApiOption, ConfigOption, Output, OutputOption, TokenFileOption
from gateway.cli.output import show_json, show_rows

if TYPE_CHECKING:
    from gateway.cli.api import Api

COLUMNS = ("id", "state", "revision", "behind", "view_age_seconds", "seen_seconds_ago", "version", "started_at")
STATUS_COLUMNS = ("url", "state", "revision", "view_age_seconds", "failing", "down")
SILENT_SECONDS: Final = 5.0  # a node reports every second


def nodes(
    status: Annotated[
        list[str] | None,
        typer.Option("--status", metavar="URL", help="Ask this status listener, too. Repeat for more."),
    ] = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the fleet: which nodes there are, how far each knows of changes, and whether it may trust what it knows.

    `state`: fresh, stale (it trusts no cached answer until it has heard of changes again), blind (it has heard of none
    yet), silent (no report for 5 seconds: it is stuck, cut off from PostgreSQL, or dead). With --status: whether a node
    is ready, and which of the things that it depends on are down, by its status listener (`listen.status`).
    """

    async def do(opened: "Api") -> dict[str, Any]:
        rows = await opened.listing("/v1/nodes", {})
        found: dict[str, Any] = {"items": _judged(rows, _bound_seconds(config))}
        if status:
            from gateway.cli.status import statuses_at

            found["status"] = await statuses_at(status)
        return found

    def tell(found: dict[str, Any]) -> None:
        if output is Output.JSON:
            show_json(found)
            return
        show_rows(found["items"], COLUMNS)
        if "status" in found:
            print()
            show_rows([_flat(one) for one in found["status"]], STATUS_COLUMNS)

    through(Door(config, api, token_file), do, tell)


def _bound_seconds(config: Any) -> float:
    from gateway.configuration import load
    from gateway.settings import CacheSettings

    return CacheSettings().bound_seconds if config is None else load(config).cache.bound_seconds


def _judged(rows: list[dict[str, Any]], bound_seconds: float) -> list[dict[str, Any]]:
    latest = max((row["revision"] for row in rows), default=0)
    return [{**row, "state": _state(row, bound_seconds), "behind": latest - row["revision"]} for row in rows]


def _state(row: dict[str, Any], bound_seconds: float) -> str:
    if row["seen_seconds_ago"] > SILENT_SECONDS:
        return "silent"
    age_seconds = row["view_age_seconds"]
    if age_seconds is None:
        return "blind"
    return "fresh" if age_seconds <= bound_seconds else "stale"


def _flat(told: dict[str, Any]) -> dict[str, Any]:
    """The row of a table: only what is not well is named."""
    failing = [name for name, is_well in told["checks"].items() if not is_well]
    down = [name for name, is_up in told["dependencies"].items() if not is_up]
    return {**told, "failing": failing, "down": down}
