"""How a fault is written down: what is done, what is permitted meanwhile, and how it is undone."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from tests.faults.permitted import CALM, Permitted
from tests.faults.stage import Stage

Hurt = Callable[[Stage], AbstractAsyncContextManager[None]]
WELL_WITHIN_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Fault:
    """`hurt` does it on entering and undoes it on leaving.

    `what` says so for the page, as a sentence. `nodes` are those where it may be felt (None: any). `setting` is there
    before and after it, a node of its own for example. `seconds` is how long it lasts at least. `well_within_seconds`
    is how long callers may feel it once it is undone. `peers` names the row of peers.json.
    """

    name: str
    what: str
    peers: str
    permits: Permitted
    hurt: Hurt
    setting: Hurt | None = None
    nodes: frozenset[int] | None = None
    seconds: float = 0.0
    well_within_seconds: float = WELL_WITHIN_SECONDS


def fault(
    name: str,
    *,
    what: str,
    peers: str,
    permits: Permitted = CALM,
    setting: Hurt | None = None,
    nodes: frozenset[int] | None = None,
    seconds: float = 0.0,
) -> Callable[[Callable[[Stage], AsyncIterator[None]]], Fault]:
    """Make a fault of the decorated generator, which does it, yields while it lasts, and undoes it."""

    def written_down(hurt: Callable[[Stage], AsyncIterator[None]]) -> Fault:
        return Fault(name, what, peers, permits, asynccontextmanager(hurt), setting, nodes, seconds)

    return written_down
