"""Real stores that are killed, frozen, broken and brought back under a running gateway.

Who is known is served while that is safe, everybody else is told to come back, and nobody is told a lie: an outage is
never a 401, and nothing has to be restarted but what was broken.
"""

import asyncio
import re
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fixtures import processes
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.stand import Answer, Key, Stand, unknown_secret
from tests.fixtures.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TTL_SECONDS = 1.0
BOUND_SECONDS = 2.0
BACK_OFF_SECONDS = 0.5


@dataclass(frozen=True)
class Scene:
    """A stand with one node."""

    stand: Stand
    node: GatewayProcess

    async def call(self, key: Key | str | None) -> Answer:
        """One request with this key, this secret, or none."""
        return await self.stand.call(self.node, key.secret if isinstance(key, Key) else key)

    async def is_up(self, dependency: str) -> bool:
        """Whether the node says that the dependency answers."""
        return await self.stand.sample(self.node, "ostiary_dependency_up", dependency=dependency) == 1

    async def readiness(self) -> int:
        """The status of /health/ready; the node must be live whatever it is."""
        live = await self.stand.ask("GET", f"{self.node.status_url}/health/live")
        assert live.status == 200
        return (await self.stand.ask("GET", f"{self.node.status_url}/health/ready")).status


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """One stand and one node for all tests of this module: no outage of one test may be felt in the next."""
    folder: Path = tmp_path_factory.mktemp("outages")
    stand = Stand(
        folder, cache={"ttl_seconds": TTL_SECONDS, "negative_ttl_seconds": 0.5, "bound_seconds": BOUND_SECONDS}
    )
    try:
        await stand.start()
        yield Scene(stand, await stand.start_node())
    finally:
        await stand.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def scene(stage: Scene) -> AsyncIterator[Scene]:
    """The stage, with both stores up and seen to be so."""
    await restored(stage)
    yield stage
    await stage.stand.repair()


async def restored(scene: Scene) -> None:
    """Return once the node has found both stores again, by itself."""

    async def is_well() -> bool:
        return await scene.readiness() == 200 and await scene.is_up("redis") and await scene.is_up("postgres")

    await until(is_well, what="the node to find its stores again")


def admitted(answer: Answer, key: Key) -> bool:
    """Whether the key was admitted as itself."""
    return (answer.status, answer.who) == (200, key.id)


def check_outage(answer: Answer) -> None:
    """A 503 that says nothing but what a caller may know, and when to come back. R070 R072 R343."""
    assert (answer.status, answer.code) == (503, "auth_unavailable"), answer.text
    assert float(answer.headers["Retry-After"]) > BACK_OFF_SECONDS
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "WWW-Authenticate" not in answer.headers
    inside = r"postgres|redis|sql|asyncpg|127\.|localhost|refused|timed? ?out|breaker|exception|traceback|[0-9a-f]{32}"
    assert re.search(inside, answer.text, re.IGNORECASE) is None, answer.text


async def after_retry(scene: Scene, outage: Answer, key: Key) -> Answer:
    """The first request of a caller who waits as long as told."""
    await asyncio.sleep(float(outage.headers["Retry-After"]))
    return await scene.call(key)


async def recovered(scene: Scene, key: Key) -> None:
    """Return once the key is admitted again; until then it must hear of the outage and nothing else."""

    async def is_admitted() -> bool:
        answer = await scene.call(key)
        if answer.status != 200:
            check_outage(answer)
        return admitted(answer, key)

    await until(is_admitted, seconds=5, what="the key to be admitted again")


# -- Redis


async def test_without_redis_postgres_decides(scene: Scene) -> None:
    """Redis is dead: good keys 200, bad ones 401 with their reason, and the node stays ready. R056 R057 R079."""
    keys = await scene.stand.new_keys(20)
    revoked = await scene.stand.new_key()
    await scene.stand.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", revoked.id)
    await scene.stand.heard_by([scene.node])
    processes.kill(scene.stand.redis.pid)
    for key in keys:
        answer = await scene.call(key)
        assert admitted(answer, key)
        assert answer.seconds < 1
    assert (await scene.call(unknown_secret())).code == "invalid_api_key"
    assert (await scene.call(revoked)).code == "key_revoked"
    assert await scene.readiness() == 200
    assert not await scene.is_up("redis")
    await scene.stand.repair()
    await until(lambda: scene.is_up("redis"), seconds=3, what="Redis to be used again")
    key = await scene.stand.new_key()
    assert admitted(await scene.call(key), key)
    async with scene.stand.redis_client() as client:
        await until(lambda: _exists(client, key), what="its entry")


async def _exists(client: object, key: Key) -> bool:
    return bool(await client.exists(key.entry_name))  # type: ignore[attr-defined]


async def test_a_frozen_redis_costs_a_few_requests_its_deadline(scene: Scene) -> None:
    """Redis stands still: the first callers wait some 50 ms for it, the others not at all, and all are served. R056."""
    keys = await scene.stand.new_keys(40)
    dropped = await scene.stand.sample(scene.node, "ostiary_dropped_calls_total", dependency="redis")
    scene.stand.redis.pause()
    answers = [await scene.call(key) for key in keys]
    assert all(admitted(answer, key) for answer, key in zip(answers, keys, strict=True))
    assert statistics.median(answer.seconds for answer in answers) < 0.03
    assert max(answer.seconds for answer in answers) < 0.5
    now_dropped = await scene.stand.sample(scene.node, "ostiary_dropped_calls_total", dependency="redis")
    assert 1 <= now_dropped - dropped <= 4
    assert (await scene.call(unknown_secret())).code == "invalid_api_key"
    scene.stand.redis.resume()
    await until(lambda: scene.is_up("redis"), seconds=4, what="Redis to be used again")


async def test_a_full_redis_is_no_trouble(scene: Scene) -> None:
    """Redis refuses every write: the callers do not notice, the node counts it. R056 R076 R257."""
    keys = await scene.stand.new_keys(5)
    async with scene.stand.redis_client() as client:
        await client.config_set("maxmemory", "1")
        try:
            for key in keys:
                assert admitted(await scene.call(key), key)

            async def is_counted() -> bool:
                return await scene.stand.sample(scene.node, "ostiary_cache_events_total", event="failed") >= 5

            await until(is_counted, what="the refused writes to be counted")
        finally:
            await client.config_set("maxmemory", "0")


# -- Postgres


async def test_without_postgres_who_is_known_is_served(scene: Scene) -> None:
    """Postgres is dead, Redis proves that nothing was revoked: known keys go on, others hear 503. R059 R070 R322."""
    known, cold = await scene.stand.new_keys(2)
    assert admitted(await scene.call(known), known)
    refused = await scene.stand.sample(scene.node, "ostiary_auth_total", result="invalid_api_key")
    outages = await scene.stand.sample(scene.node, "ostiary_auth_total", result="outage")
    processes.kill(scene.stand.postgres.pid)
    began, slowest = time.monotonic(), 0.0
    while time.monotonic() < began + 2 * TTL_SECONDS + 0.5:
        answer = await scene.call(known)
        assert admitted(answer, known)
        slowest = max(slowest, answer.seconds)
    assert slowest < 0.5
    for secret in (cold.secret, unknown_secret(), cold.secret):
        answer = await scene.call(secret)
        check_outage(answer)
        assert answer.seconds < 0.5
    assert await scene.readiness() == 200
    await check_counted_as_outages(scene, refused, outages, 3)
    await scene.stand.repair()
    assert admitted(await after_retry(scene, answer, cold), cold)


async def check_counted_as_outages(scene: Scene, refused: float, outages: float, count: int) -> None:
    """What could not be decided is counted as that, not as bad keys."""
    assert await scene.stand.sample(scene.node, "ostiary_auth_total", result="invalid_api_key") == refused
    assert await scene.stand.sample(scene.node, "ostiary_auth_total", result="outage") == outages + count
    assert await scene.stand.sample(scene.node, "ostiary_requests_total", status="503", outcome="refused") == 0
    assert await scene.stand.sample(scene.node, "ostiary_requests_total", status="503", outcome="outage") >= count


async def test_a_frozen_postgres_holds_nobody_up_for_long(scene: Scene) -> None:
    """Postgres stands still: known keys do not wait, cold ones hear 503 within three seconds. R051 R059."""
    known, cold = await scene.stand.new_keys(2)
    assert admitted(await scene.call(known), known)
    scene.stand.postgres.pause()
    began = time.monotonic()
    first = asyncio.create_task(scene.call(cold))
    while not first.done() or time.monotonic() < began + 2 * TTL_SECONDS:
        answer = await scene.call(known)
        assert admitted(answer, known)
        assert answer.seconds < 0.5
    check_outage(await first)
    assert (await first).seconds < 3
    again = await scene.call(unknown_secret())
    check_outage(again)
    assert again.seconds < 0.3, "within the back-off nobody waits for Postgres"
    scene.stand.postgres.resume()
    await recovered(scene, cold)


async def test_a_restart_of_postgres_costs_no_request(scene: Scene) -> None:
    """The pooled connections are all dead, and the first cold requests after it are served nevertheless. R071."""
    keys = await scene.stand.new_keys(10)
    answers = await asyncio.gather(*(scene.call(key) for key in keys))
    assert all(answer.status == 200 for answer in answers)
    cold = await scene.stand.new_keys(10)
    await scene.stand.postgres.stop()
    await scene.stand.postgres.start()
    answers = await asyncio.gather(*(scene.call(key) for key in cold))
    assert [answer.who for answer in answers] == [key.id for key in cold]


@pytest.mark.threat("failure taken for admission")
async def test_what_the_entitlement_says_is_needed(scene: Scene) -> None:
    """It cannot be read: 503, never 200 and never 403, and nothing of it is kept. R047 R073 R080 R256."""
    key = await scene.stand.new_key()
    await scene.stand.execute("ALTER TABLE entitlements RENAME TO mislaid")
    try:
        answer = await scene.call(key)
        check_outage(answer)
    finally:
        await scene.stand.execute("ALTER TABLE mislaid RENAME TO entitlements")
    await recovered(scene, key)


@pytest.mark.parametrize(
    ("entitlement", "code"),
    [
        pytest.param(None, "api_access_required", id="none"),
        pytest.param({"features": '{"api_access": false}'}, "api_access_required", id="denied"),
        pytest.param({"valid_until": "2020-01-01"}, "subscription_lapsed", id="lapsed"),
    ],
)
async def test_a_confirmed_lack_of_entitlement_is_no_outage(
    scene: Scene, entitlement: dict[str, str] | None, code: str
) -> None:
    """What Postgres knows is a 403 with its reason, also while Redis is away. R057 R074."""
    user = f"user-{code}-{'with' if entitlement else 'without'}"
    await scene.stand.execute("INSERT INTO users (id, tenant_id) VALUES ($1, 'acme') ON CONFLICT DO NOTHING", user)
    if entitlement is not None:
        (column, value), *_ = entitlement.items()
        await scene.stand.execute(
            f"INSERT INTO entitlements (user_id, plan, {column}) VALUES ('{user}', 'basic', '{value}')"
        )
    key = await scene.stand.new_key()
    await scene.stand.execute("UPDATE api_keys SET user_id = $2 WHERE id = $1", key.id, user)
    await scene.stand.heard_by([scene.node])
    scene.stand.redis.pause()
    answer = await scene.call(key)
    assert (answer.status, answer.code) == (403, code)


# -- both


@pytest.mark.threat("failure taken for admission")
async def test_without_both_the_bound_decides(scene: Scene) -> None:
    """No news from anywhere: known keys are served as long as the last news hold, then 503; never a 401. R058 R079."""
    known, cold = await scene.stand.new_keys(2)
    assert admitted(await scene.call(known), known)
    refused = await scene.stand.sample(scene.node, "ostiary_auth_total", result="invalid_api_key")
    outages = await scene.stand.sample(scene.node, "ostiary_auth_total", result="outage")
    processes.kill(scene.stand.postgres.pid)
    processes.kill(scene.stand.redis.pid)
    began = time.monotonic()
    assert admitted(await scene.call(known), known)
    for secret in (cold.secret, unknown_secret()):
        answer = await scene.call(secret)
        check_outage(answer)
        assert answer.seconds < 0.5
    while (answer := await scene.call(known)).status == 200:
        assert admitted(answer, known)
    lapsed_at = time.monotonic() - began
    assert lapsed_at < BOUND_SECONDS + 0.3
    for secret in (known.secret, cold.secret, unknown_secret()):
        answer = await scene.call(secret)
        check_outage(answer)
        assert answer.seconds < 0.5
    await check_counted_as_outages(scene, refused, outages, 6)
    await check_what_needs_no_store(scene)
    assert await scene.readiness() == 503
    await scene.stand.repair()
    assert admitted(await after_retry(scene, answer, known), known)
    assert admitted(await scene.call(cold), cold)


async def check_what_needs_no_store(scene: Scene) -> None:
    """Open routes are served, and what can be told without a store is told as ever. R006 R016."""
    assert (await scene.stand.call(scene.node, None, path="/public/1")).status == 200
    assert (await scene.stand.call(scene.node, unknown_secret(), path="/public/1")).status == 200
    assert (await scene.call(None)).code == "missing_api_key"
    assert (await scene.call("nonsense")).code == "invalid_api_key"


@pytest.mark.threat("failure taken for admission")
async def test_a_frozen_world_hangs_nobody(scene: Scene) -> None:
    """Both stand still, all connections open: after the bound every caller soon hears 503. R051 R058."""
    known, cold = await scene.stand.new_keys(2)
    assert admitted(await scene.call(known), known)
    scene.stand.redis.pause()
    scene.stand.postgres.pause()
    began = time.monotonic()
    while (answer := await scene.call(known)).status == 200:
        assert answer.seconds < 0.5
        assert time.monotonic() - began < BOUND_SECONDS + 0.5
    check_outage(answer)
    assert answer.seconds < 3
    answers = await asyncio.gather(*(scene.call(key) for key in (known, cold, unknown_secret()) for _ in range(10)))
    for answer in answers:
        check_outage(answer)
        assert answer.seconds < 3
    scene.stand.redis.resume()
    scene.stand.postgres.resume()
    await recovered(scene, known)


async def test_a_node_starts_without_its_stores(scene: Scene) -> None:
    """Both away at the start: live, not ready, 503; ready by itself once they are there. R071 R079."""
    stand = scene.stand
    key = await stand.new_key()
    processes.kill(stand.postgres.pid)
    processes.kill(stand.redis.pid)
    node = await stand.start_node(is_ready_awaited=False)
    late = Scene(stand, node)
    await until(lambda: listens(late), what="the node to listen")
    assert await late.readiness() == 503
    check_outage(await late.call(key))
    await check_what_needs_no_store(late)
    assert node.is_running()
    await stand.repair()
    await node.wait_until_ready()
    assert admitted(await late.call(key), key)
    await restored(late)
    assert await node.stop() == 0


async def listens(scene: Scene) -> bool:
    """Whether the status listener is there. Callers need not wait for theirs: they are accepted once it serves."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", scene.node.status_port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
