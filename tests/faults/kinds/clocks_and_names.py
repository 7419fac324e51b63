"""What a node is told wrong by its machine: the time, and the addresses of names."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from gateway.embedded.server_process import HOST
from tests.faults.catalogue import fault
from tests.faults.stage import Stage
from tests.faults.upstreams import well, well_once
from tests.integration.threats.wrong_clock import WrongClock

OWN: Final = 2
STEP_SECONDS: Final = 600
NAME: Final = "orders.faults.test"
NAME_SECONDS: Final = 12.0  # names are looked at every 5 s
IN_A_WORLD_OF_ITS_OWN: Final = (
    'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"'
)


def _clock(stage: Stage) -> WrongClock:
    return WrongClock(stage.folder)


@asynccontextmanager
async def _node_with_a_clock(stage: Stage) -> AsyncIterator[None]:
    environment = {**_clock(stage).environment, "FAKETIME_NO_CACHE": "0", "FAKETIME_CACHE_DURATION": "1"}
    node = await stage.add_node(environment=environment)
    yield
    await stage.remove_node(node)


async def _step(stage: Stage, seconds: int) -> AsyncIterator[None]:
    clock = _clock(stage)
    clock.set(seconds)
    try:
        yield
    finally:
        clock.set(0)


@fault(
    "clock stepped forward",
    peers="clock stepped",
    what=f"the wall clock of a node is {STEP_SECONDS // 60} minutes ahead (libfaketime), then right again",
    setting=_node_with_a_clock,
    nodes=frozenset({OWN}),
)
async def forward(stage: Stage) -> AsyncIterator[None]:
    """Ends are the database's, lifetimes are monotonic."""
    async for _ in _step(stage, STEP_SECONDS):
        yield


@fault(
    "clock stepped back",
    peers="clock stepped",
    what=f"the wall clock of a node is {STEP_SECONDS // 60} minutes behind, then right again",
    setting=_node_with_a_clock,
    nodes=frozenset({OWN}),
)
async def back(stage: Stage) -> AsyncIterator[None]:
    """What has expired stays expired."""
    async for _ in _step(stage, -STEP_SECONDS):
        yield


def _hosts(stage: Stage) -> Path:
    return stage.folder / "hosts"


@asynccontextmanager
async def _node_with_a_name(stage: Stage) -> AsyncIterator[None]:
    """Its upstream is a name, which stands in a hosts file that it alone sees; nobody answers for DNS."""
    resolver = stage.folder / "resolv.conf"
    resolver.write_text(f"nameserver {HOST}\noptions timeout:1 attempts:1\n")
    _hosts(stage).write_text(f"{HOST} localhost {NAME}\n")
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    node = await stage.add_node(
        {"upstreams": {"orders": {"targets": [f"http://{NAME}:{stage.orders.port}"]}}},
        launcher=[*unshare, "sh", "-c", IN_A_WORLD_OF_ITS_OWN, "sh", str(_hosts(stage)), str(resolver)],
    )
    yield
    await stage.remove_node(node)


@fault(
    "DNS gone",
    peers="DNS gone",
    what="the name of an upstream cannot be resolved any more, and each request needs a new connection to it",
    setting=_node_with_a_name,
    nodes=frozenset({OWN}),
    seconds=NAME_SECONDS,
)
async def dns_gone(stage: Stage) -> AsyncIterator[None]:
    """The last good addresses are kept."""
    stage.orders.behave = well_once
    hosts = _hosts(stage)
    with hosts.open("w") as file:  # written in place: the node sees this very file
        file.write(f"{HOST} localhost\n")
    try:
        yield
    finally:
        with hosts.open("w") as file:
            file.write(f"{HOST} localhost {NAME}\n")
        stage.orders.behave = well
        if "name_not_resolved" not in stage.nodes[OWN].process.log:
            stage.wrongs.append("the node has not noticed: this was no outage of DNS")
