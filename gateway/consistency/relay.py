"""Finishes what a writer left: changes that are committed but not confirmed on every node (R234).

Every node relays. Two that relay the same change do no harm: nodes apply it once, and the outbox is emptied once.
"""

import asyncio
import contextlib

from gateway.consistency.background import Background
from gateway.consistency.confirmation import Propagator
from gateway.errors import Outage
from gateway.stores.postgres.changes import Change, Changes
from gateway.telemetry.metrics import Metrics

AT_ONCE = 100


class Relay:
    """Looks into the outbox every `bound_seconds`, and propagates what is older than twice that."""

    def __init__(self, changes: Changes, propagator: Propagator, *, bound_seconds: float, metrics: Metrics) -> None:
        self._changes = changes
        self._propagator = propagator
        self._bound_seconds = bound_seconds
        self._pending = metrics.pending_propagations
        self._background = Background()

    async def start(self) -> None:
        """Begin."""
        self._background.start(self._relay_forever)

    async def close(self) -> None:
        """Stop; the outbox stays."""
        await self._background.close()

    async def _relay_forever(self) -> None:
        while True:
            # The poll tells of outages; what is pending waits.
            with contextlib.suppress(Outage):
                await self._relay_once()
            await asyncio.sleep(self._bound_seconds)

    async def _relay_once(self) -> None:
        self._pending.set(await self._changes.count_pending())
        # Older than its own writer can still be waiting for.
        changes = await self._changes.pending_older_than(2 * self._bound_seconds, AT_ONCE)
        await asyncio.gather(*(self._finish(change) for change in changes))
        if changes:
            self._pending.set(await self._changes.count_pending())

    async def _finish(self, change: Change) -> None:
        with contextlib.suppress(Outage):
            await self._propagator.propagate(change, is_narrowing=True)
