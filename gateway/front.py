"""The public listener put together: from the configured upstreams and routes to the socket that callers talk to.

The gateway's own public endpoints are an upstream like others, whose connections lead nowhere but into this process.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiohttp import web

from gateway.auth.admission import Admission
from gateway.auth.assertions import Asserter
from gateway.auth.credentials import CredentialReader
from gateway.auth.last_used import LastUsed
from gateway.auth.verdict import Access
from gateway.clock import Clock
from gateway.control.portal.application import Portal
from gateway.control.public import JWKS, PREFIX, WHOAMI, build_public
from gateway.control.tokens import Mint
from gateway.limits.metering import Meter
from gateway.listeners import BACKLOG, Listeners, Place, Sockets, tcp_sites
from gateway.proxy.arrivals import ArrivalSite
from gateway.proxy.assembly import (
    address_rule,
    places_of,
    request_table,
    response_table,
    routes_of,
    server_certificate,
    upstreams_of,
)
from gateway.proxy.crowd import Crowd
from gateway.proxy.door import DOOR, Door
from gateway.proxy.edge import TrustedProxies
from gateway.proxy.headers import HeaderTable
from gateway.proxy.limiting import Limiting
from gateway.proxy.naming import Naming
from gateway.proxy.replies import Replies
from gateway.proxy.router import Route, Router
from gateway.proxy.server import ProxyServer
from gateway.proxy.services import Services, request_ids
from gateway.proxy.tally import Tally
from gateway.proxy.target import Target
from gateway.proxy.upstream import Upstream
from gateway.proxy.watch import Watch
from gateway.setting_values import PORTAL_UPSTREAM
from gateway.settings import Address, Settings
from gateway.telemetry.lag import Lag
from gateway.telemetry.metrics import Metrics

OWN_UPSTREAM: Final = ".ostiary"  # the gateway's own public endpoints; a configured name cannot begin with a dot
OWN_SECONDS: Final = 10.0
OWN_BODY_LIMIT_BYTES: Final = 64 * 1024


class Front:
    """What callers meet. `server` and `upstreams` are there once it serves; what closes its parts goes onto `stack`."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        metrics: Metrics,
        listeners: Listeners,
        place: Place,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._listeners = listeners
        self._place = place
        self._stack = stack
        self.router = Router([*_own_routes(settings), *routes_of(settings)], _door())
        self.upstreams: dict[str, Upstream] = {}
        self.server: ProxyServer | None = None

    async def serve(
        self,
        admission: Admission,
        credentials: CredentialReader,
        last_used: LastUsed,
        meter: Meter,
        mint: Mint | None,
        asserters: dict[str, Asserter],
        limiting: Limiting,
        watch: Watch,
        portal: Portal | None,
    ) -> None:
        """Serve callers, once the listeners are open."""
        settings, metrics = self._settings, self._metrics
        table = response_table(settings)
        proxies = TrustedProxies(settings.trusted_proxies, header=settings.trusted_header)
        names = settings.identity_headers.model_dump(exclude={"request_id"})
        upstreams = upstreams_of(settings, table, self._clock, metrics, asserters)
        for watched in upstreams.watches:
            await watched.start()
            self._stack.push_async_callback(watched.close)
        public = build_public(settings.identity_headers.model_dump(), mint)
        self.upstreams = by_name = {
            **upstreams.by_name,
            OWN_UPSTREAM: await self._own_upstream(OWN_UPSTREAM, public, table),
        }
        if portal is not None:
            pages = web.Application(client_max_size=OWN_BODY_LIMIT_BYTES)
            portal.mounted_on(pages, _address_of(proxies), takes_tokens=False)
            by_name[PORTAL_UPSTREAM] = await self._own_upstream(PORTAL_UPSTREAM, pages, table)
        services = Services(
            router=self.router,
            admission=admission,
            upstreams=by_name,
            tally=Tally(metrics),
            monotonic=self._clock.monotonic,
            body_seconds=settings.client.body_timeout_seconds,
            replies=Replies(settings.identity_headers.request_id, names.values()),
            new_request_id=request_ids(),
            last_used=last_used,
            limiting=limiting,
            meter=meter,
            watch=watch,
            watched_from_seconds=watch.from_seconds,
            tracing=watch.tracing,
            naming=Naming(credentials, places_of(settings), settings.client.line_limit_bytes),
        )
        self.server = server = ProxyServer(
            services,
            request_table(settings),
            credentials,
            places_of(settings),
            settings.client,
            header_count_limit=settings.client.header_count_limit,
            proxies=proxies,
            crowd=Crowd(
                limit=settings.client.connection_limit,
                address_limit=settings.client.address_connection_limit,
                refused=metrics.connections_refused,
                monotonic=self._clock.monotonic,
            ),
            lag=Lag(metrics.loop_lag),
        )
        _watch_connections(metrics, server, by_name)
        _watch_upstreams(metrics, upstreams.by_name)
        connection_limit = settings.client.connection_limit
        if connection_limit is not None:
            metrics.connection_limit.follow(lambda: [((), float(connection_limit))])
        server.start()
        certificate = server_certificate(settings)
        if certificate is not None:
            metrics.certificate_expiry.follow(lambda: [(("listener", ""), certificate.ends_at)])
            await certificate.start()
            self._stack.push_async_callback(certificate.close)
        await self._listen_for_callers(server, proxies, None if certificate is None else certificate.context)

    async def _listen_for_callers(
        self, server: ProxyServer, proxies: TrustedProxies, tls: ssl.SSLContext | None
    ) -> None:
        runner = web.ServerRunner(server, shutdown_timeout=self._settings.drain.finish_seconds)
        is_behind_balancers = self._settings.listen.proxy_protocol
        if tls is None and not is_behind_balancers:
            await self._listeners.add(runner, self._place, tcp_sites)
            return

        def sites(runner: web.BaseRunner, address: Address, sockets: Sockets | None) -> Sequence[web.BaseSite]:
            site = ArrivalSite(
                runner,
                address,
                sockets,
                tls=tls,
                balancers=proxies if is_behind_balancers else None,
                seconds=self._settings.client.head_timeout_seconds,  # for what comes before a head, too
                refused=self._metrics.connections_refused,
                backlog=BACKLOG,
            )
            return [site]

        await self._listeners.add(runner, self._place, sites)

    async def _own_upstream(self, name: str, app: web.Application, table: HeaderTable) -> Upstream:
        """What this process itself answers: an upstream whose connections are socket pairs inside it."""
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        return Upstream(
            name,
            [Target(name, _pair_connector(runner), table)],
            balance="round_robin",
            attempts=1,
            connect_seconds=OWN_SECONDS,
            idle_seconds=OWN_SECONDS,
            observe=self._metrics.upstream_seconds.of(name).observe,
            monotonic=self._clock.monotonic,
        )


def _address_of(proxies: TrustedProxies) -> Callable[[web.Request], str | None]:
    """Whence a request comes that has come through this listener, which writes X-Forwarded-For."""

    def address_of(request: web.Request) -> str | None:
        chain = [part.strip().encode() for part in request.headers.get("X-Forwarded-For", "").split(",")]
        address = proxies.client_of(chain)
        return None if address is None else str(address)

    return address_of


def _own_routes(settings: Settings) -> list[Route]:
    """Who may use the gateway's own endpoints: callers with a key; whoami, with a token too; the JWKS, anybody."""
    access = {PREFIX: Access("required"), WHOAMI: Access("required", tokens=True, admits_narrowed=True)}
    if settings.tokens is not None:
        access[JWKS] = Access("none")
    return [
        Route(
            OWN_UPSTREAM + path.removeprefix(PREFIX).replace("/", "."),
            (path.encode(),),
            OWN_UPSTREAM,
            needed,
            response_seconds=OWN_SECONDS,
            idle_seconds=OWN_SECONDS,
            addresses=address_rule(settings.client.addresses),
        )
        for path, needed in access.items()
    ]


def _door() -> Route:
    """Where proxies ask about requests that they forward by themselves. Anybody may, about his own."""
    return Route(
        OWN_UPSTREAM + ".auth",
        (DOOR,),
        OWN_UPSTREAM,
        Access("none"),
        response_seconds=OWN_SECONDS,
        idle_seconds=OWN_SECONDS,
        early=Door(),
    )


def _pair_connector(runner: web.AppRunner) -> Callable[[Callable[[], asyncio.BaseProtocol]], Any]:
    async def connect(factory: Callable[[], asyncio.BaseProtocol]) -> Any:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        assert runner.server is not None
        await loop.connect_accepted_socket(runner.server, theirs)
        return await loop.create_connection(factory, sock=ours)

    return connect


def _watch_upstreams(metrics: Metrics, upstreams: dict[str, Upstream]) -> None:
    """Targets and requests under way, counted when somebody looks. What upstreams are called is configured."""
    metrics.targets.follow(lambda: (((name,), float(len(one.targets))) for name, one in upstreams.items()))
    metrics.targets_out.follow(
        lambda: (((name,), float(sum(target.is_out for target in one.targets))) for name, one in upstreams.items())
    )
    limited = {name: one.slots for name, one in upstreams.items() if one.slots is not None}
    metrics.concurrency.follow(lambda: (((name,), float(slots.busy)) for name, slots in limited.items()))
    metrics.concurrency_limit.follow(lambda: (((name,), float(slots.limit)) for name, slots in limited.items()))


def _watch_connections(metrics: Metrics, server: ProxyServer, upstreams: dict[str, Upstream]) -> None:
    """Connections are counted when somebody looks, not when they change."""

    def upstream_count(*, is_idle: bool) -> int:
        targets = [target for upstream in upstreams.values() for target in upstream.targets]
        idle = sum(target.idle_count for target in targets)
        return idle if is_idle else sum(len(target.open) for target in targets) - idle

    gauge = metrics.connections
    gauge.labels("client", "busy").set_function(lambda: server.count(is_busy=True))
    gauge.labels("client", "idle").set_function(lambda: server.count(is_busy=False))
    gauge.labels("upstream", "busy").set_function(lambda: upstream_count(is_idle=False))
    gauge.labels("upstream", "idle").set_function(lambda: upstream_count(is_idle=True))
