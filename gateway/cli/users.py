"""`ostiary users`: list, show, put, delete and entitle the users that own keys."""

from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import typer

from gateway.cli.doors import Door, confirm, through
from gateway.cli.options import (
    EITHER_DOOR,
    ApiOption,
    ConfigOption,
    Output,
    OutputOption,
    TenantOption,
    TokenFileOption,
    YesOption,
    as_moment,
    named,
)
from gateway.cli.output import say, show_json, show_list, show_one, waiting

if TYPE_CHECKING:
    from gateway.cli.api import Api

COLUMNS = ("id", "tenant_id", "display_name", "roles", "groups", "status", "created_at")
ENTITLEMENT = ("plan", "features", "limits", "valid_until")
Status = Literal["active", "suspended"]

app = typer.Typer(
    help=f"Users, who own keys: list, show, put, delete, entitle.\n\n{EITHER_DOOR}",
    epilog="Example: `ostiary users put ada --tenant acme --name Ada -c gateway.yaml`",
    no_args_is_help=True,
)

UserArgument = Annotated[str, typer.Argument(help="The id of the user.", metavar="USER_ID")]


@app.command("list", epilog="Example: `ostiary users list --tenant acme -c gateway.yaml`")
def list_users(
    tenant: TenantOption = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List users, by their ids."""
    filters = named(tenant_id=tenant)
    through(
        Door(config, api, token_file),
        lambda opened: opened.listing("/v1/users", filters),
        lambda users: show_list(users, COLUMNS, output),
    )


@app.command()
def show(
    user_id: UserArgument,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show a user, and what it is entitled to."""

    async def do(opened: "Api") -> dict[str, Any]:
        user = await opened.call("GET", _path(user_id))
        return {**user, "entitlement": await opened.find(_path(user_id, "entitlement"))}

    def tell(user: dict[str, Any]) -> None:
        if output is Output.TABLE:
            given = user.pop("entitlement") or {}
            user = {**user, **{f"entitlement.{name}": given.get(name) for name in ENTITLEMENT}}
        show_one(user, output)

    through(Door(config, api, token_file), do, tell)


@app.command(epilog="Example: `ostiary users put ada --status suspended -c gateway.yaml`")
def put(
    user_id: UserArgument,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Its tenant, for good. A new user needs one.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="How to call it.")] = None,
    role: Annotated[list[str] | None, typer.Option("--role", help="A role. Repeat for more; '' for none.")] = None,
    group: Annotated[list[str] | None, typer.Option("--group", help="A group. Repeat for more; '' for none.")] = None,
    status: Annotated[Status | None, typer.Option(help="Whether its keys are admitted.")] = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a user, or change one: what is left out stays as it is. Suspending refuses all its keys at once."""
    asked = {
        "tenant_id": tenant,
        "display_name": name,
        "roles": None if role is None else [one for one in role if one],
        "groups": None if group is None else [one for one in group if one],
        "status": status,
    }

    async def do(opened: "Api") -> dict[str, Any]:
        found = await opened.find(_path(user_id)) or {}
        body = {field: found.get(field) if value is None else value for field, value in asked.items()}
        if body["tenant_id"] is None:
            raise typer.BadParameter("there is no such user yet: name its tenant", param_hint="--tenant")
        given = {field: value for field, value in body.items() if value is not None}
        return await opened.call("PUT", _path(user_id), body=given)

    through(Door(config, api, token_file), do, lambda user: show_one(user, output))


@app.command(epilog="Example: `ostiary users entitle ada --plan pro --limit per_minute=600 -c gateway.yaml`")
def entitle(
    user_id: UserArgument,
    plan: Annotated[str, typer.Option("--plan", help="The plan that it has.")],
    feature: Annotated[
        list[str] | None, typer.Option("--feature", help="NAME=VALUE over the plan's: true, false, a number or a text.")
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", help="WINDOW=N over the plan's, such as per_minute=600; -1: none.")
    ] = None,
    valid_until: Annotated[
        str | None, typer.Option(help="When it ends: ISO 8601, or seconds since the epoch. Default: never.")
    ] = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Entitle a user to a plan, in place of what it was entitled to. Its keys follow at once, on every node."""
    body: dict[str, Any] = {
        "plan": plan,
        "features": dict(_pair(one, "--feature") for one in feature or []),
        "limits": dict(_pair(one, "--limit") for one in limit or []),
    }
    if valid_until is not None:
        body["valid_until"] = as_moment(valid_until)
    through(
        Door(config, api, token_file),
        lambda opened: opened.call("PUT", _path(user_id, "entitlement"), body=body),
        lambda entitlement: show_one(entitlement, output),
    )


@app.command()
def delete(
    user_id: UserArgument,
    yes: YesOption = False,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete a user with its entitlement and its keys, for good. When this is done, no node admits them."""
    confirm(f"Delete user {user_id} with its entitlement and its keys?", is_agreed=yes)

    async def do(opened: "Api") -> None:
        with waiting(f"deleting {user_id}"):
            await opened.call("DELETE", _path(user_id))

    through(Door(config, api, token_file), do, lambda _: deleted("user", user_id, output))


def deleted(kind: str, name: str, output: Output) -> None:
    """Say that it is gone."""
    if output is Output.JSON:
        show_json({"deleted": {"kind": kind, "id": name}})
    else:
        say(f"deleted {kind} {name}")


def _path(user_id: str, part: str = "") -> str:
    return f"/v1/users/{quote(user_id, safe='')}" + (f"/{part}" if part else "")


def _pair(text: str, option: str) -> tuple[str, bool | int | str]:
    """NAME=VALUE, the value read as the configuration would read it."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise typer.BadParameter("write NAME=VALUE", param_hint=option)
    if value in ("true", "false"):
        return name, value == "true"
    try:
        return name, int(value)
    except ValueError:
        return name, value
