"""The management API of random nodes, and psql: who calls again until there is an answer, and when it is one."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import asyncpg

from tests.chaos.cast import PLAIN, Secret
from tests.chaos.gates import Gate, Word
from tests.chaos.measures import Measures
from tests.chaos.stage import Node, Stage
from tests.chaos.tally import Tally
from tests.chaos.traffic import Traffic

# A call is never given up: on a node that is paused it would be done later than its repeat elsewhere, and than what
# comes after that.
CALL_SECONDS = 120.0
SETTLED_SECONDS = 180.0
SHARE_OF_CALM = 0.7
# For the clocks of this machine to drift apart between an answer and a moment that it names.
CLOCK_MARGIN_SECONDS = 0.01


@dataclass(frozen=True)
class Call:
    """One call of the API. `what` names the change in the table."""

    what: str
    method: str
    path: str
    body: Any = None
    # Codes that say of a repeat that the change had been made, and is confirmed.
    done_before: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Reply:
    """The last answer to a call; `sent_at` and `answered_at` are monotonic, and of that one call."""

    status: int
    body: dict[str, Any] = field(repr=False)
    node: Node
    sent_at: float
    answered_at: float
    attempts: int = 1
    is_confirmed: bool = False

    @property
    def code(self) -> str:
        """The problem's code."""
        return str(self.body.get("code", ""))

    @property
    def is_done(self) -> bool:
        """Whether the change has been made."""
        return self.status in (200, 201, 204) or self.is_confirmed

    @property
    def revision(self) -> int:
        """The revision that the answer names, 0 where it names none."""
        return int(self.body.get("propagation", {}).get("revision", 0))


def at_once(_: Reply) -> float:
    """What is taken away ends with the answer."""
    return 0.0


class Operators:
    """Whoever changes something: sees each call through, and moves the gates at the right moments."""

    def __init__(self, stage: Stage, measures: Measures, traffic: Traffic, tally: Tally) -> None:
        self._stage = stage
        self._traffic = traffic
        self._tally = tally
        self._random = random.Random(f"{measures.seed}: operators")
        self._word = Word()
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {stage.token}"},
            timeout=aiohttp.ClientTimeout(total=CALL_SECONDS),
            connector=aiohttp.TCPConnector(limit=0),
        )

    async def close(self) -> None:
        """Hang up."""
        await self._http.close()

    def watch(self, secrets: Iterable[Secret]) -> None:
        """Have every node asked about these now."""
        self._traffic.watch(secrets)

    # -- changes

    async def narrow(
        self,
        call: Call,
        gates: Iterable[Gate],
        secrets: Iterable[Secret],
        *,
        path: str = PLAIN,
        ends_at: Callable[[Reply], float] = at_once,
    ) -> Reply:
        """Take something away: once confirmed, from `ends_at` (wall clock) on, `gates` are closed for `secrets`."""
        gates, secrets = tuple(gates), tuple(secrets)
        for gate in gates:
            gate.closing(call.what)
        reply, first_sent_at = await self._settled(call)
        if not reply.is_done:
            return reply
        tally = self._tally
        tally.narrowed(call.what, reply.answered_at - first_sent_at)
        for gate in gates:
            self._moved(gate, call, reply)
            self._ends(gate, reply, ends_at(reply))
        self._traffic.watch(secrets, path)
        if reply.is_confirmed and "propagation" in reply.body:
            is_calm = all(node.is_calm_since(reply.sent_at) for node in self._stage.nodes)
            known = tally.calm_seconds if is_calm else tally.fault_seconds
            known.append(reply.body["propagation"]["seconds"])
        return reply

    async def widen(self, call: Call, gates: Iterable[Gate], secrets: Iterable[Secret], *, path: str = PLAIN) -> Reply:
        """Give something: once confirmed, `gates` are open for `secrets`."""
        gates, secrets = tuple(gates), tuple(secrets)
        for gate in gates:
            gate.opening(call.what)
        reply, _ = await self._settled(call)
        if not reply.is_done:
            return reply
        self._tally.changes[call.what].times += 1
        for gate in gates:
            self._moved(gate, call, reply)
            if reply.is_confirmed and reply.revision:
                gate.opened(reply.answered_at)
        if gates and not (reply.is_confirmed and reply.revision):
            # Some node may not have heard; or a call that was cut off has done it, and it was never told.
            revision = reply.revision or await self._revision()
            for gate in gates:
                self._word.when_confirmed(revision, gate.if_not_moved(gate.opened))
        self._traffic.watch(secrets, path)
        return reply

    def _ends(self, gate: Gate, reply: Reply, ends_at: float) -> None:
        moment = _monotonic(ends_at)
        if reply.is_confirmed:
            gate.closed(max(reply.answered_at, moment))
        else:
            self._word.when_confirmed(reply.revision, lambda at: gate.closed(max(at, moment)))

    async def type_in(
        self, what: str, statement: str, argument: str, gates: Iterable[Gate], secrets: Iterable[Secret]
    ) -> None:
        """Take something away by a statement in psql. Nobody answers for it, but a later answer does."""
        gates, secrets = tuple(gates), tuple(secrets)
        for gate in gates:
            gate.closing(what)
        await self._psql(statement, argument)
        now = time.monotonic()
        revision = await self._revision()
        self._tally.narrowed(what, None)
        for gate in gates:
            gate.typed(now)
            self._word.when_confirmed(revision, gate.if_not_moved(gate.closed))
        self._traffic.watch(secrets)

    async def _revision(self) -> int:
        """The latest one: that of anything committed before, or a higher one."""
        return int(await self._psql("SELECT value FROM revision"))

    async def _psql(self, statement: str, *arguments: str) -> Any:
        """The first value that it gives; repeated until Postgres is there.

        Without a deadline: a statement that was given up could still be done, after what comes next.
        """
        while True:
            try:
                connection = await asyncpg.connect(self._stage.postgres.dsn)
                try:
                    return await connection.fetchval(statement, *arguments)
                finally:
                    await connection.close()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                await asyncio.sleep(0.2)

    def _moved(self, gate: Gate, call: Call, reply: Reply) -> None:
        gate.story = (
            f"{call.what} ({call.method} {call.path}), call {reply.attempts} sent {reply.sent_at:.3f}, answered"
            f" {reply.answered_at:.3f} by node {reply.node.number}: {reply.status} {reply.body.get('propagation', '')}"
        )

    # -- calls

    async def _settled(self, call: Call) -> tuple[Reply, float]:
        """The answer of the last of as many calls as it takes, and when the first was sent."""
        first_sent_at = time.monotonic()
        attempts = 0
        while time.monotonic() < first_sent_at + SETTLED_SECONDS:
            attempts += 1
            reply = await self._once(call, attempts)
            if reply is not None:
                return reply, first_sent_at
            await asyncio.sleep(self._random.uniform(0.05, 0.3))
        raise AssertionError(f"{call} was not answered in {SETTLED_SECONDS} s; {self._stage.weather()}")

    def _node(self) -> Node:
        """Any; more often one that is well, as a load balancer would have it."""
        nodes = self._stage.nodes
        calm = [node for node in nodes if node.calm_since is not None]
        return self._random.choice(calm if calm and self._random.random() < SHARE_OF_CALM else nodes)

    async def _once(self, call: Call, attempt: int) -> Reply | None:
        """One call, to any node; None where it has to be repeated."""
        node = self._node()
        sent_at = time.monotonic()
        try:
            async with self._http.request(call.method, node.process.admin_url + call.path, json=call.body) as response:
                body = await response.json(content_type=None) if response.status != 204 else {}
        except (aiohttp.ClientError, OSError):
            self._tally.repeated_calls += 1
            return None
        now = time.monotonic()
        if response.status == 503:
            is_pending = body["code"] == "revocation_pending"
            self._tally.changes[call.what].pending += is_pending
            self._tally.repeated_calls += not is_pending
            return None
        assert response.status < 500, f"{call}: {response.status} {body}"
        propagation = body.get("propagation", {})
        is_confirmed = (
            response.status == 204
            or propagation.get("state") == "confirmed"
            or (attempt > 1 and body.get("code") in call.done_before)
        )
        if propagation.get("state") == "confirmed" and propagation["revision"]:
            self._word.confirmed(propagation["revision"], now)
        return Reply(response.status, body, node, sent_at, now, attempt, is_confirmed)


def _monotonic(moment: float) -> float:
    """A moment of the wall clock, which is that of Postgres too; a little late."""
    return moment - time.time() + time.monotonic() + CLOCK_MARGIN_SECONDS
