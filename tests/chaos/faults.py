"""Hurts the stage, again and again, and sees how long everybody feels it."""

import asyncio
import random
import time

from tests.chaos.caller import Caller
from tests.chaos.cast import FORMAT, RECOVERY
from tests.chaos.measures import Measures
from tests.chaos.stage import Node, Stage
from tests.chaos.strikes import Fault, Kinds
from tests.chaos.tally import TWO_AT_ONCE, Tally

# No outage may last longer after all is healed: far more than a node takes to start on a busy machine.
RECOVERY_SECONDS = 60.0
# A lookup that has failed is not repeated for half a second, also where another has been answered meanwhile.
STAYS_SECONDS = 0.7
BETWEEN_SECONDS = 0.02


class Faults:
    """Every kind in its turn, in random order, now and then two at once."""

    def __init__(self, stage: Stage, measures: Measures, tally: Tally, *, good_secret: str) -> None:
        self._stage = stage
        self._measures = measures
        self._tally = tally
        self._good_secret = good_secret
        self._random = random.Random(f"{measures.seed}: faults")
        self._kinds = Kinds(stage, self._random)
        self._deck: list[Fault] = []
        self.is_over = False

    @property
    def has_had_all(self) -> bool:
        """Whether every kind has had its turn."""
        return len(self._tally.struck) == len(self._kinds.all())

    async def go_on(self) -> None:
        """Until `is_over`; everything is whole when this returns."""
        for node in self._stage.nodes:
            node.recovered()
        while not self.is_over:
            await asyncio.sleep(self._random.uniform(*self._measures.calm_seconds))
            batch = [self._draw()]
            if self._random.random() < self._measures.share_of_pairs:
                batch.append(self._draw())
                if batch[0].touches & batch[1].touches:
                    self._deck.append(batch.pop())
            await self._have(batch)

    def _draw(self) -> Fault:
        if not self._deck:
            self._deck = [kind() for kind in self._kinds.all()]
            self._random.shuffle(self._deck)
        return self._deck.pop()

    async def _have(self, batch: list[Fault]) -> None:
        for fault in batch:
            for node in fault.nodes:
                node.disturb(is_postgres_felt=fault.is_postgres_felt)
        self._stage.faults[:] = [fault.name for fault in batch]
        await asyncio.gather(*(self._strike(fault, is_first=fault is batch[0]) for fault in batch))
        healed_at = time.monotonic()
        felt = [node for node in self._stage.nodes if any(node in fault.nodes for fault in batch)]
        recovered_at = max(await asyncio.gather(*(self._recover(node) for node in felt)))
        self._stage.faults.clear()
        self._tally.struck.update(fault.name for fault in batch)
        name = batch[0].name if len(batch) == 1 else TWO_AT_ONCE
        self._tally.recoveries[name].append(recovered_at - healed_at)

    async def _strike(self, fault: Fault, *, is_first: bool) -> None:
        shortest, longest = self._measures.fault_seconds
        if not is_first:
            await asyncio.sleep(self._random.uniform(0, shortest))
        await fault.strike(self._random.uniform(shortest, longest))

    async def _recover(self, node: Node) -> float:
        """Return once the node is well, and stays so; since when it has been."""
        caller = Caller(node.process.proxy_port)
        deadline = time.monotonic() + RECOVERY_SECONDS
        well_since = time.monotonic()
        try:
            while time.monotonic() < well_since + STAYS_SECONDS:
                assert well_since < deadline, f"node {node.number} does not recover; its log:\n{node.process.log}"
                if not await self._is_well(caller):
                    well_since = time.monotonic()
                await asyncio.sleep(BETWEEN_SECONDS)
        finally:
            caller.close()
        node.recovered()
        return well_since

    async def _is_well(self, caller: Caller) -> bool:
        """Whether a node knows a stranger, who has to be looked up in Redis and Postgres, from a good key."""
        statuses: list[int] = []
        for secret in (FORMAT.generate(), self._good_secret):
            await caller.ask(RECOVERY, secret, lambda status, _: statuses.append(status))
        return statuses == [401, 200]
