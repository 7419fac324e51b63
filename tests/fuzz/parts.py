"""The one place where the parts under fuzz are made: from a configuration, as the application makes them."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from gateway.auth.admission import Admitted
from gateway.auth.credentials import CredentialReader
from gateway.auth.last_used import LastUsed
from gateway.auth.principal import AuthKind, Principal
from gateway.auth.secrets import SecretFormat, checksum
from gateway.limits.metering import Meter
from gateway.proxy.assembly import places_of, request_table, response_table, routes_of, upstreams_of
from gateway.proxy.client import ClientConnection
from gateway.proxy.crowd import Crowd
from gateway.proxy.edge import Edge, TrustedProxies, address_in
from gateway.proxy.headers import HeaderTable
from gateway.proxy.replies import Replies
from gateway.proxy.request_head import RequestReader
from gateway.proxy.response_head import ResponseReader
from gateway.proxy.router import Router
from gateway.proxy.server import ProxyServer
from gateway.proxy.services import Services, request_ids
from gateway.proxy.tally import Tally
from gateway.proxy.watch import Watch
from gateway.settings import Settings
from gateway.stores.records import SecretState, UsedRow
from gateway.telemetry.lag import Lag
from tests.fixtures.admission_world import World

FORMAT = SecretFormat("ost", "test")
_BODY = "ost_test_" + "0123456789ABCDEF" * 2
SECRET = (_BODY + checksum(_BODY)).encode()  # the same in every run: what is found must be found again

TRUSTED = "10.0.0.9"  # a proxy that is believed
STRANGER = "192.0.2.7"

QUERY, PROTOCOL = "api_key", "ostiary.key"  # places of a key beside headers

SETTINGS: dict[str, Any] = {
    "environment": "test",
    "postgres": {"dsn": "postgresql://nobody@nowhere.test/nothing"},
    "trusted_proxies": ["10.0.0.0/8"],
    "credentials": [
        {"header": "Authorization"},
        {"header": "X-Api-Key"},
        {"query": QUERY},
        {"websocket_protocol": PROTOCOL},
    ],
    # Small, so that inputs of a fuzzer's size reach them.
    "client": {"head_limit_bytes": 1024, "line_limit_bytes": 384, "header_count_limit": 20},
    "upstreams": {
        "one": {"targets": ["http://198.51.100.1:81"]},
        "two": {"targets": ["http://198.51.100.2:82", "http://198.51.100.3:83"], "retries": {"attempts": 3}},
    },
    "routes": [
        {"name": "root", "paths": ["/"], "upstream": "one", "auth": "none", "hosts": ["a.test", "a"]},
        {"name": "keyed", "paths": ["/k"], "upstream": "one"},
        {"name": "optional", "paths": ["/o"], "upstream": "two", "auth": "optional"},
        {"name": "stripped", "paths": ["/s"], "upstream": "two", "auth": "none", "strip_prefix": True},
        {"name": "small", "paths": ["/b"], "upstream": "one", "auth": "none", "body_limit_bytes": 8},
        {"name": "reading", "paths": ["/m"], "upstream": "one", "auth": "none", "methods": ["GET", "PUT"]},
        {"name": "sockets", "paths": ["/w"], "upstream": "one", "upgrades": ["websocket", "echo"]},
        {"name": "pages", "paths": ["/p"], "upstream": "one", "cors": {"origins": ["https://a.test"]}},
        {"name": "near", "paths": ["/n"], "upstream": "one", "auth": "none", "addresses": {"allow": ["1.1.1.1/32"]}},
        {"name": "shop", "paths": ["/k/shop"], "upstream": "one", "auth": "none", "hosts": ["shop.test"]},
    ],
}


@cache
def settings() -> Settings:
    """The configuration."""
    return Settings.model_validate(SETTINGS)


@cache
def request_fields() -> HeaderTable:
    """What each header name of a request means."""
    return request_table(settings())


@cache
def response_fields() -> HeaderTable:
    """What each header name of a reply means."""
    return response_table(settings())


def credential_reader() -> CredentialReader:
    """A reader of credentials."""
    return CredentialReader(FORMAT)


def request_reader() -> RequestReader:
    """A reader of request heads, as one connection has it."""
    client = settings().client
    return RequestReader(
        request_fields(),
        credential_reader(),
        places_of(settings()),
        line_limit_bytes=client.line_limit_bytes,
        header_count_limit=client.header_count_limit,
    )


def response_reader() -> ResponseReader:
    """A reader of reply heads, as one connection has it."""
    return ResponseReader(response_fields())


@cache
def router() -> Router:
    """The configuration's routes."""
    return Router(routes_of(settings()))


def trusted(header: str) -> TrustedProxies:
    """Whose word is believed, if it is given in this header."""
    return TrustedProxies(settings().trusted_proxies, header=header)


@cache
def edge(address: str, header: str) -> Edge:
    """The peer at `address`, as the server makes it."""
    return Edge(address_in(address.encode()), "http", trusted(header))


IDENTITY = b"X-User-Id: u1\r\nX-Tenant-Id: t1\r\nX-Scopes: a:read b\r\n"
NOBODY = Admitted(None)
CALLER = Admitted(
    Principal(AuthKind.KEY, "t1", "u1", "k1", SecretState.CURRENT, frozenset(), frozenset(), 0, identity=IDENTITY)
)


class Ignoring:
    """Where use and usage of keys are written: nowhere, since nobody starts the writing."""

    async def write(self, uses: Sequence[str], *, interval_seconds: float) -> None:
        """As gateway.auth.last_used.Store."""

    async def add(self, batch: int, age_seconds: float, rows: Sequence[UsedRow]) -> None:
        """As gateway.limits.metering.Store."""

    async def keep_partitions(self) -> None:
        """As gateway.limits.metering.Store."""


class _Unwritten:
    """A store that is not asked."""

    async def write(self, uses: Sequence[str], *, interval_seconds: float) -> None:
        """As gateway.auth.last_used.Store."""
        raise AssertionError("nobody has started it")


class Engine:
    """A proxy with an admission in memory, which knows one key: `SECRET`. Needs a running loop."""

    def __init__(self, world: World, witness: Any) -> None:
        """`witness` stands between the exchanges and `world.admission`."""
        self.services = Services(
            router=router(),
            admission=witness,
            upstreams=upstreams_of(settings(), response_fields(), world.clock, world.metrics, {}).by_name,
            tally=Tally(world.metrics),
            monotonic=world.clock.monotonic,
            body_seconds=settings().client.body_timeout_seconds,
            replies=Replies(settings().identity_headers.request_id),
            new_request_id=request_ids(),
            last_used=LastUsed(Ignoring(), world.clock),
            meter=Meter(Ignoring(), world.clock, world.metrics, interval_seconds=1.0, to_database=lambda now: now),
            watch=Watch(world.metrics),
            watched_from_seconds=Watch(world.metrics).from_seconds,
        )
        self.server = ProxyServer(
            self.services,
            request_fields(),
            credential_reader(),
            places_of(settings()),
            settings().client,
            header_count_limit=settings().client.header_count_limit,
            proxies=trusted(settings().trusted_header),
            crowd=Crowd(
                limit=None,
                address_limit=None,
                refused=world.metrics.connections_refused,
                monotonic=world.clock.monotonic,
            ),
            lag=Lag(world.metrics.loop_lag),
        )

    def client(self) -> ClientConnection:
        """The protocol of a new client connection."""
        return self.server()
