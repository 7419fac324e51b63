"""Stores, an upstream, and two nodes before them: one is a single process, the other has two workers."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp
import psutil

from gateway.stores.postgres.migrate import migrate
from tests.fixtures.crew import Crew
from tests.fixtures.everyday import slow_upstream
from tests.fixtures.gateway import GatewayProcess, operator_token
from tests.fixtures.planted import ENVIRONMENT, Caller, plant
from tests.fixtures.signed import AUDIENCE, ISSUER, SEALING_KEY
from tests.fixtures.stores import OwnPostgres, OwnRedis
from tests.fixtures.waiting import until
from tests.soak.holdings import Holdings, held

DEBUG: Final = Path(__file__).with_name("debug")
LIMITED: Final = "/public/limited"
REST_SECONDS: Final = 60.0  # by then replaced gateways have gone, and clients' ends are closed
STILL_SECONDS: Final = 3.0
IDLE_SECONDS: Final = 10  # a connection to the upstream is kept for so long
PATIENCE_SECONDS: Final = 240.0  # with whatever is to be ready, on a machine that may do other things
WORKERS: Final = {"one process": 1, "two workers": 2}
ROUTES: Final = [
    {"name": "limited", "paths": [LIMITED], "upstream": "orders", "limits": [{"by": "key", "per_second": 2}]},
    {"name": "orders", "paths": ["/public"], "upstream": "orders", "tokens": True},
]


@dataclass(eq=False)
class World:
    """All of it. `owner` is the user whose keys are made and revoked."""

    folder: Path
    postgres: OwnPostgres
    redis: OwnRedis
    upstream_port: int
    nodes: dict[str, GatewayProcess] = field(default_factory=dict)
    token: str = field(default="", repr=False)
    owner: Caller = field(default_factory=Caller)

    async def reload(self, node: GatewayProcess) -> None:
        """Have it read its file again, and wait for the end of that; on a machine that is too busy it is given up."""
        crew = Crew(node)

        def ended() -> int:
            return len(crew.events("reloaded") + crew.events("reload_given_up"))

        before = ended()
        node.signal(signal.SIGHUP)
        await until(lambda: ended() > before, seconds=PATIENCE_SECONDS, what="a reload")

    async def lose_a_worker(self) -> None:
        """SIGKILL one, and wait until another is there."""
        crew = Crew(self.nodes["two workers"])
        killed = crew.pids()[0]
        crew.kill(killed)
        await until(lambda: killed not in crew.pids(), seconds=PATIENCE_SECONDS, what="a worker to die")
        await until(partial(_is_ready, crew), seconds=PATIENCE_SECONDS, what="another worker")

    async def restart_redis(self) -> None:
        """Stop it in order, and start it again."""
        await self.redis.stop()
        await self.redis.start()

    async def rest(self) -> dict[str, Holdings]:
        """What each node holds, once that has stood still for a while, or for long enough."""
        return {name: await self._at_rest(node) for name, node in self.nodes.items()}

    async def _at_rest(self, node: GatewayProcess) -> Holdings:
        deadline = asyncio.get_running_loop().time() + REST_SECONDS
        before = await self._held(node)
        while True:
            await asyncio.sleep(STILL_SECONDS)
            now = await self._held(node)
            is_still = (now.descriptors, now.tasks) == (before.descriptors, before.tasks)
            if (is_still and not now.clients and not now.upstream) or asyncio.get_running_loop().time() > deadline:
                return now
            before = now

    async def _held(self, node: GatewayProcess) -> Holdings:
        ports = {
            "clients": node.proxy_port,
            "postgres": _port_of(self.postgres.dsn),
            "redis": _port_of(self.redis.url),
            "upstream": self.upstream_port,
        }
        while True:
            with contextlib.suppress(psutil.NoSuchProcess):  # one that has just left
                return await held(node.pid, ports, self.folder)


def debugged(folder: Path) -> dict[str, str]:
    """The environment of nodes whose processes say in `folder` how many tasks they have."""
    return {"PYTHONPATH": os.pathsep.join([str(DEBUG), str(Path.cwd())]), "SOAK_FOLDER": str(folder)}


async def _is_ready(crew: Crew) -> bool:
    with contextlib.suppress(aiohttp.ClientError):
        health = await crew.health()
        return all(each["status"] == "ready" for each in (health, *health.get("workers", ())))
    return False


def _port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


@contextlib.asynccontextmanager
async def world_in(folder: Path) -> AsyncIterator[World]:
    """Build it, and take it down whatever state it is in."""
    async with contextlib.AsyncExitStack() as stack:
        postgres, redis = OwnPostgres(folder / "postgres"), OwnRedis(folder / "redis")
        for server in (postgres, redis):
            stack.push_async_callback(server.stop)
        await asyncio.gather(postgres.start(), redis.start())
        await migrate(postgres.dsn)
        url = await stack.enter_async_context(slow_upstream())
        world = World(folder, postgres, redis, _port_of(url))
        world.token = await operator_token(postgres.dsn)
        await plant(postgres.dsn, world.owner)
        for name, workers in WORKERS.items():
            node = GatewayProcess(
                folder / name.replace(" ", "-"),
                {
                    "environment": ENVIRONMENT,
                    "postgres": {"dsn": postgres.dsn},
                    "redis": {"url": redis.url},
                    "cache": {"local_entries": 200},  # full after the first round
                    "keys": {"max_per_user": 1_000},
                    "tokens": {"issuer": ISSUER, "audience": AUDIENCE, "sealing_key": SEALING_KEY},
                    "upstreams": {"orders": {"targets": [url], "timeouts": {"idle": IDLE_SECONDS}}},
                    "routes": ROUTES,
                },
                environment=debugged(folder),
                workers=workers,
            )
            stack.push_async_callback(node.stop)
            world.nodes[name] = node
            await node.start(is_ready_awaited=False)
            await until(partial(_is_ready, Crew(node)), seconds=PATIENCE_SECONDS, what="a node to be ready")
        yield world
