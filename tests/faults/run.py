"""One fault: calm, hurt, undone, well again, calm. What was seen, for the page."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.faults.catalogue import Fault
from tests.faults.people import People, settle
from tests.faults.permitted import ADMITTED
from tests.faults.stage import BOUND_SECONDS, METERING_SECONDS, Node, Stage
from tests.faults.traffic import PER_SECOND, Traffic
from tests.faults.verdict import WELL_SECONDS, Verdict
from tests.fixtures import psql
from tests.fixtures.waiting import until

WARM_SECONDS: Final = 0.7  # until every worker has met every key that is to be known
ROOM_SECONDS: Final = 8.0  # of keys that nobody has used, beyond what the pace needs
LOG_SIGNS: Final = ("Traceback", "background_task_died")
BOOKS_SECONDS: Final = 15.0
# What the upstream has had (docs/metering.md).
COUNTED: Final = """SELECT coalesce(sum(requests), 0)::int FROM usage
    WHERE key_id = ANY($1) AND route NOT LIKE '.ostiary%'
    AND (outcome IN ('forwarded', 'cut') OR (outcome = 'client_gone' AND code <> 'unsent'))"""


@dataclass(frozen=True)
class Pace:
    """How long it is calm before and after, and how long a fault lasts that does not say."""

    calm_seconds: float = 1.5
    fault_seconds: float = 5.0


@dataclass(frozen=True)
class Seen:
    """What there is to say of a fault. Outcomes are by kind of caller (permitted.py), from hurt to well."""

    name: str
    outcomes: dict[str, Counter[str]]
    longest_seconds: dict[str, float]
    slowest_seconds: float
    lasted_seconds: float
    recovery_seconds: float
    whole_seconds: float
    requests: int
    unsteady: int
    violations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Use:
    """Whether each node has been seen to use each store. One may miss a deadline of milliseconds now and then."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._unused: set[tuple[str, str]] | None = None

    async def is_whole(self) -> bool:
        """Look again at those that had not been seen."""
        unused = await self._stage.unused()
        self._unused = unused if self._unused is None else self._unused & unused
        return not self._unused


async def play(stage: Stage, fault: Fault, pace: Pace) -> Seen:
    """Do it to a stage that is whole, and leave it whole."""
    async with contextlib.AsyncExitStack() as stack:
        if fault.setting is not None:
            await stack.enter_async_context(fault.setting(stage))
        stage.notes.clear()
        stage.wrongs.clear()
        stage.lost_requests = 0
        marks = {node: len(node.process.log) for node in stage.nodes}
        lasts = max(pace.fault_seconds, fault.seconds)
        seconds = WARM_SECONDS + 2 * pace.calm_seconds + lasts + ROOM_SECONDS
        people = await settle(stage, cold=int(seconds * PER_SECOND["cold"]) * len(stage.nodes))
        verdict = Verdict(fault.permits, fault.nodes or frozenset(node.number for node in stage.nodes))
        traffic = Traffic(stage, people, verdict)
        use = Use(stage)
        await until(use.is_whole, seconds=30, what="every node to use both stores")
        await asyncio.sleep(BOUND_SECONDS / 4)  # a poll since then, and a pong after it: now Redis alone would do
        await traffic.warm()
        traffic.start()
        try:
            await asyncio.sleep(pace.calm_seconds)
            await _hurt(stage, fault, verdict, lasts)
            await asyncio.sleep(pace.calm_seconds)
        finally:
            await traffic.stop()
        if not stage.is_ruined:
            await _check_nodes(stage, verdict, marks)
        await _check_books(stage, people, traffic, verdict)
        return _seen(stage, fault, verdict, lasts)


async def _hurt(stage: Stage, fault: Fault, verdict: Verdict, seconds: float) -> None:
    verdict.hurt_at = began = time.monotonic()
    async with fault.hurt(stage):
        await asyncio.sleep(began + seconds - time.monotonic())
    verdict.undone_at = undone = time.monotonic()
    use = Use(stage)
    deadline = undone + fault.well_within_seconds + WELL_SECONDS
    while verdict.whole_at is None or verdict.seconds_since_wrong(time.monotonic()) < WELL_SECONDS:
        if time.monotonic() > deadline:
            verdict.violate(
                "not well again", f"{fault.well_within_seconds:g} s after it was undone: {verdict.unwell()}"
            )
            break
        await asyncio.sleep(0.05)
        if verdict.whole_at is None and await use.is_whole():
            verdict.whole_at = time.monotonic()
    verdict.well_at = time.monotonic()


async def _check_nodes(stage: Stage, verdict: Verdict, marks: dict[Node, int]) -> None:
    """Every node is ready, and none has printed what it should not."""
    for node in stage.nodes:
        await node.process.wait_until_ready()
        said = node.process.log[marks.get(node, 0) :]
        for sign in LOG_SIGNS:
            if sign in said:
                line = said[said.index(sign) :][:1_500]
                verdict.violate("a failure of its own", f"node {node.number} has logged: {line}")


async def _check_books(stage: Stage, people: People, traffic: Traffic, verdict: Verdict) -> None:
    """Every request that was answered is metered, and none twice."""
    counted: int = 0

    async def is_booked() -> bool:
        nonlocal counted
        counted = await psql.value(stage.books_dsn, COUNTED, people.ids)
        return bool(counted >= traffic.admitted)

    with contextlib.suppress(AssertionError):
        await until(is_booked, seconds=4 * METERING_SECONDS if stage.lost_requests else BOOKS_SECONDS, what="the books")
    verdict.metered(counted, answered=traffic.admitted, received=traffic.received, lost_at_most=stage.lost_requests)


def _seen(stage: Stage, fault: Fault, verdict: Verdict, lasted_seconds: float) -> Seen:
    outcomes: dict[str, Counter[str]] = {}
    longest: dict[str, float] = {}
    for (kind, _), lane in verdict.lanes.items():
        outcomes.setdefault(kind, Counter()).update(lane.outcomes)
        longest[kind] = max(longest.get(kind, 0.0), lane.longest_seconds)
    return Seen(
        name=fault.name,
        outcomes=outcomes,
        longest_seconds=longest,
        slowest_seconds=max((lane.slowest_seconds for lane in verdict.lanes.values()), default=0.0),
        lasted_seconds=lasted_seconds,
        recovery_seconds=verdict.recovery_seconds,
        whole_seconds=verdict.whole_seconds,
        requests=verdict.heard.total(),
        unsteady=verdict.unsteady,
        violations=[*verdict.violations, *stage.wrongs],
        notes=[*stage.notes],
    )


def unseen(fault: Fault, violation: str) -> Seen:
    """A fault of which nothing can be said but what went wrong."""
    return Seen(fault.name, {}, {}, 0.0, 0.0, 0.0, 0.0, 0, 0, [violation])


def told(seen: Seen) -> Iterable[str]:
    """What was seen, in lines for whoever watches."""
    state = "WRONG" if seen.violations else "ok"
    unsteady = f", {seen.unsteady} of them too busy to tell" if seen.unsteady else ""
    wells = f"well after {seen.recovery_seconds:.2f} s, whole after {seen.whole_seconds:.2f} s"
    yield f"{seen.name}: {state}, {wells}, {seen.requests} answers{unsteady}"
    for kind, outcomes in sorted(seen.outcomes.items()):
        others = {outcome: count for outcome, count in outcomes.items() if outcome != ADMITTED}
        yield f"    {kind}: {outcomes[ADMITTED]} x 200, {others}, longest {seen.longest_seconds[kind]:.2f} s"
    yield from (f"    ! {story}" for story in seen.violations)
