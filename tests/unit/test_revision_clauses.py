"""Each clause of the rule of docs/consistency.md is needed, its known limit is where it is said to be, and no other."""

from dataclasses import replace

import pytest

from tests.fixtures.revision_clauses import WITHOUT
from tests.fixtures.revision_conditions import FAULTS, SPLIT, Conditions, without
from tests.fixtures.revision_world import StaleUseError, World

STEPS, MOST_HISTORIES = 12_000, 100
# Seeds whose history needs the clause; the others need theirs in the very first histories.
SEEDS = {
    "one snapshot": 1,
    "a poll before pongs": 4,
    "age of polls from the sending": 10,
    "age of pongs from the sending": 0,
    "no pongs over a gap": 9,
    "no leap over a gap": 1,
    "reply after applying": 10,
    "no freshness after an unheard reply": 7,
    "a new row after a lapse": 7,
    "no freshness of the mute": 5,
    "revocation_pending": 1,
    "the bound from the publication": 1,
    "doubt after an unreadable message": 15,
    "the list after the commit": 1,
    "evidence of death": 5,
    "reset on lost news": 4,
    "notice of a revision that went back": 12,
    "the skip over the lost past": 12,
}
# Ill luck for who lives on Redis alone, while Redis is split.
SPLITS = frozenset({SPLIT, "ill luck"})


@pytest.mark.parametrize("clause", WITHOUT)
def test_every_clause_is_load_bearing(clause: str) -> None:
    """Without this one clause some history ends in a stale decision: it is needed, and the world can tell. R243."""
    first = SEEDS.get(clause, 0)
    for seed in range(first, first + MOST_HISTORIES):
        with World(seed, without(clause)) as world:
            try:
                world.run(STEPS)
            except StaleUseError:
                return
    pytest.fail(f"no history needed {clause!r}")


def _fooled(seed: int, conditions: Conditions) -> StaleUseError | None:
    with World(seed, conditions) as world:
        try:
            world.run(STEPS)
        except StaleUseError as error:
            return error
    return None


def test_a_split_redis_fools_a_node_without_postgres() -> None:
    """The known limit: with `without_postgres: serve`, a node on the losing side of a split Redis is fooled. R243.

    And only where it lives on pongs, having polled nothing for longer than the bound. With `refuse` the door is closed:
    under the same ill luck nobody is fooled.
    """
    serve = Conditions(faults=SPLITS, pauses=(1.0,), troubles=("postgres lost",))
    fooled: dict[int, bool] = {}
    for seed in range(MOST_HISTORIES):
        if (error := _fooled(seed, serve)) is not None:
            fooled[seed] = error.lives_on_pongs
        if len(fooled) == 3:
            break
    assert list(fooled.values()) == [True, True, True]
    assert [_fooled(seed, replace(serve, is_push_enough=False)) for seed in fooled] == [None, None, None]


def test_refusing_without_postgres_closes_the_door() -> None:
    """With `without_postgres: refuse` no split fools anybody, whatever else fails. R243."""
    answers = splits = 0
    for seed in range(15):
        with World(seed, Conditions(is_push_enough=False, faults=FAULTS | {SPLIT})) as world:
            world.run(STEPS)
        answers += world.counts["answer"]
        splits += world.counts[SPLIT]
    assert answers > 300
    assert splits > 50
