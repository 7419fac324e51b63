"""The checker itself: what it calls stale and wrong, and what it must not."""

from tests.chaos.gates import Gate, Word, shutting

CALLED, ANSWERED, LATER = 1.0, 2.0, 3.0


def test_a_request_sent_after_the_answer_is_forbidden() -> None:
    """From the answer to the next opening call, and for no request sent before."""
    gate = Gate("key")
    gate.opened(0.0)
    assert gate.demands(0.5)
    gate.closing("revoked")
    assert not gate.demands(0.5), "between call and answer anything goes"
    assert shutting([gate], CALLED) is None
    gate.closed(ANSWERED)
    assert shutting([Gate("other"), gate], LATER) is gate
    assert shutting([gate], CALLED) is None
    gate.opening("given back")
    assert shutting([gate], LATER) is None
    assert not gate.demands(LATER)
    gate.opened(LATER)
    assert gate.demands(LATER)
    assert not gate.demands(ANSWERED)


def test_a_second_closing_does_not_excuse_the_first() -> None:
    """What has expired and is revoked as well stays forbidden since it expired."""
    gate = Gate("key")
    gate.closed(ANSWERED)
    gate.closing("revoked as well")
    assert gate.forbids(ANSWERED)
    gate.closed(LATER)
    assert gate.forbids(ANSWERED)


def test_psql_binds_nodes_that_can_poll() -> None:
    """A bound after the commit, and as long after Postgres could be reached again."""
    gate = Gate("key")
    gate.typed(CALLED)
    assert not gate.forbids(100.0)
    assert not gate.forbids_by_poll(2.9, polls_since=0.0, bound_seconds=2.0)
    assert gate.forbids_by_poll(3.0, polls_since=0.0, bound_seconds=2.0)
    assert not gate.forbids_by_poll(11.9, polls_since=10.0, bound_seconds=2.0)
    assert gate.forbids_by_poll(12.0, polls_since=10.0, bound_seconds=2.0)
    assert not gate.forbids_by_poll(100.0, polls_since=None, bound_seconds=2.0)


def test_a_later_answer_vouches_for_what_came_before() -> None:
    """Once a higher revision is confirmed; but not for a gate that was moved meanwhile."""
    word, typed, moved = Word(), Gate("typed"), Gate("moved")
    for gate in (typed, moved):
        word.when_confirmed(7, gate.if_not_moved(gate.closed))
    moved.opening("given back")
    word.confirmed(6, ANSWERED)
    assert typed.closed_since is None
    word.confirmed(8, LATER)
    assert typed.closed_since == LATER
    assert moved.closed_since is None
