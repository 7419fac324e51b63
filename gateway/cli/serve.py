"""`ostiary serve`: one node, or several on one machine, until they are told to stop."""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

import structlog
import uvloop

from gateway import __version__
from gateway.app import Gateway
from gateway.configuration import load
from gateway.settings import Settings
from gateway.telemetry.lines import Lines
from gateway.telemetry.logs import write_logs
from gateway.workers.supervisor import Supervisor

log = structlog.get_logger(__name__)


def serve_until_stopped(config: Path, workers: int) -> None:
    """Serve as the configuration says, with so many processes. Raises what makes starting or going on impossible."""
    with contextlib.closing(Lines(sys.stdout)) as lines:
        write_logs(lines)
        settings = load(config)
        write_logs(lines, level=settings.log.level, is_json=settings.log.format == "json")
        if workers == 1:
            uvloop.run(run(settings, lines))
        else:
            asyncio.run(supervise(settings, config, workers))


async def run(settings: Settings, lines: Lines) -> None:
    """Serve until SIGTERM or SIGINT. Raises what makes starting or going on impossible."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    gateway = Gateway(settings, lines=lines)
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
