"""`ostiary keys`: make, list, show, rotate and revoke keys."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from gateway.cli.api import read_token
from gateway.cli.failures import told
from gateway.cli.key_doors import KeyDoor, open_direct, open_remote
from gateway.cli.output import Output, OutputOption, log_to_stderr, show_list, show_one
from gateway.configuration import load

T = TypeVar("T")
COLUMNS = ("id", "user_id", "tenant_id", "name", "prefix", "status", "created_at", "last_used_at", "expires_at")

app = typer.Typer(
    help="Keys: make, list, show, rotate, revoke. Either straight on the stores (-c FILE), or by the management API"
    " (--api URL, with an admin token in OSTIARY_ADMIN_TOKEN or on stdin).",
    no_args_is_help=True,
)

ConfigOption = Annotated[Path | None, typer.Option("-c", "--config", help="The configuration: work on its stores.")]
ApiOption = Annotated[str | None, typer.Option("--api", help="URL of the management API: work through it.")]
KeyArgument = Annotated[str, typer.Argument(help="The id of the key.", metavar="KEY_ID")]


@app.command()
def create(
    user: Annotated[str, typer.Option("--user", help="The id of the user who will own it.")],
    name: Annotated[str, typer.Option("--name", help="Its name, unique among the tenant's unrevoked keys.")],
    scope: Annotated[list[str] | None, typer.Option("--scope", help="What it may do. Repeat for more.")] = None,
    environment: Annotated[str | None, typer.Option(help="Where it is valid. Default: the gateway's own.")] = None,
    expires_at: Annotated[
        str | None, typer.Option(help="When it ends: ISO 8601, or seconds since the epoch. Default: never.")
    ] = None,
    operator: Annotated[bool, typer.Option("--operator", help="Make a key that needs no entitlement.")] = False,
    config: ConfigOption = None,
    api: ApiOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a key. Its secret is printed once, and nothing can show it again."""
    wanted: dict[str, Any] = {"user_id": user, "name": name, "scopes": scope or []}
    if environment is not None:
        wanted["environment"] = environment
    if expires_at is not None:
        wanted["expires_at"] = as_moment(expires_at)
    if operator:
        wanted["kind"] = "operator"
    _through(config, api, lambda door: door.create(wanted), lambda key: show_one(key, output))


@app.command("list")
def list_keys(
    user: Annotated[str | None, typer.Option("--user", help="Only this user's.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.")] = None,
    status: Annotated[str | None, typer.Option(help="Only active, revoked or expired ones.")] = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List keys, oldest first."""
    if status not in (None, "active", "revoked", "expired"):
        raise typer.BadParameter("use active, revoked or expired", param_hint="--status")
    named = {"user_id": user, "tenant_id": tenant, "status": status}
    filters = {name: value for name, value in named.items() if value is not None}
    _through(config, api, lambda door: door.list(filters), lambda keys: show_list(keys, COLUMNS, output))


@app.command()
def show(
    key_id: KeyArgument, config: ConfigOption = None, api: ApiOption = None, output: OutputOption = Output.TABLE
) -> None:
    """Show one key."""
    _through(config, api, lambda door: door.show(key_id), lambda key: show_one(key, output))


@app.command()
def rotate(
    key_id: KeyArgument,
    grace_seconds: Annotated[
        int | None,
        typer.Option(help="How long the present secret still works; 0: not at all. Default: keys.grace_seconds."),
    ] = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Give a key a new secret. It is printed once; the present one works on for the grace window."""
    options = {} if grace_seconds is None else {"grace_seconds": grace_seconds}
    _through(config, api, lambda door: door.rotate(key_id, options), lambda key: show_one(key, output))


@app.command()
def revoke(
    key_id: KeyArgument,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Revoke a key and all its secrets, for good. When this is done, no node admits it."""
    options = {} if reason is None else {"reason": reason}
    _through(config, api, lambda door: door.revoke(key_id, options), lambda key: show_one(key, output))


def as_moment(text: str) -> str | float:
    """A moment as the API takes it: a number if it looks like one."""
    with contextlib.suppress(ValueError):
        return float(text)
    return text


def _through(
    config: Path | None, api: str | None, do: Callable[[KeyDoor], Awaitable[T]], tell: Callable[[T], None]
) -> None:
    """Do it through the one door that was named, and tell the result."""
    log_to_stderr()
    if (config is None) == (api is None):
        raise typer.BadParameter("name one of -c FILE (straight on the stores) and --api URL", param_hint="-c, --api")
    door: AbstractAsyncContextManager[KeyDoor]
    if config is not None:
        door = open_direct(load(config))
    else:
        assert api is not None
        door = open_remote(api, read_token())

    async def run() -> T:
        async with door as opened:
            return await do(opened)

    with told():
        tell(asyncio.run(run()))
