"""What a peer is, and the shapes it is asked to take."""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.certificates import Certificate
from bench.processes import Process, Workshop
from bench.workload import USER_ID

CONFIGURATIONS = Path(__file__).parent.with_name("peer_config")
SECRET = "ost_bench_" + "Zk7Qw2Lm9Xv4Tn6Rb1Hd8Yc3Jp5Gs0Fa" + "2sTk1q"


@dataclass(frozen=True)
class Shape:
    """How a proxy is set up: what its clients speak (TLS where there is a certificate), and its routes."""

    certificate: Certificate | None = None
    prefixes: tuple[str, ...] = ()
    """The path in front of each route, such as `/service-0001`; where there is none, one route is for everything."""


PLAIN = Shape()


@dataclass(frozen=True, repr=False)
class Running:
    """A proxy that listens: where, with which key, and whose CPU time counts."""

    port: int
    process: Process | None
    secret: str
    is_authenticating: bool = True
    identity_field: str = f"x-user-id: {USER_ID}"
    """The line, in lower case, by which the upstream is told who is calling."""


class Peer(Protocol):
    """One row of the table."""

    name: str

    def version(self) -> str | None:
        """Return the version, or `None` where the peer is not installed."""

    def can(self, shape: Shape) -> bool:
        """Whether it can be set up so."""

    def start(self, workshop: Workshop, upstream_port: int, core: int, shape: Shape = PLAIN) -> Running:
        """Start it on `core` in front of the upstream; return when it listens. Raises `BenchError`."""


def chosen(peers: Sequence[Peer], words: Sequence[str] | None) -> list[Peer]:
    """Those whose name holds one of these words; all without any."""
    return [peer for peer in peers if words is None or any(word.lower() in peer.name.lower() for word in words)]


def configuration(name: str, workshop: Workshop, values: dict[str, object], folder: Path = CONFIGURATIONS) -> Path:
    """Fill in a configuration of `folder`, write it for its owner's eyes alone and return its path."""
    text = (folder / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return private_file(workshop.directory / name, text)


def private_file(path: Path, text: str) -> Path:
    """Write a file for its owner's eyes alone and return its path."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def keys_file(workshop: Workshop) -> Path:
    """Write the file with the one key and its user."""
    return private_file(workshop.directory / "keys", f"{SECRET} {USER_ID}\n")


def version_from(command: list[str], pattern: str) -> str:
    """Return what the first group of `pattern` finds in what a command says of itself."""
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, finished.stdout + finished.stderr)
    return found[1] if found else "unknown"
