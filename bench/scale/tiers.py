"""What a lookup costs in each tier, and how that grows with what the tier holds; by the gateway's own parts."""

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import psutil
import redis

from bench.figures import percentile
from bench.processes import BenchError
from bench.scale.population import Population, digest_of
from gateway.auth.admission import Admission, Admitted
from gateway.auth.credentials import Credential
from gateway.auth.principal import IdentityNames
from gateway.auth.secrets import Peppers
from gateway.auth.verdict import Access
from gateway.clock import SystemClock
from gateway.consistency.feed import Feed
from gateway.consistency.view import View
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.lookup import KeyLookup
from gateway.stores.postgres.revisions import RevisionLog
from gateway.stores.records import Finding
from gateway.stores.redis.connection import Redis
from gateway.stores.redis.entries import RedisEntries
from gateway.stores.redis.entry_format import pack
from gateway.stores.redis.names import entry_name
from gateway.stores.redis.seal import Seal
from gateway.telemetry.metrics import Metrics

SAMPLES = 2_000
ENVIRONMENT = "bench"
_BATCH = 10_000
_AT_ONCE = 8  # lookups under way while the process is filled
_ENTRY_SECONDS = 3600
_MOST_FAILURES = 50  # a Redis that took longer than 50 ms is not asked for a second
_LEFT_ALONE_SECONDS = 1.1
_NAMES = IdentityNames("X-User-Id", "X-Tenant-Id", "X-Key-Id", "X-Key-Environment", "X-Auth-Kind", "X-Scopes", "X-Plan")
_REQUIRED = Access("required")
# What was touched of tables and their indexes; a session's own figures are told at once where it asks for that.
_TOUCHED = """
    SELECT sum(heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit, 0) + coalesce(idx_blks_read, 0))::bigint
    FROM pg_statio_user_tables"""


@dataclass(frozen=True)
class Times:
    """Microseconds of single calls, one after the other."""

    p50_us: float
    p99_us: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Times":
        """Those of calls that took so long."""
        ascending = sorted(seconds)
        return cls(percentile(ascending, 0.5) * 1e6, percentile(ascending, 0.99) * 1e6)

    def cells(self, *, is_in_ms: bool = True) -> list[str]:
        """Two cells of a table."""
        values = (self.p50_us, self.p99_us)
        return [f"{value / 1000:.2f}" for value in values] if is_in_ms else [f"{value:.2f}" for value in values]


async def timed(calls: Sequence[Callable[[], Awaitable[object]]]) -> Times:
    """How long each call takes, one after the other."""
    seconds = []
    for call in calls:
        began = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - began)
    return Times.of(seconds)


# -- PostgreSQL


@dataclass(frozen=True)
class Rows:
    """A lookup among so many keys. `pages` of 8 KiB a found key touches, from wherever they come."""

    keys: int
    where: str
    known: Times
    unknown: Times
    pages: float
    table_bytes: int
    index_bytes: int

    HEADER = (
        "keys in PostgreSQL",
        "pages come from",
        "known key, p50 ms",
        "p99",
        "unknown key, p50 ms",
        "p99",
        "pages touched",
        "tables, bytes a key",
        "indexes, bytes a key",
        "GiB in all",
    )

    def cells(self) -> list[str]:
        """Return a row of the table."""
        sizes = (self.table_bytes, self.index_bytes)
        return [
            f"{self.keys:,}",
            self.where,
            *self.known.cells(),
            *self.unknown.cells(),
            f"{self.pages:.1f}",
            *(f"{size / self.keys:,.0f}" for size in sizes),
            f"{sum(sizes) / 2**30:.2f}",
        ]


async def in_postgres(population: Population, where: str, samples: int = SAMPLES) -> Rows:
    """Look up keys by chance, and as many that nobody has."""
    chance = random.Random(population.keys)
    keys = population.keys
    numbers = [chance.randrange(keys) for _ in range(samples)]
    async with _lookup(population.dsn) as (postgres, lookup):

        async def touched() -> int:
            async def work(connection: object) -> int:
                await connection.execute("SELECT pg_stat_force_next_flush()")  # type: ignore[attr-defined]
                return int(await connection.fetchval(_TOUCHED))  # type: ignore[attr-defined]

            return await postgres.run(work, seconds=5)

        async def found(number: int) -> None:
            if (await lookup.find((digest_of(number),))).record is None:
                raise BenchError(f"key {number} was not found")

        await touched()
        before = await touched()
        known = await timed([lambda number=number: found(number) for number in numbers])  # type: ignore[misc]
        pages = await touched() - before
        unknown = await timed(
            [lambda number=number: lookup.find((digest_of(keys + number),)) for number in numbers]  # type: ignore[misc]
        )
    sizes = await population.sizes()
    return Rows(keys, where, known, unknown, pages / samples, sizes.tables, sizes.indexes)


@asynccontextmanager
async def _lookup(dsn: str) -> AsyncIterator[tuple[Postgres, KeyLookup]]:
    postgres = Postgres(dsn, pool_size=1, metrics=Metrics())
    await postgres.open()
    try:
        lookup = KeyLookup(postgres)
        await lookup.find((digest_of(0),))
        yield postgres, lookup
    finally:
        await postgres.close()


# -- Redis


@dataclass(frozen=True)
class Entries:
    """A lookup among so many entries in Redis, and what each takes of its memory."""

    entries: int
    known: Times
    unknown: Times
    failures: int
    bytes_each: float

    HEADER = (
        "entries in Redis",
        "hit, p50 ms",
        "p99",
        "miss, p50 ms",
        "p99",
        f"not within 50 ms, beside {2 * SAMPLES:,}",
        "bytes each",
        "MiB in all",
    )

    def cells(self) -> list[str]:
        """Return a row of the table."""
        mebibytes = self.bytes_each * self.entries / 2**20
        return [
            f"{self.entries:,}",
            *self.known.cells(),
            *self.unknown.cells(),
            str(self.failures),
            f"{self.bytes_each:,.0f}",
            f"{mebibytes:,.0f}",
        ]


async def in_redis(url: str, dsn: str, steps: Sequence[int]) -> list[Entries]:
    """Fill it step by step, and look entries up after each."""
    seal = Seal()
    async with _lookup(dsn) as (postgres, lookup):
        seal.unlock(await RevisionLog(postgres).seal_key())
        template = await lookup.find((digest_of(0),))
    store = Redis(url, environment=ENVIRONMENT, metrics=Metrics())
    await store.open()
    rows, held = [], 0
    with redis.Redis.from_url(url) as client:
        client.config_set("save", "")  # it needs no disk, and a snapshot would be measured with it
        empty = client.info("memory")["used_memory"]
        for step in steps:
            _put(client, seal, template, range(held, step))
            held = step
            grown = client.info("memory")["used_memory"] - empty
            rows.append(await _asked(store, seal, held, grown / held))
    await store.close()
    return rows


def _put(client: "redis.Redis", seal: Seal, template: Finding, numbers: range) -> None:
    assert template.record is not None
    for start in range(numbers.start, numbers.stop, _BATCH):
        with client.pipeline(transaction=False) as pipe:
            for number in range(start, min(start + _BATCH, numbers.stop)):
                digest = digest_of(number)
                record = replace(
                    template.record,
                    digest=digest,
                    key_id=f"key_{number}",
                    secret_id=f"sec_{number}",
                    user_id=f"user_{number // 5}",
                )
                name = entry_name(ENVIRONMENT, digest)
                pipe.set(
                    name,
                    seal.close(name, pack(Finding(template.revision, (digest,), record))),
                    px=_ENTRY_SECONDS * 1000,
                )
            pipe.execute()


async def _asked(store: Redis, seal: Seal, held: int, bytes_each: float) -> Entries:
    """Ask for entries by chance, and for what nobody has; what Redis did not answer in time is only counted."""
    entries = RedisEntries(store, seal, metrics=Metrics())
    chance = random.Random(held)
    failures = 0

    async def times(numbers: Callable[[], int], *, is_there: bool) -> Times:
        nonlocal failures
        seconds: list[float] = []
        while len(seconds) < SAMPLES:
            digest = digest_of(numbers())
            began = time.perf_counter()
            is_found = await entries.get(digest) is not None
            ended = time.perf_counter()
            if store.is_up and is_found is is_there:
                seconds.append(ended - began)
            elif store.is_up or (failures := failures + 1) > _MOST_FAILURES:
                raise BenchError("an entry is not there, or Redis is hardly ever in time")
            else:
                await asyncio.sleep(_LEFT_ALONE_SECONDS)
        return Times.of(seconds)

    known = await times(lambda: chance.randrange(held), is_there=True)
    unknown = await times(lambda: -1 - chance.randrange(held), is_there=False)
    return Entries(held, known, unknown, failures, bytes_each)


# -- the process


@dataclass(frozen=True)
class Held:
    """A decision about a key that the process holds among so many, and what each takes of its memory."""

    keys: int
    times: Times
    clock_us: float
    bytes_each: float

    HEADER = ("keys in the process", "decision, p50 µs", "p99", "of which the clock", "bytes each")

    def cells(self) -> list[str]:
        """Return a row of the table."""
        return [
            f"{self.keys:,}",
            *self.times.cells(is_in_ms=False),
            f"{self.clock_us:.2f}",
            f"{self.bytes_each:,.0f}",
        ]


async def in_process(dsn: str, steps: Sequence[int]) -> list[Held]:
    """Have admission find keys in PostgreSQL, and decide about them when it holds them."""
    clock, metrics = SystemClock(), Metrics()
    view = View(clock, bound_seconds=2.0, retention_seconds=120.0)
    postgres = Postgres(dsn, pool_size=_AT_ONCE + 2, metrics=metrics)
    await postgres.open()
    feed = Feed(
        view,
        RevisionLog(postgres),
        node_id="scale",
        environment=ENVIRONMENT,
        version="bench",
        clock=clock,
        metrics=metrics,
    )
    await feed.start()
    admission = Admission(
        environment=ENVIRONMENT,
        peppers=Peppers(()),
        names=_NAMES,
        view=view,
        refresh=feed.refresh,
        truth=KeyLookup(postgres),
        shared=None,
        clock=clock,
        metrics=metrics,
        local_entries=steps[-1],
        ttl_seconds=_ENTRY_SECONDS,
        negative_ttl_seconds=5.0,
    )
    await admission.resolve(Credential(digest_of(0)), _REQUIRED)
    gc.collect()
    empty = psutil.Process().memory_info().rss
    rows, held = [], 0
    for step in steps:
        await _resolve(admission, range(held, step))
        held = step
        gc.collect()
        grown = psutil.Process().memory_info().rss - empty
        rows.append(_decided(admission, held, grown / held))
    await feed.close()
    await postgres.close()
    return rows


async def _resolve(admission: Admission, numbers: range) -> None:
    left = iter(numbers)

    async def some() -> None:
        for number in left:
            await admission.resolve(Credential(digest_of(number)), _REQUIRED)

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(some())


def _decided(admission: Admission, held: int, bytes_each: float) -> Held:
    chance = random.Random(held)
    asked = [Credential(digest_of(chance.randrange(held))) for _ in range(SAMPLES)]
    seconds, nothing = [], []
    for credential in asked:
        began = time.perf_counter()
        verdict = admission.admit(credential, _REQUIRED)
        ended = time.perf_counter()
        seconds.append(ended - began)
        nothing.append(time.perf_counter() - ended)
        if not isinstance(verdict, Admitted):
            raise BenchError(f"a key that was looked up is not held: {verdict}")
    return Held(held, Times.of(seconds), Times.of(nothing).p50_us, bytes_each)
