"""`ostiary migrate`: bring the database to this version's schema."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from gateway.configuration import load
from gateway.stores.postgres import migrate as migrations


def migrate(
    config: Annotated[Path, typer.Option("-c", "--config", help="The configuration, for the database's address.")],
) -> None:
    """Bring the database to this version's schema. Safe to repeat, and to run from several places at once."""
    applied = asyncio.run(migrations.migrate(load(config).postgres.dsn.get_secret_value()))
    for name in applied:
        typer.echo(f"applied {name}")
    if not applied:
        typer.echo("nothing to do: the schema is current")
