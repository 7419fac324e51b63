"""Lookups on read replicas: asked first, believed as far as their stamp goes, and the primary behind them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from gateway.clock import SystemClock
from gateway.consistency.view import View
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.revisions import RevisionLog
from gateway.telemetry.metrics import Metrics
from tests.fixtures.exposition import scraped
from tests.fixtures.gateway import GatewayProcess, merged, operator_token
from tests.fixtures.planted import Caller, plant
from tests.fixtures.replica import OwnReplica
from tests.fixtures.stores import OwnPostgres
from tests.fixtures.upstream import RecordingUpstream
from tests.fixtures.waiting import until


@pytest.fixture
async def replica(own_folder: Path, own_postgres: OwnPostgres) -> AsyncIterator[OwnReplica]:
    """A replica of the test's own Postgres."""
    server = OwnReplica(own_folder / "own-replica", own_postgres)
    await server.start()
    yield server
    await server.stop()


class Fleet:
    """Nodes on a primary and its replica, an upstream, and a management token."""

    def __init__(self, folder: Path, primary: OwnPostgres, replica: OwnReplica, upstream: RecordingUpstream) -> None:
        self.primary = primary
        self.replica = replica
        self._folder = folder
        self._upstream = upstream
        self.nodes: list[GatewayProcess] = []
        self.token = ""

    async def node(self, **changes: Any) -> GatewayProcess:
        base = {
            "environment": "test",
            "postgres": {"dsn": self.primary.dsn, "replicas": [self.replica.dsn]},
            "upstreams": {"orders": {"targets": [self._upstream.url]}},
            "routes": [{"name": "orders", "paths": ["/orders"], "upstream": "orders"}],
            "plans": {"starter": {"tier": 1, "features": {"api_access": True}}},
        }
        node = GatewayProcess(self._folder / f"node-{len(self.nodes)}", merged(base, changes))
        self.nodes.append(node)
        await node.start()
        self.token = self.token or await operator_token(self.primary.dsn)
        return node

    async def close(self) -> None:
        for node in self.nodes:
            await node.stop()

    async def ask(self, node: GatewayProcess, secret: str) -> int:
        url, headers = f"{node.proxy_url}/orders/1", {"X-Api-Key": secret}
        async with aiohttp.request("GET", url, headers=headers) as response:
            return response.status

    async def manage(self, node: GatewayProcess, path: str, body: dict[str, Any]) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with aiohttp.request("POST", f"{node.admin_url}/v1{path}", json=body, headers=headers) as response:
            assert response.status in (200, 201), await response.text()
            return await response.json()

    async def lookups(self, node: GatewayProcess, outcome: str) -> float:
        """How many questions to replicas ended so."""
        return (await scraped(node)).sum("ostiary_cache_events_total", layer="replica", event=outcome)


@pytest.fixture
async def fleet(
    tmp_path: Path, own_postgres: OwnPostgres, replica: OwnReplica, upstream: RecordingUpstream
) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path, own_postgres, replica, upstream)
    yield fleet
    await fleet.close()


async def test_a_replica_answers_and_a_lagging_one_is_told_apart(fleet: Fleet) -> None:
    """A replica spares the primary its lookups, and what has happened beyond its lag is never misjudged. R062, R243."""
    caller = await plant(fleet.primary.dsn)
    other = await plant(fleet.primary.dsn, Caller("eve"))
    node = await fleet.node()
    await fleet.replica.until_caught_up()
    assert await fleet.ask(node, caller.secret) == 200
    assert await fleet.lookups(node, "hit") == 1

    await fleet.replica.hold_back()
    answer = await fleet.manage(node, f"/keys/{other.key_id}/revoke", {"reason": "test"})
    assert answer["propagation"]["state"] == "confirmed"
    assert await fleet.replica.fetchval(f"SELECT revoked_at IS NULL FROM api_keys WHERE id = '{other.key_id}'")
    assert await fleet.ask(node, other.secret) == 401
    made = await fleet.manage(node, "/keys", {"user_id": caller.user_id, "name": "new"})
    assert await fleet.ask(node, made["secret"]) == 200
    rotated = await fleet.manage(node, f"/keys/{made['id']}/rotate", {"grace_seconds": 60})
    assert [await fleet.ask(node, secret) for secret in (made["secret"], rotated["secret"])] == [200, 200]
    assert await fleet.lookups(node, "stale") >= 3

    cold = await fleet.node()
    assert [await fleet.ask(cold, secret) for secret in (other.secret, made["secret"], rotated["secret"])] == [
        401,
        200,
        200,
    ]
    await fleet.replica.let_go()
    await fleet.replica.until_caught_up()
    fresh = await fleet.node()
    assert [await fleet.ask(fresh, secret) for secret in (other.secret, rotated["secret"])] == [401, 200]
    assert await fleet.lookups(fresh, "hit") == 2


async def test_a_replica_that_is_away_or_frozen_costs_a_moment(fleet: Fleet) -> None:
    """Without its replica the gateway asks the primary, and comes back to the replica by itself. R072."""
    callers = [await plant(fleet.primary.dsn, Caller(f"user{number}")) for number in range(4)]
    node = await fleet.node()
    await fleet.replica.until_caught_up()
    fleet.replica.pause()
    assert await fleet.ask(node, callers[0].secret) == 200
    fleet.replica.resume()
    await fleet.replica.stop()
    assert await fleet.ask(node, callers[1].secret) == 200
    await until(lambda: node.log.count("replica_failing") == 1, what="the line about the replica")
    await fleet.replica.start()
    spare = iter([*callers[2:], *[await plant(fleet.primary.dsn, Caller(f"more{number}")) for number in range(60)]])
    await fleet.replica.until_caught_up()

    async def is_asked_again() -> bool:
        assert await fleet.ask(node, next(spare).secret) == 200
        return await fleet.lookups(node, "hit") >= 1

    await until(is_asked_again, what="the replica to be asked again")


async def test_the_replica_serves_while_the_primary_is_away(fleet: Fleet, redis_url: str) -> None:
    """With the primary stopped and a view that Redis keeps fresh, unknown keys are still looked up. R059."""
    caller = await plant(fleet.primary.dsn)
    node = await fleet.node(redis={"url": redis_url})
    await fleet.replica.until_caught_up()
    await until(lambda: "push_channel_stands" in node.log)
    await fleet.primary.stop()
    assert await fleet.ask(node, caller.secret) == 200
    assert await fleet.ask(node, "ost_test_nonsense") == 401


async def test_a_failover_is_noticed_however_far_the_new_primary_has_come(
    own_postgres: OwnPostgres, replica: OwnReplica
) -> None:
    """Commits are lost, and as many and more are made since: the node forgets what it holds all the same. R237 R243."""
    async with AsyncExitStack() as stack:
        old, new = Postgres(own_postgres.dsn, metrics=Metrics()), Postgres(replica.dsn, metrics=Metrics())
        for pg in (old, new):
            await pg.open()
            stack.push_async_callback(pg.close)
        view, resets = View(SystemClock(), bound_seconds=2.0, retention_seconds=60.0), []
        view.listen(on_reset=lambda: resets.append(view.revision))
        view.apply_start(await RevisionLog(old).start(60.0), view.ask())
        await replica.fetchval("ALTER SYSTEM SET primary_conninfo = ''")
        await replica.fetchval("SELECT pg_reload_conf()")

        async def is_cut_off() -> bool:
            return await replica.fetchval("SELECT count(*) FROM pg_stat_wal_receiver") == 0

        await until(is_cut_off, what="the replica to hear nothing more")
        await new_tenants(own_postgres.dsn, "lost", 2)
        assert view.apply_poll(await RevisionLog(old).poll(view.revision), view.ask()) == 0
        await replica.promote()
        await new_tenants(replica.dsn, "kept", 5)
        question = view.ask()
        answer = await RevisionLog(new).poll(view.revision)
        assert answer.revision > question.heard, "nothing seems to be missing"
        assert view.apply_poll(answer, question) == answer.revision
        assert len(resets) == 2


async def new_tenants(dsn: str, name: str, count: int) -> None:
    """So many changes, each with a revision."""
    connection = await asyncpg.connect(dsn)
    try:
        for number in range(count):
            await connection.execute("INSERT INTO tenants (id, name) VALUES ($1, $1)", f"{name}-{number}")
            await connection.execute("UPDATE tenants SET status = 'suspended' WHERE id = $1", f"{name}-{number}")
    finally:
        await connection.close()
