"""What pages cost where there is much: a user with five keys and an operator with 100,000 wait about as long."""

import json
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import asyncpg
import pytest

from gateway.control.portal.sessions import USER, Sessions
from gateway.settings import PortalSettings
from gateway.stores.postgres import key_pages, users
from gateway.stores.postgres.connection import Postgres
from gateway.telemetry.metrics import Metrics
from tests.conftest import StartGateway
from tests.fixtures.gateway import GatewayProcess

KEYS: Final = 100_000
USERS: Final = KEYS // 5
ROUNDS: Final = 7
# Of the same order: an operator's page shows fifty keys where a user's shows five, and a chart for each of the five.
SLOWER_AT_MOST: Final = 8.0
DISCARDED_AT_MOST: Final = 500  # rows that a page looks at and does not show: two of three are not revoked
SEED: Final = f"""
    SET session_replication_role = replica;
    INSERT INTO tenants (id, name) VALUES ('large', 'Large'), ('small', 'Small');
    INSERT INTO tenants (id, name) SELECT 't' || n, 'T' || n FROM generate_series(1, 2000) AS n;
    INSERT INTO users (id, tenant_id, display_name)
        SELECT 'u' || n, 'large', 'Name ' || n FROM generate_series(1, {USERS}) AS n;
    INSERT INTO users (id, tenant_id, display_name) VALUES ('ada', 'small', 'Ada');
    INSERT INTO api_keys (id, tenant_id, user_id, name, prefix, environment, secret_id, digest, revoked_at)
    SELECT 'key_' || to_char(n, 'FM00000000000000000000000000'),
        CASE WHEN n % {KEYS // 5} = 0 THEN 'small' ELSE 'large' END,
        CASE WHEN n % {KEYS // 5} = 0 THEN 'ada' ELSE 'u' || (n / 5 + 1) END, 'k' || n, 'ost_test_', 'test', 's' || n,
        sha256(n::text::bytea), CASE WHEN n % 3 = 0 THEN now() END
    FROM generate_series(1, {KEYS}) AS n;
    INSERT INTO audit_events (id, at, actor_kind, actor_id, actor_name, action, target, tenant_id, outcome,
        previous_hash, hash)
    SELECT n, now() - make_interval(secs => 60000 - n), 'admin_token', 'adm_' || n % 10, 'a', 'key.change',
        'key:key_' || n % 7000, CASE WHEN n % 500 = 0 THEN 'small' ELSE 'large' END, 'unchanged',
        sha256('a'::bytea), sha256('b'::bytea)
    FROM generate_series(1001, 51000) AS n;
    SET session_replication_role = DEFAULT;
    ANALYZE"""
DEEP: Final = "key_" + str(KEYS // 2).zfill(26)
OPERATORS_PAGES: Final = (
    "keys",
    f"keys?after={DEEP}",
    "keys?status=revoked",
    f"keys?tenant=large&after={DEEP}",
    "keys?tenant=small",
    "keys?user=ada",
    f"keys/{DEEP}",
    "users",
    "users?tenant=large&after=u5",
    "users?find=u1999",
    "users?find=NAME%20777",
    "users/u777",
    "tenants",
    "tenants/large",
    "audit",
    "audit?tenant=small",
    "audit?target=key:key_77",
)


@dataclass(frozen=True)
class Crowd:
    """A node over a full database, and who has signed in to it."""

    node: GatewayProcess
    database: "asyncpg.Connection[asyncpg.Record]"
    user: aiohttp.ClientSession
    operator: aiohttp.ClientSession


@pytest.fixture
async def crowd(gateway: StartGateway, postgres_dsn: str, operator_token: str) -> AsyncIterator[Crowd]:
    """Planted by one statement a table, without triggers: nobody has to hear of it."""
    portal = {"url": "http://127.0.0.1:1", "client_id": "portal"}
    oidc = {"issuer": "http://127.0.0.1:1", "audience": "https://api.example.com"}
    node = await gateway({"oidc": oidc, "portal": portal})
    database = await asyncpg.connect(postgres_dsn, statement_cache_size=0)
    await database.execute(SEED)
    postgres = Postgres(postgres_dsn, metrics=Metrics())
    await postgres.open()
    facts: dict[str, Any] = {"tenant_id": None, "roles": [], "groups": []}
    token = await Sessions(postgres, PortalSettings.model_validate(portal)).begin(USER, "ada", facts)
    await postgres.close()
    headers = {"Cookie": f"ostiary_session={token}"}
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(headers=headers) as user, aiohttp.ClientSession(cookie_jar=jar) as operator:
        url = f"{node.admin_url}/portal/admin/sign-in"
        async with operator.post(url, data={"token": operator_token}) as reply:
            assert (reply.status, reply.url.path) == (200, "/portal/admin/fleet")
        yield Crowd(node, database, user, operator)
    await database.close()


async def seconds(session: aiohttp.ClientSession, url: str, shows: str) -> float:
    """How long a page takes: the middle of some, after the first."""
    spent = []
    for _ in range(ROUNDS + 1):
        begun = time.perf_counter()
        async with session.get(url) as reply:
            text = await reply.text()
        spent.append(time.perf_counter() - begun)
        assert reply.status == 200, (url, reply.status)
        assert shows in text, url
    return statistics.median(spent[1:])


async def test_an_operator_of_100_000_keys_waits_as_long_as_a_user_of_five(crowd: Crowd) -> None:
    """Each page of an operator answers in the same order of time as the user's list, wherever it begins."""
    pages = f"{crowd.node.admin_url}/portal"
    times = {"own": await seconds(crowd.user, f"{pages}/keys", "k20000")}
    for page in OPERATORS_PAGES:
        times[page] = await seconds(crowd.operator, f"{pages}/admin/{page}", "Sign out")
    slow = {page: round(spent / times["own"], 1) for page, spent in times.items()}
    assert max(slow.values()) <= SLOWER_AT_MOST, (times["own"], slow)


QUERIES: Final[dict[str, tuple[str, list[str | int]]]] = {
    **{
        f"keys {filters}": key_pages.page_query(
            **{"tenant_id": None, "user_id": None, "status": None, **filters},
            after=DEEP,
            limit=51,
        )
        for filters in ({}, {"tenant_id": "large"}, {"user_id": "ada"}, {"status": "revoked"})
    },
    **{
        f"users {tenant_id} {search}": users.page_query(tenant_id=tenant_id, search=search, after="u5", limit=51)
        for tenant_id in (None, "large")
        for search in ("", "u1999", "Name 777")
    },
}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_no_page_reads_a_whole_table(crowd: Crowd, mode: str) -> None:
    """Whatever a list is narrowed to, its plan has an index that leads there, for these arguments and for any."""
    for name, (statement, arguments) in QUERIES.items():
        await crowd.database.execute(f"DEALLOCATE ALL; SET plan_cache_mode = {mode}; PREPARE page AS {statement}")
        values = ", ".join(f"'{value}'" if isinstance(value, str) else str(value) for value in arguments)
        plan = json.loads(await crowd.database.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE page({values})"))
        nodes = nodes_of(plan[0]["Plan"])
        assert "Seq Scan" not in [node["Node Type"] for node in nodes], (name, nodes)
        discarded = sum(node.get("Rows Removed by Filter", 0) for node in nodes)
        assert discarded <= DISCARDED_AT_MOST, (name, discarded, nodes)


def nodes_of(plan: Any) -> list[Any]:
    """What a plan is made of."""
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes_of(child))]
