"""What cached keys and idle connections take in the gateway's memory."""

import contextlib
import re
import resource
import socket
from dataclasses import asdict, dataclass
from urllib.request import urlopen

from bench import report
from bench.figures import Figures
from bench.gateway_peer import Node, seed, start_node, start_stores
from bench.generator import OwnGenerator
from bench.measure import ask, start_upstream
from bench.processes import BenchError, Cores, Workshop
from bench.workload import Request

KEYS = 100_000  # the default of `cache.local_entries`
CONNECTIONS = 1_000
_LOAD_CONNECTIONS = 32
_TTL_SECONDS = 3600  # no key may be asked for again while the pass over all of them lasts
_MEBIBYTE = 2**20
_LOCAL_HITS = re.compile(r'^ostiary_auth_total\{[^}]*tier="local"[^}]*\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Growth:
    """Resident memory of the gateway's process before and after `count` things were added."""

    what: str
    count: int
    before_bytes: int
    after_bytes: int

    def cells(self) -> list[str]:
        """Return a row of the table."""
        grown = self.after_bytes - self.before_bytes
        mebibytes = [f"{value / _MEBIBYTE:.1f}" for value in (self.before_bytes, self.after_bytes, grown)]
        return [f"{self.count:,} {self.what}", *mebibytes, f"{grown / self.count:,.0f}"]


def _local_hits(node: Node) -> float:
    with urlopen(f"http://127.0.0.1:{node.status_port}/metrics") as reply:
        return sum(float(value) for value in _LOCAL_HITS.findall(reply.read().decode()))


def _admit_one(node: Node, secret: str) -> int:
    status, _ = ask(node.port, Request(secret, node.port).head())
    if status != 200:
        raise BenchError(f"a good key brought {status}")
    return node.process.rss_bytes()


def cached_keys(node: Node, secrets: list[str], core: int) -> tuple[Growth, Figures]:
    """Request every key once; return the growth and the figures of that cold pass.

    A second pass proves that the keys are held: nearly all of it must be answered from process memory.
    """
    before = _admit_one(node, secrets[0])
    heads = [Request(secret, node.port).head() for secret in secrets]
    load = OwnGenerator(core)
    cold = load.run_once_each(node.port, heads, connections=_LOAD_CONNECTIONS)
    after = node.process.rss_bytes()
    hits = _local_hits(node)
    load.run_once_each(node.port, heads, connections=_LOAD_CONNECTIONS)
    hits = _local_hits(node) - hits
    if hits < 0.99 * len(secrets):
        raise BenchError(f"only {hits:.0f} of {len(secrets)} keys were held in process memory")
    return Growth("cached keys", len(secrets), before, after), cold


def idle_connections(node: Node, secret: str) -> Growth:
    """Open connections that have made one request each and then wait; return the growth."""
    before = _admit_one(node, secret)
    head = Request(secret, node.port).head()
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", node.port)))
            client.sendall(head)
            if not client.recv(65536).startswith(b"HTTP/1.1 200"):
                raise BenchError("a good key was refused")
        after = node.process.rss_bytes()
    return Growth("idle connections", CONNECTIONS, before, after)


def run(cores: Cores) -> str:
    """Measure both, each on a fresh node, write `results/memory.*` and return the text."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    with Workshop() as workshop:
        upstream_port = start_upstream(workshop, cores.load)
        addresses = start_stores(workshop)
        assert addresses.postgres_dsn is not None
        secrets = seed(addresses.postgres_dsn, KEYS)
        node = start_node(workshop, addresses, upstream_port, cores.proxy, ttl_seconds=_TTL_SECONDS)
        keys, cold = cached_keys(node, secrets, cores.load)
        node.process.stop()
        node = start_node(workshop, addresses, upstream_port, cores.proxy)
        connections = idle_connections(node, secrets[0])
    header = ["gateway process with", "before MiB", "after MiB", "growth MiB", "bytes each"]
    lines = [header, ["---", *["---:"] * 4], keys.cells(), connections.cells()]
    text = report.markdown(lines) + (
        f"\n\nResident memory. Every key was requested once, from Postgres, at "
        f"{cold.requests / cold.seconds:,.0f} requests/s. {report.machine_sentence()}"
    )
    growths = [asdict(growth) for growth in (keys, connections)]
    report.write("memory", text, {"rows": growths, "cold_pass": asdict(cold)})
    return text
