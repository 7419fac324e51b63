"""Who listens on a port of this machine, where the system tells: /proc of Linux."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
LISTENING: Final = "0A"
GATEWAY: Final = re.compile(rb"(?:^|/|\0)(?:ostiary|gateway)(?:\0|$)")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process."""

    pid: int
    name: str
    is_gateway: bool


def owner_of(port: int) -> Owner | None:
    """The process that listens on a port; None where that cannot be told (another user's, or another system)."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not wanted:
        return None
    for folder in PROC.iterdir():
        if folder.name.isdigit() and not wanted.isdisjoint(_links(folder / "fd")):
            try:
                command = (folder / "cmdline").read_bytes()
                name = (folder / "comm").read_text().strip()
            except OSError:
                continue
            return Owner(int(folder.name), name, GATEWAY.search(command) is not None)
    return None


def _inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _links(folder: Path) -> Iterator[str]:
    try:
        for descriptor in folder.iterdir():
            try:
                yield os.readlink(descriptor)  # noqa: PTH115  # a name that is no path
            except OSError:
                continue
    except OSError:
        return
