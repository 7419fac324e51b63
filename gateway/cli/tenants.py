"""`ostiary tenants`: list, show, create, suspend, activate and delete organisations, and close them for new keys."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from gateway.cli.doors import Door, confirm, through
from gateway.cli.options import EITHER_DOOR, ApiOption, ConfigOption, Output, OutputOption, TokenFileOption, YesOption
from gateway.cli.output import show_list, show_one, waiting
from gateway.cli.users import deleted

if TYPE_CHECKING:
    from gateway.cli.api import Api

COLUMNS = ("id", "name", "status", "issuance", "created_at")

app = typer.Typer(
    help="Tenants, the organisations that own users: list, show, create, suspend, activate, delete; whether they get"
    f" new keys.\n\n{EITHER_DOOR}",
    epilog="Example: `ostiary tenants create acme --name 'Acme Inc.' -c gateway.yaml`",
    no_args_is_help=True,
)


class IssuanceWord(StrEnum):
    """What can be set for a tenant."""

    OPEN = "open"
    CLOSED = "closed"
    CONFIGURED = "configured"


TenantArgument = Annotated[str, typer.Argument(help="The id of the tenant.", metavar="TENANT_ID")]


@app.command("list")
def list_tenants(
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List tenants, by their ids."""
    through(
        Door(config, api, token_file),
        lambda opened: opened.listing("/v1/tenants", {}),
        lambda tenants: show_list(tenants, COLUMNS, output),
    )


@app.command()
def show(
    tenant_id: TenantArgument,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show a tenant."""
    through(
        Door(config, api, token_file),
        lambda opened: opened.call("GET", _path(tenant_id)),
        lambda tenant: show_one(tenant, output),
    )


@app.command(epilog="Example: `ostiary tenants create acme --name 'Acme Inc.' -c gateway.yaml`")
def create(
    tenant_id: TenantArgument,
    name: Annotated[str, typer.Option("--name", help="How to call it.")],
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a tenant."""
    through(
        Door(config, api, token_file),
        lambda opened: opened.call("POST", "/v1/tenants", body={"id": tenant_id, "name": name}),
        lambda tenant: show_one(tenant, output),
    )


@app.command()
def suspend(
    tenant_id: TenantArgument,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Refuse all credentials of a tenant, until it is activated. When this is done, no node admits one."""
    _change(tenant_id, {"status": "suspended"}, Door(config, api, token_file), output)


@app.command()
def activate(
    tenant_id: TenantArgument,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Admit the credentials of a suspended tenant again."""
    _change(tenant_id, {"status": "active"}, Door(config, api, token_file), output)


@app.command(epilog="Example: `ostiary tenants issuance acme closed -c gateway.yaml`")
def issuance(
    tenant_id: TenantArgument,
    word: Annotated[IssuanceWord, typer.Argument(help="`configured`: as `keys.issuance` says.", metavar="ISSUANCE")],
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say whether a tenant's users get new API keys. Those that there are can be rotated and revoked all the same."""
    chosen = None if word is IssuanceWord.CONFIGURED else word.value
    _change(tenant_id, {"issuance": chosen}, Door(config, api, token_file), output)


@app.command()
def delete(
    tenant_id: TenantArgument,
    yes: YesOption = False,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete a tenant with its users, keys and admin tokens, for good. One that was cut off is finished by a repeat."""
    confirm(f"Delete tenant {tenant_id} with its users, keys and admin tokens?", is_agreed=yes)

    async def do(opened: "Api") -> None:
        from gateway.cli.api import LONG_CALL_SECONDS

        with waiting(f"deleting {tenant_id}, 200 users at a time"):
            await opened.call("DELETE", _path(tenant_id), seconds=LONG_CALL_SECONDS)

    through(Door(config, api, token_file), do, lambda _: deleted("tenant", tenant_id, output))


def _change(tenant_id: str, change: dict[str, str | None], door: Door, output: Output) -> None:
    through(
        door,
        lambda opened: opened.call("PATCH", _path(tenant_id), body=change),
        lambda tenant: show_one(tenant, output),
    )


def _path(tenant_id: str) -> str:
    return f"/v1/tenants/{quote(tenant_id, safe='')}"
