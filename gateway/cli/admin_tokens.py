"""`ostiary admin-token`: make, list and revoke the tokens of the management API, straight in the database."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gateway.cli.failures import told
from gateway.cli.options import NeededConfigOption, Output, OutputOption, as_moment
from gateway.cli.output import log_to_stderr, show_list, show_one

if TYPE_CHECKING:
    from gateway.control.admin_tokens import AdminTokens
    from gateway.settings import Settings

COLUMNS = ("id", "name", "role", "tenant_id", "prefix", "status", "created_at", "expires_at", "last_used_at")

RoleName = Literal["operator", "tenant-admin", "auditor"]

app = typer.Typer(
    help="Tokens of the management API: make, list, revoke, straight in the database.",
    epilog="Example: `ostiary admin-token create --name me --role operator -c gateway.yaml`",
    no_args_is_help=True,
)


@app.command()
def create(
    config: NeededConfigOption,
    name: Annotated[str, typer.Option("--name", help="Who or what will use it.")],
    role: Annotated[RoleName, typer.Option("--role", help="operator: all; tenant-admin: one tenant; auditor: reads.")],
    tenant: Annotated[str | None, typer.Option("--tenant", help="The tenant of a tenant-admin.")] = None,
    expires_at: Annotated[
        str | None, typer.Option(help="When it ends: ISO 8601, or seconds since the epoch. Default: never.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a token. It is printed once, and nothing can show it again."""
    wanted: dict[str, Any] = {"name": name, "role": role, "tenant_id": tenant}
    if expires_at is not None:
        wanted["expires_at"] = as_moment(expires_at)

    async def make(tokens: "AdminTokens") -> None:
        from gateway.control.admin_tokens import Role, shown
        from gateway.control.bodies import NewAdminToken, parse_body

        body = parse_body(json.dumps(wanted).encode(), NewAdminToken)
        row, token = await tokens.create(
            name=body.name, role=Role(role), tenant_id=body.tenant_id, expires_at=body.expires_at
        )
        show_one({**shown(row), "token": token}, output)

    _on(config, make)


@app.command("list")
def list_tokens(config: NeededConfigOption, output: OutputOption = Output.TABLE) -> None:
    """List tokens, oldest first."""

    async def tell(tokens: "AdminTokens") -> None:
        from gateway.control.admin_tokens import shown

        show_list([shown(row) for row in await tokens.list()], COLUMNS, output)

    _on(config, tell)


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(help="The id of the token.", metavar="TOKEN_ID")],
    config: NeededConfigOption,
    output: OutputOption = Output.TABLE,
) -> None:
    """Revoke a token, for good: the next call with it is refused."""

    async def end(tokens: "AdminTokens") -> None:
        from gateway.control.admin_tokens import shown

        show_one(shown(await tokens.revoke(token_id)), output)

    _on(config, end)


def _on(config: Path, do: "Callable[[AdminTokens], Awaitable[None]]") -> None:
    import asyncio

    from gateway.configuration import load

    log_to_stderr()
    settings = load(config)
    with told():
        asyncio.run(_run(settings, do))


async def _run(settings: "Settings", do: "Callable[[AdminTokens], Awaitable[None]]") -> None:
    from gateway.control.admin_tokens import AdminTokens
    from gateway.stores.postgres.connection import Postgres
    from gateway.stores.postgres.migrate import check_schema
    from gateway.telemetry.metrics import Metrics

    postgres = Postgres(settings.postgres.dsn.get_secret_value(), pool_size=1, metrics=Metrics())
    await postgres.open()
    try:
        await check_schema(postgres)
        await do(AdminTokens(postgres))
    finally:
        await postgres.close()
