"""The commands. A module each; what they share is how a failure is told."""

import sys
from typing import Annotated

import typer

from gateway import __version__
from gateway.cli import admin_tokens, audit, bulk, check, explain, keys, migrate, serve, signing_keys, up
from gateway.configuration import ConfigurationError
from gateway.errors import GatewayError

CONFIGURATION_MISTAKES = 2
FAILURE = 1


def application() -> typer.Typer:
    """The command line, all commands mounted."""
    app = typer.Typer(
        name="ostiary",
        help="An API-key gateway: authenticates callers, tells the upstream who they are, forwards.",
        epilog="To try it: `ostiary up`.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    app.command()(up.up)
    app.command()(serve.serve)
    app.command()(migrate.migrate)
    app.command()(check.check)
    app.command()(explain.explain)
    keys.app.command("import")(bulk.import_keys)
    keys.app.command()(bulk.export)
    app.add_typer(keys.app, name="keys")
    app.add_typer(audit.app, name="audit")
    app.add_typer(admin_tokens.app, name="admin-token")
    app.add_typer(signing_keys.app, name="signing-keys")
    return app


def main() -> None:
    """Run the command that the process was started with.

    Exit codes: 0 done, 1 failed, 2 the command line or the configuration has mistakes; the reason is on stderr.
    """
    try:
        application()()
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        sys.exit(CONFIGURATION_MISTAKES)
    except GatewayError as error:
        print(f"ostiary: {error}", file=sys.stderr)
        sys.exit(FAILURE)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"ostiary {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """An API-key gateway: authenticates callers, tells the upstream who they are, forwards."""
