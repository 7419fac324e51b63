"""What is done to Redis. Whatever it is, callers get what they would have got: Postgres decides."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from tests.faults.catalogue import fault
from tests.faults.stage import Stage
from tests.fixtures import processes
from tests.fixtures.ports import free_port

SLOW_SECONDS: Final = 5.0


@fault("Redis killed", peers="cache gone", what="SIGKILL, started again empty-handed")
async def killed(stage: Stage) -> AsyncIterator[None]:
    """Its connections break, new ones are refused."""
    await asyncio.to_thread(processes.kill, stage.stand.redis.pid)
    try:
        yield
    finally:
        await stage.stand.repair()


@fault("Redis paused", peers="cache frozen", what="SIGSTOP: connections stand, nothing is answered")
async def paused(stage: Stage) -> AsyncIterator[None]:
    """It is there and says nothing."""
    await asyncio.to_thread(stage.stand.redis.pause)
    try:
        yield
    finally:
        await asyncio.to_thread(stage.stand.redis.resume)


@fault("Redis flushed", peers="cache emptied", what="FLUSHALL")
async def flushed(stage: Stage) -> AsyncIterator[None]:
    """All entries are gone, and so are the counts of limits."""
    async with stage.redis() as client:
        await client.flushall()
    yield


@fault("Redis full", peers="cache gone", what="`maxmemory 1`, `noeviction`: every write is refused")
async def full(stage: Stage) -> AsyncIterator[None]:
    """It answers reads."""
    async with stage.redis() as client:
        await client.config_set("maxmemory", "1")
        try:
            yield
        finally:
            await client.config_set("maxmemory", "0")


@fault("Redis read-only", peers="cache gone", what="made the replica of a server that is not there")
async def read_only(stage: Stage) -> AsyncIterator[None]:
    """It answers reads, with what it had."""
    async with stage.redis() as client:
        await client.replicaof("127.0.0.1", free_port())
        try:
            yield
        finally:
            await client.replicaof("NO", "ONE")


@fault("Redis answers garbage", peers="cache gone", what="noise of the same length in place of every reply")
async def garbage(stage: Stage) -> AsyncIterator[None]:
    """On connections that stand, and on new ones."""
    _lie(stage, True)
    try:
        yield
    finally:
        _lie(stage, False)


def _lie(stage: Stage, is_lying: bool) -> None:
    for node in stage.nodes:
        node.to_redis.is_lying = is_lying


@fault(
    "Redis slow",
    peers="cache frozen",
    what=f"every reply {SLOW_SECONDS:g} s late",
    seconds=SLOW_SECONDS + 2,
)
async def slow(stage: Stage) -> AsyncIterator[None]:
    """It does all it is asked to, late."""
    for node in stage.nodes:
        node.to_redis.delay_seconds = SLOW_SECONDS
    try:
        yield
    finally:
        for node in stage.nodes:
            node.to_redis.delay_seconds = 0.0
