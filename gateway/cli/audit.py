"""`ostiary audit`: read the audit trail, write it to stdout, and verify that nothing in it was altered."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.doors import Door, through
from gateway.cli.failures import FAILED
from gateway.cli.options import (
    EITHER_DOOR,
    ApiOption,
    ConfigOption,
    Output,
    OutputOption,
    SinceOption,
    TokenFileOption,
    UntilOption,
    named,
)
from gateway.cli.output import show_list, show_one, waiting

if TYPE_CHECKING:
    from gateway.cli.api import Api

COLUMNS = ("id", "at", "actor", "address", "action", "target", "tenant_id", "outcome")

app = typer.Typer(
    help=f"The audit trail: list, export, verify.\n\n{EITHER_DOOR}",
    epilog="Example: `ostiary audit list --target key:key_01k... -c gateway.yaml`",
    no_args_is_help=True,
)

AboutOption = Annotated[str | None, typer.Option("--tenant", help="Only what is about this tenant.")]
ActorOption = Annotated[str | None, typer.Option("--actor", help="Only what this admin token did; `cli`: commands.")]
TargetOption = Annotated[str | None, typer.Option("--target", help="Only this thing, such as key:key_01k...")]
ActionOption = Annotated[str | None, typer.Option("--action", help="Only this action, such as key.revoke.")]


@app.command("list", epilog="Example: `ostiary audit list --action key.revoke --since 2026-01-31T00:00:00Z -c F`")
def list_events(
    tenant: AboutOption = None,
    actor: ActorOption = None,
    target: TargetOption = None,
    action: ActionOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List events, oldest first."""
    query = named(tenant_id=tenant, actor=actor, target=target, action=action, since=since, until=until)

    def tell(events: list[dict[str, Any]]) -> None:
        if output is Output.TABLE:
            events = [{**event, "actor": event["actor"]["name"]} for event in events]
        show_list(events, COLUMNS, output)

    through(Door(config, api, token_file), lambda opened: opened.listing("/v1/audit", query), tell)


@app.command(epilog="Example: `ostiary audit export --since 2026-01-01T00:00:00Z -c gateway.yaml > audit.jsonl`")
def export(
    tenant: AboutOption = None,
    actor: ActorOption = None,
    target: TargetOption = None,
    action: ActionOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Write events to stdout, oldest first, each as a line of JSON. One that is cut off ends in an error."""
    query = named(tenant_id=tenant, actor=actor, target=target, action=action, since=since, until=until)

    async def write(opened: "Api") -> None:
        async for line in opened.lines("/v1/audit/export", query):
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()

    through(Door(config, api, token_file), write, lambda _: None)


@app.command()
def verify(
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Look whether an event was altered, taken out or put in later; then the exit code is 1."""

    async def do(opened: "Api") -> dict[str, Any]:
        from gateway.cli.api import LONG_CALL_SECONDS

        with waiting("reading every event"):
            return await opened.call("GET", "/v1/audit/verify", seconds=LONG_CALL_SECONDS)

    verdict = through(Door(config, api, token_file), do, lambda found: show_one(found, output))
    if not verdict["intact"]:
        raise typer.Exit(FAILED)
