"""A world whose servers and wires are there to be hurt."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.stores.postgres.migrate import migrate
from tests.fixtures.stores import OwnPostgres, OwnRedis
from tests.fixtures.waiting import until
from tests.fixtures.wire import Wire
from tests.integration.stories.world import World, world_over

BOUND_SECONDS = 1.0
POLL_SECONDS = BOUND_SECONDS / 4
# A confirmation that came by push, not by a poll or by waiting.
PUSHED_SECONDS = 0.2
COMMIT = b"COMMIT;"  # as the last message of a transaction carries it


@dataclass(frozen=True)
class Fragile:
    """A world with a Postgres and a Redis of its own; `to_postgres` and `to_redis` are the wires of each node."""

    world: World
    postgres: OwnPostgres
    redis: OwnRedis
    to_postgres: Sequence[Wire]
    to_redis: Sequence[Wire]

    async def heal(self) -> None:
        """Undo every fault and wait until a change reaches all nodes by push again."""
        for wire in (*self.to_postgres, *self.to_redis):
            await wire.mend()
        for node in self.world.nodes:
            node.resume()
        await until(self._is_well, seconds=20, what="both nodes as they were")

    async def _is_well(self) -> bool:
        for node in range(len(self.world.nodes)):
            for store in ("postgres", "redis"):
                if await self.world.metric(node, "ostiary_dependency_up", dependency=store) != 1:
                    return False
            unknown = await self.world.ask(node, self.world.format.generate())
            if unknown.code != "invalid_api_key":
                return False
            body = {"secret_sha256": secrets.token_hex(32)}
            reply = await self.world.api("POST", "/v1/cache/invalidate", body, node=node)
            told = reply.body.get("propagation", {})
            if reply.status != 200 or told["reported"] != told["nodes"] or told["seconds"] > PUSHED_SECONDS:
                return False
        return True


@contextlib.asynccontextmanager
async def fragile_over(folder: Path) -> AsyncIterator[Fragile]:
    """A fragile world of two nodes."""
    async with contextlib.AsyncExitStack() as stack:
        postgres, redis = OwnPostgres(folder / "postgres"), OwnRedis(folder / "redis")
        for server in (postgres, redis):
            stack.push_async_callback(server.stop)
        await asyncio.gather(postgres.start(), redis.start())
        await migrate(postgres.dsn)
        to_postgres, to_redis = [Wire(postgres.dsn) for _ in range(2)], [Wire(redis.url) for _ in range(2)]
        for wire in (*to_postgres, *to_redis):
            await wire.start()
            stack.push_async_callback(wire.stop)
        nodes = [
            {
                "postgres": {"dsn": to_postgres[node].url},
                "redis": {"url": to_redis[node].url},
                "cache": {"bound_seconds": BOUND_SECONDS},
            }
            for node in range(2)
        ]
        world = await stack.enter_async_context(world_over(folder, postgres.dsn, redis.url, nodes=nodes))
        yield Fragile(world, postgres, redis, to_postgres, to_redis)
