"""Who asks what, all the time: each answer is judged as it comes, and each request as it arrives upstream."""

import asyncio
import itertools
import random
import time
from dataclasses import dataclass
from typing import Final

from tests.faults.caller import Answer, Caller
from tests.faults.live import Lives
from tests.faults.people import Operator, People, Secret
from tests.faults.permitted import ADMITTED
from tests.faults.stage import Node, Stage
from tests.faults.verdict import Heard, Verdict

PATIENCE_SECONDS: Final = 6.0  # more than any time limit of the gateway here
CALLERS: Final = 2  # of each kind, at each node: one may have to wait
PER_SECOND: Final = {"known": 24.0, "token": 8.0, "post": 10.0, "cold": 5.0, "bad": 10.0, "made": 6.0}
BODY: Final = b"x" * 3_000
SHARE_OF_STRANGERS: Final = 0.3  # of the bad ones: unknown keys that nobody has asked for yet
_numbers = itertools.count(1)


@dataclass(eq=False, slots=True)
class Asked:
    """A request, and with what it was made."""

    secret: Secret
    kind: str
    sent_at: float
    is_repeatable: bool


class Traffic:
    """Of one fault."""

    def __init__(self, stage: Stage, people: People, verdict: Verdict) -> None:
        self._stage = stage
        self._people = people
        self._verdict = verdict
        self._random = random.Random(1)
        self._asked: dict[int, Asked] = {}
        self._callers: list[Caller] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.admitted = 0  # requests whose answer, 200, has come whole
        stage.orders.on_arrival = stage.live.on_arrival = self.arrived

    async def warm(self) -> None:
        """Have every process of every node meet every key that is to be known, and every bad one."""
        secrets = [*self._people.known, *self._people.tokens, *self._people.bad[:-1]]

        async def meet(node: Node) -> None:
            caller = Caller(node.process.proxy_port, tls=node.tls)
            for secret in secrets:
                await self._ask(caller, node, "known", secret)
            caller.close()

        # Connections are spread by chance: so many that no worker is left out.
        await asyncio.gather(*(meet(node) for node in self._stage.nodes for _ in range(1 if node.workers == 1 else 8)))

    def start(self) -> None:
        """Begin."""
        self._tasks.append(asyncio.create_task(Operator(self._stage, self._people).work()))
        for node in self._stage.nodes:
            for kind, per_second in PER_SECOND.items():
                self._tasks += [
                    asyncio.create_task(
                        self._call(node, kind, CALLERS / per_second, is_kept=bool(nth) or kind != "known")
                    )
                    for nth in range(CALLERS)
                ]
            lives = Lives(node, self)
            self._tasks += [asyncio.create_task(lives.listen()), asyncio.create_task(lives.talk())]

    async def stop(self) -> None:
        """End, and hold what the upstreams have had against what was asked."""
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for caller in self._callers:
            caller.close()
            if caller.extra:
                self._verdict.violate("an answer to nothing", f"{caller.extra} of them on a connection")
        for result in results:
            if isinstance(result, Exception):
                raise result
        for number, asked in self._asked.items():
            times, answered = self._stage.orders.received[number], self._stage.orders.answered[number]
            self._verdict.received(number, times=times, answered=answered, is_repeatable=asked.is_repeatable)

    @property
    def received(self) -> int:
        """Requests that any upstream has had, each time it has had it."""
        counts = (self._stage.orders.received, self._stage.live.streams.received, self._stage.live.sockets_received)
        return sum(count[number] for number in self._asked for count in counts)

    # -- callers

    async def _call(self, node: Node, kind: str, pause_seconds: float, *, is_kept: bool) -> None:
        caller = Caller(node.process.proxy_port, tls=node.tls)
        self._callers.append(caller)
        next_at = time.monotonic() + self._random.uniform(0, pause_seconds)
        while True:
            await asyncio.sleep(next_at - time.monotonic())
            next_at = max(next_at, time.monotonic() - pause_seconds) + pause_seconds
            secret = self._pick(kind)
            if secret is not None:
                await self._ask(caller, node, kind, secret)
            if not is_kept:
                caller.close()

    def _pick(self, kind: str) -> Secret | None:
        people = self._people
        if kind == "cold":
            return people.cold.popleft() if people.cold else None
        if kind == "bad":
            return people.unknown() if self._random.random() < SHARE_OF_STRANGERS else self._random.choice(people.bad)
        if kind == "made":
            return self._random.choice(people.made[-8:]) if people.made else None
        return self._random.choice(people.tokens if kind == "token" else people.known)

    async def _ask(self, caller: Caller, node: Node, kind: str, secret: Secret) -> None:
        number, asked = self.ask(kind, secret, is_repeatable=kind != "post")
        request = written(
            "POST" if kind == "post" else "GET", f"/orders/{number}", secret, BODY if kind == "post" else b""
        )
        answer = await caller.ask(request, patience_seconds=PATIENCE_SECONDS)
        self._check(number, asked, answer)
        if kind == "cold" and answer.outcome != ADMITTED:
            self._people.cold.append(secret)
        self.heard(node, asked, answer.outcome, f"request {number}, {secret.gate.story or 'good'}, {answer.code}")

    # -- what is asked, and what comes of it

    def ask(self, kind: str, secret: Secret, *, is_repeatable: bool) -> tuple[int, Asked]:
        """Note a request that is about to be sent; its number."""
        number = next(_numbers)
        asked = self._asked[number] = Asked(secret, kind, time.monotonic(), is_repeatable)
        return number, asked

    def heard(self, node: Node, asked: Asked, outcome: str, story: str, *, kind: str | None = None) -> None:
        """Judge what came of it, unless it was being changed meanwhile."""
        gate, sent_at = asked.secret.gate, asked.sent_at
        is_bad = gate.forbids(sent_at)
        if outcome == ADMITTED and kind != "live":
            self.admitted += 1
        if not is_bad and not gate.demands(sent_at):
            return
        judged = "bad" if is_bad else kind or ("cold" if asked.kind == "bad" else asked.kind)
        heard = Heard(judged, node.number, sent_at, time.monotonic(), outcome, not is_bad, story)
        self._verdict.judge(heard, is_steady=self._stage.steadiness.was_steady_since(sent_at))

    def _check(self, number: int, asked: Asked, answer: Answer) -> None:
        if answer.outcome != ADMITTED:
            return
        length = 0 if asked.is_repeatable else len(BODY)
        due = {"number": number, "who": asked.secret.key_id, "length": length}
        if answer.said != due:
            self._verdict.violate("another's answer", f"request {number} of {asked.secret.key_id}: {answer.said}")

    def arrived(self, number: int, who: str) -> None:
        """An upstream has a request: it was admitted, and as somebody."""
        asked = self._asked.get(number)
        if asked is None:
            return  # a client of a fault's own
        if who != asked.secret.key_id:
            self._verdict.violate("another's name", f"request {number} of {asked.secret.key_id} upstream: {who}")
        if asked.secret.gate.forbids(asked.sent_at):
            self._verdict.violate("a bad key came upstream", f"request {number}, {asked.secret.gate.story}")

    def strange(self, said: str, due: str) -> None:
        """A stream or socket says something else than it should."""
        self._verdict.violate("another's event", f"{said} in place of {due}")

    def somebody(self) -> Secret:
        """A key that is good all the time, or a token of one."""
        return self._random.choice([*self._people.known, *self._people.tokens])


def written(method: str, target: str, secret: Secret, body: bytes = b"") -> bytes:
    """A request."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    name, value = secret.header
    return f"{method} {target} HTTP/1.1\r\nHost: api\r\n{name}: {value}\r\n{length}\r\n".encode() + body
