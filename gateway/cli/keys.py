"""`ostiary keys`: make, list, show, rotate, revoke, contain and verify keys."""

from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer

from gateway.cli.doors import Door, ask_secret, through
from gateway.cli.failures import FAILED
from gateway.cli.options import (
    EITHER_DOOR,
    ApiOption,
    ConfigOption,
    Output,
    OutputOption,
    ReasonOption,
    SinceOption,
    TenantOption,
    TokenFileOption,
    UntilOption,
    UserOption,
    as_moment,
    named,
)
from gateway.cli.output import show_list, show_one, show_rows

COLUMNS = ("id", "user_id", "tenant_id", "name", "prefix", "status", "created_at", "last_used_at", "expires_at")
RETIRED_COLUMNS = ("id", "prefix", "retired_at", "expires_at")
NODE_COLUMNS = ("id", "version", "revision", "seen_at")
KeyStatus = Literal["active", "revoked", "expired"]

app = typer.Typer(
    help=f"Keys: make, list, show, rotate, revoke, contain, verify, import, export.\n\n{EITHER_DOOR}",
    epilog="Example: `ostiary keys create --user ada --name ci --scope orders:read -c gateway.yaml`",
    no_args_is_help=True,
)

KeyArgument = Annotated[str, typer.Argument(help="The id of the key.", metavar="KEY_ID")]


@app.command(epilog="Example: `ostiary keys create --user ada --name ci --scope orders:read -c gateway.yaml`")
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
    token_file: TokenFileOption = None,
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
    through(
        Door(config, api, token_file),
        lambda opened: opened.call("POST", "/v1/keys", body=wanted),
        lambda key: show_one(key, output),
    )


@app.command("list", epilog="Example: `ostiary keys list --tenant acme --status active -o json -c gateway.yaml`")
def list_keys(
    user: UserOption = None,
    tenant: TenantOption = None,
    status: Annotated[KeyStatus | None, typer.Option(help="Only active, revoked or expired ones.")] = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List keys, oldest first."""
    filters = named(user_id=user, tenant_id=tenant, status=status)
    through(
        Door(config, api, token_file),
        lambda opened: opened.listing("/v1/keys", filters),
        lambda keys: show_list(keys, COLUMNS, output),
    )


@app.command()
def show(
    key_id: KeyArgument,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one key."""
    through(
        Door(config, api, token_file),
        lambda opened: opened.call("GET", _path(key_id)),
        lambda key: show_one(key, output),
    )


@app.command(epilog="Example: `ostiary keys rotate key_01k... --grace-seconds 3600 -c gateway.yaml`")
def rotate(
    key_id: KeyArgument,
    grace_seconds: Annotated[
        int | None,
        typer.Option(help="How long the present secret still works; 0: not at all. Default: keys.grace_seconds."),
    ] = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Give a key a new secret. It is printed once; the present one works on for the grace window."""
    options = {} if grace_seconds is None else {"grace_seconds": grace_seconds}
    through(
        Door(config, api, token_file),
        lambda opened: opened.call("POST", _path(key_id, "rotate"), body=options),
        lambda key: show_one(key, output),
    )


@app.command(epilog="Example: `ostiary keys revoke key_01k... --reason 'project ended' -c gateway.yaml`")
def revoke(
    key_id: KeyArgument,
    reason: ReasonOption = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Revoke a key and all its secrets, for good. When this is done, no node admits it."""
    through(
        Door(config, api, token_file),
        lambda opened: opened.call("POST", _path(key_id, "revoke"), body=named(reason=reason)),
        lambda key: show_one(key, output),
    )


@app.command(epilog="Example: `ostiary keys contain key_01k... --reason 'in a public repository' -c gateway.yaml`")
def contain(
    key_id: KeyArgument,
    reason: ReasonOption = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Answer a leak: revoke the key with its tokens and open streams, and tell what it touched. May be repeated."""
    through(
        Door(config, api, token_file),
        lambda opened: opened.call("POST", _path(key_id, "contain"), body=named(reason=reason)),
        lambda told: _show_contained(told, output),
    )


@app.command(epilog="Example: `ostiary keys usage key_01k... --step hour --by route,outcome -c gateway.yaml`")
def usage(
    key_id: KeyArgument,
    since: SinceOption = None,
    until: UntilOption = None,
    step: Annotated[str | None, typer.Option(help="minute, hour, day or month, of UTC. Default: day.")] = None,
    by: Annotated[str | None, typer.Option(help="Tell apart by route, outcome, code: with commas between.")] = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell what a key has used: requests, and bytes of bodies in both directions. Default: the last 31 days."""
    query = named(since=since, until=until, step=step, by=by)

    def tell(rows: list[dict[str, Any]]) -> None:
        apart = [name for name in ("route", "outcome", "code") if name in (by or "").split(",")]
        show_list(rows, ("at", *apart, "requests", "received_bytes", "sent_bytes"), output)

    through(Door(config, api, token_file), lambda opened: opened.listing(_path(key_id, "usage"), query), tell)


@app.command(epilog="Example: `ostiary keys verify -c gateway.yaml < secret.txt`")
def verify(
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say whether a secret, asked for or read from stdin, would be admitted now; where not, the exit code is 1.

    Where the admin token comes from stdin too, it is the first line and the secret is the second.
    """
    body: dict[str, str] = {}
    verdict = through(
        Door(config, api, token_file),
        lambda opened: opened.call("POST", "/v1/keys/verify", body=body),
        lambda found: show_one(found, output),
        first=lambda: body.update(secret=ask_secret("Secret")),
    )
    if not verdict["valid"]:
        raise typer.Exit(FAILED)


def _path(key_id: str, act: str = "") -> str:
    return f"/v1/keys/{quote(key_id, safe='')}" + (f"/{act}" if act else "")


def _show_contained(told: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        show_one(told, output)
        return
    touched = told["touched"]
    show_one({**told["key"], "was_revoked": told["was_revoked"], "propagation": told["propagation"]}, output)
    for title, rows, columns in (
        ("Retired secrets, ended with it", touched["retired_secrets"], RETIRED_COLUMNS),
        ("What was done to it, the latest first", _by_actor(touched["audit"]), ("at", "actor", "address", "action")),
        ("Nodes", touched["nodes"] or [], NODE_COLUMNS),
    ):
        print(f"\n{title}:{'' if rows else ' none'}")
        if rows:
            show_rows(rows, columns)


def _by_actor(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**event, "actor": event["actor"]["name"]} for event in events]
