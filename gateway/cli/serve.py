"""`ostiary serve`: one node, or several on one machine, until they are told to stop."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvloop

from gateway.running.alone import Alone
from gateway.running.configuration_file import ConfigurationFile
from gateway.running.service import Service
from gateway.running.sockets import Held
from gateway.running.staff import Staff
from gateway.settings import Settings
from gateway.telemetry.lines import Lines
from gateway.telemetry.logs import write_logs
from gateway.workers.crew import Crew


def serve_until_stopped(config: Path, *, workers: int, watch: bool, take_over: bool) -> None:
    """Serve as the configuration says, with so many processes. Raises what makes starting or going on impossible."""
    with contextlib.closing(Lines(sys.stdout)) as lines:
        write_logs(lines)
        file = ConfigurationFile(config)
        settings = file.read()
        run = uvloop.run if workers == 1 else asyncio.run
        staff_of: Callable[[Settings, Held], Staff] = (
            partial(Alone, lines=lines) if workers == 1 else partial(Crew, count=workers)
        )
        service = partial(Service, file, settings, staff_of, lines, queues=workers, watches=watch, takes_over=take_over)
        run(_serve(service))


async def _serve(service: partial[Service]) -> None:
    await service().run()
