"""The management API inside of a command: the same calls straight on the stores, in a process that is no node.

It listens on a socket in a folder that nobody else can enter, and takes one token, which ends with the command. Whoever
can read the configuration may do anything: the database would let them.
"""

import asyncio
import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from gateway.cli.api import Api, session_at
from gateway.clock import SystemClock
from gateway.consistency.confirmation import Propagator
from gateway.control.admin_tokens import Administrator, Role
from gateway.control.api import build_api
from gateway.control.deeds import of_command
from gateway.control.ids import new_id
from gateway.control.key_parts import peppers_of, secret_format_of
from gateway.control.mutations import Mutations
from gateway.settings import Settings
from gateway.stores.postgres.changes import Changes
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.migrate import check_schema
from gateway.stores.postgres.revisions import RevisionLog
from gateway.stores.redis.channel import Channel
from gateway.stores.redis.connection import Redis
from gateway.stores.redis.entries import RedisEntries
from gateway.stores.redis.seal import Seal
from gateway.telemetry.metrics import Metrics

POOL_SIZE = 4


@dataclass(frozen=True, slots=True)
class Stores:
    """The database, and what sees changes to it through to every node."""

    postgres: Postgres
    changes: Changes
    revisions: RevisionLog
    propagator: Propagator
    metrics: Metrics

    @property
    def mutations(self) -> Mutations:
        """Changes that are put on record and seen through."""
        return Mutations(self.changes, self.propagator)


class OneToken:
    """Knows whoever runs this command, by a token that nobody else has."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)

    async def recognise(self, token: str) -> Administrator | None:
        """As AdminTokens."""
        return by_command() if secrets.compare_digest(token.encode(), self.token.encode()) else None


def by_command() -> Administrator:
    """Whoever runs a command straight on the stores: allowed everything, as the database already allows it."""
    return Administrator("cli", Role.OPERATOR, None, of_command())


@asynccontextmanager
async def open_local(settings: Settings) -> AsyncIterator[Api]:
    """The API over the stores of a configuration. Raises StoreUnavailable, SchemaOutdated."""
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(open_stores(settings))
        bearer = OneToken()
        app = build_api(
            postgres=stores.postgres,
            changes=stores.changes,
            propagator=stores.propagator,
            revisions=stores.revisions,
            secret_format=secret_format_of(settings.keys, settings.environment),
            peppers=peppers_of(settings.keys),
            keys=settings.keys,
            metrics=stores.metrics,
            bearers=bearer,
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ostiary-"))
        path = str(Path(folder) / "api")
        await web.UnixSite(runner, path).start()
        session = await stack.enter_async_context(session_at(bearer.token, aiohttp.UnixConnector(path)))
        yield Api(session, "http://ostiary")


@asynccontextmanager
async def open_stores(settings: Settings) -> AsyncIterator[Stores]:
    """The stores of a configuration. Raises StoreUnavailable, SchemaOutdated."""
    clock, metrics = SystemClock(), Metrics()
    async with AsyncExitStack() as stack:
        postgres = Postgres(settings.postgres.dsn.get_secret_value(), pool_size=POOL_SIZE, metrics=metrics)
        stack.push_async_callback(postgres.close)
        await postgres.open()
        await check_schema(postgres)
        changes, revisions = Changes(postgres, environment=settings.environment), RevisionLog(postgres)
        channel, entries = await _open_push(stack, settings, revisions, metrics)
        propagator = Propagator(
            changes,
            revisions,
            environment=settings.environment,
            bound_seconds=settings.cache.bound_seconds,
            clock=clock,
            metrics=metrics,
            channel=channel,
            entries=entries,
        )
        stack.push_async_callback(propagator.close)
        await propagator.start()
        yield Stores(postgres, changes, revisions, propagator, metrics)


async def _open_push(
    stack: AsyncExitStack, settings: Settings, revisions: RevisionLog, metrics: Metrics
) -> tuple[Channel | None, RedisEntries | None]:
    if settings.redis is None:
        return None, None
    redis = Redis(settings.redis.url.get_secret_value(), environment=settings.environment, metrics=metrics)
    stack.push_async_callback(redis.close)
    await redis.open()
    seal = Seal()
    seal.unlock(await revisions.seal_key())
    channel = Channel(
        redis,
        seal,
        writer=new_id("cli"),
        clock=SystemClock(),
        bound_seconds=settings.cache.bound_seconds,
        metrics=metrics,
    )
    listening = asyncio.create_task(channel.listen_forever())
    stack.push_async_callback(_end, listening)
    return channel, RedisEntries(redis, seal, metrics=metrics)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
