"""The stores put together: connections to PostgreSQL and Redis, and what speaks through them about revisions.

Stores that are away make no start fail; what is found wrong with one, once it is there, does.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

import structlog
from pydantic import SecretStr

from gateway.clock import Clock
from gateway.consistency.confirmation import Propagator
from gateway.consistency.feed import Feed
from gateway.consistency.relay import Relay
from gateway.errors import GatewayError, StoreUnavailable
from gateway.settings import Settings
from gateway.stores.postgres.changes import Changes
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.lookup import KeyLookup
from gateway.stores.postgres.migrate import check_schema
from gateway.stores.postgres.plans import PlanRow, declare
from gateway.stores.postgres.replicas import Replicas
from gateway.stores.postgres.revisions import RevisionLog
from gateway.stores.redis.channel import Channel
from gateway.stores.redis.connection import Redis
from gateway.stores.redis.entries import RedisEntries
from gateway.stores.redis.seal import Seal
from gateway.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

LOOKUP_CONNECTIONS: Final = 10
FEED_CONNECTIONS: Final = 2  # apart, so that a flood of lookups cannot starve the polls and age the view
RETRY_SECONDS: Final = 1.0  # between two looks at a database that is away at start


@dataclass(frozen=True, slots=True)
class Truth:
    """The parts that speak to Postgres about keys and revisions."""

    revisions: RevisionLog
    changes: Changes
    lookup: KeyLookup


@dataclass(frozen=True, slots=True)
class Shared:
    """The parts that speak to Redis; none where none is configured."""

    seal: Seal | None = None
    channel: Channel | None = None
    entries: RedisEntries | None = None


class Stores:
    """Opens what a node keeps things in; what closes it goes onto `stack`."""

    def __init__(
        self, settings: Settings, node_id: str, clock: Clock, metrics: Metrics, stack: contextlib.AsyncExitStack
    ) -> None:
        self._settings = settings
        self._node_id = node_id
        self._clock = clock
        self._metrics = metrics
        self._stack = stack

    async def open_postgres(self, pool_size: int, dsn: SecretStr | None = None, replica: int | None = None) -> Postgres:
        """Connections to the database, or to one of its replicas by number and `dsn`."""
        url = (dsn or self._settings.postgres.dsn).get_secret_value()
        postgres = Postgres(url, pool_size=pool_size, metrics=self._metrics, replica=replica)
        await postgres.open()
        self._stack.push_async_callback(postgres.close)
        return postgres

    async def open_replicas(self) -> Replicas | None:
        """The replicas for look-ups; none where none are configured."""
        dsns = self._settings.postgres.replicas
        lookups = [
            KeyLookup(await self.open_postgres(LOOKUP_CONNECTIONS, dsn, number), is_replica=True)
            for number, dsn in enumerate(dsns)
        ]
        return Replicas(lookups, monotonic=self._clock.monotonic) if lookups else None

    async def open_shared(self) -> Shared:
        """What nodes share in Redis."""
        settings, metrics = self._settings, self._metrics
        if settings.redis is None:
            return Shared()
        redis = Redis(settings.redis.url.get_secret_value(), environment=settings.environment, metrics=metrics)
        await redis.open()
        self._stack.push_async_callback(redis.close)
        seal, bound_seconds = Seal(), settings.cache.bound_seconds
        channel = Channel(
            redis, seal, writer=self._node_id, clock=self._clock, bound_seconds=bound_seconds, metrics=metrics
        )
        return Shared(seal, channel, RedisEntries(redis, seal, metrics=metrics))

    async def start_propagation(self, truth: Truth, shared: Shared, feed: Feed) -> Propagator:
        """What carries changes to the nodes: this node's own at once, and those that were left lying."""
        bound_seconds = self._settings.cache.bound_seconds
        propagator = Propagator(
            truth.changes,
            truth.revisions,
            environment=self._settings.environment,
            bound_seconds=bound_seconds,
            clock=self._clock,
            metrics=self._metrics,
            feed=feed,
            channel=shared.channel,
            entries=shared.entries,
        )
        await propagator.start()
        self._stack.push_async_callback(propagator.close)
        relay = Relay(truth.changes, propagator, bound_seconds=bound_seconds, metrics=self._metrics)
        await relay.start()
        self._stack.push_async_callback(relay.close)
        return propagator


class Preparation:
    """Checks the schema and declares the configured plans, as soon as the database is there.

    `failure` gets the error that makes going on impossible, where that shows after the start.
    """

    def __init__(self, settings: Settings, postgres: Postgres, failure: asyncio.Future[GatewayError]) -> None:
        self._plans = [
            PlanRow(name, plan.tier, dict(plan.features), dict(plan.limits)) for name, plan in settings.plans.items()
        ]
        self._postgres = postgres
        self._failure = failure
        self._task: asyncio.Task[None] | None = None
        self.is_done = False

    async def start(self) -> None:
        """Do it now, or begin to try again and again. Raises SchemaOutdated and kin."""
        try:
            await self._prepare()
        except StoreUnavailable as error:
            log.warning("database_away_at_start", error=str(error))
            self._task = asyncio.create_task(self._prepare_later())

    async def close(self) -> None:
        """Give up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _prepare(self) -> None:
        await check_schema(self._postgres)
        await declare(self._postgres, self._plans)
        self.is_done = True

    async def _prepare_later(self) -> None:
        while not self.is_done:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                await self._prepare()
            except StoreUnavailable:
                continue
            except GatewayError as error:
                self._failure.set_result(error)
                return
