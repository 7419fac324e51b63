"""The keys that callers use, and those that were revoked under their hands."""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Final

REVOKED_KEPT: Final = 500


@dataclass(eq=False)
class Key:
    """A key that was made during the run, with a token that was minted from it."""

    id: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


class Ring:
    """What is good, and what will never be good again."""

    def __init__(self) -> None:
        self.good: list[Key] = []
        self.revoked: deque[str] = deque(maxlen=REVOKED_KEPT)
        self._random = random.Random(1)

    def pick(self) -> Key:
        """A good one."""
        return self._random.choice(self.good)

    def pick_revoked(self) -> str | None:
        """The secret of one that was revoked; None where none was yet."""
        return self._random.choice(self.revoked) if self.revoked else None
