"""What it costs to see: the access log, of all requests and sampled, and traces of one request in a hundred."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bench import measure, report, request_report, variants
from bench.peers import chosen
from bench.processes import Cores, Workshop, free_port
from bench.workloads import GET


def _variants(collector_port: int) -> Mapping[str, variants.Changes]:
    def also(line: str) -> variants.Changes:
        return (("plans:", f"{line}\nplans:"),)

    return {
        "Ostiary, neither": (),
        "Ostiary, log of 1 in 100": also("log: {format: json, access: sampled}"),
        "Ostiary, log of all": also("log: {format: json, access: full}"),
        "Ostiary, traces of 1 in 100": also(f'tracing: {{endpoint: "http://127.0.0.1:{collector_port}", share: 0.01}}'),
    }


def run(cores: Cores, plan: measure.Plan, only: Sequence[str] | None) -> int:
    """Measure, write `results/observation.*`, and return 1 where a row failed."""
    port = free_port()
    with Workshop() as workshop, tempfile.TemporaryDirectory(prefix="observation-") as folder:
        collector = workshop.start("collector", [sys.executable, "-m", "bench.collector", str(port)], core=cores.load)
        collector.wait_for_port(port)
        peers = chosen(variants.gateways(_variants(port), Path(folder)), only)
        (measured,) = measure.measure(peers, [GET], plan, cores)
    text = request_report.text(measured, plan)
    print(f"\n{text}\n", flush=True)
    if only is None:
        report.write("observation", text, {"rows": [asdict(row) for row in measured.rows]})
    return int(any(row.failure for row in measured.rows))
