"""The rule of docs/consistency.md over random histories in simulated time (tests/fixtures/revision_world.py).

Some 200,000 steps without one stale decision, and as many more as one likes with `make simulate` (tests/simulate.py);
test_revision_clauses.py shows that the same worlds tell when a clause of the rule is missing.
"""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.revision_conditions import FAULTS, Conditions
from tests.fixtures.revision_world import World

BLOCKS, HISTORIES, STEPS = 2, 10, 10_000
# What must have happened in each block of histories, and how often at least.
MUCH = {"admission": 4_000, "refusal": 2_000, "answer": 200, "late message": 5_000, "lost message": 500, "pending": 20}
SOME = FAULTS | {"failover with loss", "revision_went_backwards"}
NODES = 3


@pytest.mark.threat("missed revocation", "lookup against revocation")
@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_history_ends_in_a_stale_decision(block: int) -> None:
    """In 200,000 steps nobody is admitted, or refused, by what an answered change had made void. R243.

    Whatever is lost, late, paused, dead, restarted, restored from old copies or failed over. Each block of histories
    has met every kind of fault, and has had thousands of decisions and hundreds of answers to be wrong about.
    """
    counts: Counter[str] = Counter()
    for seed in range(block * HISTORIES, (block + 1) * HISTORIES):
        with World(seed) as world:
            world.run(STEPS)
        counts += world.counts
    assert {name: counts[name] for name, least in MUCH.items() if counts[name] < least} == {}
    assert {name for name in SOME if counts[name] == 0} == set()


ACT = st.tuples(
    st.sampled_from(sorted(FAULTS)),
    st.integers(0, NODES - 1),
    st.sampled_from((0.0, 0.01, 0.1, 0.5, 1.0, 3.0)),
)


@settings(max_examples=15)
@given(seed=st.integers(0, 1_000), acts=st.lists(ACT, min_size=5, max_size=40))
def test_no_script_ends_in_a_stale_decision(seed: int, acts: list[tuple[str, int, float]]) -> None:
    """The same over scripts of faults that Hypothesis writes, and shortens where one fails. R243."""
    with World(seed, Conditions(faults=frozenset()), nodes=NODES) as world:
        world.run(500)
        for name, number, bounds in acts:
            world.faults.befall(name, world.nodes[number])
            world.run_for(bounds)
        world.run_for(3.0)


def test_a_seed_is_a_history() -> None:
    """The same seed plays the same history: what is found once is found again. R243."""
    histories = []
    for _ in range(2):
        with World(7) as world:
            world.run(3_000)
            histories.append((world.time.now, world.counts, world.postgres.revision))
    assert histories[0] == histories[1]
