"""Hundreds of nodes as the stores see them: the gateway's own views, feeds and channels, and nothing else of a node.

They share this process and its connections to PostgreSQL; in all else each is a node of its own. What they cost the
stores is what nodes cost; how soon a revocation is confirmed is the time that one process needs to be all of them.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from bench.scale.fleet import process_cpu
from bench.scale.stage import Stage
from bench.scale.tiers import ENVIRONMENT, Times, timed
from gateway.clock import SystemClock
from gateway.consistency.confirmation import Propagator, RevocationPending
from gateway.consistency.feed import Feed
from gateway.consistency.view import View
from gateway.errors import StoreUnavailable
from gateway.stores.postgres.changes import Changes
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.revisions import RevisionLog
from gateway.stores.redis.channel import Channel
from gateway.stores.redis.connection import Redis
from gateway.stores.redis.seal import Seal
from gateway.telemetry.metrics import Metrics

CROWDS = (16, 100, 300)
IDLE_SECONDS = 30.0
CHANGES = 30
_BOUND_SECONDS = 2.0
_PEERS = 10  # nodes that share a connection to PostgreSQL
_SETTLING_SECONDS = 5.0


@dataclass(frozen=True)
class Crowd:
    """What so many nodes cost the stores, in shares of a core while nothing changes, and in ms of CPU for a change."""

    nodes: int
    fresh: int
    postgres_share: float
    redis_share: float
    own_share: float
    roll_call: Times
    change: Times
    pending: int
    postgres_ms: float
    redis_ms: float
    own_ms: float

    HEADER = (
        "nodes",
        "fresh",
        "idle: PostgreSQL, share of a core",
        "Redis",
        "all nodes",
        "list of nodes read, p50 ms",
        "p99",
        "change confirmed, p50 ms",
        "p99",
        "not within the bound",
        "a change: PostgreSQL, CPU ms",
        "Redis",
        "all nodes",
    )

    def cells(self) -> list[str]:
        """Return a row of the table."""
        return [
            f"{self.nodes:,}",
            f"{self.fresh:,}",
            *(f"{share:.1%}" for share in (self.postgres_share, self.redis_share, self.own_share)),
            *self.roll_call.cells(),
            *self.change.cells(),
            str(self.pending),
            *(f"{value:.1f}" for value in (self.postgres_ms, self.redis_ms, self.own_ms)),
        ]


@dataclass(frozen=True)
class _Member:
    feed: Feed
    channel: Channel
    revisions: RevisionLog
    changes: Changes


async def measure(stage: Stage) -> list[Crowd]:
    """Let crowds be idle, and then make changes at one of them."""
    os.sched_setaffinity(0, {stage.cores.proxy, stage.cores.load})
    rows = []
    for count in CROWDS:
        async with _crowd(stage, count) as members:
            rows.append(await _measured(stage, members, stage.population.take(CHANGES)))
    os.sched_setaffinity(0, {stage.cores.load})
    return rows


async def _measured(stage: Stage, members: Sequence[_Member], keys: range) -> Crowd:
    await asyncio.sleep(_SETTLING_SECONDS)
    used, own, began = stage.used(), process_cpu(), time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    seconds = time.monotonic() - began
    idle, own_idle = stage.used().since(used), process_cpu() - own
    fresh = sum(member.feed.view.is_fresh for member in members)
    roll_call = await timed([lambda: members[0].revisions.nodes(ENVIRONMENT)] * CHANGES)
    used, own = stage.used(), process_cpu()
    began = time.monotonic()
    answers, pending = await _changed(members[0], keys)
    busy = time.monotonic() - began
    changed, own_changed = stage.used().since(used), process_cpu() - own

    def a_change(all_of_it: float, idle_seconds: float) -> float:
        return max(0.0, all_of_it - idle_seconds / seconds * busy) / len(keys) * 1000

    return Crowd(
        len(members),
        fresh,
        idle.postgres / seconds,
        idle.redis / seconds,
        own_idle / seconds,
        roll_call,
        Times.of(answers),
        pending,
        a_change(changed.postgres, idle.postgres),
        a_change(changed.redis, idle.redis),
        a_change(own_changed, own_idle),
    )


async def _changed(writer: _Member, keys: range) -> tuple[list[float], int]:
    propagator = Propagator(
        writer.changes,
        writer.revisions,
        environment=ENVIRONMENT,
        bound_seconds=_BOUND_SECONDS,
        clock=SystemClock(),
        metrics=Metrics(),
        feed=writer.feed,
        channel=writer.channel,
    )
    await propagator.start()
    seconds, pending = [], 0
    for number in keys:

        async def work(connection: Connection, key_id: str = f"key_{number}") -> None:
            await connection.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", key_id)

        began = time.perf_counter()
        try:
            _, change = await writer.changes.commit(work, target=f"key:key_{number}", is_narrowing=True)
            await propagator.propagate(change, is_narrowing=True)
        except (RevocationPending, StoreUnavailable):
            pending += 1
        else:
            seconds.append(time.perf_counter() - began)
    await propagator.close()
    writer.channel.listeners.remove(propagator)
    return seconds, pending


@asynccontextmanager
async def _crowd(stage: Stage, count: int) -> AsyncIterator[list[_Member]]:
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        members: list[_Member] = []
        for number in range(count):
            metrics = Metrics()
            if number <= 1 or number % _PEERS == 0:  # who makes changes has one of its own
                postgres = Postgres(stage.dsn, pool_size=1, metrics=metrics)
                await postgres.open()
                stack.push_async_callback(postgres.close)
            redis = Redis(stage.redis_url, environment=ENVIRONMENT, metrics=metrics)
            await redis.open()
            stack.push_async_callback(redis.close)
            seal, name = Seal(), f"member-{number}"
            channel = Channel(redis, seal, writer=name, clock=clock, bound_seconds=_BOUND_SECONDS, metrics=metrics)
            feed = Feed(
                View(clock, bound_seconds=_BOUND_SECONDS, retention_seconds=120.0),
                RevisionLog(postgres),
                node_id=name,
                environment=ENVIRONMENT,
                version="bench",
                clock=clock,
                metrics=metrics,
                channel=channel,
                seal=seal,
            )
            await feed.start()
            stack.push_async_callback(feed.close)
            members.append(_Member(feed, channel, RevisionLog(postgres), Changes(postgres, environment=ENVIRONMENT)))
        yield members
