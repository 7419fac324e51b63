"""`ostiary audit`: read the audit trail, write it to stdout, and verify that nothing in it was altered."""

import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from gateway.cli.api import Api, read_token, through_api
from gateway.cli.failures import FAILED, told
from gateway.cli.output import Output, OutputOption, log_to_stderr, show_list, show_one

COLUMNS = ("id", "at", "actor", "address", "action", "target", "tenant_id", "outcome")

app = typer.Typer(
    help="The audit trail: list, export, verify, by the management API (--api URL, with an admin token in"
    " OSTIARY_ADMIN_TOKEN or on stdin).",
    no_args_is_help=True,
)

ApiOption = Annotated[str, typer.Option("--api", help="URL of the management API.")]
TenantOption = Annotated[str | None, typer.Option("--tenant", help="Only what is about this tenant.")]
ActorOption = Annotated[str | None, typer.Option("--actor", help="Only what this admin token did; `cli`: commands.")]
TargetOption = Annotated[str | None, typer.Option("--target", help="Only this thing, such as key:key_01k...")]
ActionOption = Annotated[str | None, typer.Option("--action", help="Only this action, such as key.revoke.")]
SinceOption = Annotated[str | None, typer.Option("--since", help="From then on: ISO 8601, or seconds since the epoch.")]
UntilOption = Annotated[str | None, typer.Option("--until", help="Before then.")]


@app.command("list")
def list_events(
    api: ApiOption,
    tenant: TenantOption = None,
    actor: ActorOption = None,
    target: TargetOption = None,
    action: ActionOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List events, oldest first."""
    query = _query(tenant_id=tenant, actor=actor, target=target, action=action, since=since, until=until)

    async def tell(opened: Api) -> None:
        events = await opened.listing("/v1/audit", query)
        if output is Output.TABLE:
            events = [{**event, "actor": event["actor"]["name"]} for event in events]
        show_list(events, COLUMNS, output)

    _through(api, tell)


@app.command()
def export(
    api: ApiOption,
    tenant: TenantOption = None,
    actor: ActorOption = None,
    target: TargetOption = None,
    action: ActionOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
) -> None:
    """Write events to stdout, oldest first, each as a line of JSON. One that is cut off ends in an error."""
    query = _query(tenant_id=tenant, actor=actor, target=target, action=action, since=since, until=until)

    async def write(opened: Api) -> None:
        async for line in opened.lines("/v1/audit/export", query):
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()

    _through(api, write)


@app.command()
def verify(api: ApiOption, output: OutputOption = Output.TABLE) -> None:
    """Look whether an event was altered, taken out or put in later; then the exit code is 1."""

    async def tell(opened: Api) -> bool:
        verdict = await opened.call("GET", "/v1/audit/verify")
        show_one(verdict, output)
        return bool(verdict["intact"])

    if not _through(api, tell):
        raise typer.Exit(FAILED)


def _query(**filters: str | None) -> dict[str, str]:
    return {name: value for name, value in filters.items() if value is not None}


def _through(url: str, do: Callable[[Api], Awaitable[Any]]) -> Any:
    log_to_stderr()
    token = read_token()
    with told():
        return through_api(url, token, do)
