"""`ostiary signing-keys`: list, rotate and withdraw the keys that sign access tokens, straight on the stores."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.auth.signing import Sealer
from gateway.cli.failures import told
from gateway.cli.key_doors import by_command, open_stores
from gateway.cli.output import Output, OutputOption, log_to_stderr, show_list
from gateway.configuration import load
from gateway.control.signing_keys import Rows, SigningKeys, shown
from gateway.settings import Settings, TokenSettings
from gateway.telemetry.metrics import Metrics

COLUMNS = ("id", "state", "created_at", "activated_at", "replaced_at", "retired_at")

app = typer.Typer(help="The keys that sign access tokens: list, rotate, withdraw.", no_args_is_help=True)

ConfigOption = Annotated[Path, typer.Option("-c", "--config", help="The configuration: work on its stores.")]


@app.command("list")
def list_keys(config: ConfigOption, output: OutputOption = Output.TABLE) -> None:
    """List signing keys, oldest first. Private parts are never shown."""
    _on(config, lambda keys: keys.list(), output)


@app.command()
def rotate(config: ConfigOption, output: OutputOption = Output.TABLE) -> None:
    """Let the next key sign from now on. What the present one has signed stays good until it ends."""
    _on(config, lambda keys: keys.rotate(), output)


@app.command()
def withdraw(
    key_id: Annotated[str, typer.Argument(help="The id of the signing key.", metavar="SIGNING_KEY_ID")],
    config: ConfigOption,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let nobody believe a key any more, for good. When this is done, no node accepts what it has signed."""
    _on(config, lambda keys: keys.withdraw(key_id), output)


def _on(config: Path, do: Callable[[SigningKeys], Awaitable[Rows]], output: Output) -> None:
    log_to_stderr()
    settings = load(config)
    if settings.tokens is None:
        raise typer.BadParameter("this configuration has no `tokens`", param_hint="-c")
    with told():
        rows = asyncio.run(_run(settings, settings.tokens, do))
        listed: list[dict[str, Any]] = [shown(row) for row in rows]
        show_list(listed, COLUMNS, output)


async def _run(settings: Settings, tokens: TokenSettings, do: Callable[[SigningKeys], Awaitable[Rows]]) -> Rows:
    async with open_stores(settings, Metrics()) as (postgres, mutations):
        keys = SigningKeys(
            postgres,
            mutations,
            Sealer(tokens.sealing_key.get_secret_value()),
            caller=by_command(),
            environment=settings.environment,
            rotate_after_seconds=tokens.rotate_after_seconds,
        )
        return await do(keys)
