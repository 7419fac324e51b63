"""What Postgres and a node bear meanwhile."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

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


def connections_to(pid: int, dsn: str) -> int:
    """How many connections a process holds to the server of the DSN, those included that are being made."""
    port = urlsplit(dsn).port
    ends = psutil.Process(pid).net_connections("tcp")
    return sum(bool(end.raddr) and end.raddr.port == port for end in ends)


def resident_bytes(pid: int) -> int:
    """The memory that a process holds."""
    size: int = psutil.Process(pid).memory_info().rss
    return size
