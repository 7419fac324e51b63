"""What admission asks, and what each of them promises: the view, the stores, the judge of tokens. Nothing but promises.

The names of who keeps them stand beside them; tests keep them in memory.
"""

from typing import Protocol

from gateway.auth.tokens import Claims, Disproved
from gateway.stores.records import Finding


class View(Protocol):
    """What this node knows of changes (gateway.consistency.view)."""

    fresh_until: float
    polled_at: float
    revision: int

    def is_usable(self, stamp: int, subjects: tuple[str, ...]) -> bool:
        """Whether nothing that is known overtakes content read at revision `stamp`."""
        ...

    def to_monotonic(self, database_epoch: float) -> float:
        """A moment in database time, on this node's monotonic clock."""
        ...


class Truth(Protocol):
    """The store that decides (gateway.stores.postgres.lookup)."""

    async def find(self, digests: tuple[bytes, ...]) -> Finding:
        """What stands behind any of these stored digests. Raises StoreUnavailable."""
        ...


class TokenJudge(Protocol):
    """Whether a token is one of ours, and what it says (gateway.auth.tokens)."""

    async def verify(self, token: bytes) -> Claims | Disproved:
        """What it says. Raises Outage where that cannot be told."""
        ...


class TokenTruth(Protocol):
    """The store that decides whether what a token is bound to still stands (gateway.stores.postgres.lookup)."""

    async def find_bound(self, key_id: str, secret_id: str, signer_id: str) -> Finding:
        """The key, as of that secret. Raises StoreUnavailable."""
        ...

    async def use(self, token_id: str, ends_at: float) -> bool:
        """Use up a token that is for one request; False where it has been used before. Raises StoreUnavailable."""
        ...


class BothTruths(Truth, TokenTruth, Protocol):
    """The store that decides, whatever is asked of it."""


class SharedCache(Protocol):
    """What the nodes leave for each other (gateway.stores.redis). Never raises: a failure is a miss."""

    async def get(self, digest: bytes) -> Finding | None:
        """What another node found, or None."""
        ...

    async def put(self, digest: bytes, finding: Finding, seconds: float) -> None:
        """Leave a finding for the other nodes, for so long."""
        ...


class Replicas(Protocol):
    """Copies of the truth that may lag behind (gateway.stores.postgres.replicas). Never raises: a failure is None."""

    async def find(self, digests: tuple[bytes, ...]) -> Finding | None:
        """What stands behind any of these stored digests, honestly stamped, or None where no replica can tell."""
        ...
