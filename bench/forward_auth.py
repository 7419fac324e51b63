"""What a request costs that a proxy asks the gateway about, with the files of `config/forward-auth/`.

Beside it: the same proxies with a key check of their own, the gateway as the proxy itself, and the question alone.
CPU is told of the proxy and of the gateway apart; each has the core of the proxies to itself but for the other.
"""

import shlex
from dataclasses import asdict, dataclass, field
from statistics import median

from bench import generator, report
from bench.gateway_peer import Node, seed, start_node, start_stores
from bench.generator import Order, OwnGenerator, Wrk
from bench.measure import Plan, ask, start_upstream, verify
from bench.peers import CONFIGURATIONS, Envoy, HAProxy, Nginx, Peer, Running
from bench.processes import BenchError, Cores, Process, Workshop, free_port
from bench.workload import PATH, USER_ID, Request
from tests.fixtures.fronts import COMMANDS, environment, prepared

CONNECTIONS = 32
NAMES = {"nginx": "nginx", "envoy": "Envoy", "caddy": "Caddy", "traefik": "Traefik", "haproxy": "HAProxy"}
_WARM_UP_SECONDS = 2.0


@dataclass
class Row:
    """One way to check keys. CPU microseconds per request, of the proxy and of the gateway; the latter may not be."""

    name: str
    proxy_us: list[float] = field(default_factory=list)
    gateway_us: list[float] = field(default_factory=list)
    per_second: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        """Return a row of the table."""
        shown = [f"{median(values):.1f}" if values else "-" for values in (self.proxy_us, self.gateway_us)]
        return [self.name, *shown, f"{median(self.per_second):,.0f}", f"{median(self.p50_us):,.0f}"]


@dataclass(frozen=True)
class _Subject:
    row: Row
    port: int
    request: bytes
    proxy: Process | None
    gateway: Process | None


def run(cores: Cores, plan: Plan) -> str:
    """Measure all in turns, write the results and return the table."""
    with Workshop() as workshop:
        upstream_port = start_upstream(workshop, cores.load)
        addresses = start_stores(workshop)
        assert addresses.postgres_dsn is not None
        secret = seed(addresses.postgres_dsn, 1)[0]
        folder = workshop.directory / "trusting"
        folder.mkdir(mode=0o700)
        text = (CONFIGURATIONS / "gateway.yaml").read_text()
        (folder / "gateway.yaml").write_text(text + 'trusted_proxies: ["127.0.0.1/32"]\n')
        node = start_node(workshop, addresses, upstream_port, cores.proxy, folder=folder)
        subjects = [*_gateways(node, secret), *_own_checks(workshop, upstream_port, cores)]
        subjects += [_asking(name, workshop, node, upstream_port, secret, cores) for name in COMMANDS]
        load = generator.choose(workshop.directory, cores.load)
        for subject in subjects:
            _sample(subject, load, _WARM_UP_SECONDS)
        for subject in subjects:
            for values in (subject.row.proxy_us, subject.row.gateway_us, subject.row.per_second, subject.row.p50_us):
                values.clear()
        for number in range(plan.rounds):
            for subject in subjects if number % 2 == 0 else subjects[::-1]:
                _sample(subject, load, plan.seconds)
    rows = [subject.row for subject in subjects]
    head = ["", "proxy, µs CPU", "gateway, µs CPU", "requests/s", "p50, µs"]
    text = report.markdown([head, ["---", *["---:"] * 4], *(row.cells() for row in rows)])
    text += f"\n\n{CONNECTIONS} connections, medians of {plan.rounds} rounds. {report.machine_sentence()}"
    report.write("forward-auth", text, {"rows": [asdict(row) for row in rows]})
    return text


def _gateways(node: Node, secret: str) -> list[_Subject]:
    """The gateway at its two doors."""
    forwarded = Request(secret, node.port).head()
    named = (("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", PATH), ("X-Forwarded-For", "192.0.2.7"))
    asked = Request(secret, node.port, "/.ostiary/auth", more=named).head()
    return [
        _Subject(Row("Ostiary forwards"), node.port, forwarded, None, node.process),
        _Subject(Row("Ostiary is asked, by the load generator"), node.port, asked, None, node.process),
    ]


def _own_checks(workshop: Workshop, upstream_port: int, cores: Cores) -> list[_Subject]:
    peers: list[Peer] = [Nginx(), HAProxy(), Envoy()]
    subjects = []
    for peer in peers:
        if peer.version() is not None:
            running = peer.start(workshop, upstream_port, cores.proxy)
            verify(running, upstream_port)
            head = Request(running.secret, running.port).head()
            subjects.append(_Subject(Row(f"{peer.name}, its own check"), running.port, head, running.process, None))
    return subjects


def _asking(name: str, workshop: Workshop, node: Node, upstream_port: int, secret: str, cores: Cores) -> _Subject:
    folder = workshop.directory / f"asking-{name}"
    folder.mkdir(mode=0o700)
    port = free_port()
    command = prepared(name, folder, {"8000": port, "8080": node.port, "9001": upstream_port, "9002": 1})
    there = f"cd {shlex.quote(str(folder))} && exec {shlex.join(command)}"
    more = {**environment(folder), "GOMAXPROCS": "1"}
    process = workshop.start(f"asking-{name}", ["sh", "-c", there], core=cores.proxy, env=more)
    process.wait_for_port(port)
    head = Request(secret, port).head()
    process.wait_until(lambda: ask(port, head)[0] == 200)
    verify(Running(port, process, secret, identity_field=f"x-user-id: {USER_ID}"), upstream_port)
    return _Subject(Row(f"{NAMES[name]} asks Ostiary"), port, head, process, node.process)


def _sample(subject: _Subject, load: Wrk | OwnGenerator, seconds: float) -> None:
    processes = [process for process in (subject.proxy, subject.gateway) if process is not None]
    before = [process.cpu_seconds() for process in processes]
    figures = load.carry_out(Order(subject.port, [subject.request], CONNECTIONS, seconds))
    if figures.failures:
        raise BenchError(f"{subject.row.name}: {figures.failures} requests failed")
    for process, used in zip(processes, before, strict=True):
        values = subject.row.proxy_us if process is subject.proxy else subject.row.gateway_us
        values.append((process.cpu_seconds() - used) * 1e6 / figures.requests)
        process.settle()
    subject.row.per_second.append(figures.requests / figures.seconds)
    subject.row.p50_us.append(figures.p50_us)
