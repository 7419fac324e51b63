"""Drives the load generator, `wrk` or else `bench.load`, and reads its figures."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BenchError

_WRK_SCRIPT = Path(__file__).with_name("wrk.lua")
_GRACE_SECONDS = 30.0


@dataclass(frozen=True)
class Figures:
    """What one run of the load generator measured."""

    requests: int
    seconds: float
    failures: int
    p50_us: float
    p99_us: float


def _figures(name: str, finished: subprocess.CompletedProcess[str]) -> Figures:
    if finished.returncode:
        raise BenchError(f"{name} ended with {finished.returncode}: {finished.stderr.strip()[-2000:]}")
    figures = Figures(**json.loads(finished.stdout.strip().splitlines()[-1]))
    if figures.failures or not figures.requests:
        raise BenchError(f"{figures.failures} of {figures.requests} requests failed")
    return figures


class Wrk:
    """`wrk`, one thread."""

    name = "wrk"

    def __init__(self, directory: Path, core: int) -> None:
        self._head_file = directory / "head"
        self._core = core

    def run(self, port: int, head: bytes, *, connections: int, seconds: float) -> Figures:
        """Repeat `head` for about `seconds` (wrk counts whole ones) and return the figures."""
        self._head_file.write_bytes(head)
        duration = f"{max(1, round(seconds))}s"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{duration}", "-s", str(_WRK_SCRIPT)]
        finished = subprocess.run(
            [*command, f"http://127.0.0.1:{port}/"],
            env={**os.environ, "BENCH_HEAD_FILE": str(self._head_file)},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + _GRACE_SECONDS,
            preexec_fn=lambda: os.sched_setaffinity(0, {self._core}),
        )
        return _figures("wrk", finished)


class OwnGenerator:
    """`bench.load`, in a process of its own."""

    name = "bench.load"

    def __init__(self, core: int) -> None:
        self._core = core

    def run(self, port: int, head: bytes, *, connections: int, seconds: float) -> Figures:
        """Repeat `head` for `seconds` and return the figures."""
        return self._order(port, [head], connections, seconds, seconds + _GRACE_SECONDS)

    def run_once_each(self, port: int, heads: Sequence[bytes], *, connections: int) -> Figures:
        """Send every head once and return the figures."""
        return self._order(port, heads, connections, None, 60 * _GRACE_SECONDS)

    def _order(
        self, port: int, heads: Sequence[bytes], connections: int, seconds: float | None, timeout_seconds: float
    ) -> Figures:
        order = {
            "port": port,
            "connections": connections,
            "seconds": seconds,
            "heads": [head.decode() for head in heads],
        }
        finished = subprocess.run(
            [sys.executable, "-m", "bench.load"],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
            preexec_fn=lambda: os.sched_setaffinity(0, {self._core}),
        )
        return _figures("bench.load", finished)


def choose(directory: Path, core: int) -> Wrk | OwnGenerator:
    """Return the generator for a whole run: peers are comparable only under the same one."""
    return Wrk(directory, core) if shutil.which("wrk") else OwnGenerator(core)
