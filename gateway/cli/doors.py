"""The two doors of commands: straight to the stores by a configuration, or to a running gateway's management API.

Behind both stands the same API, so a command is written once. Must not import what costs a start its time.
"""

import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import typer

from gateway.cli.failures import told
from gateway.cli.output import log_to_stderr

if TYPE_CHECKING:
    from gateway.cli.api import Api
    from gateway.setting_values import Address
    from gateway.settings import Settings

TOKEN_VARIABLE: Final = "OSTIARY_ADMIN_TOKEN"  # noqa: S105  # a name, not a token
ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Door:
    """Which door was named, by the options of a command."""

    config: Path | None
    api: str | None
    token_file: Path | None = None

    def check(self) -> None:
        """Fail unless it is one of them."""
        if (self.config is None) == (self.api is None):
            raise typer.BadParameter(
                "name one of -c FILE (straight on the stores) and --api URL", param_hint="-c, --api"
            )
        if self.token_file is not None and self.api is None:
            raise typer.BadParameter("is for --api alone", param_hint="--token-file")


def through(
    door: Door,
    do: "Callable[[Api], Awaitable[T]]",
    tell: Callable[[T], None],
    *,
    first: Callable[[], None] = lambda: None,
) -> T:
    """Do it through the door that was named, tell the result and return it.

    What asks for something does so `first`: after the admin token was read, which may stand on the line before, and
    outside of the event loop, where Ctrl-C would wait for an answer.
    """
    import asyncio

    log_to_stderr()
    door.check()
    opened = _opened(door)
    first()

    async def run() -> T:
        async with opened as api:
            return await do(api)

    with told():
        result = asyncio.run(run())
        tell(result)
        return result


def _opened(door: Door) -> "AbstractAsyncContextManager[Api]":
    if door.config is not None:
        from gateway.cli.local_api import open_local
        from gateway.configuration import load

        return open_local(load(door.config))
    from gateway.cli.api import open_api

    assert door.api is not None
    return open_api(door.api, read_token(door.token_file))


def read_token(file: Path | None = None) -> str:
    """The admin token: from a file, the environment or stdin. Never from the command line, which others can see."""
    import os

    if file is not None:
        try:
            token = file.read_text().strip()
        except (OSError, ValueError) as error:
            raise typer.BadParameter(f"cannot be read ({type(error).__name__})", param_hint="--token-file") from error
    else:
        token = os.environ.get(TOKEN_VARIABLE, "").strip() or ask_secret("Admin token")
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise typer.BadParameter(
            f"put an admin token into {TOKEN_VARIABLE} or a --token-file, or write one to stdin", param_hint="--api"
        )
    return token


def ask_secret(what: str) -> str:
    """A secret from stdin: a line, or typed at a terminal that does not show it."""
    import getpass

    try:
        line = getpass.getpass(f"{what}: ") if sys.stdin.isatty() else sys.stdin.readline()
        line.encode()  # bytes that are no text may have been read as halves of characters
    except UnicodeError as error:
        raise typer.BadParameter("what stands there is not UTF-8", param_hint="stdin") from error
    return line.strip()


def confirm(question: str, *, is_agreed: bool) -> None:
    """Ask at a terminal whether to go on. In a script that has to be said beforehand."""
    if is_agreed:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("nobody is there to be asked: say --yes", param_hint="--yes")
    typer.confirm(question, abort=True, err=True)


def local_url(address: "Address", *, is_tls: bool = False) -> str:
    """Where a listener is reached from its own machine."""
    host = ANYWHERE.get(address.host, address.host)
    scheme = "https" if is_tls else "http"
    return f"{scheme}://[{host}]:{address.port}" if ":" in host else f"{scheme}://{host}:{address.port}"


def admin_url(settings: "Settings") -> str:
    """Where the management API of a gateway on this machine is."""
    return local_url(settings.listen.admin)
