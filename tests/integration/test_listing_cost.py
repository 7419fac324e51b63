"""What a page of keys costs the database: the same at the beginning and deep inside, for every filter."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from gateway.stores.postgres.key_pages import page, page_query

KEYS = 20_000
SMALL = 50  # keys of a small tenant, spread evenly among those of the large one
LIMIT = 51
SEED = """
    SET session_replication_role = replica;
    INSERT INTO tenants (id, name) VALUES ('large', 'Large'), ('small', 'Small');
    INSERT INTO users (id, tenant_id) SELECT 'u' || n, 'large' FROM generate_series(0, {users}) AS n;
    INSERT INTO users (id, tenant_id) VALUES ('s', 'small');
    INSERT INTO api_keys (id, tenant_id, user_id, name, prefix, environment, secret_id, digest, revoked_at)
    SELECT 'key_' || to_char(n, 'FM00000000'), CASE WHEN n % {every} = 0 THEN 'small' ELSE 'large' END,
        CASE WHEN n % {every} = 0 THEN 's' ELSE 'u' || n / 5 END, 'k' || n, 'ost_test_', 'test', 's' || n,
        sha256(n::text::bytea), CASE WHEN n % 2 = 0 THEN now() END
    FROM generate_series(1, {keys}) AS n;
    SET session_replication_role = DEFAULT;
    ANALYZE"""


@dataclass(frozen=True)
class Cost:
    """What a query did: pages of memory or disk that were touched, rows that came back, rows that were thrown away."""

    buffers: int
    rows: int
    discarded: int


class Prober:
    """Runs page queries as prepared statements, planned for their arguments or for any (`plan_cache_mode`)."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def cost(self, mode: str, after: str, filters: Mapping[str, str]) -> Cost:
        asked: dict[str, Any] = {"tenant_id": None, "user_id": None, "status": None, **filters}
        statement, arguments = page_query(**asked, after=after, limit=LIMIT)
        await self._connection.execute(f"DEALLOCATE ALL; SET plan_cache_mode = {mode}; PREPARE page AS {statement}")
        values = ", ".join(f"'{value}'" if isinstance(value, str) else str(value) for value in arguments)
        for _ in range(2):  # the first one may find hints to write
            text = await self._connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE page({values})")
        plan = json.loads(text)[0]["Plan"]
        return Cost(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], plan["Actual Rows"], _discarded(plan))


def _discarded(plan: Any) -> int:
    own = plan.get("Rows Removed by Filter", 0) * plan["Actual Loops"]
    return int(own) + sum(_discarded(child) for child in plan.get("Plans", ()))


@pytest.fixture
async def prober(postgres_dsn: str) -> AsyncIterator[Prober]:
    connection = await asyncpg.connect(postgres_dsn, statement_cache_size=0)
    await connection.execute(SEED.format(keys=KEYS, users=KEYS // 5, every=KEYS // SMALL))
    yield Prober(connection)
    await connection.close()


FILTERS: dict[str, dict[str, str]] = {
    "all": {},
    "tenant": {"tenant_id": "large"},
    "status": {"status": "active"},
    "tenant and status": {"tenant_id": "large", "status": "revoked"},
}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_a_deep_page_costs_what_the_first_does(prober: Prober, mode: str) -> None:
    """However deep, it reads no more rows and, but for the height of an index, no more of the database."""
    for name, filters in FILTERS.items():
        first = await prober.cost(mode, "", filters)
        for after in (KEYS // 2, KEYS - 200):
            deep = await prober.cost(mode, f"key_{after:08}", filters)
            assert deep.rows == first.rows == LIMIT, name
            assert deep.discarded <= first.discarded + 2, name
            assert deep.buffers <= first.buffers + 6, (name, first, deep)
        assert first.buffers < 3 * LIMIT, name


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_a_small_tenant_does_not_pay_for_a_large_one(prober: Prober, mode: str) -> None:
    """Nor does a user: rows of others are not read. R272."""
    for filters in ({"tenant_id": "small"}, {"user_id": "u7"}, {"user_id": "u7", "tenant_id": "large"}):
        cost = await prober.cost(mode, "", filters)
        assert cost.rows > 0
        assert cost.discarded == 0, filters
        assert cost.buffers < 3 * LIMIT, (filters, cost)


async def test_every_key_is_on_one_page(postgres_dsn: str, prober: Prober) -> None:
    """By whatever filter: each key once, in order. R219."""
    connection = await asyncpg.connect(postgres_dsn)
    try:
        for tenant_id, status, count in (("small", None, SMALL), (None, "revoked", KEYS // 2), (None, "expired", 0)):
            after, ids = "", list[str]()
            while rows := await page(
                connection, tenant_id=tenant_id, user_id=None, status=status, after=after, limit=1_000
            ):
                ids += [row.id for row in rows]
                after = ids[-1]
            assert len(ids) == count
            assert ids == sorted(set(ids))
    finally:
        await connection.close()
