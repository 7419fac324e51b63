"""What a second worker brings: one on one core, two on two, under the same load."""

import os
import statistics
from dataclasses import asdict, dataclass

from bench import report
from bench.gateway_peer import Node, seed, start_node, start_stores
from bench.generator import Order, choose
from bench.measure import start_upstream
from bench.processes import Cores, Workshop
from bench.workloads import WORKLOADS

_COUNTS = (1, 2)
_NAMES = ("get", "varied")
_CONNECTIONS = 64
_ROUNDS = 5
_SECONDS = 3.0


@dataclass(frozen=True)
class Row:
    """Medians of the rounds of so many workers under one workload."""

    workload: str
    workers: int
    rate: float
    cpu_us: float
    cores_used: float
    """Of the gateway's processes, in cores."""
    rss_bytes: int

    def cells(self) -> list[str]:
        """Return a row of the table."""
        numbers = [f"{self.rate:,.0f}", f"{self.cpu_us:.1f}", f"{self.cores_used:.2f}", f"{self.rss_bytes / 2**20:.0f}"]
        return [self.workload, str(self.workers), *numbers]


def _free(node: Node, cores: Cores) -> None:
    """Let the node's processes run on every core of the benchmark."""
    for pid in node.process.pids():
        os.sched_setaffinity(pid, set(cores))


def run(cores: Cores) -> str:
    """Measure, the counts of workers in turns; write `results/workers.*` and return the text."""
    samples: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    with Workshop() as workshop:
        upstream_port = start_upstream(workshop, cores.load)
        addresses = start_stores(workshop)
        assert addresses.postgres_dsn is not None
        (secret,) = seed(addresses.postgres_dsn, 1)
        nodes = {count: start_node(workshop, addresses, upstream_port, cores.proxy, workers=count) for count in _COUNTS}
        for count, node in nodes.items():
            if count > 1:
                _free(node, cores)
        load = choose(workshop.directory, cores.load)
        workloads = [workload for workload in WORKLOADS if workload.name in _NAMES]
        for number in range(_ROUNDS + 1):  # the first warms up
            for workload in workloads:
                for count, node in nodes.items():
                    requests = [request.head() for request in workload.requests(secret, node.port)]
                    before = node.process.cpu_seconds()
                    figures = load.carry_out(Order(node.port, requests, _CONNECTIONS, _SECONDS if number else 1.0))
                    spent = node.process.cpu_seconds() - before
                    if number:
                        taken = (figures.requests / figures.seconds, spent / figures.requests, spent / figures.seconds)
                        samples.setdefault((workload.name, count), []).append(taken)
        rows = [
            Row(name, count, *_medians(taken), rss_bytes=nodes[count].process.rss_bytes())
            for (name, count), taken in samples.items()
        ]
    header = ["workload", "workers", "requests/s", "CPU µs/request", "cores used", "MiB"]
    text = report.markdown([header, ["---", *["---:"] * 5], *(row.cells() for row in rows)]) + (
        f"\n\nOne worker on the first core; two, and their supervisor, on both, of which the second is also that of"
        f" {load.name} and the upstream. Medians of {_ROUNDS} rounds of {_SECONDS:g} s, {_CONNECTIONS} connections."
        f" {report.machine_sentence()}"
    )
    report.write("workers", text, {"rows": [asdict(row) for row in rows]})
    return text


def _medians(taken: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    rate, seconds, used = (statistics.median(values) for values in zip(*taken, strict=True))
    return rate, seconds * 1e6, used
