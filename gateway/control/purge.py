"""What nobody needs any more goes: kept replies that have expired, retired secrets and used tokens after their end."""

import asyncio
import contextlib
from typing import Final

from gateway.consistency.background import Background
from gateway.errors import StoreUnavailable
from gateway.stores.postgres import idempotency, retired_secrets, used_tokens
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.purging import BATCH

EVERY_SECONDS: Final = 60.0
LONGEST_SECONDS: Final = 5.0  # for one transaction
BATCHES: Final = (idempotency.purge, retired_secrets.purge, used_tokens.purge)


class Purge:
    """Deletes it in the background. Every node does; they do not hinder each other."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._background = Background()

    async def start(self) -> None:
        """Begin."""
        self._background.start(self._purge_forever)

    async def close(self) -> None:
        """Stop."""
        await self._background.close()

    async def purge(self) -> int:
        """Delete all of it, in small transactions; how many rows there were. Raises StoreUnavailable."""
        purged = 0
        for purge_batch in BATCHES:
            batch = BATCH
            while batch == BATCH:
                batch = await self._postgres.run(purge_batch, seconds=LONGEST_SECONDS)
                purged += batch
        return purged

    async def _purge_forever(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            with contextlib.suppress(StoreUnavailable):
                await self.purge()
