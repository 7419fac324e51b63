"""`ostiary keys`: make, list, show, rotate, revoke, contain and verify keys."""

import asyncio
import contextlib
import getpass
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from gateway.cli.api import read_token
from gateway.cli.failures import FAILED, told
from gateway.cli.key_doors import KeyDoor, open_direct, open_remote
from gateway.cli.output import Output, OutputOption, log_to_stderr, show_list, show_one
from gateway.configuration import load

T = TypeVar("T")
COLUMNS = ("id", "user_id", "tenant_id", "name", "prefix", "status", "created_at", "last_used_at", "expires_at")

app = typer.Typer(
    help="Keys: make, list, show, rotate, revoke, contain, verify, import, export. Either straight on the stores"
    " (-c FILE), or by the management API (--api URL, with an admin token in OSTIARY_ADMIN_TOKEN or on stdin).",
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
    through(config, api, lambda door: door.create(wanted), lambda key: show_one(key, output))


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
    through(config, api, lambda door: door.list(filters), lambda keys: show_list(keys, COLUMNS, output))


@app.command()
def show(
    key_id: KeyArgument, config: ConfigOption = None, api: ApiOption = None, output: OutputOption = Output.TABLE
) -> None:
    """Show one key."""
    through(config, api, lambda door: door.show(key_id), lambda key: show_one(key, output))


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
    through(config, api, lambda door: door.rotate(key_id, options), lambda key: show_one(key, output))


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
    through(config, api, lambda door: door.revoke(key_id, options), lambda key: show_one(key, output))


@app.command()
def contain(
    key_id: KeyArgument,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Answer a leak: revoke the key with its tokens and open streams, and tell what it touched. May be repeated."""
    options = {} if reason is None else {"reason": reason}
    through(config, api, lambda door: door.contain(key_id, options), lambda told: _show_contained(told, output))


@app.command()
def usage(
    key_id: KeyArgument,
    since: Annotated[str | None, typer.Option("--since", help="From then on: ISO 8601, or seconds since 1970.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Before then.")] = None,
    step: Annotated[str | None, typer.Option(help="minute, hour, day or month, of UTC. Default: day.")] = None,
    by: Annotated[str | None, typer.Option(help="Tell apart by route, outcome, code: with commas between.")] = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell what a key has used: requests, and bytes of bodies in both directions. Default: the last 31 days."""
    named = {"since": since, "until": until, "step": step, "by": by}
    query = {name: value for name, value in named.items() if value is not None}

    def tell(rows: list[dict[str, Any]]) -> None:
        apart = [name for name in ("route", "outcome", "code") if name in (by or "").split(",")]
        show_list(rows, ("at", *apart, "requests", "received_bytes", "sent_bytes"), output)

    through(config, api, lambda door: door.usage(key_id, query), tell)


def _show_contained(told: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        show_one(told, output)
        return
    touched = told["touched"]
    show_one({**told["key"], "was_revoked": told["was_revoked"], "propagation": told["propagation"]}, output)
    for title, rows, columns in (
        ("Retired secrets, ended with it", touched["retired_secrets"], ("id", "prefix", "retired_at", "expires_at")),
        ("What was done to it, the latest first", _by_actor(touched["audit"]), ("at", "actor", "address", "action")),
        ("Nodes", touched["nodes"] or [], ("id", "version", "revision", "seen_at")),
    ):
        typer.echo(f"\n{title}:{'' if rows else ' none'}")
        if rows:
            show_list(rows, columns, output)


def _by_actor(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**event, "actor": event["actor"]["name"]} for event in events]


@app.command()
def verify(config: ConfigOption = None, api: ApiOption = None, output: OutputOption = Output.TABLE) -> None:
    """Say whether a secret, asked for or read from stdin, would be admitted now; where not, the exit code is 1.

    Where the admin token comes from stdin too, it is the first line and the secret is the second.
    """

    async def ask(door: KeyDoor) -> dict[str, Any]:
        return await door.verify(await asyncio.to_thread(_read_secret))

    verdict = through(config, api, ask, lambda found: show_one(found, output))
    if not verdict["valid"]:
        raise typer.Exit(FAILED)


def _read_secret() -> str:
    """Never from the command line, which others can see."""
    return (getpass.getpass("Secret: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()


def as_moment(text: str) -> str | float:
    """A moment as the API takes it: a number if it looks like one."""
    with contextlib.suppress(ValueError):
        return float(text)
    return text


def through(
    config: Path | None, api: str | None, do: Callable[[KeyDoor], Awaitable[T]], tell: Callable[[T], None]
) -> T:
    """Do it through the one door that was named, tell the result and return it."""
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
        result = asyncio.run(run())
        tell(result)
        return result
