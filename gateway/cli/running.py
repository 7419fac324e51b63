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
) -> None:
    """Run the gateway: callers, the management API and the status listener, as the configuration says.

    SIGTERM or Ctrl-C stop accepting, finish the requests under way, and end with exit code 0. With several workers,
    SIGHUP reads the configuration again and replaces them one by one, and no request is lost.
    """
    from gateway.cli.serve import serve_until_stopped

    serve_until_stopped(config, workers)


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
