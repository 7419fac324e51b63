import asyncio
import contextlib
import random
import time
import traceback
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from gateway.errors import GatewayError, StoreUnavailable
from gateway.stores.postgres.connection import (
    ABANDONED_LIMIT,
    CLOSE_SECONDS,
    READ_ONLY_SECONDS,
    Connection,
    Postgres,
)
from gateway.telemetry.metrics import Metrics
from tests.fixtures import processes
from tests.fixtures.stores import OwnPostgres
from tests.fixtures.waiting import until


async def answer(connection: Connection) -> int:
    return int(await connection.fetchval("SELECT 42"))


async def write(connection: Connection) -> None:
    await connection.execute("INSERT INTO plans (name) VALUES ('p' || gen_random_uuid())")


async def hang(connection: Connection) -> None:
    await connection.execute("SELECT pg_sleep(60)")


async def backend(connection: Connection) -> int:
    return connection.get_server_pid()


async def warm(pg: Postgres, connections: int) -> None:
    """Leave so many connections in the pool."""
    barrier = asyncio.Barrier(connections)

    async def work(connection: Connection) -> None:
        await barrier.wait()

    await asyncio.gather(*(pg.run(work, seconds=10) for _ in range(connections)))


class Pools:
    """Makes pools that are closed after the test."""

    def __init__(self) -> None:
        self.made: list[Postgres] = []
        self.metrics = Metrics()

    async def open(self, dsn: str, pool_size: int = 5) -> Postgres:
        pg = Postgres(dsn, pool_size=pool_size, metrics=self.metrics)
        self.made.append(pg)
        await pg.open()
        return pg

    def sample(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"dependency": "postgres"})


@pytest.fixture
async def is_quiet() -> Callable[[], bool]:
    """Whether nothing but the test runs on the loop."""
    before = asyncio.all_tasks()
    return lambda: not (asyncio.all_tasks() - before - {asyncio.current_task()})


@pytest.fixture
async def pools(is_quiet: Callable[[], bool]) -> AsyncIterator[Pools]:
    """Every test ends with nothing left behind on the loop."""
    made = Pools()
    yield made
    for pg in made.made:
        await pg.close()
    await until(is_quiet, what="the end of all tasks")


async def test_frozen_server(pools: Pools, own_postgres: OwnPostgres, is_quiet: Callable[[], bool]) -> None:
    """A frozen server costs a caller its deadline and no more, however many call; thawed, it serves again. R051."""
    pg = await pools.open(own_postgres.dsn)
    await warm(pg, 5)
    own_postgres.pause()
    try:
        for _ in range(3):
            started = time.monotonic()
            calls = (pg.run(answer, seconds=0.3, is_read=True) for _ in range(20))
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
            assert time.monotonic() - started < 1.0
        await until(is_quiet, what="the end of the dropped calls, on a server still frozen")
        assert not pg.is_up
        assert pools.sample("ostiary_dropped_calls_total") == 60
        assert pools.sample("ostiary_dependency_up") == 0
    finally:
        own_postgres.resume()
    assert await pg.run(answer, seconds=5, is_read=True) == 42
    assert await asyncio.gather(*(pg.run(answer, seconds=5) for _ in range(20))) == [42] * 20
    assert pg.is_up
    assert pools.sample("ostiary_dependency_up") == 1


async def test_frozen_in_a_transaction(pools: Pools, own_postgres: OwnPostgres, is_quiet: Callable[[], bool]) -> None:
    """A transaction whose server freezes is dropped without waiting for its rollback. R051."""
    pg = await pools.open(own_postgres.dsn)
    has_begun, is_frozen = asyncio.Event(), asyncio.Event()

    async def work(connection: Connection) -> None:
        async with connection.transaction():
            has_begun.set()
            await is_frozen.wait()
            await answer(connection)

    call = asyncio.ensure_future(pg.run(work, seconds=2))
    await has_begun.wait()
    own_postgres.pause()
    try:
        is_frozen.set()
        with pytest.raises(StoreUnavailable):
            await call
        await until(is_quiet, seconds=1, what="the end of the dropped call")
    finally:
        own_postgres.resume()


async def test_lost_connections(pools: Pools, own_postgres: OwnPostgres) -> None:
    """When the pooled connections fall silent and the server does not, one call pays with its deadline, not each."""
    pg = await pools.open(own_postgres.dsn)
    await warm(pg, 5)
    backends: list[int] = []
    barrier = asyncio.Barrier(5)

    async def name(connection: Connection) -> None:
        backends.append(connection.get_server_pid())
        await barrier.wait()

    await asyncio.gather(*(pg.run(name, seconds=5) for _ in range(5)))
    assert len(set(backends)) == 5
    for pid in backends:
        processes.freeze(pid)
    try:
        with pytest.raises(StoreUnavailable):
            await pg.run(answer, seconds=0.3, is_read=True)
        for _ in range(5):
            assert await pg.run(answer, seconds=5, is_read=True) == 42
    finally:
        for pid in backends:
            processes.thaw(pid)


async def test_close_on_a_frozen_server(pools: Pools, own_postgres: OwnPostgres) -> None:
    """Closing does not wait for a frozen server, and those who wait for an answer get theirs: none. R346."""
    pg = await pools.open(own_postgres.dsn)
    await warm(pg, 3)
    own_postgres.pause()
    try:
        call = asyncio.ensure_future(pg.run(answer, seconds=30, is_read=True))
        await until(lambda: not call.done())
        started = time.monotonic()
        await pg.close()
        assert time.monotonic() - started < CLOSE_SECONDS + 0.5
        with pytest.raises(StoreUnavailable):
            await call
        with pytest.raises(StoreUnavailable):
            await pg.run(answer, seconds=1)
    finally:
        own_postgres.resume()


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
async def test_restart(pools: Pools, own_postgres: OwnPostgres, *, is_killed: bool) -> None:
    """After a restart of the server the very first calls succeed, whatever the pool holds. R071."""
    pg = await pools.open(own_postgres.dsn)
    await warm(pg, 5)
    await (own_postgres.kill() if is_killed else own_postgres.stop())
    with pytest.raises(StoreUnavailable):
        await pg.run(answer, seconds=1, is_read=True)
    assert not pg.is_up
    await own_postgres.start()
    assert await asyncio.gather(*(pg.run(answer, seconds=5, is_read=True) for _ in range(10))) == [42] * 10
    await warm(pg, 5)
    await own_postgres.stop()
    await own_postgres.start()
    await pg.run(write, seconds=5)


async def test_lost_in_mid_call(pools: Pools, postgres_dsn: str) -> None:
    """A read whose pooled connection dies under it is done again on another; a write is not, it may have been done."""
    pg = await pools.open(postgres_dsn, pool_size=1)
    attempts: list[int] = []

    async def dies_once(connection: Connection) -> int:
        attempts.append(connection.get_server_pid())
        if len(attempts) == 1:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return await answer(connection)

    await warm(pg, 1)
    assert await pg.run(dies_once, seconds=5, is_read=True) == 42
    assert len(set(attempts)) == 2
    attempts.clear()
    with pytest.raises(StoreUnavailable):
        await pg.run(dies_once, seconds=5)
    assert len(attempts) == 1
    assert await pg.run(answer, seconds=5) == 42


async def test_all_pooled_connections_cut(pools: Pools, postgres_dsn: str) -> None:
    """Reads at the moment at which every pooled connection is cut all succeed. R071."""
    pg = await pools.open(postgres_dsn)
    for _ in range(10):
        await warm(pg, 5)
        other = await asyncpg.connect(postgres_dsn)
        await other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        outcomes = await asyncio.gather(*(pg.run(answer, seconds=5, is_read=True) for _ in range(5)))
        assert outcomes == [42] * 5
        await other.close()


async def test_read_only_server(pools: Pools, own_postgres: OwnPostgres) -> None:
    """A server that turns read-only refuses writes as an outage, still reads, and needs no restart of ours after."""
    pg = await pools.open(own_postgres.dsn)
    await warm(pg, 5)

    async def turn(setting: str) -> None:
        connection = await asyncpg.connect(own_postgres.dsn)
        await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {setting}")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()

    async def is_refused() -> bool:
        try:
            await pg.run(write, seconds=2)
        except StoreUnavailable:
            return True
        return False

    await turn("on")
    await until(is_refused, what="the first refused write")
    for _ in range(10):
        assert await is_refused()
        assert await pg.run(answer, seconds=2, is_read=True) == 42
    await turn("off")

    async def is_accepted() -> bool:
        return not await is_refused()

    await until(is_accepted, seconds=5, what="the first accepted write")
    assert await pg.run(answer, seconds=2, is_read=True) == 42


async def test_read_only_session(pools: Pools, postgres_dsn: str) -> None:
    """A session that cannot write serves reads for a moment and no write; both move on once the server takes writes."""
    operator = await asyncpg.connect(postgres_dsn)
    await operator.execute(
        """
        CREATE FUNCTION turn(setting text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = %s', current_database(), setting);
        END $$;
        SELECT turn('on')
        """
    )
    pg = await pools.open(postgres_dsn)
    before = await pg.run(backend, seconds=5, is_read=True)
    assert await pg.run(backend, seconds=5, is_read=True) == before
    await operator.execute("SELECT turn('off')")

    async def has_moved() -> bool:
        return await pg.run(backend, seconds=5, is_read=True) != before

    await until(has_moved, seconds=READ_ONLY_SECONDS + 2, what="reads on a session that can write")
    await operator.execute("SELECT turn('on')")
    await pg.close()
    await pg.open()
    assert await pg.run(answer, seconds=5, is_read=True) == 42
    await operator.execute("SELECT turn('off')")
    await pg.run(write, seconds=5)
    await operator.close()


async def test_away_at_the_start(pools: Pools, own_postgres: OwnPostgres) -> None:
    """Opening does not need the server; calls fail at once while it is away and work when it has come. R079."""
    await own_postgres.stop()
    pg = await pools.open(own_postgres.dsn)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await pg.run(answer, seconds=10, is_read=True)
    assert time.monotonic() - started < 2
    await own_postgres.start()
    assert await pg.run(answer, seconds=10, is_read=True) == 42


async def test_slow_statement(pools: Pools, postgres_dsn: str) -> None:
    """A call that exceeds its deadline frees its place in the pool, and its connection is not used again."""
    pg = await pools.open(postgres_dsn, pool_size=1)
    before = await pg.run(backend, seconds=5)
    with pytest.raises(StoreUnavailable):
        await pg.run(hang, seconds=0.2)
    assert await pg.run(backend, seconds=5) != before


async def test_waiting_for_a_place_counts(pools: Pools, postgres_dsn: str) -> None:
    """The deadline covers the wait for a connection, and giving up that wait costs nobody else anything."""
    pg = await pools.open(postgres_dsn, pool_size=1)
    release = asyncio.Event()

    async def occupy(connection: Connection) -> int:
        await release.wait()
        return await answer(connection)

    occupant = asyncio.ensure_future(pg.run(occupy, seconds=10))
    outcomes = await asyncio.gather(*(pg.run(answer, seconds=0.2) for _ in range(5)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
    release.set()
    assert await occupant == 42
    assert await pg.run(answer, seconds=5) == 42


@pytest.mark.threat("answer of another request")
async def test_cancelled_caller(pools: Pools, postgres_dsn: str) -> None:
    """A caller that leaves gives its place back at once, and nobody gets its connection. R050."""
    pg = await pools.open(postgres_dsn, pool_size=1)
    before = await pg.run(backend, seconds=5)
    call = asyncio.ensure_future(pg.run(hang, seconds=30))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(call, 0.1)
    assert call.cancelled()
    assert await pg.run(backend, seconds=5) != before


@pytest.mark.threat("answer of another request")
async def test_no_crossed_answers(pools: Pools, postgres_dsn: str) -> None:
    """Whatever is cancelled or times out around it, a call gets the answer to its own question."""
    pg = await pools.open(postgres_dsn, pool_size=4)
    dice = random.Random(11)

    async def ask(number: int) -> bool:
        async def work(connection: Connection) -> int:
            return int(await connection.fetchval("SELECT $1::int FROM pg_sleep($2)", number, dice.random() / 200))

        try:
            async with asyncio.timeout(dice.choice((0.001, 0.005, 5))):
                found = await pg.run(work, seconds=dice.choice((0.002, 0.01, 5)), is_read=True)
        except (StoreUnavailable, TimeoutError):
            return False
        assert found == number
        return True

    answered = 0
    for start in range(0, 400, 10):
        answered += sum(await asyncio.gather(*(ask(number) for number in range(start, start + 10))))
    assert answered > 20
    assert await pg.run(answer, seconds=5) == 42


async def test_too_many_abandoned(pools: Pools, postgres_dsn: str) -> None:
    """When dropped calls do not end, further ones are refused at once instead of piling up."""
    pg = await pools.open(postgres_dsn, pool_size=10)
    release = asyncio.Event()

    async def undying(connection: Connection) -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    outcomes: list[BaseException | None] = []
    while not any("too many" in str(outcome) for outcome in outcomes):
        calls = (pg.run(undying, seconds=0.3) for _ in range(10))
        outcomes += await asyncio.gather(*calls, return_exceptions=True)
    assert len(outcomes) >= ABANDONED_LIMIT
    release.set()

    async def is_well() -> bool:
        try:
            return await pg.run(answer, seconds=5) == 42
        except StoreUnavailable:
            return False

    await until(is_well)


class Refused(GatewayError):
    """Raised by a test's work."""


async def duplicate(connection: Connection) -> None:
    await connection.execute("INSERT INTO plans (name) VALUES ('twice'), ('twice')")


async def refuse(connection: Connection) -> None:
    raise Refused("no")


async def misspell(connection: Connection) -> None:
    await connection.execute("SELEKT 1")


async def break_down(connection: Connection) -> None:
    raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (duplicate, asyncpg.UniqueViolationError),
        (refuse, Refused),
        (misspell, StoreUnavailable),
        (break_down, RuntimeError),
    ],
    ids=["constraint", "gateway-error", "statement-error", "bug"],
)
async def test_errors(
    pools: Pools, postgres_dsn: str, work: Callable[[Connection], "asyncio.Future[None]"], expected: type[Exception]
) -> None:
    """What the work itself decides passes through; what Postgres does not like is an outage. R047."""
    pg = await pools.open(postgres_dsn, pool_size=1)
    assert await pg.run(answer, seconds=5) == 42
    with pytest.raises(expected):
        await pg.run(work, seconds=5, is_read=True)
    assert pg.is_up
    assert await pg.run(answer, seconds=5) == 42


async def test_left_transaction(pools: Pools, postgres_dsn: str) -> None:
    """A connection that a call leaves inside a transaction is not used again."""
    pg = await pools.open(postgres_dsn, pool_size=1)

    async def begin(connection: Connection) -> int:
        await connection.execute("BEGIN")
        return connection.get_server_pid()

    assert await pg.run(begin, seconds=5) != await pg.run(backend, seconds=5)


@pytest.mark.parametrize(
    "change",
    [
        lambda dsn, secret: dsn.replace("postgresql://", f"nonsense{secret}://"),
        lambda dsn, secret: f"postgresql://u:p@127.0.0.1:{secret}/db",
        lambda dsn, secret: f"{dsn}?sslmode={secret}",
        lambda dsn, secret: f"postgresql://postgres:{secret}@{dsn.partition('@')[2]}",
    ],
    ids=["scheme", "port", "parameter", "password"],
)
async def test_secrets_stay_out_of_errors(pools: Pools, postgres_dsn: str, change: Callable[[str, str], str]) -> None:
    """No error, nor what stands behind it, quotes the DSN. R324."""
    pg = await pools.open(change(postgres_dsn, "hunter2"))
    with pytest.raises(StoreUnavailable) as caught:
        await pg.run(answer, seconds=5)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
