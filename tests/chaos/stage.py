"""Nodes, stores, the wires between them, and the upstream: all of it real, and all of it there to be hurt."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from gateway.stores.postgres.migrate import migrate
from tests.chaos.cast import ENVIRONMENT, ROUTES
from tests.chaos.measures import Measures
from tests.chaos.pulse import Pulse
from tests.fixtures.gateway import GatewayProcess, operator_token
from tests.fixtures.signed import AUDIENCE, ISSUER, SEALING_KEY
from tests.fixtures.stores import OwnPostgres, OwnRedis
from tests.fixtures.upstream import RecordingUpstream
from tests.fixtures.wire import Wire

KEYS_PER_USER = 200  # more than will be: what a call that was cut off has made stays


@dataclass(eq=False)
class Node:
    """One node, and its wires.

    `calm_since`: nothing that was done to it or its stores is felt any more; None while something may be.
    `polls_since`: it has reached Postgres all the time since then; None during an outage. That of a node begins just
    before it, Postgres or its wire to Postgres is hurt, and ends when all that was healed and it has decided rightly,
    for the first time and then for a while, about a key that it has to look up and one that it knows. What is done to
    Redis alone is no outage.
    """

    number: int
    process: GatewayProcess
    to_postgres: Wire
    to_redis: Wire
    calm_since: float | None = None
    polls_since: float | None = None

    async def start(self) -> None:
        """Wires first; returns when it is ready."""
        await asyncio.gather(self.to_postgres.start(), self.to_redis.start())
        await self.process.start()

    def is_calm_since(self, moment: float) -> bool:
        """Whether it has been left alone since `moment`."""
        return self.calm_since is not None and self.calm_since <= moment

    def is_out_since(self, moment: float) -> bool:
        """Whether there was an outage at `moment` or later."""
        return self.polls_since is None or self.polls_since > moment

    def disturb(self, *, is_postgres_felt: bool) -> None:
        """Something is about to be done to it, or to what it needs."""
        self.calm_since = None
        if is_postgres_felt:
            self.polls_since = None

    def recovered(self) -> None:
        """It decides again whatever it is asked."""
        self.calm_since = time.monotonic()
        if self.polls_since is None:
            self.polls_since = self.calm_since


@dataclass(eq=False)
class Stage:
    """Everything. `faults` names what is being done to it now."""

    folder: Path
    bound_seconds: float
    postgres: OwnPostgres
    redis: OwnRedis
    upstream: RecordingUpstream
    pulse: Pulse
    nodes: list[Node] = field(default_factory=list)
    token: str = field(default="", repr=False)
    faults: list[str] = field(default_factory=list)

    @property
    def redis_dump(self) -> Path:
        """The file that Redis loads when it starts."""
        return self.folder / "redis" / "redis" / "dump.rdb"

    @property
    def command_config(self) -> Path:
        """The configuration of commands, which reach the stores past all wires."""
        return self.folder / "commands.yaml"

    def weather(self) -> str:
        """What is being done now."""
        return "under way: " + (", ".join(self.faults) or "nothing")

    def new_node(self, number: int) -> Node:
        """A node with wires of its own, not started."""
        to_postgres, to_redis = Wire(self.postgres.dsn), Wire(self.redis.url)
        config = self.config(to_postgres.url, to_redis.url)
        return Node(number, GatewayProcess(self.folder / f"node-{number}", config), to_postgres, to_redis)

    def config(self, postgres_dsn: str, redis_url: str) -> dict[str, object]:
        """Of whoever reaches the stores there."""
        return {
            "environment": ENVIRONMENT,
            "postgres": {"dsn": postgres_dsn},
            "redis": {"url": redis_url},
            "cache": {"bound_seconds": self.bound_seconds},
            "keys": {"max_per_user": KEYS_PER_USER},
            "tokens": {"issuer": ISSUER, "audience": AUDIENCE, "sealing_key": SEALING_KEY},
            "upstreams": {"orders": {"targets": [self.upstream.url]}},
            "routes": ROUTES,
        }


@contextlib.asynccontextmanager
async def stage_in(folder: Path, measures: Measures) -> AsyncIterator[Stage]:
    """Build it, and take it down whatever state it is in."""
    postgres, redis = OwnPostgres(folder / "postgres"), OwnRedis(folder / "redis")
    async with contextlib.AsyncExitStack() as stack:
        for server in (postgres, redis):
            stack.push_async_callback(server.stop)
        await asyncio.gather(postgres.start(), redis.start())
        await migrate(postgres.dsn)
        pulse = Pulse(bound_seconds=measures.bound_seconds)
        stage = Stage(folder, measures.bound_seconds, postgres, redis, RecordingUpstream(), pulse)
        stage.token = await operator_token(postgres.dsn)
        stage.command_config.write_text(yaml.safe_dump(stage.config(postgres.dsn, redis.url)))
        await stack.enter_async_context(stage.upstream)
        stack.push_async_callback(_take_down, stage)
        stage.nodes += [stage.new_node(number) for number in range(1, measures.nodes + 1)]
        for node in stage.nodes:
            await node.start()
        beating = asyncio.create_task(pulse.beat_forever())
        stack.callback(beating.cancel)
        yield stage


async def _take_down(stage: Stage) -> None:
    for node in stage.nodes:
        node.process.kill()
        await asyncio.gather(node.to_postgres.stop(), node.to_redis.stop())
