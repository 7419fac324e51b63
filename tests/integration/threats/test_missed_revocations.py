"""Keys that are revoked while the nodes cannot hear of it by push: refused within the bound, and for good."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tests.fixtures import processes
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.stand import Key, Stand
from tests.fixtures.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOUND_SECONDS = 1.0
SLACK_SECONDS = 1.0  # for a busy machine: a poll that is late by this makes nobody trust anything older
AFTERWARDS_SECONDS = 1.0


@contextlib.asynccontextmanager
async def frozen(stand: Stand) -> AsyncIterator[None]:
    """Redis stands still, all its connections open: nobody can tell silence from death."""
    stand.redis.pause()
    try:
        yield
    finally:
        stand.redis.resume()


@contextlib.asynccontextmanager
async def killed(stand: Stand) -> AsyncIterator[None]:
    """Redis is dead, and comes back empty."""
    processes.kill(stand.redis.pid)
    try:
        yield
    finally:
        await stand.repair()


@contextlib.asynccontextmanager
async def cut_off(stand: Stand) -> AsyncIterator[None]:
    """Redis is well, but every subscription is killed as soon as it stands."""
    is_over = False

    async def cut() -> None:
        async with stand.redis_client() as client:
            while not is_over:
                await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                await asyncio.sleep(0.005)

    cutting = asyncio.create_task(cut())
    try:
        yield
    finally:
        is_over = True
        await cutting


Fault = Callable[[Stand], AbstractAsyncContextManager[None]]
FAULTS = [pytest.param(fault, id=fault.__name__) for fault in (frozen, killed, cut_off)]


async def warm(stand: Stand, nodes: list[GatewayProcess]) -> Key:
    """A key that every node admits from memory."""
    key = await stand.new_key()
    for node in nodes:
        answer = await stand.call(node, key.secret)
        assert (answer.status, answer.who) == (200, key.id)
    return key


async def refused_within(stand: Stand, nodes: list[GatewayProcess], key: Key, seconds: float) -> None:
    """Every node refuses within `seconds` from now; in the end with the reason, not only for want of news."""

    async def watch(node: GatewayProcess) -> None:
        deadline = time.monotonic() + seconds
        while True:
            sent_at = time.monotonic()
            answer = await stand.call(node, key.secret)
            assert answer.status in (200, 401, 503), answer.text
            assert answer.status != 200 or sent_at < deadline, "a revoked key is admitted beyond the bound"
            if answer.code == "key_revoked":
                return
            assert sent_at < deadline + 10, "nobody could tell for too long"

    await asyncio.gather(*(watch(node) for node in nodes))


async def refused_for(stand: Stand, nodes: list[GatewayProcess], key: Key, seconds: float) -> None:
    """No node admits the key during `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for node in nodes:
            assert (await stand.call(node, key.secret)).status in (401, 503)


@pytest.mark.threat("missed revocation")
@pytest.mark.parametrize("fault", FAULTS)
async def test_what_nobody_heard_is_known_within_the_bound(stand: Stand, fault: Fault) -> None:
    """Revoked in psql, or by a call that cannot push: refused in time, and for good. R221 R232 R237."""
    cache = {"bound_seconds": BOUND_SECONDS}
    nodes = await asyncio.gather(*(stand.start_node({"cache": cache}) for _ in range(2)))
    typed, called, other = [await warm(stand, nodes) for _ in range(3)]
    async with fault(stand):
        await stand.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", typed.id)
        await refused_within(stand, nodes, typed, BOUND_SECONDS + SLACK_SECONDS)

        async def is_confirmed() -> bool:
            answer = await stand.manage(nodes[0], "POST", f"/v1/keys/{called.id}/revoke", {})
            assert answer.status in (200, 503), answer.text
            return answer.status == 200

        await until(is_confirmed, what="the revocation to be confirmed")
        await refused_for(stand, nodes, called, 0.2)
    for key in (typed, called):
        await refused_for(stand, nodes, key, AFTERWARDS_SECONDS)
        for node in nodes:
            assert (await stand.call(node, key.secret)).code == "key_revoked"
    for node in nodes:
        assert (await stand.call(node, other.secret)).who == other.id
