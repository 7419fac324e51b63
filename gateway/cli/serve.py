"""`ostiary serve`: one node, or several on one machine, until they are told to stop."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvloop

from gateway import __version__
from gateway.app import Gateway
from gateway.configuration import load
from gateway.settings import Settings
from gateway.telemetry.logs import write_logs
from gateway.workers.supervisor import Supervisor

log = structlog.get_logger(__name__)


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
    write_logs(sys.stdout)
    settings = load(config)
    if workers == 1:
        uvloop.run(run(settings))
    else:
        asyncio.run(supervise(settings, config, workers))


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises what makes starting or going on impossible."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    gateway = Gateway(settings)
    await gateway.start()
    try:
        log.info(
            "serving",
            version=__version__,
            environment=settings.environment,
            proxy=str(settings.listen.proxy),
            admin=str(settings.listen.admin),
            status=str(settings.listen.status),
        )
        await gateway.serve_until(stopping)
    finally:
        await gateway.close()


async def supervise(settings: Settings, config: Path, workers: int) -> None:
    """The same with several workers. Raises what makes starting or going on impossible for all of them."""
    await Supervisor(settings, lambda: load(config), workers).run()
