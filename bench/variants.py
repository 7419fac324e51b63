"""Peers whose configuration differs in a line or two from what it is otherwise."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.gateway_peer import Gateway
from bench.peers import CONFIGURATIONS
from bench.processes import BenchError

Changes = Sequence[tuple[str, str]]  # what stands in the file, and what stands there instead


def changed(folder: Path, file: str, changes: Changes) -> Path:
    """A new folder with a peer's configuration, as it is otherwise but for `changes`."""
    text = (CONFIGURATIONS / file).read_text()
    for old, new in changes:
        if old not in text:
            raise BenchError(f"{file} has no {old!r} any more")
        text = text.replace(old, new, 1)
    folder.mkdir()
    (folder / file).write_text(text)
    return folder


def gateways(variants: Mapping[str, Changes], folder: Path) -> list[Gateway]:
    """The gateway with each name's changes, as it is and compiled."""
    peers = []
    for number, (name, changes) in enumerate(variants.items()):
        configuration = changed(folder / str(number), "gateway.yaml", changes)
        for is_compiled in (False, True):
            gateway = Gateway(configuration, is_compiled=is_compiled)
            gateway.name = f"{name}, compiled" if is_compiled else name
            peers.append(gateway)
    return peers
