"""`ostiary up`, `serve` and `migrate`: what runs, and what has to be done before. Their work is imported with them."""

from pathlib import Path
from typing import Annotated, Final

import typer

LARGEST_PORT: Final = 65_533  # two more follow it


def up(
    data: Annotated[Path, typer.Option(help="Where everything is kept. Delete it to start afresh.")] = Path(".ostiary"),
    port: Annotated[
        int,
        typer.Option(
            min=1, max=LARGEST_PORT, help="Callers use it; the next two are the management API and the status."
        ),
    ] = 8080,
) -> None:
    """Start a gateway with a PostgreSQL, a Redis and an example API of its own, and print how to try it.

    It listens on this machine alone. Ctrl-C stops all of it, and the next start finds the data again.
    """
    import uvloop

    from gateway.cli.output import log_to_stderr
    from gateway.cli.up import run

    log_to_stderr()
    uvloop.run(run(data.absolute(), port))


def serve(
    config: Annotated[Path, typer.Option("-c", "--config", help="The configuration file.")],
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=1,
            help="Processes that serve behind the same ports; about one for each core. Each is a node of its own.",
        ),
    ] = 1,
    watch: Annotated[
        bool, typer.Option("--watch", help="Read the configuration again whenever the file has changed.")
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Take the place of the process at `listen.handover`, which goes on until this one is ready.",
        ),
    ] = False,
) -> None:
    """Run the gateway: callers, the management API and the status listener, as the configuration says.

    SIGHUP reads the configuration again; a file with mistakes changes nothing. SIGTERM says that it is not ready any
    more, and after `drain.delay_seconds` stops accepting, finishes what is under way, and ends with exit code 0; a
    second one, or Ctrl-C, does not wait. No request is lost by any of this, nor by --take-over.
    """
    from gateway.cli.serve import serve_until_stopped

    serve_until_stopped(config, workers=workers, watch=watch, take_over=take_over)


def migrate(
    config: Annotated[Path, typer.Option("-c", "--config", help="The configuration, for the database's address.")],
) -> None:
    """Bring the database to this version's schema. Safe to repeat, and to run from several places at once."""
    import asyncio

    from gateway.configuration import load
    from gateway.stores.postgres import migrate as migrations

    applied = asyncio.run(migrations.migrate(load(config).postgres.dsn.get_secret_value()))
    for name in applied:
        print(f"applied {name}")
    if not applied:
        print("nothing to do: the schema is current")
