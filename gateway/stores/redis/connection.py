"""Connections to Redis: standalone, Sentinel or Cluster, told apart by the URL. Every call has our deadline.

Schemes: `redis`, `rediss` (TLS), `unix`; `redis+sentinel://[user:password@]host:port,host:port/service[/db]`;
`redis+cluster://[user:password@]host:port,host:port`; both also as `rediss+...`. Valkey is the same.
Must not know: what is stored.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import redis.asyncio
import structlog
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.errors import GatewayError, StoreUnavailable
from gateway.stores.deadline import BoundedCalls, CallDropped
from gateway.stores.redis.breaker import Breaker
from gateway.telemetry.metrics import Metrics

# A Redis slower than this is slower than Postgres: it counts as dead.
DEADLINE_SECONDS = 0.05
# While the breaker is open: between probes, and for one of them, which may have to connect first.
PROBE_SECONDS = 1.0
MAX_CONNECTIONS = 32
CLOSE_SECONDS = 0.5
DEFAULT_PORT = 6379

Client = redis.asyncio.Redis | RedisCluster
# The library's own. That no node of a cluster answers is of a family apart.
REDIS_ERRORS: Final = (RedisError, RedisClusterException)
T = TypeVar("T")
log = structlog.get_logger(__name__)


class UrlUnreadable(GatewayError, ValueError):
    """The URL of Redis is none. Nothing of it is in the text."""


class Redis:
    """A pool of connections to one Redis, behind a breaker. Opened lazily: `open` does not fail while it is away.

    `url` may hold a password and is never shown. `environment` is what every name begins with (names.py);
    `dependency` is what it is called in metrics; after `timeouts_to_open` timeouts in a row it is not asked.
    """

    def __init__(
        self,
        url: str,
        *,
        environment: str,
        metrics: Metrics,
        deadline_seconds: float = DEADLINE_SECONDS,
        timeouts_to_open: int = 1,
        dependency: str = "redis",
    ) -> None:
        self.environment = environment
        self.breaker = Breaker(timeouts_to_open)
        self._url = url
        self._deadline_seconds = deadline_seconds
        self._calls = BoundedCalls(dependency, metrics)
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._up = metrics.dependency_up.labels(dependency)
        self._client: Client | None = None
        self._sentinel: Sentinel | None = None
        self._probe: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Redis {self.environment} {self.breaker!r}>"

    @property
    def is_up(self) -> bool:
        """Whether calls go through."""
        return self._client is not None and not self.breaker.is_open

    @property
    def is_cluster(self) -> bool:
        """Whether channels have to be sharded ones, so that message and ping share a node."""
        return isinstance(self._client, RedisCluster)

    async def open(self) -> None:
        """Make the client and try one connection. Raises UrlUnreadable for a URL that is none."""
        try:
            self._client = self._make_client()
        except UrlUnreadable:
            raise
        except ValueError:
            # The text may quote the URL with its password.
            raise UrlUnreadable(
                "the URL of Redis cannot be read: percent-encode signs such as / @ # in user and password"
            ) from None
        try:
            await self._calls.run(self._ping(), seconds=PROBE_SECONDS)
        except TypeError as error:  # options go on to the library's connections, which take some by name
            raise UrlUnreadable("the URL of Redis has an option that is not known") from error
        except (StoreUnavailable, *REDIS_ERRORS, OSError) as error:
            self.breaker.opens()
            self._went_away(error)
        else:
            self._up.set(1)

    async def close(self) -> None:
        """Close every connection, within about CLOSE_SECONDS."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(StoreUnavailable, *REDIS_ERRORS, OSError):
                await self._calls.run(_closed(client, self._sentinel), seconds=CLOSE_SECONDS)
        await self._calls.close(seconds=CLOSE_SECONDS)
        self._up.set(0)

    async def run(
        self, work: Callable[[Client], Awaitable[T]], *, seconds: float | None = None, is_insistent: bool = False
    ) -> T:
        """Do `work` with the client and return its result, within `seconds` (default: the deadline of this Redis).

        `is_insistent`: ask also while the breaker is open; for what a change waits for.
        Raises StoreUnavailable. An error that Redis itself replies with is one too, but not held against it.
        """
        client = self._client
        if client is None or (self.breaker.is_open and not is_insistent):
            raise StoreUnavailable("Redis is not asked: it is closed, or did not answer a moment ago")
        try:
            result = await self._calls.run(
                self._in_slot(work, client), seconds=self._deadline_seconds if seconds is None else seconds
            )
        except ResponseError as error:
            self._came_back()
            raise StoreUnavailable(f"Redis refused: {error}") from error
        except (CallDropped, RedisTimeoutError) as error:
            if self.breaker.timed_out():
                self._went_away(error)
            raise StoreUnavailable(f"Redis: {error}") from error
        except (*REDIS_ERRORS, OSError) as error:
            if self.breaker.failed():
                self._went_away(error)
            raise StoreUnavailable(f"Redis: {type(error).__name__}: {error}") from error
        self._came_back()
        return result

    async def connection_for(self, channel: str) -> AbstractConnection:
        """A connection of the caller's own to the node that holds `channel`, not yet connected. Reads wait for ever.

        Raises StoreUnavailable.
        """
        client = self._client
        if client is None:
            raise StoreUnavailable("Redis is closed")
        if isinstance(client, RedisCluster):
            # Any command on the name follows a moved slot and leaves the client knowing its new place.
            await self.run(lambda _: client.exists(channel), seconds=PROBE_SECONDS, is_insistent=True)
            node = client.get_node_from_key(channel)
            if node is None:
                raise StoreUnavailable("Redis: no node of the cluster holds the channel")
            connection: AbstractConnection = node.connection_class(**node.connection_kwargs)
        else:
            connection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        connection.socket_timeout = None
        return connection

    async def _in_slot(self, work: Callable[[Client], Awaitable[T]], client: Client) -> T:
        async with self._slots:
            return await work(client)

    def _came_back(self) -> None:
        if self.breaker.answered():
            log.info("redis_answers_again", environment=self.environment)
        self._up.set(1)

    def _went_away(self, error: Exception) -> None:
        self._up.set(0)
        log.warning("redis_does_not_answer", environment=self.environment, error=str(error))
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._probe_until_answered())

    async def _probe_until_answered(self) -> None:
        while self.breaker.is_open:
            await asyncio.sleep(PROBE_SECONDS)
            with contextlib.suppress(StoreUnavailable, *REDIS_ERRORS, OSError):
                await self._calls.run(self._ping(), seconds=PROBE_SECONDS)
                self._came_back()

    async def _ping(self) -> None:
        assert self._client is not None
        if isinstance(self._client, RedisCluster):
            await self._client.initialize()
        await self._client.execute_command("PING")

    def _make_client(self) -> Client:
        # The library's own timeouts stand behind ours, and it must not repeat anything: that multiplies them.
        options: dict[str, Any] = {
            "socket_timeout": max(2 * self._deadline_seconds, PROBE_SECONDS),
            "socket_connect_timeout": PROBE_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            "max_connections": 2 * MAX_CONNECTIONS,
            "protocol": 2,
        }
        scheme, _, kind = urlsplit(self._url).scheme.partition("+")
        if not kind:
            pool = ConnectionPool.from_url(self._url, **options)
            return redis.asyncio.Redis.from_pool(pool)
        if scheme not in ("redis", "rediss"):
            raise UrlUnreadable("the URL of Redis has a scheme that is not known")
        nodes, path, credentials = _read_nodes(self._url)
        options |= credentials
        if scheme == "rediss":
            options["ssl"] = True
        if kind == "cluster" and not path:
            return RedisCluster(startup_nodes=[ClusterNode(*node) for node in nodes], **options)
        if kind == "sentinel" and len(path) in (1, 2):
            if len(path) == 2:
                options["db"] = int(path[1])
            asking = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout", "retry", "protocol")}
            self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
                nodes,
                sentinel_kwargs=asking | credentials,
                **options,
            )
            master: redis.asyncio.Redis = self._sentinel.master_for(path[0])
            return master
        raise UrlUnreadable("the URL of Redis has a scheme or a path that is not known")


def _read_nodes(url: str) -> tuple[list[tuple[str, int]], list[str], dict[str, str]]:
    """Hosts with ports, the path's parts, and the credentials, of a URL that names several hosts."""
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    nodes = []
    for host in hosts.split(","):
        single = urlsplit(f"//{host}")
        if not single.hostname:
            raise UrlUnreadable("the URL of Redis names no host")
        nodes.append((single.hostname, single.port or DEFAULT_PORT))
    username, _, password = user.partition(":")
    credentials = {"username": unquote(username), "password": unquote(password)}
    return nodes, [part for part in parts.path.split("/") if part], {k: v for k, v in credentials.items() if v}


async def _closed(client: Client, sentinel: Sentinel | None) -> None:
    await client.aclose()
    if isinstance(client, redis.asyncio.Redis):
        await client.connection_pool.disconnect()
    if sentinel is not None:
        for asked in sentinel.sentinels:
            await asked.aclose()
