"""Lookups under way: one per digest, however many wait for it. Must not know: how anything is looked up."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from gateway.auth.entries import Answer
from gateway.auth.held import Held
from gateway.auth.questions import BACK_OFF_SECONDS
from gateway.auth.sources import View
from gateway.errors import Outage

LONGEST_QUEUE: Final = 1_000  # digests being looked up at once; more is an outage, not a queue without end
PATIENCE_SECONDS: Final = 0.05  # for the refresh of an entry that may still be believed; it goes on by itself


class Flights:
    """Shared lookups. Each is a task of its own: whoever leaves takes nothing from the others (R048 to R050)."""

    def __init__(self, view: View, held: Held, monotonic: Callable[[], float]) -> None:
        self._view = view
        self._held = held
        self._monotonic = monotonic
        self._under_way: dict[bytes, asyncio.Task[Answer]] = {}

    async def join(self, digest: bytes, look_up: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Join the lookup of `digest` that is under way, or start it. Raises Outage as it does, or for a full queue.

        What is held and may still be believed is waited for a moment only, and then used as it is.
        """
        flight = self._under_way.get(digest)
        if flight is None:
            if len(self._under_way) >= LONGEST_QUEUE:
                known = self._held.still_good(digest, self._monotonic() + BACK_OFF_SECONDS)
                if known is None or self._monotonic() >= self._view.fresh_until:
                    raise Outage("too many lookups are waiting for the key store")
                return known, "local"  # a flood of strangers locks nobody out who is known
            flight = asyncio.create_task(look_up())
            self._under_way[digest] = flight
            flight.add_done_callback(lambda done: self._land(digest, done))
        if self._held.get(digest) is not None and self._monotonic() < self._view.fresh_until:
            await asyncio.wait({flight}, timeout=PATIENCE_SECONDS)
            until = self._monotonic() + BACK_OFF_SECONDS
            known = None if flight.done() else self._held.still_good(digest, until)
            if known is not None:
                return known, "local"
        return await asyncio.shield(flight)

    def _land(self, digest: bytes, flight: asyncio.Task[Answer]) -> None:
        del self._under_way[digest]
        if not flight.cancelled():
            flight.exception()  # whoever waited has it; where all have left, nobody is owed it

    async def close(self) -> None:
        """Cancel what is under way."""
        pending = list(self._under_way.values())
        for flight in pending:
            flight.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
