"""The commands. A module each declares what it takes; what it works with is imported once it is run.

So `ostiary --help`, completion and `ostiary check` load neither servers nor stores (tests/unit/test_light_commands.py).

options.py       what many commands take           doors.py        through which of two doors they work
output.py        tables, colour, JSON, progress     failures.py     what failed, and the next step
api.py           a management API, called           local_api.py    the same API straight on the stores
"""

import errno
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway import __version__
from gateway.cli import (
    admin_tokens,
    audit,
    bulk,
    check,
    diff,
    doctor,
    explain,
    keys,
    nodes,
    running,
    signing_keys,
    tenants,
    tokens,
    users,
)
from gateway.cli.failures import FAILED, MISTAKEN, complain
from gateway.errors import GatewayError

RUN, LOOK, KEEP = "Run a gateway", "See what is, and why", "Keep tenants, users, keys"
CONFIGURATION_INVALID = "configuration_invalid"  # the code of ConfigurationError


def application() -> typer.Typer:
    """The command line, all commands mounted."""
    app = typer.Typer(
        name="ostiary",
        help="An API-key gateway: authenticates callers, tells the upstream who they are, forwards.",
        epilog="To try it: `ostiary up`. Every command has --help with an example. Exit codes: 0 done, 1 failed, 2 the"
        " command line or the configuration has mistakes.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    app.command(rich_help_panel=RUN)(running.up)
    app.command(rich_help_panel=RUN, epilog="Example: `ostiary serve -c gateway.yaml --workers 4`")(running.serve)
    app.command(rich_help_panel=RUN, epilog="Example: `ostiary migrate -c gateway.yaml`")(running.migrate)
    app.command(rich_help_panel=RUN, epilog="Example: `ostiary check gateway.yaml`")(check.check)
    app.command(rich_help_panel=LOOK, epilog="Example: `ostiary doctor -c gateway.yaml`")(doctor.doctor)
    app.command(rich_help_panel=RUN, epilog="Example: `ostiary diff running.yaml gateway.yaml --exit-code`")(diff.diff)
    app.command(
        rich_help_panel=LOOK,
        epilog="Example: `ostiary explain /orders/42 -X POST --key key_01k... -c gateway.yaml`",
    )(explain.explain)
    app.command(
        rich_help_panel=LOOK,
        epilog="Example: `ostiary nodes -c gateway.yaml --status http://10.0.0.7:8082`",
    )(nodes.nodes)
    app.add_typer(audit.app, name="audit", rich_help_panel=LOOK)
    keys.app.command("import", epilog="Example: `ostiary keys import keys.csv --dry-run -c gateway.yaml`")(
        bulk.import_keys
    )
    keys.app.command(epilog="Example: `ostiary keys export --tenant acme --format csv -c gateway.yaml > keys.csv`")(
        bulk.export
    )
    app.add_typer(keys.app, name="keys", rich_help_panel=KEEP)
    app.add_typer(users.app, name="users", rich_help_panel=KEEP)
    app.add_typer(tenants.app, name="tenants", rich_help_panel=KEEP)
    app.add_typer(tokens.app, name="tokens", rich_help_panel=KEEP)
    app.add_typer(admin_tokens.app, name="admin-token", rich_help_panel=KEEP)
    app.add_typer(signing_keys.app, name="signing-keys", rich_help_panel=KEEP)
    return app


def main() -> None:
    """Run the command that the process was started with.

    Exit codes: 0 done, 1 failed, 2 the command line or the configuration has mistakes; the reason is on stderr.
    """
    _begin()
    try:
        try:
            application()()
        finally:
            sys.stdout.flush()  # else this is tried at the very end, where nobody can tell that it failed
    except GatewayError as error:
        if error.code == CONFIGURATION_INVALID:
            print(error, file=sys.stderr)
            sys.exit(MISTAKEN)
        complain(str(error))
        sys.exit(FAILED)
    except OSError as error:
        if error.errno != errno.EPIPE:  # whoever reads has had enough
            complain(str(error))
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to write is given up
        sys.exit(FAILED)


def _begin() -> None:
    """Make sure that there are streams, and that arguments are texts."""
    if sys.stdin is None:  # closed by whoever started us: as good as an empty one
        sys.stdin = Path(os.devnull).open()  # noqa: SIM115  # until the end
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    if sys.stdout is None:  # before anything is done: a secret is shown once
        print("ostiary: stdout is closed. Open it, or send it to /dev/null.", file=sys.stderr)
        sys.exit(FAILED)
    if any("\ud800" <= character <= "\udfff" for argument in sys.argv for character in argument):
        complain("an argument is not UTF-8")
        sys.exit(MISTAKEN)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"ostiary {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """An API-key gateway: authenticates callers, tells the upstream who they are, forwards."""
