"""A small pool of Postgres connections in which every call has our own deadline. Must not know: any SQL.

asyncpg's timeouts and cancellation wait for the server to agree, which a frozen server never does. So a call is a task
of its own, and at its deadline the task and its connection are dropped without waiting for either.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from gateway.errors import GatewayError, StoreUnavailable
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

# Dropped tasks end within a turn of the loop; so many at once mean that something in them waits for ever.
ABANDONED_LIMIT = 100
CLOSE_SECONDS = 1.0
# How long a read may go on using a server that takes no writes, before it looks again for one that does.
READ_ONLY_SECONDS = 1.0
# How long a statement stays prepared, and with it the plan that Postgres has made for any parameters. It does not look
# at the size of a table again until that one is analyzed, and one that was tiny may have been filled meanwhile.
PREPARED_SECONDS = 10

T = TypeVar("T")


class _Call:
    """What one call holds of the pool: a slot, and a connection once it has one."""

    def __init__(self) -> None:
        self.has_slot = False
        self.connection: Connection | None = None


class Postgres:
    """Connections to one database, at most `pool_size` in use at once; opened when first needed.

    Promises: a call ends by its deadline, whatever the server does; a connection whose call was cancelled, timed out
    or failed oddly is never used again; a server that freezes, restarts or becomes read-only needs no restart of ours.
    `replica` numbers a read replica: any server will do, since nothing is written and what lags says so itself.
    Session state (SET, LISTEN, advisory locks) is not reset between calls: `work` must leave none.
    """

    def __init__(self, dsn: str, *, pool_size: int = 10, metrics: Metrics, replica: int | None = None) -> None:
        self._dsn = dsn
        self._is_replica = replica is not None
        name = "postgres" if replica is None else f"postgres_replica_{replica}"
        self._slots = asyncio.Semaphore(pool_size)
        self._idle: list[Connection] = []
        self._opened_at: dict[Connection, float] = {}
        self._calls: dict[asyncio.Task[Any], _Call] = {}
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self._up = metrics.dependency_up.labels(name)
        self._dropped_calls = metrics.dropped_calls.labels(name)
        self.is_up = False

    async def open(self) -> None:
        """Ready for calls. Does not connect, hence does not fail while the server is away."""
        self._is_closed = False
        self._up.set(0)

    async def close(self) -> None:
        """Drop the calls under way and close every connection, within about CLOSE_SECONDS."""
        self._is_closed = True
        for task, call in list(self._calls.items()):
            self._abandon(task, call)
        idle, self._idle = self._idle, []
        farewells = {asyncio.ensure_future(connection.close()) for connection in idle}
        for farewell in farewells:
            farewell.add_done_callback(self._forget)
        if pending := farewells | self._abandoned:
            await asyncio.wait(pending, timeout=CLOSE_SECONDS)
        for connection in idle:
            connection.terminate()
        for farewell in farewells:
            farewell.cancel()
        self._opened_at.clear()
        self._mark(is_up=False)

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, seconds: float, is_read: bool = False) -> T:
        """Run `work` with a connection of its own and return its result, within `seconds` of waiting in all.

        A read that a pooled connection fails is repeated once, on a new one: that is what a restarted server looks
        like. A write is not: it may have been done.
        Raises StoreUnavailable when Postgres cannot be reached, errs, or takes longer (then a write may still have
        been done). GatewayError and constraint violations of `work` pass through.
        """
        if self._is_closed:
            raise StoreUnavailable("Postgres: the pool is closed")
        if len(self._abandoned) >= ABANDONED_LIMIT:
            raise StoreUnavailable("Postgres: too many abandoned calls have not ended")
        call = _Call()
        task = asyncio.ensure_future(self._perform(work, call, is_read=is_read))
        self._calls[task] = call
        try:
            await asyncio.wait({task}, timeout=seconds)
            if not task.done():
                self._dropped_calls.inc()
                if call.connection is not None or call.has_slot:
                    # The next callers shall not pay for each pooled connection with a deadline.
                    self._drop_idle()
                    self._mark(is_up=False)
                raise StoreUnavailable(f"Postgres did not answer within {seconds} s")
            return self._outcome(task)
        finally:
            self._calls.pop(task, None)
            if not task.done():
                self._abandon(task, call)
            elif not task.cancelled():
                task.exception()  # the caller may have left meanwhile, and nobody else looks at it

    def _outcome(self, task: asyncio.Task[T]) -> T:
        if task.cancelled():
            raise StoreUnavailable("Postgres: the pool was closed during the call")
        try:
            result = task.result()
        except StoreUnavailable:
            raise
        except (GatewayError, asyncpg.IntegrityConstraintViolationError):
            self._mark(is_up=True)
            raise
        except asyncpg.PostgresError as error:
            self._mark(is_up=not _is_dead(error))
            raise StoreUnavailable(f"Postgres: {type(error).__name__} {error.sqlstate}: {error}") from error
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            self._mark(is_up=False)
            raise StoreUnavailable(f"Postgres: {type(error).__name__}: {error}") from error
        self._mark(is_up=True)
        return result

    async def _perform(self, work: Callable[[Connection], Awaitable[T]], call: _Call, *, is_read: bool) -> T:
        await self._slots.acquire()
        call.has_slot = True
        try:
            pooled = self._take_idle(is_read=is_read)
            if pooled is not None:
                try:
                    return await self._use(pooled, work, call)
                except (GatewayError, asyncpg.IntegrityConstraintViolationError):
                    raise
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                    if not is_read:
                        raise
            return await self._use(await self._connect(is_read=is_read), work, call)
        finally:
            self._free_slot(call)

    async def _use(self, connection: Connection, work: Callable[[Connection], Awaitable[T]], call: _Call) -> T:
        call.connection = connection
        is_reusable = False
        try:
            result = await work(connection)
            is_reusable = True
            return result
        except GatewayError:
            is_reusable = True
            raise
        except asyncpg.PostgresError as error:
            is_reusable = not _is_dead(error)
            if not is_reusable:
                self._drop_idle()  # what else is pooled goes to the same server
            raise
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            self._drop_idle()
            raise
        finally:
            if is_reusable and call.connection is connection and not self._is_closed:
                self._give_back(connection)
            else:
                self._drop(connection)
            call.connection = None

    async def _connect(self, *, is_read: bool) -> Connection:
        wanted = SessionAttribute.any if self._is_replica else SessionAttribute.read_write
        try:
            try:
                connection = await self._connect_to(wanted)
            except asyncpg.TargetServerAttributeNotMatched:
                # Every host was asked, and none takes writes. Reading goes on, but never from a standby: what lags
                # behind must not pass for the present.
                if not is_read:
                    raise
                connection = await self._connect_to(SessionAttribute.primary)
        except ValueError:
            # The text may quote the DSN with its password.
            raise StoreUnavailable("Postgres: the DSN is malformed") from None
        self._opened_at[connection] = asyncio.get_running_loop().time()
        return connection

    async def _connect_to(self, wanted: SessionAttribute) -> Connection:
        return await asyncpg.connect(
            self._dsn, target_session_attrs=wanted, max_cached_statement_lifetime=PREPARED_SECONDS
        )

    def _take_idle(self, *, is_read: bool) -> Connection | None:
        oldest = asyncio.get_running_loop().time() - READ_ONLY_SECONDS
        while self._idle:
            connection = self._idle.pop()
            is_usable = (
                self._is_replica or _is_writable(connection) or (is_read and self._opened_at[connection] > oldest)
            )
            if is_usable and not connection.is_closed():
                return connection
            self._drop(connection)
        return None

    def _give_back(self, connection: Connection) -> None:
        if connection.is_closed() or connection.is_in_transaction():
            self._drop(connection)
        else:
            self._idle.append(connection)

    def _drop(self, connection: Connection) -> None:
        self._opened_at.pop(connection, None)
        connection.terminate()

    def _drop_idle(self) -> None:
        while self._idle:
            self._drop(self._idle.pop())

    def _free_slot(self, call: _Call) -> None:
        if call.has_slot:
            call.has_slot = False
            self._slots.release()

    def _abandon(self, task: asyncio.Task[Any], call: _Call) -> None:
        self._calls.pop(task, None)
        # In this order: a task cancelled first would have the library open a connection to ask for the cancellation.
        connection, call.connection = call.connection, None
        if connection is not None:
            self._drop(connection)
        task.cancel()
        self._free_slot(call)
        self._abandoned.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(task)
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()  # looked at, so that the loop does not report it

    def _mark(self, *, is_up: bool) -> None:
        self.is_up = is_up
        self._up.set(is_up)


def _is_dead(error: asyncpg.PostgresError) -> bool:
    """Whether the error says that this server is lost to us, not merely that it did not like the statement."""
    return isinstance(
        error,
        (
            asyncpg.PostgresConnectionError,
            asyncpg.OperatorInterventionError,
            # A demoted primary would otherwise keep a pool for ever.
            asyncpg.ReadOnlySQLTransactionError,
        ),
    ) and not isinstance(error, asyncpg.QueryCanceledError)


def _is_writable(connection: Connection) -> bool:
    settings = connection.get_settings()
    # The server reports both with every change; one older than PostgreSQL 14 does not.
    return "on" not in (
        getattr(settings, "default_transaction_read_only", "off"),
        getattr(settings, "in_hot_standby", "off"),
    )
