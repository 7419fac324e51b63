"""What is remembered of one digest: the verdict, how long it may be believed, and as of which revision."""

from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar, Final

from gateway.auth.credentials import INVALID
from gateway.auth.principal import Principal
from gateway.auth.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Admitted:
    """The permission to forward. Only admission makes one; `principal` is None for an anonymous caller."""

    principal: Principal | None


ANONYMOUS: Final = Admitted(None)


@dataclass(slots=True)
class Entry:
    """What is remembered of one digest, and how long it may be believed (monotonic seconds).

    Past `warm_until` it is looked up again; if nobody can answer then, it serves on until `deadline`, since a fresh
    view proves that nothing was revoked unseen. From `deadline` on the answer is `after`, whatever a cache says (R045).
    """

    revision: int
    subjects: tuple[str, ...]
    verdict: Admitted | Refusal
    kind: ClassVar[str] = "key"
    warm_until: float
    deadline: float = inf
    after: Refusal = INVALID

    def apart(self) -> "Entry":
        """One that says the same; what is noted on it, or on its principal, leaves no trace on this one."""
        verdict = self.verdict
        if isinstance(verdict, Admitted) and verdict.principal is not None:
            verdict = Admitted(replace(verdict.principal))
        return replace(self, verdict=verdict)


@dataclass(slots=True)
class TokenEntry(Entry):
    """The same of a token.

    `is_once`: it admits one request, whichever node that meets; Postgres decides which. `is_used` is known for good.
    """

    kind: ClassVar[str] = "token"
    is_once: bool = False
    is_used: bool = False


Answer = tuple[Entry, str]  # what a lookup has come to, and the tier that told it
