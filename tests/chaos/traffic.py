"""Callers on every node who never pause, and the upstream that sees whom the nodes admit: every admission is judged."""

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from tests.chaos.caller import Caller
from tests.chaos.cast import PATHS, PLAIN, RECOVERY, Cast, Secret
from tests.chaos.gates import shutting
from tests.chaos.measures import Measures
from tests.chaos.stage import Node, Stage
from tests.chaos.tally import TWO_AT_ONCE, Tally
from tests.fixtures.upstream import RecordedRequest, Reply

CALLERS_PER_NODE = 3
SCOUTS_PER_NODE = 2
# What has just changed is asked for at once, again at these moments after it, and often for a while.
AGAIN_SECONDS = (0.1, 1.0)
RECENT_SECONDS = 6.0
SECRETS_PER_CHANGE = 2
SHARE_OF_RECENT, SHARE_OF_GONE = 0.3, 0.1
MOST_URGENT = 200


@dataclass(eq=False, slots=True)
class Asked:
    """A request under way."""

    secret: Secret
    path: str
    node: Node
    sent_at: float
    has_arrived: bool = False


class Traffic:
    """Constant requests with every secret that is good, and with those that were."""

    def __init__(self, stage: Stage, measures: Measures, cast: Cast, tally: Tally) -> None:
        self._stage = stage
        self._cast = cast
        self._tally = tally
        self._random = random.Random(f"{measures.seed}: traffic")
        self._pause_seconds = len(stage.nodes) * CALLERS_PER_NODE / measures.requests_per_second
        self._numbers = itertools.count(1)
        self._under_way: dict[str, Asked] = {}
        self._recent: deque[tuple[float, Secret, str]] = deque()
        self._urgent: dict[Node, asyncio.Queue[tuple[Secret, str]]] = {
            node: asyncio.Queue(MOST_URGENT) for node in stage.nodes
        }
        self._callers: list[Caller] = []
        self._tasks: list[asyncio.Task[None]] = []
        stage.upstream.respond = self._arrived

    def start(self) -> None:
        """Begin."""
        for node in self._stage.nodes:
            self._tasks += [asyncio.create_task(self._call(node)) for _ in range(CALLERS_PER_NODE)]
            self._tasks += [asyncio.create_task(self._scout(node)) for _ in range(SCOUTS_PER_NODE)]

    async def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for caller in self._callers:
            caller.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    # -- whom to ask about

    def watch(self, secrets: Iterable[Secret], path: str = PLAIN) -> None:
        """Something that these depend on has just changed: ask every node, now and soon again."""
        chosen = list(secrets)
        if len(chosen) > SECRETS_PER_CHANGE:
            chosen = self._random.sample(chosen, SECRETS_PER_CHANGE)
        self._recent.extend((time.monotonic() + RECENT_SECONDS, secret, path) for secret in chosen)
        self._press(chosen, path)
        for seconds in AGAIN_SECONDS:
            asyncio.get_running_loop().call_later(seconds, self._press, chosen, path)

    def _press(self, secrets: list[Secret], path: str) -> None:
        for queue in self._urgent.values():
            for secret in secrets:
                if not queue.full():
                    queue.put_nowait((secret, path))

    def _pick(self) -> tuple[Secret, str]:
        now = time.monotonic()
        while self._recent and self._recent[0][0] < now:
            self._recent.popleft()
        share = self._random.random()
        if self._recent and share < SHARE_OF_RECENT:
            return self._random.choice(self._recent)[1:]
        if self._cast.gone and share > 1 - SHARE_OF_GONE:
            return self._random.choice(self._cast.gone), PLAIN
        path = PLAIN if self._random.random() < 0.6 else self._random.choice(PATHS)
        return self._random.choice(self._cast.secrets or self._cast.gone), path

    # -- callers

    async def _call(self, node: Node) -> None:
        caller = self._caller(node)
        next_at = time.monotonic() + self._random.uniform(0, self._pause_seconds)
        while True:
            await asyncio.sleep(next_at - time.monotonic())
            next_at = max(next_at, time.monotonic() - 1.0) + self._pause_seconds
            await self.ask(caller, node, *self._pick())

    async def _scout(self, node: Node) -> None:
        caller, queue = self._caller(node), self._urgent[node]
        while True:
            await self.ask(caller, node, *await queue.get())

    def _caller(self, node: Node) -> Caller:
        caller = Caller(node.process.proxy_port)
        self._callers.append(caller)
        return caller

    async def ask(self, caller: Caller, node: Node, secret: Secret, path: str) -> None:
        """One request, judged by what comes of it."""
        target = f"{path}/{next(self._numbers)}"
        # A connection may have to be made first: then it is sent later than noted, and judged by the earlier moment.
        asked = self._under_way[target] = Asked(secret, path, node, time.monotonic())
        await caller.ask(target, secret.text, lambda status, code: self._answered(target, asked, status, code))

    # -- what comes of it

    def _arrived(self, request: RecordedRequest) -> Reply:
        """The upstream sees a request: it has been admitted."""
        self._stage.upstream.requests.clear()
        asked = self._under_way.get(request.target)
        if asked is None:
            assert request.target == RECOVERY, request.target
            return Reply()
        asked.has_arrived = True
        gates, tally = asked.secret.gates(asked.path), self._tally
        tally.admitted += 1
        shut = shutting(gates, asked.sent_at)
        if shut is not None:
            tally.stale.append(self._told(asked, f"{shut.name} closed since {shut.closed_since}: {shut.story}"))
        for gate in gates:
            if gate.forbids_by_poll(
                asked.sent_at, polls_since=asked.node.polls_since, bound_seconds=self._stage.bound_seconds
            ):
                tally.stale_by_poll.append(self._told(asked, f"{gate.name} since {gate.typed_since}: {gate.story}"))
        if request.header("X-Key-Id") != (asked.secret.key.id or request.header("X-Key-Id")):
            tally.strays.append(self._told(asked, f"taken for {request.header('X-Key-Id')}"))
        return Reply()

    def _answered(self, target: str, asked: Asked, status: int, code: str) -> None:
        gates, tally = asked.secret.gates(asked.path), self._tally
        tally.statuses[status] += 1
        if status in (200, 401, 403):
            del self._under_way[target]  # any other may still arrive
        if shutting(gates, asked.sent_at) is not None:
            tally.asked_after_an_answer += 1
        if status not in (0, 200, 401, 403, 503):
            tally.odd.append(self._told(asked, f"{status} {code}"))
        if status in (200, 401, 403, 503) and asked.has_arrived != (status == 200):
            tally.strays.append(self._told(asked, f"{status} {code}, and the upstream saw it: {asked.has_arrived}"))
        if status == 200 or not all(gate.demands(asked.sent_at) for gate in gates):
            return
        if status in (401, 403):
            tally.wrong.append(
                self._told(asked, f"{status} {code}; " + "; ".join(f"{gate.name}: {gate.story}" for gate in gates))
            )
        elif not asked.node.is_out_since(asked.sent_at):
            if self._stage.pulse.was_steady_since(asked.sent_at):
                tally.unavailable.append(self._told(asked, f"{status} {code}"))
            else:
                tally.unavailable_unsteadily += 1
        elif status == 0:
            tally.unanswered += 1
        else:
            faults = self._stage.faults
            tally.unavailable_in_faults[faults[0] if len(faults) == 1 else TWO_AT_ONCE] += 1

    def _told(self, asked: Asked, what: str) -> str:
        now = time.monotonic()
        return (
            f"node {asked.node.number}, {asked.path}, secret {asked.secret.number} of {asked.secret.key.name},"
            f" sent {asked.sent_at:.3f}, now {now:.3f}: {what}; {self._stage.weather()}"
        )

    # -- the end

    async def ask_everybody(self) -> None:
        """Once everything stands still: every secret, on every node and every path."""

        async def ask_all(node: Node) -> None:
            caller = self._caller(node)
            for secret in self._cast.gone:
                await self.ask(caller, node, secret, PLAIN)
            for secret in self._cast.secrets:
                for path in PATHS:
                    await self.ask(caller, node, secret, path)

        await asyncio.gather(*(ask_all(node) for node in self._stage.nodes))
