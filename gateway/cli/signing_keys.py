"""`ostiary signing-keys`: list, rotate and withdraw the keys that sign access tokens, straight on the stores."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.failures import told
from gateway.cli.options import NeededConfigOption, Output, OutputOption
from gateway.cli.output import log_to_stderr, show_list

if TYPE_CHECKING:
    from gateway.control.signing_keys import Rows, SigningKeys
    from gateway.settings import Settings, TokenSettings

COLUMNS = ("id", "state", "created_at", "activated_at", "replaced_at", "retired_at")

app = typer.Typer(
    help="The keys that sign access tokens: list, rotate, withdraw, straight on the stores.",
    epilog="Example: `ostiary signing-keys rotate -c gateway.yaml`",
    no_args_is_help=True,
)


@app.command("list")
def list_keys(config: NeededConfigOption, output: OutputOption = Output.TABLE) -> None:
    """List signing keys, oldest first. Private parts are never shown."""
    _on(config, lambda keys: keys.list(), output)


@app.command()
def rotate(config: NeededConfigOption, output: OutputOption = Output.TABLE) -> None:
    """Let the next key sign from now on. What the present one has signed stays good until it ends."""
    _on(config, lambda keys: keys.rotate(), output)


@app.command()
def withdraw(
    key_id: Annotated[str, typer.Argument(help="The id of the signing key.", metavar="SIGNING_KEY_ID")],
    config: NeededConfigOption,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let nobody believe a key any more, for good. When this is done, no node accepts what it has signed."""
    _on(config, lambda keys: keys.withdraw(key_id), output)


def _on(config: Path, do: "Callable[[SigningKeys], Awaitable[Rows]]", output: Output) -> None:
    import asyncio

    from gateway.configuration import load

    log_to_stderr()
    settings = load(config)
    if settings.tokens is None:
        raise typer.BadParameter("this configuration has no `tokens`", param_hint="-c")
    with told():
        rows = asyncio.run(_run(settings, settings.tokens, do))
        from gateway.control.signing_keys import shown

        show_list([shown(row) for row in rows], COLUMNS, output)


async def _run(settings: "Settings", tokens: "TokenSettings", do: "Callable[[SigningKeys], Awaitable[Rows]]") -> "Rows":
    from gateway.auth.signing import Sealer
    from gateway.cli.local_api import by_command, open_stores
    from gateway.control.signing_keys import SigningKeys

    async with open_stores(settings) as stores:
        keys = SigningKeys(
            stores.postgres,
            stores.mutations,
            Sealer(tokens.sealing_key.get_secret_value()),
            caller=by_command(),
            environment=settings.environment,
            rotate_after_seconds=tokens.rotate_after_seconds,
        )
        return await do(keys)
