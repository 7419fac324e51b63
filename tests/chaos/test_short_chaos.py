"""A short run of all of it; the long one is `make chaos`."""

from pathlib import Path

import pytest

from tests.chaos.measures import Measures
from tests.chaos.report import table
from tests.chaos.run import run
from tests.chaos.tally import Tally

MEASURES = Measures(
    changes=90,
    seed=3,
    users=8,
    admin_tokens=20,
    bound_seconds=1.5,
    requests_per_second=80.0,
    think_seconds=0.1,
    fault_seconds=(0.4, 2.0),
    calm_seconds=(0.1, 0.4),
    share_of_pairs=0.8,
)


@pytest.mark.threat("missed revocation", "lookup against revocation", "failure taken for admission")
async def test_no_node_admits_after_the_answer(own_folder: Path) -> None:
    """Whatever is killed, paused, cut off or brought back: no stale admission, and no good key is told 401 or 403.

    R221 R231 R234 R243.
    """
    tally = Tally()
    await run(own_folder, MEASURES, tally)
    shown = table(tally, MEASURES)
    assert not tally.faults(), "\n".join([*tally.faults()[:20], shown])
    assert tally.admitted > 1_000, shown
    assert tally.asked_after_an_answer > 500, shown
    assert tally.calls_by_admins > 100, shown
    assert {"signing key withdrawn", "admin token revoked", "user deleted", "key revoked in psql"} <= set(tally.changes)
