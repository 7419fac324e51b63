"""Callers of the management API, with admin tokens that are good and with revoked ones: every answer is judged."""

import asyncio
import random
import time

import aiohttp

from gateway.control.admin_tokens import AdminTokens, Role
from gateway.stores.postgres.connection import Postgres
from gateway.telemetry.metrics import Metrics
from tests.chaos.cast import AdminToken, Cast
from tests.chaos.measures import Measures
from tests.chaos.stage import Node, Stage
from tests.chaos.tally import Tally

CALLERS_PER_NODE = 1
PAUSE_SECONDS = 0.1
SHARE_OF_GOOD = 0.5
MOST_RECENT = 3
GIVE_UP_SECONDS = 20.0


async def stock(stage: Stage, cast: Cast, count: int) -> None:
    """Make so many admin tokens."""
    postgres = Postgres(stage.postgres.dsn, metrics=Metrics())
    await postgres.open()
    try:
        for _ in range(count):
            name = cast.name("admin")
            tokens = AdminTokens(postgres)
            row, text = await tokens.create(name=name, role=Role.AUDITOR, tenant_id=None, expires_at=None)
            token = AdminToken(name, id=row.id, text=text)
            token.valid.opened(time.monotonic())
            cast.admin_tokens.append(token)
    finally:
        await postgres.close()


class Admins:
    """Constant calls to every node, with the tokens that are good and with those that were, the latest above all."""

    def __init__(self, stage: Stage, measures: Measures, cast: Cast, tally: Tally) -> None:
        self._stage = stage
        self._cast = cast
        self._tally = tally
        self._random = random.Random(f"{measures.seed}: admins")
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=GIVE_UP_SECONDS))

    async def call_forever(self) -> None:
        """Ask every node, again and again."""
        try:
            async with asyncio.TaskGroup() as group:
                for node in self._stage.nodes:
                    group.create_task(self._call_forever(node))
        finally:
            await self._http.close()

    async def _call_forever(self, node: Node) -> None:
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            await self._ask(node, self._pick())

    def _pick(self) -> AdminToken:
        cast = self._cast
        if cast.admin_tokens_gone and self._random.random() > SHARE_OF_GOOD:
            return self._random.choice(cast.admin_tokens_gone[-MOST_RECENT:])
        return self._random.choice(cast.admin_tokens)

    async def _ask(self, node: Node, token: AdminToken) -> None:
        sent_at = time.monotonic()
        url = f"{node.process.admin_url}/v1/plans"
        try:
            async with self._http.get(url, headers={"Authorization": f"Bearer {token.text}"}) as response:
                status = response.status
                await response.read()
        except (aiohttp.ClientError, OSError):  # TimeoutError is one
            status = 0
        tally, gate = self._tally, token.valid
        tally.calls_by_admins += 1
        story = f"node {node.number}, {gate.name}, sent {sent_at:.3f}: {status}; {gate.story}; {self._stage.weather()}"
        if status == 200 and gate.forbids(sent_at):
            tally.stale.append(story)
        elif status in (401, 403) and gate.demands(sent_at):
            tally.wrong.append(story)
        elif status in (0, 503) and gate.demands(sent_at) and not node.is_out_since(sent_at):
            if self._stage.pulse.was_steady_since(sent_at):
                tally.unavailable.append(story)
            else:
                tally.unavailable_unsteadily += 1
        elif status not in (0, 200, 401, 503):
            tally.odd.append(story)
