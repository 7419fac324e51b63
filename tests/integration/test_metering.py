"""What nodes have metered, held against what the upstream has seen: real nodes and databases, restarts and outages."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from gateway.embedded.server_process import HOST
from tests.conftest import StartGateway
from tests.fixtures import psql
from tests.fixtures.exposition import scraped
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import Caller, plant
from tests.fixtures.stores import OwnPostgres
from tests.fixtures.upstream import RecordedRequest, RecordingUpstream, Reply, echo
from tests.fixtures.waiting import until
from tests.fixtures.wire import Wire

OFTEN = {"metering": {"interval_seconds": 0.2}}
SELDOM = {"metering": {"interval_seconds": 1000}}
CLIENTS = 8
# What the upstream has had, whole.
SENT = "outcome IN ('forwarded', 'cut') OR (outcome = 'client_gone' AND code <> 'unsent')"


async def metered(dsn: str) -> tuple[int, int, int]:
    """Requests that were sent upstream, and the bytes of their bodies, to it and from it."""
    rows = await psql.rows(
        dsn,
        "SELECT coalesce(sum(requests), 0)::int, coalesce(sum(received_bytes), 0)::int,"
        f" coalesce(sum(sent_bytes), 0)::int FROM usage WHERE {SENT}",
    )
    requests, received_bytes, sent_bytes = rows[0]
    return requests, received_bytes, sent_bytes


class Books:
    """The upstream's own count."""

    def __init__(self, upstream: RecordingUpstream) -> None:
        self._upstream = upstream
        self.received_bytes = self.sent_bytes = 0
        upstream.respond = self._respond

    def _respond(self, request: RecordedRequest) -> Reply:
        reply = echo(request)
        self.received_bytes += len(request.body)
        self.sent_bytes += len(reply.body)
        return reply

    @property
    def by_key(self) -> dict[str, int]:
        """Requests by the key that the gateway named."""
        return dict(Counter(request.header("X-Key-Id") or "" for request in self._upstream.requests))

    @property
    def totals(self) -> tuple[int, int, int]:
        """Requests, and bytes of bodies in and out."""
        return len(self._upstream.requests), self.received_bytes, self.sent_bytes


class Traffic:
    """Callers who go on whatever happens to them, at whichever nodes there are."""

    def __init__(self, callers: list[Caller]) -> None:
        self.nodes: list[GatewayProcess] = []
        self._callers = callers
        self._tasks: list[asyncio.Task[None]] = []
        self.asked = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._tasks = [asyncio.create_task(self._ask_forever(number)) for number in range(CLIENTS)]
        yield
        self._is_over = True
        await asyncio.gather(*self._tasks)

    _is_over = False

    async def some(self, count: int = 100) -> None:
        """Wait for so many more requests."""
        before = self.asked
        await until(lambda: self.asked >= before + count, seconds=30, what="traffic")

    async def _ask_forever(self, number: int) -> None:
        caller = self._callers[number % len(self._callers)]
        async with aiohttp.ClientSession(headers={"X-Api-Key": caller.secret}) as session:
            while not self._is_over:
                node = self.nodes[number % len(self.nodes)]
                body = b"x" * (self.asked % 300)
                path = ("/orders/1", "/payments/1", "/public")[self.asked % 3]
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.post(node.proxy_url + path, data=body) as response:
                        await response.read()
                self.asked += 1


async def test_totals_equal_the_upstreams_own_count_over_restarts(
    gateway: StartGateway, postgres_dsn: str, upstream: RecordingUpstream
) -> None:
    """Two nodes, one of them stopped (SIGTERM) under load and replaced, again and again: not a request too many or few.

    By key, and by bytes in both directions.
    """
    books, callers = Books(upstream), [await plant(postgres_dsn, Caller(name)) for name in ("ada", "eve")]
    traffic = Traffic(callers)
    traffic.nodes = [await gateway(OFTEN), await gateway(SELDOM)]
    async with traffic.running():
        for _ in range(3):
            await traffic.some()
            fresh = await gateway(SELDOM)
            old, traffic.nodes[1] = traffic.nodes[1], fresh
            assert await old.stop() == 0
        await traffic.some()
    for node in traffic.nodes:
        assert await node.stop() == 0
    assert books.totals[0] > 400
    assert await metered(postgres_dsn) == books.totals
    by_key = await psql.rows(postgres_dsn, f"SELECT key_id, sum(requests)::int FROM usage WHERE {SENT} GROUP BY key_id")
    assert dict(by_key) == books.by_key


async def test_nothing_is_lost_by_an_outage(
    gateway: StartGateway, own_postgres: OwnPostgres, upstream: RecordingUpstream
) -> None:
    """A Postgres that is frozen, thawed, killed and started again under load: all of it is metered, each once."""
    books, caller = Books(upstream), await plant(own_postgres.dsn)
    node = await gateway({**OFTEN, "postgres": {"dsn": own_postgres.dsn}})
    traffic = Traffic([caller])
    traffic.nodes = [node]
    async with traffic.running():
        await traffic.some()
        own_postgres.pause()
        await traffic.some(300)
        await until(lambda: "usage_not_written" in node.log, what="a flush to be given up")
        own_postgres.resume()
        await traffic.some()
        await own_postgres.kill()
        await traffic.some(300)
        await own_postgres.start()
        await traffic.some()
    assert await node.stop() == 0
    assert await metered(own_postgres.dsn) == books.totals


async def test_a_batch_whose_answer_was_lost_counts_once(
    gateway: StartGateway, postgres_dsn: str, upstream: RecordingUpstream
) -> None:
    """Committed, and the node cannot know: it sends it again, and what it has counted meanwhile apart from it."""
    books, caller = Books(upstream), await plant(postgres_dsn)
    async with Wire(postgres_dsn) as wire:
        node = await gateway({**OFTEN, "postgres": {"dsn": wire.url}})

        async def is_all_there() -> bool:
            return await metered(postgres_dsn) == books.totals

        await ask(node, caller, times=15)
        await until(is_all_there, what="a batch")
        held = wire.hold_reply(b"orders")  # the route's name: nothing else that is asked names it
        await ask(node, caller, times=20)
        await held.wait_until_caught(10)
        await until(is_all_there, what="the batch to be committed, though nobody hears of it")
        await ask(node, caller, times=30)
        await until(lambda: "usage_not_written" in node.log, what="it to be given up")
        held.lose()
        await until(is_all_there, what="what was counted meanwhile", seconds=20)
        assert await node.stop() == 0
        assert await metered(postgres_dsn) == books.totals
        assert books.totals[0] == 65


async def test_a_node_that_is_killed_loses_an_interval_at_most(
    gateway: StartGateway, postgres_dsn: str, upstream: RecordingUpstream
) -> None:
    """What is older than an interval was written; nothing counts twice when the next node goes on. SIGKILL."""
    caller = await plant(postgres_dsn)
    interval_seconds = 1.0
    node = await gateway({"metering": {"interval_seconds": interval_seconds}})
    await ask(node, caller, times=50)
    loop = asyncio.get_running_loop()
    counted_at = loop.time()

    async def is_written() -> bool:
        return (await metered(postgres_dsn))[0] == 50

    await until(is_written, what="the interval to be written")
    assert loop.time() - counted_at < interval_seconds + 1.0
    await ask(node, caller, times=30)
    node.kill()
    assert 50 <= (await metered(postgres_dsn))[0] <= 80
    kept = (await metered(postgres_dsn))[0]
    following = await gateway(OFTEN)
    await ask(following, caller, times=7)
    await following.stop()
    assert (await metered(postgres_dsn))[0] == kept + 7


async def ask(node: GatewayProcess, caller: Caller, *, times: int = 1, path: str = "/orders/1") -> int:
    """The status of the last of so many requests."""
    status = 0
    async with aiohttp.ClientSession(headers={"X-Api-Key": caller.secret}) as session:
        for _ in range(times):
            async with session.get(node.proxy_url + path) as response:
                await response.read()
                status = response.status
    return status


async def usage_of(dsn: str) -> dict[tuple[str, str, str, str], int]:
    """Requests by key, route, outcome and code."""
    rows = await psql.rows(
        dsn,
        "SELECT key_id, route, outcome, code, sum(requests)::int FROM usage"
        " GROUP BY key_id, route, outcome, code HAVING sum(requests) > 0",
    )
    return {(key_id, route, outcome, code): requests for key_id, route, outcome, code, requests in rows}


async def test_refusals_are_counted_by_reason_and_key(gateway: StartGateway, postgres_dsn: str) -> None:
    """Whoever is known is named, also one who is refused; of the unknown there is one row, however many they are."""
    names = ("ada", "eve", "old", "late", "poor")
    ada, eve, old, late, poor = [await plant(postgres_dsn, Caller(name, scopes=())) for name in names]
    await psql.rows(postgres_dsn, "UPDATE api_keys SET revoked_at = now() WHERE id = $1", eve.key_id)
    await psql.rows(postgres_dsn, "UPDATE api_keys SET expires_at = now() WHERE id = $1", old.key_id)
    await psql.rows(postgres_dsn, "UPDATE entitlements SET valid_until = now() WHERE user_id = $1", late.user_id)
    await psql.rows(postgres_dsn, "UPDATE tenants SET status = 'suspended' WHERE id = $1", poor.tenant_id)
    routes = [
        {"name": "orders", "paths": ["/orders"], "upstream": "orders", "methods": ["GET"]},
        {"name": "scoped", "paths": ["/scoped"], "upstream": "orders", "require": {"scopes": ["orders:read"]}},
        {"name": "broken", "paths": ["/broken"], "upstream": "broken"},
        {"name": "scarce", "paths": ["/scarce"], "upstream": "orders", "limits": [{"by": "key", "per_hour": 1}]},
        {"name": "daily", "paths": ["/daily"], "upstream": "orders", "limits": [{"by": "key", "per_day": 1}]},
    ]
    node = await gateway({**OFTEN, "routes": routes, "upstreams": {"broken": {"targets": ["http://127.0.0.1:1"]}}})
    for caller in (eve, old, late, poor):
        assert await ask(node, caller, times=2) in (401, 403)
    assert await ask(node, ada, path="/scoped", times=3) == 403
    assert await ask(node, ada, path="/nowhere") == 404
    assert await ask(node, ada, path="/broken") == 502
    assert await ask(node, ada, path="/scarce", times=3) == 429
    assert await ask(node, ada, path="/daily", times=2) == 429
    for number in range(5):
        assert await ask(node, Caller(f"stranger-{number}")) == 401
    async with aiohttp.ClientSession() as session:
        for method, headers in (("GET", {}), ("DELETE", {"X-Api-Key": ada.secret})):
            async with session.request(method, f"{node.proxy_url}/orders/1", headers=headers) as response:
                assert response.status in (401, 405)
    reader, writer = await asyncio.open_connection(HOST, node.proxy_port)
    writer.write(b"nonsense\r\n\r\n")
    await reader.read()
    writer.close()
    await node.stop()
    assert await usage_of(postgres_dsn) == {
        (eve.key_id, "orders", "refused", "key_revoked"): 2,
        (old.key_id, "orders", "refused", "key_expired"): 2,
        (late.key_id, "orders", "refused", "subscription_lapsed"): 2,
        (poor.key_id, "orders", "refused", "tenant_suspended"): 2,
        (ada.key_id, "scoped", "refused", "insufficient_scope"): 3,
        (ada.key_id, "none", "client_error", "not_found"): 1,
        (ada.key_id, "broken", "upstream_error", "upstream_error"): 1,
        (ada.key_id, "orders", "client_error", "method_not_allowed"): 1,
        (ada.key_id, "scarce", "forwarded", "2xx"): 1,
        (ada.key_id, "scarce", "limited", "rate_limited"): 2,
        (ada.key_id, "daily", "forwarded", "2xx"): 1,
        (ada.key_id, "daily", "limited", "quota_exhausted"): 1,
        ("", "orders", "refused", "invalid_api_key"): 5,
        ("", "orders", "refused", "missing_api_key"): 1,
        ("", "none", "client_error", "bad_request"): 1,
    }
    owners = await psql.rows(postgres_dsn, "SELECT DISTINCT key_id, tenant_id, user_id FROM usage WHERE key_id <> ''")
    assert set(owners) == {(caller.key_id, caller.tenant_id, caller.user_id) for caller in (ada, eve, old, late, poor)}


@pytest.fixture
async def socket_port() -> AsyncIterator[int]:
    """A WebSocket server that answers each message with its length in letters."""

    async def handle(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send("y" * len(message))

    async with serve(handle, HOST, 0, max_size=None, compression=None) as listening:
        yield next(iter(listening.sockets)).getsockname()[1]


async def test_a_socket_is_seen_while_it_lasts(gateway: StartGateway, postgres_dsn: str, socket_port: int) -> None:
    """Its bytes, in both directions, come in as they pass; the request counts once, when it has ended."""
    caller = await plant(postgres_dsn)
    node = await gateway({**OFTEN, "upstreams": {"orders": {"targets": [f"http://{HOST}:{socket_port}"]}}})

    async def passed() -> tuple[int, int, int]:
        return await metered(postgres_dsn)

    headers = {"X-Api-Key": caller.secret}
    async with connect(f"ws://{HOST}:{node.proxy_port}/orders", additional_headers=headers, compression=None) as socket:
        await socket.send("x" * 1000)
        assert len(await socket.recv()) == 1000

        async def is_seen() -> bool:
            requests, received_bytes, sent_bytes = await passed()
            return requests == 0 and received_bytes == 1008 and sent_bytes == 1004  # frame heads, one with a mask

        await until(is_seen, what="the bytes of an open socket")
        await socket.send("x" * 100)
        assert len(await socket.recv()) == 100
    await node.stop()
    requests, received_bytes, sent_bytes = await passed()
    assert requests == 1
    assert received_bytes == 1008 + 106 + 8  # and a close frame
    assert sent_bytes == 1004 + 102 + 4
    assert await usage_of(postgres_dsn) == {(caller.key_id, "orders", "forwarded", "1xx"): 1}


async def test_how_far_a_client_came_who_left(
    gateway: StartGateway, postgres_dsn: str, upstream: RecordingUpstream
) -> None:
    """Whoever leaves before the reply has still had the upstream work: that is told apart from who did not."""
    caller = await plant(postgres_dsn)
    answered = asyncio.Event()

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/orders/half" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 400)
        answered.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(half, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    node = await gateway({**OFTEN, "upstreams": {"orders": {"targets": [f"http://{HOST}:{port}"]}}})
    try:
        for path, expected in (("/orders/half", b"x"), ("/orders/never", b"")):
            answered.clear()
            reader, writer = await asyncio.open_connection(HOST, node.proxy_port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {caller.secret}\r\n\r\n".encode())
            await answered.wait()
            if expected:
                await reader.readuntil(b"x" * 400)
            writer.close()
    finally:
        await node.stop()
        server.close()
        await server.wait_closed()
    assert await usage_of(postgres_dsn) == {
        (caller.key_id, "orders", "client_gone", "2xx"): 1,
        (caller.key_id, "orders", "client_gone", "unanswered"): 1,
    }
    assert (await metered(postgres_dsn))[2] == 400


async def test_workers_are_nodes(gateway: StartGateway, postgres_dsn: str, upstream: RecordingUpstream) -> None:
    """What several workers of one machine have counted adds up."""
    books, caller = Books(upstream), await plant(postgres_dsn)
    node = await gateway(SELDOM, workers=2)
    for _ in range(20):
        await ask(node, caller, times=5)
    await node.stop()
    assert await metered(postgres_dsn) == books.totals
    assert books.totals[0] == 100
    assert await psql.rows(postgres_dsn, "SELECT count(*)::int FROM usage_writers") == [(2,)]


async def test_metrics(gateway: StartGateway, own_postgres: OwnPostgres) -> None:
    """What waits for the database, and what was lost, can be watched."""
    caller = await plant(own_postgres.dsn)
    node = await gateway({**OFTEN, "postgres": {"dsn": own_postgres.dsn}})
    await ask(node, caller)

    async def waiting() -> tuple[float, float]:
        samples = await scraped(node)
        return samples.sum("ostiary_metering_unwritten_rows"), samples.sum("ostiary_metering_unwritten_seconds")

    async def is_written() -> bool:
        return await waiting() == (0, 0)

    await until(is_written, what="nothing to wait")
    await own_postgres.stop()
    await ask(node, caller)

    async def is_waiting() -> bool:
        rows, seconds = await waiting()
        return rows == 1 and seconds > 0.5

    await until(is_waiting, what="what cannot be written")
    assert (await scraped(node)).by_labels("ostiary_metering_lost_requests_total") == {frozenset(): 0}
    await own_postgres.start()
    await until(is_written, what="it to be written")
