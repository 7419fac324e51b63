"""One command that measures all, whatever becomes of a part, and that leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil

from bench.measure import Plan, measure
from bench.peers import PLAIN, Direct, Peer, Running, Shape, Tunnel
from bench.processes import BenchError, Cores, Workshop
from bench.workloads import WORKLOADS

_CORE = min(os.sched_getaffinity(0))
_PLAN = Plan(rounds=2, seconds=0.2, warm_up_seconds=0.2)
_SECONDS = 30.0


class Absent(Tunnel):
    """Not installed."""

    name = "absent"

    def version(self) -> str | None:
        return None


class Unstartable(Tunnel):
    """Installed, and fails when it is started."""

    name = "unstartable"

    def start(self, workshop: Workshop, upstream_port: int, core: int, shape: Shape = PLAIN) -> Running:
        raise BenchError("no reason given")


class Dying(Tunnel):
    """Started, and ends before it is measured."""

    name = "dying"

    def start(self, workshop: Workshop, upstream_port: int, core: int, shape: Shape = PLAIN) -> Running:
        running = super().start(workshop, upstream_port, core, shape)
        assert running.process is not None
        running.process.stop()
        return running


class Remembering(Tunnel):
    """Remembers its process."""

    pid = 0

    def start(self, workshop: Workshop, upstream_port: int, core: int, shape: Shape = PLAIN) -> Running:
        running = super().start(workshop, upstream_port, core, shape)
        assert running.process is not None
        self.pid = running.process.pid
        return running


def test_what_fails_is_one_row() -> None:
    """A peer that is missing, cannot be started or dies costs the others nothing."""
    tunnel = Remembering()
    peers: list[Peer] = [Direct(), Absent(), Unstartable(), Dying(), tunnel]
    workloads = [replace(workload, rounds_long=1) for workload in WORKLOADS if workload.name in ("get", "offered")]
    measured = list(measure(peers, workloads, _PLAN, Cores(_CORE, _CORE)))
    assert [result.workload.name for result in measured] == ["get", "offered"]
    for result in measured:
        direct, absent, unstartable, dying, through = result.rows
        assert (absent.version, absent.failure, absent.samples) == (None, None, [])
        assert unstartable.failure == "no reason given"
        assert dying.failure is not None
        assert not dying.samples
        for row in (direct, through):
            assert row.failure is None
            assert len(row.samples) == _PLAN.rounds
        assert all(sample.cpu_us_per_request is None for sample in direct.samples)
        assert all((sample.cpu_us_per_request or 0) > 0 for sample in through.samples)
        assert all((sample.peak_rss_bytes or 0) > 2**20 for sample in through.samples)
        assert all((sample.late_p99_us is None) == (result.workload.rate is None) for sample in through.samples)
    assert not psutil.pid_exists(tunnel.pid)


def test_an_interrupt_leaves_no_process_behind(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a round ends all that was started, and the command says so by its code."""
    words = ["http", "--workload", "get", "--rounds", "50", "--only", "tunnel", "ostiary"]
    log = tmp_path / "log"
    with log.open("w") as output:
        command = subprocess.Popen(
            [sys.executable, "-m", "bench", *words],
            stderr=output,
            stdout=output,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whoever runs the tests may ignore it
        )
    try:
        deadline = time.monotonic() + 2 * _SECONDS
        while "round 1" not in log.read_text():
            assert command.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        started = psutil.Process(command.pid).children(recursive=True)
        assert len(started) >= 4, started  # origin, tunnel, gateway, stores
        command.send_signal(signal.SIGINT)
        assert command.wait(_SECONDS) == 130
        _, left = psutil.wait_procs(started, timeout=5)
        assert left == []
    finally:
        if command.poll() is None:
            command.kill()
            command.wait()
