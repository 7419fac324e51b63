"""The public listener: makes a connection for every client, sweeps their deadlines, and shuts them down in order."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import structlog
from aiohttp import web

from gateway.auth.credentials import CredentialReader
from gateway.proxy.client import ClientConnection, ConnectionLimits
from gateway.proxy.crowd import Crowd, Visit
from gateway.proxy.edge import Edge, IpAddress, TrustedProxies, address_of
from gateway.proxy.headers import HeaderTable
from gateway.proxy.places import Places
from gateway.proxy.request_head import RequestReader
from gateway.proxy.services import Services
from gateway.telemetry.lag import Lag

log = structlog.get_logger(__name__)

SWEEP_SECONDS: Final = 0.5  # a timer per request would cost more than the request
LAST_ARRIVAL_SECONDS: Final = 2.0  # for PROXY headers and TLS handshakes that are under way when the gateway stops
SHORTEST_PAUSE_SECONDS: Final = 0.05  # between two sweeps, where a deadline falls between


class Patience:
    """A wait that has a bound, and can be ended before."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()

    async def wait(self, seconds: float | None) -> None:
        """Until it is ended, `seconds` at most."""
        self._ended.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    def end(self) -> None:
        """End the wait that is under way."""
        self._ended.set()


class ProxyServer(web.Server):
    """An aiohttp server whose connections speak to the forwarding engine.

    Runner, sites, sockets and TLS are aiohttp's; `web.ServerRunner(ProxyServer(...))` serves it.
    """

    def __init__(
        self,
        services: Services,
        table: HeaderTable,
        credentials: CredentialReader,
        places: Places,
        limits: ConnectionLimits,
        *,
        header_count_limit: int,
        proxies: TrustedProxies,
        crowd: Crowd,
        lag: Lag,
    ) -> None:
        super().__init__(_never)
        self._services = services
        self._table = table
        self._credentials = credentials
        self._places = places
        self._limits = limits
        self._header_count_limit = header_count_limit
        self._proxies = proxies
        self.crowd = crowd
        self._lag = lag
        self._clients: set[ClientConnection] = set()
        self._arriving: set[asyncio.Task[None]] = set()
        self._patience = Patience()
        self._sweeper: asyncio.Task[None] | None = None
        self.is_draining = False
        self._linger_seconds = 0.0
        self._is_cutting = False

    def __call__(self, visit: Visit | None = None) -> ClientConnection:  # type: ignore[override]  # aiohttp's is replaced
        """A protocol for a new connection; `visit` is how it is counted already, if it is: its peer is known then."""
        reader = RequestReader(
            self._table,
            self._credentials,
            self._places,
            line_limit_bytes=self._limits.line_limit_bytes,
            header_count_limit=self._header_count_limit,
        )
        return ClientConnection(self._services, reader, self._limits, self, visit)

    def start(self) -> None:
        """Begin to sweep deadlines."""
        self._sweeper = asyncio.create_task(self._sweep())

    def edge(self, address: IpAddress | None, scheme: str) -> Edge:
        """What a peer at this address is."""
        return Edge(address, scheme, self._proxies)

    def receive(self, arrival: Coroutine[Any, Any, None]) -> None:
        """Have a connection arrive that has been accepted. `shutdown` waits for it a moment, then cancels it."""
        task = asyncio.create_task(arrival)
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    def opened(self, connection: ClientConnection) -> Edge:
        """As Registry."""
        self._clients.add(connection)
        if connection.visit is not None and connection.visit.edge is not None:
            return connection.visit.edge
        transport = connection.transport
        edge = self.edge(address_of(transport.get_extra_info("peername")), "http")
        connection.visit = visit = self.crowd.enter()
        # Without an address it has been reset already. What it sent before that can still be read, and would come from
        # nobody: no rule for addresses would hold.
        if visit is None or not visit.identify(edge) or edge.address is None:
            transport.abort()
        return edge

    def closed(self, connection: ClientConnection) -> None:
        """As Registry."""
        if connection in self._clients:
            self._clients.remove(connection)
            if connection.visit is not None:
                connection.visit.end()
        if not self._clients:
            self._patience.end()

    def count(self, *, is_busy: bool) -> int:
        """How many client connections are in an exchange, or between two, or on their way to the first."""
        arriving = 0 if is_busy else len(self._arriving)
        return arriving + sum(connection.is_busy == is_busy for connection in self._clients)

    async def _sweep(self) -> None:
        pause = SWEEP_SECONDS
        while True:
            due = self._services.monotonic() + pause
            await asyncio.sleep(pause)
            now = self._services.monotonic()
            self._lag.woke(now - due)
            soonest = now + SWEEP_SECONDS
            for connection in tuple(self._clients):
                self._guarded(connection, partial(connection.sweep, now))
                if now < connection.next_deadline < soonest:
                    soonest = connection.next_deadline
            pause = max(soonest - now, SHORTEST_PAUSE_SECONDS)
            if self.is_draining:
                self._end_soon()  # what has become idle, or a socket, meanwhile
            for upstream in self._services.upstreams.values():
                for target in upstream.targets:
                    target.close_idle(now - upstream.idle_seconds)

    @staticmethod
    def _guarded(connection: ClientConnection, act: Callable[[], None]) -> None:
        """A fault in one connection ends that connection, not the sweep of all others."""
        try:
            act()
        except Exception:
            log.exception("unforeseen error in a connection")
            connection.cut()

    # -- shutdown; the last two are called by aiohttp's runner once the sites accept no more

    def linger(self, seconds: float) -> None:
        """Let streams and sockets go on for so long when it comes to that: another gateway has taken this one's place.

        Otherwise sockets are told to go at once.
        """
        self._linger_seconds = seconds

    def hurry(self) -> None:
        """Linger no more."""
        if self._linger_seconds:
            self._linger_seconds = 0.0
            self._patience.end()

    def cut(self) -> None:
        """Wait for nothing any more."""
        self._is_cutting = True
        self._linger_seconds = 0.0
        self._patience.end()

    def pre_shutdown(self) -> None:
        """Connections close after the reply under way; those between requests may ask for one more (R346)."""
        self.is_draining = True
        self._end_soon()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # aiohttp's signature
        """Wait until every exchange is over, `timeout` seconds at most; then cut what is left."""
        await self._end_arrivals()
        if self._linger_seconds:
            await self._wait_for_all(self._linger_seconds)
            self._linger_seconds = 0.0
            self._end_soon()
        await self._wait_for_all(timeout)
        for connection in tuple(self._clients):
            connection.cut()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        for upstream in self._services.upstreams.values():
            upstream.close()

    def _end_soon(self) -> None:
        for connection in tuple(self._clients):
            self._guarded(connection, partial(connection.end_soon, is_told=not self._linger_seconds))

    async def _wait_for_all(self, seconds: float | None) -> None:
        if self._clients and not self._is_cutting:
            await self._patience.wait(seconds)

    async def _end_arrivals(self) -> None:
        await asyncio.sleep(0)  # asyncio makes a connection two steps after it has accepted it; one was aiohttp's
        if self._arriving and not self._is_cutting:
            await asyncio.wait(self._arriving, timeout=LAST_ARRIVAL_SECONDS)
        for task in tuple(self._arriving):
            task.cancel()
        await asyncio.gather(*self._arriving, return_exceptions=True)


async def _never(request: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError("the engine reads every request of this server")
