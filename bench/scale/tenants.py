"""A thousand tenants among millions of keys: pages of the management API, a scrape, and the writing of usage."""

import asyncio
import time
from dataclasses import dataclass
from urllib.request import Request as Call
from urllib.request import urlopen

from bench.gateway_peer import Node, admin_token
from bench.generator import OwnGenerator
from bench.scale.population import TENANTS, connected
from bench.scale.stage import Stage
from bench.scale.tiers import Times, timed
from bench.workload import Request
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.usage import UsageStore
from gateway.stores.records import UsedRow
from gateway.telemetry.metrics import Metrics

ROUNDS = 100
MINUTES = 60  # of usage that is written
KEYS_EACH = 5
_CONNECTIONS = 32
_TENANT = f"tenant_{TENANTS // 2}"
_PAGES = (
    ("50 tenants", "/v1/tenants?limit=50"),
    ("50 users of a tenant", f"/v1/users?tenant_id={_TENANT}&limit=50"),
    ("50 keys of a tenant", f"/v1/keys?tenant_id={_TENANT}&limit=50"),
    ("50 keys of all", "/v1/keys?limit=50"),
    ("usage of a tenant by hour, all its keys busy for an hour", f"/v1/usage?tenant_id={_TENANT}&step=hour"),
    (f"usage of all {TENANTS:,} tenants by hour", "/v1/usage?step=hour"),
    ("the same, apart by tenant, 50 of them", "/v1/usage?step=hour&by=tenant&limit=50"),
)


@dataclass(frozen=True)
class Cost:
    """A call, repeated. `size` is what it answers with or writes."""

    what: str
    times: Times
    size: str

    HEADER = ("call", "p50 ms", "p99 ms", "")

    def cells(self) -> list[str]:
        """Return a row of the table."""
        return [self.what, *self.times.cells(), self.size]


def measure(stage: Stage) -> list[Cost]:
    """Have a user of each tenant use keys at one node, and ask."""
    secrets = asyncio.run(stage.population.adopt(stage.population.take(TENANTS * KEYS_EACH)))
    node = stage.node()
    costs = [_scrape(node, "scrape of a node that nobody has used")]
    heads = [Request(secret, node.port).head() for secret in secrets]
    OwnGenerator(stage.cores.load).run_once_each(node.port, heads, connections=_CONNECTIONS)
    costs.append(_scrape(node, f"scrape when {len(secrets):,} keys of {TENANTS:,} tenants have used it"))
    costs.append(asyncio.run(_usage(stage.dsn)))
    token = asyncio.run(admin_token(stage.dsn))
    costs += _pages(node, token)
    node.process.stop()
    return costs


def _scrape(node: Node, what: str) -> Cost:
    times, size = _asked(f"http://127.0.0.1:{node.status_port}/metrics", "")
    return Cost(what, times, f"{size / 1000:,.0f} kB")


def _pages(node: Node, token: str) -> list[Cost]:
    answers = [(what, *_asked(f"http://127.0.0.1:{node.admin_port}{path}", token)) for what, path in _PAGES]
    return [Cost(f"page: {what}", times, f"{size / 1000:,.0f} kB") for what, times, size in answers]


def _asked(url: str, token: str) -> tuple[Times, int]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    seconds, size = [], 0
    for turn in range(ROUNDS + 1):
        began = time.perf_counter()
        with urlopen(Call(url, headers=headers)) as reply:
            size = len(reply.read())
        if turn:  # the first one warms up
            seconds.append(time.perf_counter() - began)
    return Times.of(seconds), size


async def _usage(dsn: str) -> Cost:
    """Write an hour in which every one of these keys was busy in every minute, a batch for each minute."""
    postgres = Postgres(dsn, pool_size=1, metrics=Metrics())
    await postgres.open()
    store = UsageStore(postgres, node_id="scale", retention_months=13)
    await store.keep_partitions()
    rows = [
        UsedRow(
            f"key_{n}",
            f"tenant_{n // KEYS_EACH}",
            f"user_{n // KEYS_EACH}",
            "orders",
            "forwarded",
            "2xx",
            60,
            0,
            57_840,
        )
        for n in range(TENANTS * KEYS_EACH)
    ]
    times = await timed(
        [lambda minute=minute: store.add(MINUTES - minute, 60.0 * minute, rows) for minute in reversed(range(MINUTES))]  # type: ignore[misc]
    )
    await postgres.close()
    async with connected(dsn) as connection:
        row = await connection.fetchrow(
            "SELECT sum(pg_total_relation_size(inhrelid))::bigint, (SELECT count(*) FROM usage)"
            " FROM pg_inherits WHERE inhparent = 'usage'::regclass"
        )
        assert row is not None
        await connection.execute("VACUUM ANALYZE usage")
    return Cost(f"write of a minute's usage, {len(rows):,} rows", times, f"{row[0] / row[1]:,.0f} bytes a row on disk")
