"""Loaded by every Python process of the nodes as it starts: on SIGUSR2 it writes down how many tasks it has."""

import asyncio
import gc
import os
import signal
from pathlib import Path
from types import FrameType

_FOLDER = Path(os.environ["SOAK_FOLDER"])


def _tell(number: int, frame: FrameType | None) -> None:
    tasks = sum(isinstance(thing, asyncio.Task) and not thing.done() for thing in gc.get_objects())
    part = _FOLDER / f"{os.getpid()}.part"
    part.write_text(str(tasks))
    part.rename(_FOLDER / f"{os.getpid()}.tasks")


signal.signal(signal.SIGUSR2, _tell)
