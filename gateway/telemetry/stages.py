"""How long each store took that was asked for one request. Noted on the cold path alone, and only where wanted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, NamedTuple


class Stage(NamedTuple):
    """A store was asked from `began` to `ended` (monotonic seconds)."""

    name: str
    began: float
    ended: float


# A task copies the context of whoever makes it: a lookup that others wait for too is noted by the first of them.
WANTED: Final[ContextVar[list[Stage] | None]] = ContextVar("stages", default=None)


@contextmanager
def timed(name: str, monotonic: Callable[[], float]) -> Iterator[None]:
    """Note how long what is done within takes, if somebody wants to know."""
    wanted = WANTED.get()
    if wanted is None:
        yield
        return
    began = monotonic()
    try:
        yield
    finally:
        wanted.append(Stage(name, began, monotonic()))
