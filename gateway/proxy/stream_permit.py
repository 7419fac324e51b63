"""Whether a reply that is under way may go on: a stream outlives the decision that let it begin (R197)."""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Final

from gateway.auth.admission import Admission
from gateway.auth.credentials import Credential
from gateway.auth.refusal import Refusal
from gateway.auth.verdict import Access
from gateway.errors import Outage

RECONSIDER_SECONDS: Final = 0.4  # below the sweep's period: each sweep asks about each stream


class StreamPermit:
    """The permission of one stream or socket, asked for again and again. `on_refused` is told once it has ended."""

    def __init__(
        self, admission: Admission, credential: Credential, access: Access, on_refused: Callable[[Refusal], None]
    ) -> None:
        self._admission = admission
        self._credential = credential
        self._access = access
        self._on_refused = on_refused
        self._due_at = -inf
        self._lookup: asyncio.Task[None] | None = None

    def check(self, now: float) -> None:
        """Ask again, if it is time. An outage refuses nobody: the next check asks again."""
        if now < self._due_at:
            return
        self._due_at = now + RECONSIDER_SECONDS
        decision = self._admission.admit(self._credential, self._access, is_stream=True)
        if isinstance(decision, Refusal):
            self._refused(decision)
        elif decision is None and (self._lookup is None or self._lookup.done()):
            self._lookup = asyncio.create_task(self._check_later())

    async def _check_later(self) -> None:
        try:
            decision = await self._admission.resolve(self._credential, self._access, is_stream=True)
        except Outage:
            return
        if isinstance(decision, Refusal):
            self._refused(decision)

    def _refused(self, refusal: Refusal) -> None:
        if self._due_at < inf:
            self._due_at = inf
            self._on_refused(refusal)
