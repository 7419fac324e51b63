"""What open connections take that wait for their next request: memory, and CPU while nothing comes."""

import json
import resource
import sys
import time
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from bench.gateway_peer import Node
from bench.measure import ask
from bench.processes import BenchError, Beside
from bench.scale.stage import Stage
from bench.workload import Request

IDLE_SECONDS = 20.0
_SPARE_FILES = 1_000  # of a process: its stores, its upstreams, and what the kernel gives one worker more than another
_OPENING_SECONDS = 60.0
_TTL_SECONDS = 3600


@dataclass(frozen=True)
class Idle:
    """The gateway's processes with so many connections that wait. `kernel_bytes` are those of this machine's ends."""

    connections: int
    workers: int
    rss_before: int
    rss_after: int
    kernel_bytes: int
    opened_seconds: float
    idle_share: float
    empty_share: float

    HEADER = (
        "connections",
        "workers",
        "MiB before",
        "MiB after",
        "bytes each",
        "kernel, bytes each",
        "opened with a request each, per second",
        "CPU while idle, share of a core",
        "without any",
    )

    def cells(self) -> list[str]:
        """Return a row of the table."""
        count = self.connections
        return [
            f"{count:,}",
            str(self.workers),
            f"{self.rss_before / 2**20:.0f}",
            f"{self.rss_after / 2**20:.0f}",
            f"{(self.rss_after - self.rss_before) / count:,.0f}",
            f"{self.kernel_bytes / count:,.0f}",
            f"{count / self.opened_seconds:,.0f}",
            f"{self.idle_share:.1%}",
            f"{self.empty_share:.1%}",
        ]


def measure(stage: Stage, count: int, secret: str) -> Idle:
    """Open so many, let them wait, and close them; as many workers as the limit on open files asks for."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _SPARE_FILES
    shares = ceil(count / most)
    node = stage.node(workers=shares, ttl_seconds=_TTL_SECONDS)
    head = Request(secret, node.port).head()
    _warm(node, head, shares)
    node.process.settle()
    empty = _share(node)
    before, kernel = node.process.rss_bytes(), _kernel_bytes()
    began = time.monotonic()
    holders = []
    for number in range(shares):
        order = {"port": node.port, "count": (count + number) // shares, "net": 1 + number, "head": head.decode()}
        holders.append(Beside(stage.cores.load, [sys.executable, "-m", "bench.scale.holder"], json.dumps(order)))
    held = 0
    try:
        for holder in holders:
            line = holder.line()
            if not line:
                raise BenchError(f"connections were not opened: {holder.finish(_OPENING_SECONDS).errors[-500:]}")
            held += int(line)
        opened = time.monotonic() - began
        node.process.settle()
        after, kernel = node.process.rss_bytes(), _kernel_bytes() - kernel
        idle = _share(node)
    finally:
        for holder in holders:
            holder.end()
        node.process.stop()
    return Idle(held, shares, before, after, kernel // 2, opened, idle, empty)


def _warm(node: Node, head: bytes, workers: int) -> None:
    """Until each worker has met the key and has its connections. Workers that still start let callers wait."""
    deadline = time.monotonic() + _OPENING_SECONDS
    answered = 0
    while answered < 50 * workers:
        try:
            status, _ = ask(node.port, head)
        except TimeoutError:
            status = 0
        if status == 200:
            answered += 1
        elif status or time.monotonic() > deadline:
            raise BenchError(f"a good key brought {status or 'no answer'}")


def _share(node: Node) -> float:
    used, began = node.process.cpu_seconds(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return (node.process.cpu_seconds() - used) / (time.monotonic() - began)


def _kernel_bytes() -> int:
    """What the kernel holds in slabs, sockets and descriptors among it."""
    slab = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Slab:"))
    return int(slab.split()[1]) * 1024
