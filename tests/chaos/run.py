"""One run: the stage, the population, callers, writers and faults together."""

import asyncio
from pathlib import Path

from tests.chaos.admins import Admins, stock
from tests.chaos.cast import Cast
from tests.chaos.faults import Faults
from tests.chaos.measures import Measures
from tests.chaos.operators import Operators
from tests.chaos.stage import Stage, stage_in
from tests.chaos.tally import Tally
from tests.chaos.token_changes import TokenChanges
from tests.chaos.traffic import Traffic
from tests.chaos.writers import Writer, populate


async def run(folder: Path, measures: Measures, tally: Tally) -> None:
    """Carry it out, with everything in `folder`, and count in `tally`."""
    async with stage_in(folder, measures) as stage:
        cast = Cast()
        traffic = Traffic(stage, measures, cast, tally)
        operators = Operators(stage, measures, traffic, tally)
        try:
            left_alone = await populate(operators, measures, cast)
            await stock(stage, cast, measures.admin_tokens)
            minting = TokenChanges(stage, traffic, cast, tally, seed=f"{measures.seed}: first tokens")
            await asyncio.gather(*(minting.mint(user.keys[0]) for user in cast.users))
            tally.changes.clear()
            faults = Faults(stage, measures, tally, good_secret=left_alone.text)
            traffic.start()
            await _play(stage, measures, cast, tally, traffic, operators, faults)
            await traffic.ask_everybody()
            tally.late_seconds = stage.pulse.late_seconds
        finally:
            await traffic.stop()
            await operators.close()


async def _play(
    stage: Stage, measures: Measures, cast: Cast, tally: Tally, traffic: Traffic, operators: Operators, faults: Faults
) -> None:
    def is_enough() -> bool:
        return tally.narrowing >= measures.changes and faults.has_had_all

    def writer(number: int) -> Writer:
        tokens = TokenChanges(stage, traffic, cast, tally, seed=f"{measures.seed}: tokens of writer {number}")
        return Writer(number, operators, tokens, measures, cast, is_enough=is_enough)

    async with asyncio.TaskGroup() as group:
        calling = group.create_task(Admins(stage, measures, cast, tally).call_forever())
        hurting = group.create_task(faults.go_on())
        await asyncio.gather(*(writer(number).write() for number in range(measures.writers)))
        faults.is_over = True
        await hurting
        calling.cancel()
