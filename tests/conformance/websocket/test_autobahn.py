"""The Autobahn WebSocket cases: a server behind the gateway gets the verdicts that it gets without."""

from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.conformance.websocket.autobahn_cases import (
    ALL_BUT_DEFLATE,
    DEFLATE,
    SERVERS_OWN_FAULTS,
    is_passed,
    names,
    verdicts,
)
from tests.conformance.websocket.autobahn_client import Verdict
from tests.conformance.websocket.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

# A thousand messages per case: of each way to negotiate, one size. `make autobahn` runs all.
CASES = names(ALL_BUT_DEFLATE) + names(DEFLATE, only=(4,))


@dataclass(frozen=True)
class Verdicts:
    """Of every case, by its name."""

    direct: dict[str, Verdict]
    through: dict[str, Verdict]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def told(shared_world: World) -> Verdicts:
    """The cases, run against the server and against the gateway in front of it, on a route that wants a key."""
    direct_url, through_url = shared_world.autobahn_urls
    direct, through = await verdicts(direct_url, CASES), await verdicts(through_url, CASES)
    # The suite's client waits a second for a close, which a busy machine may take: what is doubtful is asked once more.
    doubtful = [case for case in CASES if not (through[case] == direct[case] and is_passed(direct[case]))]
    return Verdicts(direct | await verdicts(direct_url, doubtful), through | await verdicts(through_url, doubtful))


@pytest.mark.parametrize("case", CASES)
async def test_a_case_ends_as_it_does_without_the_gateway(told: Verdicts, case: str) -> None:
    """The same messages, pings, pongs and close code; and where the server is faultless, the case is passed."""
    assert told.through[case] == told.direct[case]
    assert is_passed(told.through[case]) or case in SERVERS_OWN_FAULTS
