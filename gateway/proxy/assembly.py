"""The proxy's parts, made from the configuration. Must not know: stores, listeners."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.auth.assertions import Asserter
from gateway.auth.credentials import CredentialReader
from gateway.auth.explanation import Hearings
from gateway.auth.principal import IdentityNames
from gateway.auth.verdict import Access
from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.proxy.certificates import ServerCertificate, end_of
from gateway.proxy.cors import Cors
from gateway.proxy.door import Pages
from gateway.proxy.edge import AddressRule, TrustedProxies
from gateway.proxy.explanation import Explainer, Reading
from gateway.proxy.headers import REQUEST_FIELDS, RESPONSE_FIELDS, Action, HeaderTable
from gateway.proxy.health import HealthCheck, HealthChecks
from gateway.proxy.limit_rules import limit_terms, route_limits, upstream_slots
from gateway.proxy.names import Resolve, WatchedName, connected, is_address, system_resolver
from gateway.proxy.places import Places
from gateway.proxy.router import Route, Router
from gateway.proxy.target import Target
from gateway.proxy.upstream import Upstream
from gateway.setting_values import PORTAL_UPSTREAM
from gateway.settings import Addresses, Health, Settings, Timeouts, UpstreamTls
from gateway.settings import Cors as CorsSettings
from gateway.settings import Route as RouteSettings
from gateway.settings import Target as TargetAddress
from gateway.settings import Upstream as UpstreamSettings
from gateway.telemetry.metrics import Metrics


class CertificateUnusable(GatewayError):
    """A file of a `tls` setting cannot be read, or holds no usable certificate or key."""


@dataclass(frozen=True, slots=True)
class Upstreams:
    """All upstreams by name, and what watches their targets: health checks, and host names."""

    by_name: dict[str, Upstream]
    watches: list[HealthChecks | WatchedName]


def identity_names(settings: Settings) -> IdentityNames:
    """Under which header names upstreams are told who is calling."""
    names = settings.identity_headers
    return IdentityNames(
        user_id=names.user_id,
        tenant_id=names.tenant_id,
        key_id=names.key_id,
        environment=names.environment,
        auth_kind=names.auth_kind,
        scopes=names.scopes,
        plan=names.plan,
    )


def routes_of(settings: Settings) -> list[Route]:
    """The configured routes."""
    return [_route(settings, route) for route in settings.routes]


def _route(settings: Settings, route: RouteSettings) -> Route:
    client, upstream = settings.client, settings.upstreams.get(route.upstream)
    timeouts = Timeouts() if upstream is None else upstream.timeouts  # of an upstream of the gateway's own
    require = route.require
    return Route(
        name=route.name,
        paths=tuple(path.encode() for path in route.paths),
        upstream=route.upstream,
        access=Access(route.auth, frozenset(require.scopes), frozenset(require.features), require.tier, route.tokens),
        response_seconds=route.timeouts.response or timeouts.response,
        idle_seconds=route.timeouts.idle or timeouts.idle,
        methods=frozenset(method.encode() for method in route.methods),
        hosts=frozenset(host.encode() for host in route.hosts),
        strip_prefix=route.strip_prefix,
        upgrades=frozenset(protocol.encode() for protocol in route.upgrades),
        early=_early(settings, route),
        addresses=address_rule(client.addresses if route.addresses is None else route.addresses),
        closes_revoked=route.close_revoked_streams,
        body_limit_bytes=client.body_limit_bytes if route.body_limit_bytes is None else route.body_limit_bytes,
        limits=route_limits(settings, route),
    )


def _early(settings: Settings, route: RouteSettings) -> Cors | Pages | None:
    if route.upstream == PORTAL_UPSTREAM:
        return Pages()
    return None if route.cors is None else _cors(route.cors, settings.identity_headers.request_id)


def address_rule(addresses: Addresses) -> AddressRule | None:
    """From where something may be used; None where that is anywhere."""
    return AddressRule(addresses.allow, addresses.deny) if addresses.allow or addresses.deny else None


def places_of(settings: Settings) -> Places:
    """The configured places of a credential beside headers."""
    places = settings.credentials
    return Places(
        frozenset(place.query.encode() for place in places if place.query is not None),
        frozenset(place.websocket_protocol.encode() for place in places if place.websocket_protocol is not None),
    )


def _cors(cors: CorsSettings, request_id: str) -> Cors:
    return Cors(
        frozenset(origin.encode() for origin in cors.origins),
        tuple(header.encode() for header in cors.headers),
        cors.max_age_seconds,
        b", ".join((b"Retry-After", b"RateLimit", b"RateLimit-Policy", b"WWW-Authenticate", request_id.encode())),
    )


def request_table(settings: Settings) -> HeaderTable:
    """What each header name of a request means."""
    names = settings.identity_headers.model_dump()
    fields = dict(REQUEST_FIELDS)
    for place in settings.credentials:
        if place.header is not None:
            fields[place.header.lower().encode()] = Action.CREDENTIAL
        elif place.websocket_protocol is not None:
            fields[b"sec-websocket-protocol"] = Action.PROTOCOLS
    if settings.portal is not None:
        fields[b"cookie"] = Action.COOKIES
    fields[names["request_id"].lower().encode()] = Action.REQUEST_ID
    return HeaderTable(fields, reserved=[name.encode() for fact, name in names.items() if fact != "request_id"])


def response_table(settings: Settings) -> HeaderTable:
    """What each header name of a reply means; an upstream cannot set what only the gateway may say (R029)."""
    names = settings.identity_headers.model_dump().values()
    return HeaderTable(RESPONSE_FIELDS, reserved=[name.encode() for name in names])


def explainer_of(
    settings: Settings,
    hearings: Hearings,
    credentials: CredentialReader,
    router: Router,
    upstreams: Callable[[], Mapping[str, Upstream]],
    clock: Clock,
) -> Explainer:
    """What explains decisions, by the same parts."""
    reading = Reading(
        request_table(settings),
        response_table(settings),
        credentials,
        places_of(settings),
        tuple(place.header for place in settings.credentials if place.header is not None),
        settings.client.line_limit_bytes,
        settings.client.header_count_limit,
    )
    return Explainer(
        hearings,
        reading,
        router,
        upstreams,
        TrustedProxies(settings.trusted_proxies, header=settings.trusted_header),
        limit_terms(settings),
        scheme="http" if settings.listen.tls is None else "https",
        request_id_header=settings.identity_headers.request_id,
        assertion_header=settings.identity_headers.assertion,
        clock=clock,
    )


def upstreams_of(
    settings: Settings,
    table: HeaderTable,
    clock: Clock,
    metrics: Metrics,
    asserters: Mapping[str, Asserter],
    resolve: Resolve = system_resolver,
) -> Upstreams:
    """The configured upstreams; `asserters` by name, of those that ask for one. Raises CertificateUnusable."""
    by_name: dict[str, Upstream] = {}
    watches: list[HealthChecks | WatchedName] = []
    for name, configured in settings.upstreams.items():
        tls = upstream_tls(name, configured)
        if tls is not None:
            _watch_certificate(name, configured, metrics)
        targets = {}
        for address in configured.targets:
            target, name_watch = _target(address, tls, table, resolve)
            targets[target] = str(address)
            watches += name_watch
        by_name[name] = upstream = Upstream(
            name,
            list(targets),
            balance=configured.balance,
            attempts=1 if configured.retries is None else configured.retries.attempts,
            connect_seconds=configured.timeouts.connect,
            idle_seconds=configured.timeouts.idle,
            observe=metrics.upstream_seconds.of(name).observe,
            monotonic=clock.monotonic,
            asserter=asserters.get(name),
            slots=upstream_slots(configured, metrics),
        )
        if configured.health is not None:
            watches.append(HealthChecks(upstream, _health_check(configured.health), targets, tls))
    return Upstreams(by_name, watches)


def _health_check(health: Health) -> HealthCheck:
    return HealthCheck(
        path=health.path,
        interval_seconds=health.interval_seconds,
        timeout_seconds=health.timeout_seconds,
        unhealthy_after=health.unhealthy_after,
        healthy_after=health.healthy_after,
    )


def _target(
    address: TargetAddress, tls: ssl.SSLContext | None, table: HeaderTable, resolve: Resolve
) -> tuple[Target, list[WatchedName]]:
    """A target at `address`, and the watch of its name if it has one.

    One of scheme `https` is spoken to by `tls`, under its own name (SNI), and verified.
    """
    host, port, is_tls = address.host, address.port, address.scheme == "https"
    bare = f"[{host}]" if ":" in host else host
    authority = bare if port == (443 if is_tls else 80) else f"{bare}:{port}"
    context = tls if is_tls else None

    async def connect(factory: Callable[[], asyncio.BaseProtocol]) -> Any:
        return await asyncio.get_running_loop().create_connection(factory, host, port, ssl=context)

    async def connect_by_name(factory: Callable[[], asyncio.BaseProtocol]) -> Any:
        sock = await connected(await name.addresses(), port)
        loop = asyncio.get_running_loop()
        return await loop.create_connection(factory, sock=sock, ssl=context, server_hostname=host if is_tls else None)

    if is_address(host):
        return Target(authority, connect, table), []
    target = Target(authority, connect_by_name, table)
    name = WatchedName(host, resolve, target.moved)
    return target, [name]


def server_certificate(settings: Settings) -> ServerCertificate | None:
    """The public listener's certificate, if it has one. Raises CertificateUnusable."""
    tls = settings.listen.tls
    if tls is None:
        return None
    try:
        return ServerCertificate(Path(tls.cert), Path(tls.key))
    except OSError as error:
        raise CertificateUnusable(f"listen.tls: {error}. Name a readable PEM file each, that fit together") from error


def upstream_tls(name: str, upstream: UpstreamSettings) -> ssl.SSLContext | None:
    """What an upstream's `https` targets are verified by, if it has any. Raises CertificateUnusable."""
    if all(target.scheme != "https" for target in upstream.targets):
        return None
    tls = upstream.tls or UpstreamTls()
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except OSError as error:
        raise CertificateUnusable(f"upstreams.{name}.tls: {error}. Name readable PEM files") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _watch_certificate(name: str, upstream: UpstreamSettings, metrics: Metrics) -> None:
    """Tell when the certificate ends that the gateway shows an upstream, if it does."""
    if upstream.tls is not None and upstream.tls.cert is not None:
        ends_at = end_of(Path(upstream.tls.cert))
        metrics.certificate_expiry.follow(lambda: [(("upstream", name), ends_at)])
