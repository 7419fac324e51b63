"""What is done to a node: it ends, a worker of it is killed, it can open nothing more, its log cannot be written."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Final

import psutil

from gateway.embedded.server_process import HOST
from tests.faults import limits
from tests.faults.catalogue import fault
from tests.faults.kinds.clients import Idler
from tests.faults.permitted import permitted
from tests.faults.stage import METERING_SECONDS, Stage
from tests.faults.traffic import PER_SECOND
from tests.fixtures.waiting import until

WRITING_SECONDS: Final = 0.5  # the moment that it takes a node to write what it has counted
CROWD: Final = 20  # clients for whom a node has no descriptors: they take whatever another leaves
AGAIN_SECONDS: Final = 0.02
LIVES: Final = 4  # streams and sockets of a node, and those that take their places
FIRST, SECOND = 0, 1


@fault(
    "SIGTERM of a node",
    peers="process ends",
    what="one of the two, without a delay for balancers; started again",
    permits=permitted(
        known="200 | unreachable", cold="200 | unreachable", bad="401 | unreachable", live="cut | unreachable"
    ),
    nodes=frozenset({FIRST}),
)
async def terminated(stage: Stage) -> AsyncIterator[None]:
    """What is under way is answered; who is between two requests may have one more."""
    node = stage.nodes[FIRST].process
    code = await node.stop()
    if code != 0:
        stage.wrongs.append(f"it ended with {code}")
    try:
        yield
    finally:
        await node.start()


@fault(
    "SIGKILL of a worker",
    peers="process killed",
    what="one of two; its supervisor starts another",
    permits=permitted(known="200 | broken | cut", cold="200 | broken | cut", bad="401 | broken | cut", live="cut"),
    nodes=frozenset({SECOND}),
)
async def worker_killed(stage: Stage) -> AsyncIterator[None]:
    """What it had under way is lost, and what it had counted since it last wrote."""
    supervisor = psutil.Process(stage.nodes[SECOND].process.pid)
    before = {child.pid for child in supervisor.children()}
    stage.lost_requests = int(sum(PER_SECOND.values()) * (METERING_SECONDS + WRITING_SECONDS)) + LIVES
    psutil.Process(min(before)).send_signal(signal.SIGKILL)
    yield
    await until(lambda: len({child.pid for child in supervisor.children()} - before) == 1, what="another worker")


@fault(
    "file descriptors exhausted",
    peers="descriptors exhausted",
    what="`RLIMIT_NOFILE` of a node lowered until it can open nothing, and 20 more clients want a connection",
    permits=permitted(
        known="200 | unreachable | broken | silent | 502 upstream_error | 503 auth_unavailable",
        cold="200 | unreachable | broken | silent | 502 upstream_error | 503 auth_unavailable",
        bad="401 | unreachable | broken | silent | 503 auth_unavailable",
    ),
    nodes=frozenset({FIRST}),
)
async def descriptors_exhausted(stage: Stage) -> AsyncIterator[None]:
    """New connections are closed as they come; those that stand go on."""
    node = stage.nodes[FIRST].process
    before = limits.limit_descriptors(node.pid)
    crowding = [asyncio.create_task(_crowd(node.proxy_port)) for _ in range(CROWD)]
    try:
        yield
    finally:
        limits.restore_descriptors(before)
        for task in crowding:
            task.cancel()
        await asyncio.gather(*crowding, return_exceptions=True)


async def _crowd(port: int) -> None:
    """A client who wants a connection, and comes back whenever there is none to be had."""
    while True:
        _, one = await asyncio.get_running_loop().create_connection(Idler, HOST, port)
        try:
            while not one.is_closed:
                await asyncio.sleep(AGAIN_SECONDS)
        finally:
            one.leave()


@fault(
    "disk of the log full",
    peers="disk full",
    what="the file that a node logs to cannot grow (`RLIMIT_FSIZE`)",
    nodes=frozenset({FIRST}),
)
async def log_full(stage: Stage) -> AsyncIterator[None]:
    """Lines are lost, and nothing else; once there is room, it goes on."""
    node = stage.nodes[FIRST].process
    await asyncio.to_thread(limits.limit_files, node.pid, node.log_path.stat().st_size)
    await asyncio.sleep(0.5)  # what it was about to write
    size = node.log_path.stat().st_size
    try:
        yield
        if node.log_path.stat().st_size != size:
            stage.wrongs.append("the log grew: this was no full disk")
    finally:
        await asyncio.to_thread(limits.limit_files, node.pid, None)
        await until(lambda: node.log_path.stat().st_size > size, what="the log to go on")
