"""Notes which keys are used, by which secrets, and has it written now and then: never in the way of a request.

R310 to R313. A secret that has been retired is written more often: somebody may be waiting for its last use.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from gateway.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.stores.records import SecretState

log = structlog.get_logger(__name__)

INTERVAL_SECONDS: Final = 300.0  # between two writes about one key, whoever writes them
RETIRED_INTERVAL_SECONDS: Final = 15.0  # the same, about one retired secret
GATHER_SECONDS: Final = 0.2  # the first use is written at once, together with those of the same moment
RETRY_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 1.0
BATCH: Final = 1_000
MOST_WAITING: Final = 100_000  # beyond that, uses are forgotten: the next one after the interval is noted again


_RETIRED: Final = "/retired"


def use_of(key_id: str, secret_id: str, state: SecretState) -> str:
    """What a use of a key by one of its secrets is noted as. Ids hold no slash."""
    return f"{key_id}/{secret_id}{_RETIRED if state is SecretState.RETIRED else ''}"


def ids_of(use: str) -> tuple[str, str]:
    """The ids of the key and of the secret."""
    key_id, secret_id = use.removesuffix(_RETIRED).split("/")
    return key_id, secret_id


class Store(Protocol):
    """Where it is written (gateway.stores.postgres.last_used)."""

    async def write(self, uses: Sequence[str], *, interval_seconds: float) -> None:
        """Say that this is being used now. Raises StoreUnavailable."""
        ...


class LastUsed:
    """What is in use. `due_at` holds, per use (`use_of`), when the next one is worth a note (monotonic seconds)."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.due_at: dict[str, float] = {}
        self._store = store
        self._monotonic = clock.monotonic
        self._waiting: set[str] = set()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_failing = False
        self._forgotten_at = clock.monotonic()

    async def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._write_forever())

    async def close(self) -> None:
        """Write what is left, if that takes no longer than a moment."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._waiting:
            await asyncio.wait({asyncio.create_task(self._write())}, timeout=CLOSE_SECONDS)

    def note(self, use: str, now: float) -> None:
        """A request by this was forwarded at `now`, and its next use was worth a note."""
        self.due_at[use] = now + (RETIRED_INTERVAL_SECONDS if use.endswith(_RETIRED) else INTERVAL_SECONDS)
        if len(self._waiting) < MOST_WAITING:
            self._waiting.add(use)
            self._news.set()

    async def _write_forever(self) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._news.clear()
            await self._write()
            if self._waiting:
                await asyncio.sleep(RETRY_SECONDS)
                self._news.set()
            self._forget_old()

    def _forget_old(self) -> None:
        now = self._monotonic()
        if now >= self._forgotten_at + INTERVAL_SECONDS:
            self._forgotten_at = now
            self.due_at = {use: due_at for use, due_at in self.due_at.items() if due_at > now}

    async def _write(self) -> None:
        while self._waiting:
            batch = sorted(self._waiting)[:BATCH]
            try:
                await self._store.write(batch, interval_seconds=INTERVAL_SECONDS)
            except StoreUnavailable as error:
                if not self._is_failing:
                    log.warning("last_used_not_written", uses=len(self._waiting), error=str(error))
                self._is_failing = True
                return
            self._is_failing = False
            self._waiting.difference_update(batch)
