"""The rule of docs/consistency.md over random histories in simulated time (tests/fixtures/revision_world.py)."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.revision_world import CLAUSES, StaleUseError, World

NODES = 3


@pytest.mark.parametrize("seed", range(150))
def test_no_history_ends_in_a_stale_use(seed: int) -> None:
    """No entry is used after a change that made it void has been answered, whatever is lost, late or dead. R243."""
    world = World(random.Random(seed))
    world.run(600)
    assert world.uses > 100
    assert world.answers > 5


ACT = st.tuples(
    st.integers(0, NODES - 1),
    st.integers(0, len(World(random.Random(0), nodes=NODES).habits) - 1),
    st.sampled_from((0.0, 0.0, 0.05, 0.3, 0.9)),
)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1_000), acts=st.lists(ACT, min_size=20, max_size=300))
def test_no_script_ends_in_a_stale_use(seed: int, acts: list[tuple[int, int, float]]) -> None:
    """The same over scripts that Hypothesis writes, and shortens where one fails. R243."""
    world = World(random.Random(seed), nodes=NODES)
    world.run(10)
    for node, habit, seconds in acts:
        world.clock.now += seconds
        world.habits[habit][1](world.nodes[node])


@pytest.mark.parametrize(("clause", "first"), CLAUSES.items())
def test_every_clause_is_load_bearing(clause: str, first: int) -> None:
    """Without this one clause some history does end in a stale use: the world can tell, and the clause is needed."""
    for seed in range(first, first + 2_000):
        try:
            World(random.Random(seed), without=clause).run(600)
        except StaleUseError:
            return
    pytest.fail(f"no history needed {clause!r}")
