"""Each clause of the rule of docs/consistency.md is needed, its known limit is where it is said to be, and no other."""

from dataclasses import replace

import pytest

from tests.fixtures.revision_clauses import WITHOUT, Parts
from tests.fixtures.revision_conditions import REFUSING, SPLIT, SPLITTING, without
from tests.fixtures.revision_histories import FOOLED, NEEDS
from tests.fixtures.revision_world import STEPS, StaleUseError, World, stale_after

MOST_HISTORIES = 100


@pytest.mark.parametrize("clause", WITHOUT)
def test_every_clause_is_load_bearing(clause: str) -> None:
    """Without this one clause a known history ends in a stale decision, and with it the same one does not. R243.

    Where the gateway's code has changed so much that this history takes another course, others are tried: that takes
    longer, and `make simulate` finds short ones again.
    """
    conditions = without(clause)
    for seed in (NEEDS[clause], *range(MOST_HISTORIES)):
        if (steps := stale_after(seed, conditions, STEPS)) is not None:
            assert stale_after(seed, replace(conditions, parts=Parts()), steps) is None
            return
    pytest.fail(f"no history needed {clause!r}")


def test_a_split_redis_fools_a_node_without_postgres() -> None:
    """The known limit: with `without_postgres: serve`, a node on the losing side of a split Redis is fooled. R243.

    And only where it lives on pongs, having polled nothing for longer than the bound. With `refuse` the door is closed:
    under the same ill luck nobody is fooled.
    """
    fooled: dict[int, bool] = {}
    for seed in (*FOOLED, *range(MOST_HISTORIES)):
        with World(seed, SPLITTING) as world:
            try:
                world.run(STEPS)
            except StaleUseError as error:
                fooled[seed] = error.lives_on_pongs
        if len(fooled) == len(FOOLED):
            break
    assert list(fooled.values()) == [True, True, True]
    assert [stale_after(seed, replace(SPLITTING, is_push_enough=False), STEPS) for seed in fooled] == [None] * 3


def test_refusing_without_postgres_closes_the_door() -> None:
    """With `without_postgres: refuse` no split fools anybody, whatever else fails. R243."""
    answers = splits = 0
    for seed in range(5):
        with World(seed, REFUSING) as world:
            world.run(STEPS)
        answers += world.counts["answer"]
        splits += world.counts[SPLIT]
    assert answers > 100
    assert splits > 15
