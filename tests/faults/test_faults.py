"""A few of the faults, shorter than `make faults` does them; and what the harness says of one that breaks promises."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from tests.faults.catalogue import Fault
from tests.faults.kinds import FAULTS, postgres, upstream
from tests.faults.kinds.nodes import worker_killed
from tests.faults.permitted import CALM
from tests.faults.run import Pace, play, told
from tests.faults.stage import Stage, stage_in
from tests.faults.upstreams import Visit, well

pytestmark = pytest.mark.asyncio(loop_scope="module")

PACE = Pace(calm_seconds=0.3, fault_seconds=1.2)
BROKEN = (
    *("a good key is refused", "a bad key is admitted", "a bad key came upstream", "another's answer"),
    "not well again",
)
SHORT = (postgres.killed, upstream.closes_on_reuse, worker_killed)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One for all tests of this module: each leaves it whole."""
    async with stage_in(tmp_path_factory.mktemp("faults") / "stage", idle=100) as made:
        yield made


@pytest.mark.threat("failure taken for admission")
@pytest.mark.parametrize("fault", SHORT, ids=lambda fault: str(fault.name))
async def test_a_fault_breaks_no_promise(stage: Stage, fault: Fault) -> None:
    """Good keys never hear 401 or 403, bad ones never pass, nothing is answered twice or lost, all is well after.

    R056 R057 R059 R070 R071.
    """
    assert fault in FAULTS
    seen = await play(stage, fault, PACE)
    assert not seen.violations, "\n".join(told(seen))
    assert seen.requests > 150, "\n".join(told(seen))


@asynccontextmanager
async def _treason(stage: Stage) -> AsyncIterator[None]:
    """Behind the harness's back: who is good becomes bad and the other way round, and answers are another's."""

    async def mistake(visit: Visit) -> None:
        visit.number += 1
        await visit.answer()

    stage.orders.behave = mistake
    await stage.execute("UPDATE api_keys SET revoked_at = CASE WHEN revoked_at IS NULL THEN now() END")
    try:
        yield
    finally:
        stage.orders.behave = well


async def test_the_harness_tells_when_a_promise_is_broken(stage: Stage) -> None:
    """Each of these is reported: a good key refused, a bad one let through, another's answer, and no recovery."""
    treason = Fault("treason", "", "", CALM, _treason, well_within_seconds=0.2)
    seen = await play(stage, treason, PACE)
    for sign in BROKEN:
        assert any(sign in story for story in seen.violations), (sign, seen.violations)
