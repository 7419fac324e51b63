"""What the processes of a node hold when nobody comes, and whether it became more."""

import asyncio
import contextlib
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.fixtures import processes
from tests.fixtures.waiting import until

MIB: Final = 2**20
COUNT_TOLERANCE: Final = 10  # a pool has some connections more or less from moment to moment
MEMORY_TOLERANCE: Final = 0.1  # of what there was after the warm-up, by the slope over all later rests
LEAST_RESTS: Final = 4  # for a slope
_TELLING_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Holdings:
    """Of one node, its supervisor and workers together; connections by who is at the other end."""

    memory_mib: float  # of its own: what is shared with others depends on how many those are
    descriptors: int
    threads: int
    tasks: int
    clients: int
    postgres: int
    redis: int
    upstream: int

    def cells(self) -> list[str]:
        """Return a row of the table."""
        return [f"{self.memory_mib:.1f}", *(str(value) for value in list(asdict(self).values())[1:])]


async def held(pid: int, ports: Mapping[str, int], folder: Path) -> Holdings:
    """What it holds now. `ports` names who listens there; in `folder` its processes say how many tasks they have."""
    family = [process for process in processes.family(pid) if not processes.is_zombie(process)]
    counted = dict.fromkeys(("clients", "postgres", "redis", "upstream"), 0)
    by_port = {port: name for name, port in ports.items()}
    for process in family:
        for end in process.net_connections("tcp"):
            if end.status == psutil.CONN_LISTEN:
                continue
            far = by_port.get(end.raddr[1]) if end.raddr else None
            near = by_port.get(end.laddr[1]) if end.laddr else None
            if (name := far if near is None else near) is not None:
                counted[name] += 1
    return Holdings(
        memory_mib=sum(process.memory_full_info().uss for process in family) / MIB,
        descriptors=sum(process.num_fds() for process in family),
        threads=sum(process.num_threads() for process in family),
        tasks=sum(await asyncio.gather(*(_tasks(process, folder) for process in family))),
        **counted,
    )


async def _tasks(process: psutil.Process, folder: Path) -> int:
    told = folder / f"{process.pid}.tasks"
    told.unlink(missing_ok=True)
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGUSR2)
    await until(told.exists, seconds=_TELLING_SECONDS, what=f"{process} to say how many tasks it has")
    return int(told.read_text())


def complaints(name: str, rests: Sequence[Holdings]) -> list[str]:
    """What a node holds too much of. `rests` are those after the warm-up, the first one right behind it."""
    first, last = rests[0], rests[-1]
    found = []
    for what in ("descriptors", "threads", "tasks", "postgres", "redis", "upstream"):
        before, after = getattr(first, what), getattr(last, what)
        if after > before + COUNT_TOLERANCE:
            found.append(f"{name}: {after} {what} in the end, {before} after the warm-up")
    if last.clients:
        found.append(f"{name}: {last.clients} connections of clients who have left")
    if len(rests) >= LEAST_RESTS:
        grown = slope([rest.memory_mib for rest in rests]) * (len(rests) - 1)
        if grown > MEMORY_TOLERANCE * first.memory_mib:
            found.append(f"{name}: {grown:.1f} MiB more in the end, of {first.memory_mib:.1f} after the warm-up")
    return found


def slope(values: Sequence[float]) -> float:
    """By how much they grow from one to the next, by least squares."""
    middle = (len(values) - 1) / 2
    mean = sum(values) / len(values)
    weight = sum((number - middle) ** 2 for number in range(len(values)))
    return sum((number - middle) * (value - mean) for number, value in enumerate(values)) / weight
