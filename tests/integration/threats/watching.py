"""What Postgres and a node bear meanwhile."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import psutil

from tests.fixtures.stand import Stand

LOOK_SECONDS = 0.02


@dataclass
class Load:
    """The most that was seen at one time: connections that Postgres holds for the nodes, and those at work."""

    connections: int = 0
    at_work: int = 0
    looks: int = 0


@contextlib.asynccontextmanager
async def watched(stand: Stand) -> AsyncIterator[Load]:
    """Look at Postgres again and again while the block runs."""
    load = Load()
    async with stand.connection() as connection:

        async def look() -> None:
            while True:
                row = await connection.fetchrow(
                    "SELECT count(*), count(*) FILTER (WHERE state = 'active') FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                )
                assert row is not None
                load.connections, load.at_work = max(load.connections, row[0]), max(load.at_work, row[1])
                load.looks += 1
                await asyncio.sleep(LOOK_SECONDS)

        task = asyncio.create_task(look())
        try:
            yield load
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def resident_bytes(pid: int) -> int:
    """The memory that a process holds."""
    size: int = psutil.Process(pid).memory_info().rss
    return size
