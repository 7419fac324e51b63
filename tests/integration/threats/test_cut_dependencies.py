"""Stores whose connections break in the middle of a decision: nothing passes without an identity, nobody is blamed.

The gateway runs in this process, with a clock that is moved past its pauses; its stores, and all connections, are real.
A connection may break behind any byte. Tried are all ends of messages of Postgres' protocol, the middle of the headers
behind them, and every 80th byte; of what Redis says every 10th.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from gateway.app import Gateway
from gateway.auth.questions import BACK_OFF_SECONDS
from gateway.embedded.server_process import HOST
from gateway.settings import Settings
from tests.fixtures.connections import connected
from tests.fixtures.ports import free_port
from tests.fixtures.stand import ENVIRONMENT, Key, Stand, unknown_secret
from tests.fixtures.waiting import until
from tests.fixtures.wire import Side, Wire
from tests.integration.threats.raw import get, reply

pytestmark = pytest.mark.asyncio(loop_scope="session")

POSTGRES_STRIDE = 80
REDIS_STRIDE = 10
LASTING_SECONDS = 3600.0  # what must not end by itself while the clock is moved
DECIDED = {"good": 200, "revoked": 401, "unknown": 401}


class MovedClock:
    """The machine's monotonic clock, and what it was moved by."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        """As Clock."""
        return time.monotonic() + self.ahead


@dataclass
class Scene:
    """A gateway whose wires to its stores can be cut; each decision is about keys that it has never seen."""

    stand: Stand
    port: int
    clock: MovedClock
    postgres: Wire
    redis: Wire
    good: Iterator[Key]
    revoked: Iterator[Key]

    async def ask(self, key: Key) -> int:
        """The status of a request with the key, for a path that names it."""
        async with connected(self.port) as (reader, writer):
            writer.write(get(key.secret, f"/orders/{key.id}"))
            return (await reply(reader))[0]

    async def ask_three(self) -> dict[str, int]:
        """The statuses of a good key, a revoked and an unknown one, asked for at the same time."""
        keys = {"good": next(self.good), "revoked": next(self.revoked), "unknown": Key("nobody", unknown_secret())}
        return dict(zip(keys, await asyncio.gather(*map(self.ask, keys.values())), strict=True))

    def pass_time(self) -> None:
        """Let the pause after a failed lookup be over."""
        self.clock.ahead += BACK_OFF_SECONDS + 0.1

    def check_upstream(self) -> None:
        """Whatever has reached the upstream names the key that it was asked with."""
        for request in self.stand.upstream.requests:
            assert request.all("X-Key-Id") == [request.target.removeprefix("/orders/")]
            assert request.all("X-User-Id") == ["stock"]


@pytest_asyncio.fixture(loop_scope="session")
async def scene(stand: Stand) -> AsyncIterator[Scene]:
    """A gateway in this process, with keys in stock."""
    good, revoked = await stand.insert_keys(1500), await stand.insert_keys(1500)
    await stand.execute("UPDATE api_keys SET revoked_at = now() WHERE id = ANY($1)", [key.id for key in revoked])
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(Wire(stand.postgres.dsn))
        redis = await stack.enter_async_context(Wire(stand.redis.url))
        clock, port = MovedClock(), free_port()
        config = {
            "environment": ENVIRONMENT,
            "listen": {"proxy": f"{HOST}:{port}", "admin": f"{HOST}:0", "status": f"{HOST}:0"},
            "postgres": {"dsn": postgres.url},
            "redis": {"url": redis.url},
            "cache": {"ttl_seconds": LASTING_SECONDS, "bound_seconds": LASTING_SECONDS, "local_entries": 1},
            "upstreams": {"orders": {"targets": [stand.upstream.url]}},
            "routes": [{"name": "orders", "paths": ["/orders"], "upstream": "orders"}],
        }
        gateway = Gateway(Settings.model_validate(config), clock=clock)
        stack.push_async_callback(gateway.close)
        await gateway.start()
        made = Scene(stand, port, clock, postgres, redis, iter(good), iter(revoked))
        await until(lambda: _answers(made), what="the gateway to ask its stores")
        assert await made.ask_three() == DECIDED
        yield made
        made.check_upstream()


def message_ends(carried: bytes, side: Side) -> Iterator[int]:
    """Where the messages of a new connection to Postgres end: a type, then a length, but for the first ones."""
    untyped = [8, None] if side == "requests" else [1]  # asking for TLS, and the start; the one byte that refuses TLS
    position = 0
    while position + 5 <= len(carried):
        if untyped:
            known = untyped.pop(0)
            position += int.from_bytes(carried[position : position + 4]) if known is None else known
        else:
            position += 1 + int.from_bytes(carried[position + 1 : position + 5])
        yield position


@pytest.mark.threat("failure taken for admission")
@pytest.mark.parametrize("side", ["requests", "replies"])
async def test_postgres_breaks_off_anywhere(scene: Scene, side: Side) -> None:
    """At every step of connecting and of asking: 503 or the truth, for a good key never a 401. R047 R070 R075."""
    scene.postgres.arm(side, 0)  # what is pooled breaks at its next use
    await scene.ask_three()
    scene.pass_time()
    scene.postgres.disarm()
    assert await scene.ask_three() == DECIDED
    whole = scene.postgres.longest(side)
    ends = list(message_ends(whole, side))
    assert ends[-1] == len(whole), "these are not messages of Postgres"
    cuts = {end + beside for end in ends for beside in (0, 3)} | set(range(0, len(whole), POSTGRES_STRIDE))
    outages = 0
    for limit in sorted(cuts):
        if limit % 2:  # every other time there is a pooled connection, whose failure is met by a new one
            assert await scene.ask_three() == DECIDED
        scene.postgres.arm(side, limit)
        seen = await scene.ask_three()
        scene.postgres.disarm()
        scene.pass_time()
        for kind, status in seen.items():
            assert status in (DECIDED[kind], 503), f"{kind}: {status}, cut behind {limit} bytes of {side}"
        outages += list(seen.values()).count(503)
    assert outages > len(cuts) / 3, "hardly anything has failed: that proves little"
    assert await scene.ask_three() == DECIDED


@pytest.mark.threat("failure taken for admission")
@pytest.mark.parametrize("side", ["requests", "replies"])
async def test_redis_breaks_off_anywhere(scene: Scene, side: Side) -> None:
    """In the middle of what Redis says of a key: Postgres decides, as if there were no Redis. R055 R056."""
    cached = list(itertools.islice(scene.good, 3))

    async def is_read() -> bool:
        for key in reversed(cached):  # the node remembers one at a time: the others are in Redis alone
            scene.redis.disarm()
            assert await scene.ask(key) == 200
        return cached[0].id.encode() in scene.redis.longest("replies")

    await until(is_read, what="the keys to be read from Redis")
    whole = scene.redis.longest(side)
    cuts = range(0, len(whole) + REDIS_STRIDE, REDIS_STRIDE)
    for number, limit in enumerate(cuts, start=1):
        await until(lambda: _answers(scene), what="Redis to be used again")
        scene.redis.arm(side, limit)
        assert await scene.ask(cached[number % 3]) == 200
        if limit in (0, 50):
            assert await scene.ask(next(scene.revoked)) == 401
            assert await scene.ask(Key("nobody", unknown_secret())) == 401
        scene.redis.disarm()
    assert scene.redis.cuts >= len(cuts) - 1


async def _answers(scene: Scene) -> bool:
    """Whether the gateway speaks to Redis: a question that nobody has asked before goes through the wire."""
    scene.redis.disarm()
    await scene.ask(Key("nobody", unknown_secret()))
    return b"GET" in scene.redis.longest("requests")
