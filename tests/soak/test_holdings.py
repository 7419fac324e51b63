"""The soak can tell what stays behind: connections and tasks of a real node, counts that rise, memory that grows."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.fixtures.connections import connected
from tests.fixtures.crew import Client
from tests.fixtures.upstream import RecordingUpstream
from tests.fixtures.waiting import until
from tests.soak.holdings import Holdings, complaints, held
from tests.soak.world import debugged

REST = Holdings(100.0, descriptors=50, threads=3, tasks=18, clients=0, postgres=6, redis=8, upstream=0)


def test_what_goes_up_and_down_is_no_complaint() -> None:
    """A pool that is a little larger, and memory that went up once and stays."""
    rests = [replace(REST, memory_mib=100 + more, postgres=6 + more) for more in (0, 4, 3, 4, 4)]
    assert complaints("node", rests) == []


@pytest.mark.parametrize("what", ["descriptors", "threads", "tasks", "postgres", "redis", "upstream", "clients"])
def test_what_stays_behind_is_told(what: str) -> None:
    """More of anything than a pool's coming and going, and a client who has left."""
    rests = [REST, replace(REST, **{what: getattr(REST, what) + 11})]
    assert [complaint.partition(":")[0] for complaint in complaints("node", rests)] == ["node"]


def test_memory_that_grows_and_grows_is_told() -> None:
    """By its slope: three MiB from rest to rest."""
    rests = [replace(REST, memory_mib=100 + 3 * number) for number in range(5)]
    assert complaints("node", rests) == ["node: 12.0 MiB more in the end, of 100.0 after the warm-up"]


async def test_connections_and_tasks_are_seen(
    gateway: StartGateway, upstream: RecordingUpstream, tmp_path: Path
) -> None:
    """A client and the upstream's end are counted while they are there, and tasks are told by the process itself."""
    node = await gateway(environment=debugged(tmp_path))
    ports = {"clients": node.proxy_port, "upstream": int(upstream.url.rpartition(":")[2])}
    async with connected(node.proxy_port) as streams:
        assert await Client(*streams).ask() == 200
        now = await held(node.pid, ports, tmp_path)
        assert (now.clients, now.upstream) == (1, 1)
        assert now.tasks > 3
        assert now.memory_mib > 20

    async def has_left() -> bool:
        return (await held(node.pid, ports, tmp_path)).clients == 0

    await until(has_left, what="the client's end to go")
