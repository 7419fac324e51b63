"""The large search over the revision rule that `make test` has no time for: `python -m tests.simulate`.

It plays histories of the whole rule from seeds that nobody has played, every other one with a Redis that splits and
`without_postgres: refuse`, and says which of them end in a stale decision. Then it looks, for each clause that is left
out, for the shortest history that needs it. Those stand in `tests/fixtures/revision_histories.py` and are replayed by
every `make test`; they are to be renewed from here when changes of the gateway's code have sent them on another course.
"""

import argparse
import random
import sys
from dataclasses import replace

from tests.fixtures.revision_clauses import WITHOUT
from tests.fixtures.revision_conditions import REFUSING, SPLITTING, Conditions, without
from tests.fixtures.revision_world import STEPS, World, stale_after

STEPS_OF_A_HISTORY = 10_000
SEEDS = 1 << 32


def main() -> int:
    """Exit code 1 where a history of the whole rule ended in a stale decision, or none needs some clause."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulate")
    parser.add_argument("--steps", type=int, default=1_000_000, help="of the whole rule, in all")
    parser.add_argument("--seeds", type=int, default=40, help="how many histories are tried for each clause")
    asked = parser.parse_args()
    stale = whole_rule(asked.steps)
    lost = clauses(asked.seeds)
    fooled(asked.seeds)
    return int(bool(stale or lost))


def whole_rule(steps: int) -> list[int]:
    """The seeds of the histories that ended in a stale decision."""
    stale = []
    count = steps // STEPS_OF_A_HISTORY
    for number in range(count):
        seed, conditions = random.randrange(SEEDS), (Conditions(), REFUSING)[number % 2]
        with World(seed, conditions) as world:
            try:
                world.run(STEPS_OF_A_HISTORY)
            except AssertionError as error:
                print(f"seed {seed}, {conditions}, step {world.time.steps}: {error}", flush=True)
                stale.append(seed)
        if (number + 1) % 10 == 0:
            print(f"{(number + 1) * STEPS_OF_A_HISTORY} steps, {len(stale)} stale decisions", flush=True)
    return stale


def clauses(seeds: int) -> list[str]:
    """Print the shortest history found for each clause; those for which there is none."""
    lost = []
    for clause in WITHOUT:
        found, most = None, STEPS
        for seed in range(seeds):
            if (steps := stale_after(seed, without(clause), most)) is not None:
                found, most = seed, steps - 1
        if found is None:
            lost.append(clause)
        print(f"    {clause!r}: {found},  # {most + 1} steps", flush=True)
    return lost


def fooled(seeds: int) -> None:
    """Print the seeds for who lives on Redis alone, while it is split."""
    found = {seed: stale_after(seed, SPLITTING, STEPS) for seed in range(seeds)}
    shortest = sorted((steps, seed) for seed, steps in found.items() if steps is not None)[:3]
    refused = [stale_after(seed, replace(SPLITTING, is_push_enough=False), steps) for steps, seed in shortest]
    print(f"fooled by a split: {shortest}; where that is refused: {refused}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
