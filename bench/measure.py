"""Verification, warm-up and interleaved rounds."""

import socket
import sys
from dataclasses import dataclass, field
from http.client import HTTPResponse

from bench import generator
from bench.peers import Peer, Running
from bench.processes import BenchError, Cores, Workshop
from bench.workload import USER_ID, Request, reply_body

_WARM_UP_SECONDS = 1.0
_REPLY_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    seconds: float
    connections: int


@dataclass(frozen=True)
class Sample:
    """One round of one peer. CPU figures are of the proxy's processes alone; `None` where there is no proxy."""

    requests: int
    requests_per_second: float
    p50_us: float
    p99_us: float
    cpu_us_per_request: float | None
    core_share: float | None


@dataclass
class Row:
    """What is known of one peer: absent, failed, or measured."""

    name: str
    version: str | None
    failure: str | None = None
    samples: list[Sample] = field(default_factory=list)


def start_upstream(workshop: Workshop, core: int) -> int:
    """Start the origin on `core` and return its port."""
    return workshop.start("upstream", [sys.executable, "-m", "bench.upstream"], core=core).printed_port()


def ask(port: int, head: bytes) -> tuple[int, bytes]:
    """Send one request on a connection of its own and return status and body."""
    with socket.create_connection(("127.0.0.1", port), _REPLY_TIMEOUT_SECONDS) as connection:
        connection.sendall(head)
        with HTTPResponse(connection) as reply:
            reply.begin()
            return reply.status, reply.read()


def verify(running: Running, upstream_port: int) -> None:
    """Raise `BenchError` unless the proxy does the work that is to be measured.

    A good key brings the whole reply, and the upstream reads the user's name; no key and a wrong key bring
    401, and nothing reaches the upstream.
    """
    seen = Request(None, upstream_port, "/.seen").head()
    status, body = ask(running.port, Request(running.secret, running.port).head())
    if status != 200 or body != reply_body():
        raise BenchError(f"a good key brought {status} and {body[:200]!r}")
    if not running.is_authenticating:
        return
    _, arrived = ask(upstream_port, seen)
    if f"\r\nx-user-id: {USER_ID}\r\n" not in arrived.decode().lower():
        raise BenchError("the upstream was not told who is calling")
    wrong = running.secret[:-1] + ("A" if running.secret[-1] != "A" else "B")
    for secret in (None, wrong):
        status, _ = ask(running.port, Request(secret, running.port, "/orders/refused").head())
        if status != 401:
            raise BenchError(f"{'a wrong' if secret else 'no'} key brought {status}, not 401")
    if ask(upstream_port, seen)[1] != arrived:
        raise BenchError("a refused request reached the upstream")


def _sample(load: generator.Wrk | generator.OwnGenerator, running: Running, plan: Plan) -> Sample:
    head = Request(running.secret, running.port).head()
    before = running.process.cpu_seconds() if running.process else 0.0
    figures = load.run(running.port, head, connections=plan.connections, seconds=plan.seconds)
    cpu_seconds = running.process.cpu_seconds() - before if running.process else None
    return Sample(
        requests=figures.requests,
        requests_per_second=figures.requests / figures.seconds,
        p50_us=figures.p50_us,
        p99_us=figures.p99_us,
        cpu_us_per_request=None if cpu_seconds is None else cpu_seconds * 1e6 / figures.requests,
        core_share=None if cpu_seconds is None else cpu_seconds / figures.seconds,
    )


def measure(peers: list[Peer], plan: Plan, cores: Cores) -> tuple[list[Row], str]:
    """Measure every peer that is installed; return a row for each, and the load generator's name.

    All of them run at once and take turns, so that a slow minute of the machine falls on all alike.
    """
    rows = [Row(peer.name, peer.version()) for peer in peers]
    taking_part: list[tuple[Row, Running]] = []
    with Workshop() as workshop:
        load = generator.choose(workshop.directory, cores.load)
        upstream_port = start_upstream(workshop, cores.load)
        for peer, row in zip(peers, rows, strict=True):
            if row.version is None:
                continue
            print(f"starting {row.name} {row.version}", file=sys.stderr)
            try:
                running = peer.start(workshop, upstream_port, cores.proxy)
                verify(running, upstream_port)
                head = Request(running.secret, running.port).head()
                load.run(running.port, head, connections=plan.connections, seconds=_WARM_UP_SECONDS)
            except Exception as error:  # whatever it is, it is one row's
                row.failure = str(error) or repr(error)
                continue
            taking_part.append((row, running))
        for number in range(plan.rounds):
            print(f"round {number + 1} of {plan.rounds}", file=sys.stderr)
            order = taking_part if number % 2 == 0 else taking_part[::-1]
            for row, running in order:
                if row.failure is not None:
                    continue
                try:
                    row.samples.append(_sample(load, running, plan))
                except Exception as error:
                    row.failure = str(error) or repr(error)
    return rows, load.name
