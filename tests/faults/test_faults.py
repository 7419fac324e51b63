"""A few of the faults, shorter than `make faults` does them; and what the harness says of one that breaks a promise."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import pytest_asyncio

from tests.faults.kinds import FAULTS, postgres, redis, upstream
from tests.faults.kinds.nodes import worker_killed
from tests.faults.permitted import CALM
from tests.faults.run import Pace, play, told
from tests.faults.stage import Stage, stage_in
from tests.fixtures.upstream import RecordedRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

PACE = Pace(calm_seconds=0.5, fault_seconds=1.5)
SHORT = (redis.paused, postgres.killed, upstream.closes_on_reuse, worker_killed)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One for all tests of this module: each leaves it whole."""
    async with stage_in(tmp_path_factory.mktemp("faults") / "stage", idle=100) as made:
        yield made


@pytest.mark.threat("failure taken for admission")
@pytest.mark.parametrize("fault", SHORT, ids=lambda fault: fault.name)
async def test_a_fault_breaks_no_promise(stage: Stage, fault: object) -> None:
    """Good keys never hear 401 or 403, bad ones never pass, nothing is answered twice or lost, all is well after.

    R056 R057 R059 R070 R071 R231.
    """
    assert fault in FAULTS
    seen = await play(stage, fault, PACE)  # type: ignore[arg-type]
    assert not seen.violations, "\n".join(told(seen))
    assert seen.requests > 200, "\n".join(told(seen))
