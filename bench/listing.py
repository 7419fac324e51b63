"""What a page of a listing costs among a million keys: the first one, and one deep inside."""

import asyncio
import base64
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

import aiohttp
import asyncpg

from bench import report
from bench.gateway_peer import Node, admin_token, start_node, start_stores
from bench.measure import start_upstream
from bench.processes import BenchError, Cores, Workshop
from gateway.stores.postgres.key_pages import page_query

KEYS = 1_000_000
SMALL = 1_000  # keys of a small tenant, spread evenly among those of the large one
ROUNDS = 200
LIMIT = 50

_SEED = (
    "SET session_replication_role = replica",  # no triggers: a million keys that were made long ago
    "INSERT INTO tenants (id, name) VALUES ('large', 'Large'), ('small', 'Small')",
    f"INSERT INTO users (id, tenant_id) SELECT 'user_' || n, 'large' FROM generate_series(0, {KEYS // 5}) AS n",
    "INSERT INTO users (id, tenant_id) VALUES ('user_small', 'small')",
    f"""INSERT INTO api_keys (id, tenant_id, user_id, name, prefix, environment, secret_id, digest)
        SELECT 'key_' || to_char(n, 'FM00000000'), CASE WHEN n % {KEYS // SMALL} = 0 THEN 'small' ELSE 'large' END,
            CASE WHEN n % {KEYS // SMALL} = 0 THEN 'user_small' ELSE 'user_' || n / 5 END, 'key ' || n, 'ost_bench_',
            'bench', 'sec_' || n, sha256(n::text::bytea) FROM generate_series(1, {KEYS}) AS n""",
    "SET session_replication_role = DEFAULT",
    "VACUUM ANALYZE",
)


@dataclass(frozen=True)
class Page:
    """One page of a listing: which tenant's, and how many keys stand before it."""

    tenant_id: str | None
    depth: int

    @property
    def title(self) -> str:
        """The first cell of its row."""
        whose = "all keys" if self.tenant_id is None else f"the {self.tenant_id} tenant's"
        return f"{whose}, {'first page' if self.depth == 0 else f'behind {self.depth:,} keys'}"

    @property
    def after(self) -> str:
        """The id behind which it begins."""
        step = KEYS // SMALL if self.tenant_id == "small" else 1
        return f"key_{self.depth * step:08}" if self.depth else ""


PAGES = (
    Page("large", 0),
    Page("large", KEYS // 2),
    Page("large", KEYS - 2 * SMALL),
    Page(None, 0),
    Page(None, KEYS // 2),
    Page("small", 0),
    Page("small", SMALL // 2),
)


@dataclass(frozen=True)
class Cost:
    """Milliseconds of each call, and how many pages of the database a query touches."""

    title: str
    milliseconds: list[float]
    buffers: int

    def cells(self) -> list[str]:
        """Return a row of the table."""
        p99 = quantiles(self.milliseconds, n=100)[98]
        return [self.title, f"{median(self.milliseconds):.2f}", f"{p99:.2f}", str(self.buffers)]


async def _seeded(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in _SEED:
            await connection.execute(statement, timeout=600)
    finally:
        await connection.close()


async def _buffers(dsn: str, page: Page) -> int:
    statement, arguments = page_query(
        tenant_id=page.tenant_id, user_id=None, status=None, after=page.after, limit=LIMIT + 1
    )
    connection = await asyncpg.connect(dsn)
    try:
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *arguments)
    finally:
        await connection.close()
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def _measured(node: Node, token: str, dsn: str) -> list[Cost]:
    """The pages take turns, so that whatever else the machine does meets all of them."""
    times: dict[Page, list[float]] = {page: [] for page in PAGES}
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        for turn in range(ROUNDS + 1):
            for page in PAGES:
                began = time.perf_counter()
                items = await _ask(session, node, page)
                if items[0] <= page.after or len(items) != LIMIT:
                    raise BenchError(f"{page.title}: not the page that was asked for")
                if turn:  # the first one warms up
                    times[page].append((time.perf_counter() - began) * 1000)
    return [Cost(page.title, times[page], await _buffers(dsn, page)) for page in PAGES]


async def _ask(session: aiohttp.ClientSession, node: Node, page: Page) -> Sequence[str]:
    query = {"limit": str(LIMIT)}
    if page.tenant_id is not None:
        query["tenant_id"] = page.tenant_id
    if page.after:
        query["cursor"] = base64.urlsafe_b64encode(page.after.encode()).decode()
    async with session.get(f"http://127.0.0.1:{node.admin_port}/v1/keys", params=query) as response:
        if response.status != 200:
            raise BenchError(f"{page.title}: {response.status} {await response.text()}")
        return [item["id"] for item in (await response.json())["items"]]


def run(cores: Cores) -> str:
    """Measure all pages, write `results/listing.*` and return the text."""
    with Workshop() as workshop:
        upstream_port = start_upstream(workshop, cores.load)
        addresses = start_stores(workshop)
        dsn = addresses.postgres_dsn
        assert dsn is not None
        asyncio.run(_seeded(dsn))
        node = start_node(workshop, addresses, upstream_port, cores.proxy)
        token = asyncio.run(admin_token(dsn))
        costs = asyncio.run(_measured(node, token, dsn))
    header = [f"page of {LIMIT}", "p50 ms", "p99 ms", "database pages touched"]
    text = report.markdown([header, ["---", "---:", "---:", "---:"], *(cost.cells() for cost in costs)])
    text += f"\n\n{KEYS:,} keys, {ROUNDS} calls of each page in turn. {report.machine_sentence()}"
    report.write("listing", text, {"keys": KEYS, "rows": [asdict(cost) for cost in costs]})
    return text
