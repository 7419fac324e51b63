"""`ostiary serve`: one node, until it is told to stop."""

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
from gateway.configuration import load, warnings_of
from gateway.settings import Settings
from gateway.telemetry.logs import write_logs

log = structlog.get_logger(__name__)


def serve(
    config: Annotated[Path, typer.Option("-c", "--config", help="The configuration file.")],
) -> None:
    """Run the gateway: callers, the management API and the status listener, as the configuration says.

    SIGTERM or Ctrl-C stop accepting, finish the requests under way, and end with exit code 0.
    """
    write_logs(sys.stdout)
    settings = load(config)
    for warning in warnings_of(settings):
        log.warning("setting_without_effect", setting=warning)
    uvloop.run(run(settings))


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
        stopped = asyncio.ensure_future(stopping.wait())
        await asyncio.wait((stopped, gateway.failure), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if gateway.failure.done():
            raise gateway.failure.result()
        log.info("stopping")
    finally:
        await gateway.close()
