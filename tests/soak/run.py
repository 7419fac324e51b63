"""One run: rounds of traffic with a change of everything in each, and a rest after each, at which is counted."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.auth.held import NEGATIVE_ENTRIES
from tests.soak.changes import Changes
from tests.soak.holdings import Holdings, complaints
from tests.soak.ring import Ring
from tests.soak.traffic import Traffic
from tests.soak.world import World, world_in

ROUNDS: Final = 10
HEADER: Final = ("memory MiB", "descriptors", "threads", "tasks", "clients", "PostgreSQL", "Redis", "upstream")


@dataclass
class Report:
    """What was seen. `rests` are of each node, the first of them after the warm-up."""

    rests: dict[str, list[Holdings]] = field(default_factory=dict)
    seen: dict[tuple[str, int], int] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    events: int = 0
    faults: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The tables."""
        lines = [f"| node | rest | {' | '.join(HEADER)} |", "| --- | ---: |" + " ---: |" * len(HEADER)]
        for name, rests in self.rests.items():
            lines += [f"| {name} | {number} | {' | '.join(rest.cells())} |" for number, rest in enumerate(rests, 1)]
        lines += ["", "| answers | status | count |", "| --- | ---: | ---: |"]
        lines += [f"| {kind} | {status or '-'} | {count:,} |" for (kind, status), count in sorted(self.seen.items())]
        changes = ", ".join(f"{count} {what}" for what, count in sorted(self.made.items()))
        return "\n".join([*lines, "", f"Keys: {changes}. {self.events} reloads, lost workers and restarts of Redis."])


async def run(folder: Path, *, minutes: float, per_second: float) -> Report:
    """Carry it out, with everything in `folder`."""
    report = Report()
    async with world_in(folder) as world:
        ring = Ring()
        changes = Changes(world, ring)
        await changes.stock()
        traffic = Traffic([node.proxy_port for node in world.nodes.values()], ring, per_second=per_second)
        await traffic.flood(NEGATIVE_ENTRIES)
        report.rests = {name: [] for name in world.nodes}
        for number in range(1, ROUNDS + 1):
            report.events += await _round(world, traffic, changes, minutes * 60 / ROUNDS)
            for name, holdings in (await world.rest()).items():
                report.rests[name].append(holdings)
                sys.stderr.write(f"round {number} of {ROUNDS}, {name}: {holdings}\n")
        report.seen, report.made = dict(traffic.seen), dict(changes.made)
        report.faults += traffic.wrong
        for name, rests in report.rests.items():
            report.faults += complaints(name, rests)
    return report


async def _round(world: World, traffic: Traffic, changes: Changes, seconds: float) -> int:
    """Traffic and changes for so long, and each event once, evenly."""
    events: list[Callable[[], Awaitable[None]]] = [
        *(lambda node=node: world.reload(node) for node in world.nodes.values()),
        world.lose_a_worker,
        world.restart_redis,
    ]
    ends_at = time.monotonic() + seconds
    traffic.start()
    changes.start()
    try:
        for event in events:
            await asyncio.sleep(seconds / (len(events) + 1))
            await event()
        await asyncio.sleep(max(0.0, ends_at - time.monotonic()))
    finally:
        await changes.stop()
        await traffic.stop()
    return len(events)
