"""What is done to PostgreSQL, alone and together with Redis. Who is known goes on; nobody is let in unchecked."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

import asyncpg

from tests.faults import limits
from tests.faults.catalogue import fault
from tests.faults.permitted import permitted, words
from tests.faults.stage import Stage
from tests.fixtures import processes
from tests.fixtures.replica import OwnReplica
from tests.fixtures.waiting import until

KNOWN_GO_ON: Final = permitted(cold="200 | 503 auth_unavailable", bad="401 | 503 auth_unavailable")
BOTH_GONE: Final = permitted(
    known="200 | 503 auth_unavailable", cold="200 | 503 auth_unavailable", bad="401 | 503 auth_unavailable", live="cut"
)


@fault("PostgreSQL killed", peers="store gone", what="SIGKILL, started again", permits=KNOWN_GO_ON)
async def killed(stage: Stage) -> AsyncIterator[None]:
    """Connections break, new ones are refused; then it recovers from its log."""
    await asyncio.to_thread(processes.kill, stage.stand.postgres.pid)
    try:
        yield
    finally:
        await stage.stand.repair()


@fault("PostgreSQL paused", peers="store gone", what="SIGSTOP: nothing is answered", permits=KNOWN_GO_ON)
async def paused(stage: Stage) -> AsyncIterator[None]:
    """Connections stand, and say nothing."""
    await asyncio.to_thread(stage.stand.postgres.pause)
    try:
        yield
    finally:
        await asyncio.to_thread(stage.stand.postgres.resume)


@fault("PostgreSQL read-only", peers="store gone", what="`default_transaction_read_only`")
async def read_only(stage: Stage) -> AsyncIterator[None]:
    """Nothing can be written: no key, no usage, no node's row."""
    await _set(stage, "default_transaction_read_only", "on")
    try:
        yield
    finally:
        await _set(stage, "default_transaction_read_only", "off")


async def _set(stage: Stage, name: str, value: str) -> None:
    await stage.execute(f"ALTER SYSTEM SET {name} = {value}")
    await stage.execute("SELECT pg_reload_conf()")

    async def is_set() -> bool:
        async with stage.stand.connection() as connection:
            return bool(await connection.fetchval(f"SHOW {name}") == value)

    await until(is_set, what=f"{name} to be {value}")


@fault(
    "PostgreSQL out of connections",
    peers="store gone",
    what="others hold every connection that it has, and the nodes' are ended",
    permits=KNOWN_GO_ON,
)
async def out_of_connections(stage: Stage) -> AsyncIterator[None]:
    """The nodes find no room."""
    hogs: list[asyncpg.Connection[asyncpg.Record]] = []
    for node in stage.nodes:
        node.to_postgres.cut()
    try:
        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            while True:
                hogs.append(await asyncpg.connect(stage.stand.postgres.dsn, timeout=10))
        for node in stage.nodes:
            await node.to_postgres.mend()
        yield
    finally:
        await asyncio.gather(*(hog.close() for hog in hogs))
        for node in stage.nodes:
            await node.to_postgres.mend()


@fault(
    "PostgreSQL's disk full",
    peers="store gone",
    what="no file may be written beyond 1 MB (`RLIMIT_FSIZE`), which it takes for a full disk: it panics; then there is"
    " room, and it is started again",
    permits=KNOWN_GO_ON,
)
async def disk_full(stage: Stage) -> AsyncIterator[None]:
    """It cannot write its log, and cannot recover while that lasts."""
    await asyncio.to_thread(limits.limit_files, stage.stand.postgres.pid, 1_000_000)
    try:
        yield
    finally:
        await asyncio.to_thread(processes.kill, stage.stand.postgres.pid)
        await stage.stand.repair()


@fault(
    "PostgreSQL failed over",
    peers="store gone",
    what="SIGKILL; then its standby is promoted, and found at the same address",
    # As the nodes notice that it is another, they forget all they knew: a revocation may have been lost.
    permits=replace(KNOWN_GO_ON, known=words("200 | 503 auth_unavailable")),
)
async def failed_over(stage: Stage) -> AsyncIterator[None]:
    """The standby has all that was committed. There is no way back: the stage is not used again."""
    primary = stage.stand.postgres
    standby = OwnReplica(stage.folder / "standby", primary)
    await standby.start()
    await standby.until_caught_up()
    stage.is_ruined = True
    stage.cleanups.append(standby.stop)
    await asyncio.to_thread(processes.kill, primary.pid)
    try:
        yield
    finally:
        await standby.promote()
        for node in stage.nodes:
            node.to_postgres.lead_to(standby.dsn)
        stage.books_dsn = standby.dsn


@fault(
    "Redis and PostgreSQL killed",
    peers="store gone",
    what="SIGKILL, started again",
    permits=BOTH_GONE,
)
async def both_killed(stage: Stage) -> AsyncIterator[None]:
    """Nothing proves any more that nobody was revoked: what is known holds for the bound."""
    await asyncio.to_thread(processes.kill, stage.stand.redis.pid)
    await asyncio.to_thread(processes.kill, stage.stand.postgres.pid)
    try:
        yield
    finally:
        await stage.stand.repair()


@fault("Redis and PostgreSQL paused", peers="store gone", what="SIGSTOP", permits=BOTH_GONE)
async def both_paused(stage: Stage) -> AsyncIterator[None]:
    """The same, and every connection stands."""
    await asyncio.to_thread(stage.stand.redis.pause)
    await asyncio.to_thread(stage.stand.postgres.pause)
    try:
        yield
    finally:
        await asyncio.to_thread(stage.stand.redis.resume)
        await asyncio.to_thread(stage.stand.postgres.resume)
