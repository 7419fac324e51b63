"""Every case against every proxy that is installed, each proxy with an origin of its own."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.behaviours import (
    connection_cases,
    framing_cases,
    head_cases,
    identity_cases,
    reply_cases,
    table,
    target_cases,
    timing_cases,
)
from bench.behaviours.stage import Case, Stage
from bench.behaviours.table import Column
from bench.behaviours.wire import Origin
from bench.gateway_peer import Gateway
from bench.peers import Envoy, HAProxy, Nginx, Peer
from bench.processes import BenchError, Cores, Workshop

_CONFIGURATIONS = Path(__file__).with_name("config")
_CASE_SECONDS = 30  # none takes longer, whatever a proxy does
_MODULES = (
    framing_cases,
    head_cases,
    target_cases,
    identity_cases,
    connection_cases,
    reply_cases,
    timing_cases,
)


def _peers() -> dict[str, Peer]:
    folder = _CONFIGURATIONS
    return {"Ostiary": Gateway(folder), "nginx": Nginx(folder), "Envoy": Envoy(folder), "HAProxy": HAProxy(folder)}


def _groups(words: Sequence[str] | None) -> dict[str, list[Case]]:
    groups = {name: cases for module in _MODULES for name, cases in module.GROUPS.items()}
    if words is None:
        return groups
    chosen = {
        name: [case for case in cases if any(word.lower() in f"{name} {case.title}".lower() for word in words)]
        for name, cases in groups.items()
    }
    return {name: cases for name, cases in chosen.items() if cases}


async def _play(stage: Stage, groups: Mapping[str, Sequence[Case]]) -> dict[str, dict[str, str]]:
    cells: dict[str, dict[str, str]] = {}
    for group, cases in groups.items():
        cells[group] = {}
        for case in cases:
            async with asyncio.timeout(_CASE_SECONDS):
                cells[group][case.title] = str(await case.play(stage))
                await stage.origin.start_over()
    return cells


async def _column(
    name: str, peer: Peer, version: str, workshop: Workshop, cores: Cores, groups: Mapping[str, Sequence[Case]]
) -> Column:
    origin = Origin()
    port = await origin.listen()
    running = await asyncio.to_thread(peer.start, workshop, port, cores.proxy)
    print(f"{name} {version}", file=sys.stderr)
    cells = await _play(Stage(running.port, running.secret, origin), groups)
    await origin.close()
    return Column(name, version, cells)


async def _columns(workshop: Workshop, cores: Cores, groups: Mapping[str, Sequence[Case]]) -> list[Column]:
    installed = {name: (peer, version) for name, peer in _peers().items() if (version := peer.version()) is not None}
    return await asyncio.gather(
        *(_column(name, peer, version, workshop, cores, groups) for name, (peer, version) in installed.items())
    )


def run(cores: Cores, words: Sequence[str] | None) -> str:
    """Play the cases whose group or title holds one of `words` (`None`: all) and return the table.

    It replaces the published one only when it is whole: all cases, and all proxies installed.
    """
    groups = _groups(words)
    if not groups:
        raise BenchError("no case holds any of these words")
    with Workshop() as workshop:
        columns = asyncio.run(_columns(workshop, cores, groups))
    text = table.markdown(columns)
    if words is None and len(columns) == len(_peers()):
        table.write(columns, text)
    elif words is None:
        print("not every proxy is installed: the published table stays as it is", file=sys.stderr)
    return text
