"""What a request must not pass, and what it must. Pure: moments are handed in, monotonic seconds of this one process.

Every fact that decides admission is a gate: a key is not revoked, its user is entitled, its tenant is active. Its
moments are those of the writer: a call that takes the fact away is noted before its first byte is sent, and its answer
after the last byte has been read. So an admission is stale if its request was sent after some gate was answered to be
closed, and a refusal is wrong if it was sent after all gates were answered to be open; between call and answer anything
goes. A gate that was moved since counts as undecided: the checker may miss something there, and never accuses wrongly.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Gate:
    """One fact. `story` says what was last done to it, for who reads of a fault."""

    name: str
    open_since: float | None = None
    closed_since: float | None = None
    typed_since: float | None = None
    story: str = ""
    moves: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it has been answered to be open."""
        return self.open_since is not None

    def closing(self, story: str) -> None:
        """A call that closes it is about to be sent."""
        self.open_since = None
        self.moves += 1
        self.story = story

    def closed(self, since: float) -> None:
        """From `since` on nobody passes: it has been answered."""
        self.closed_since = since if self.closed_since is None else min(self.closed_since, since)

    def typed(self, since: float) -> None:
        """It was closed by a statement in psql, which nobody answers for: by `since` it was committed."""
        self.typed_since = since

    def opening(self, story: str) -> None:
        """A call that opens it is about to be sent."""
        self.closed_since = self.typed_since = None
        self.moves += 1
        self.story = story

    def opened(self, since: float) -> None:
        """From `since` on everybody passes."""
        self.open_since = since

    def if_not_moved(self, act: Callable[[float], None]) -> Callable[[float], None]:
        """`act`, unless by then another call has moved the gate."""
        moves = self.moves

        def act_if_not_moved(at: float) -> None:
            if self.moves == moves:
                act(at)

        return act_if_not_moved

    def forbids(self, sent_at: float) -> bool:
        """Whether a request sent then must not pass any node."""
        return self.closed_since is not None and self.closed_since <= sent_at

    def forbids_by_poll(self, sent_at: float, *, polls_since: float | None, bound_seconds: float) -> bool:
        """Whether a request sent then must not pass a node that has reached Postgres all the time since `polls_since`.

        That is all that is promised of what is typed into psql.
        """
        if self.typed_since is None or polls_since is None:
            return False
        return max(self.typed_since, polls_since) + bound_seconds <= sent_at

    def demands(self, sent_at: float) -> bool:
        """Whether a request sent then must pass this gate."""
        return self.open_since is not None and self.open_since <= sent_at


def shutting(gates: Iterable[Gate], sent_at: float) -> Gate | None:
    """The first gate that forbids a request sent then; None where no answer forbids it."""
    return next((gate for gate in gates if gate.forbids(sent_at)), None)


class Word:
    """What follows from a later answer: a node that knows a revision, or trusts nothing, does so of all before it.

    So what was typed into psql, and what was answered `unconfirmed`, is known once any higher revision is confirmed.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Callable[[float], None]]] = []

    def when_confirmed(self, revision: int, act: Callable[[float], None]) -> None:
        """Call `act` with the moment when `revision` or a higher one has been answered as confirmed."""
        self._waiting.append((revision, act))

    def confirmed(self, revision: int, at: float) -> None:
        """An answer has come at `at`."""
        due = [act for waited, act in self._waiting if waited <= revision]
        self._waiting = [(waited, act) for waited, act in self._waiting if waited > revision]
        for act in due:
            act(at)
