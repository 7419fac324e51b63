"""The rule of docs/consistency.md over random histories in simulated time (tests/fixtures/revision_world.py)."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures.revision_world import CLAUSES, StaleUseError, World


@pytest.mark.parametrize("seed", range(60))
def test_no_history_ends_in_a_stale_use(seed: int) -> None:
    """No entry is used after a change that made it void has been answered, whatever is lost, late or dead. R243"""
    world = World(random.Random(seed))
    world.run(400)
    assert world.uses > 100
    assert world.answers > 5


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(rng=st.randoms(use_true_random=False))
def test_no_short_history_ends_in_a_stale_use(rng: random.Random) -> None:
    """The same over histories that Hypothesis makes, and shrinks where one fails. R243"""
    World(rng).run(25)


@pytest.mark.parametrize(("clause", "first"), CLAUSES.items())
def test_every_clause_is_load_bearing(clause: str, first: int) -> None:
    """Without this one clause some history does end in a stale use: the world can tell, and the clause is needed."""
    for seed in range(first, first + 2_000):
        try:
            World(random.Random(seed), without=clause).run(600)
        except StaleUseError:
            return
    pytest.fail(f"no history needed {clause!r}")
