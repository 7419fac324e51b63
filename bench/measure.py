"""Verification, warm-up and interleaved rounds."""

import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPResponse
from pathlib import Path

from bench import generator
from bench.certificates import Certificate, client_context
from bench.generator import OwnGenerator, Wrk
from bench.peers import Peer, Running, Shape
from bench.processes import BenchError, Cores, Workshop
from bench.workload import Request
from bench.workloads import GET, Workload, prefixes

_REPLY_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Plan:
    """How much is measured of each workload."""

    rounds: int
    seconds: float
    warm_up_seconds: float = 2.0


@dataclass(frozen=True)
class Sample:
    """One round of one peer. CPU and memory are of the proxy's processes alone; `None` where there is no proxy."""

    requests: int
    requests_per_second: float
    p50_us: float
    p99_us: float
    p999_us: float
    late_p99_us: float | None
    cpu_us_per_request: float | None
    core_share: float | None
    peak_rss_bytes: int | None


@dataclass
class Row:
    """What is known of one peer under one workload: absent, failed, or measured."""

    name: str
    version: str | None
    failure: str | None = None
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """What is known of one workload."""

    workload: Workload
    rows: list[Row]
    load_name: str


def start_upstream(workshop: Workshop, core: int) -> int:
    """Start the origin on `core` and return its port."""
    return workshop.start("upstream", [sys.executable, "-m", "bench.upstream"], core=core).printed_port()


def ask(port: int, request: bytes, authority: Path | None = None) -> tuple[int, bytes]:
    """Send one request on a connection of its own, in TLS with an authority, and return status and body."""
    with socket.create_connection(("127.0.0.1", port), _REPLY_TIMEOUT_SECONDS) as plain:
        connection = plain
        if authority is not None:
            connection = client_context(authority).wrap_socket(plain, server_hostname="127.0.0.1")
        with connection, HTTPResponse(connection) as reply:
            connection.sendall(request)
            reply.begin()
            return reply.status, reply.read()


def verify(running: Running, upstream_port: int, workload: Workload = GET, authority: Path | None = None) -> None:
    """Raise `BenchError` unless the proxy does the work that is to be measured.

    A good key brings the whole reply, and the upstream reads the caller's name, no key, and the whole body; no key and
    a wrong key bring 401, and nothing reaches the upstream.
    """
    seen = Request(None, upstream_port, "/.seen").head()
    plain = workload.requests(running.secret, running.port)[0]
    request = replace(plain, path=f"{plain.path}&proof={running.port}")
    status, body = ask(running.port, request.whole(), authority)
    if status != 200 or body != workload.reply:
        raise BenchError(f"a good key brought {status} and {body[:200]!r}")
    if not running.is_authenticating:
        return
    _, arrived = ask(upstream_port, seen)
    head, _, forwarded = arrived.partition(b"\r\n\r\n")
    if f"&proof={running.port} ".encode() not in head:
        raise BenchError("the upstream was sent another request")
    if f"\r\n{running.identity_field}\r\n" not in head.decode().lower() + "\r\n":
        raise BenchError("the upstream was not told who is calling")
    if running.secret.encode() in head:
        raise BenchError("the upstream was given the key")
    if forwarded != workload.body:
        raise BenchError("the upstream was not given the whole body")
    wrong = running.secret[:-1] + ("A" if running.secret[-1] != "A" else "B")
    for secret in (None, wrong):
        refused = replace(request, secret=secret, path=f"{request.path}&refused=1")
        status, _ = ask(running.port, refused.whole(), authority)
        if status != 401:
            raise BenchError(f"{'a wrong' if secret else 'no'} key brought {status}, not 401")
    if ask(upstream_port, seen)[1] != arrived:
        raise BenchError("a refused request reached the upstream")


_Started = tuple[Peer, Running | Exception]


@dataclass
class _Stand:
    """Where the peers of one shape stand."""

    shape: Shape
    workshop: Workshop
    upstream_port: int
    cores: Cores
    load: Wrk | OwnGenerator

    @property
    def authority(self) -> Path | None:
        return self.shape.certificate.authority if self.shape.certificate else None

    def start(self, peer: Peer) -> Running:
        return peer.start(self.workshop, self.upstream_port, self.cores.proxy, self.shape)

    def generator_for(self, workload: Workload) -> Wrk | OwnGenerator:
        """`wrk` resumes TLS sessions, and keeps no schedule: for these, ours."""
        is_for_own = workload.rate is not None or (workload.has_tls and not workload.is_kept)
        return OwnGenerator(self.cores.load) if is_for_own else self.load

    def load_name(self, workload: Workload) -> str:
        return self.generator_for(workload).name if workload.rate is None else "bench.offered"

    def sample(self, running: Running, workload: Workload, seconds: float) -> Sample:
        order = generator.Order(
            running.port,
            [request.whole() for request in workload.requests(running.secret, running.port)],
            workload.connections,
            seconds,
            workload.is_kept,
            self.authority,
            workload.rate,
        )
        load = self.generator_for(workload)
        process = running.process
        if process is None:
            figures, cpu_seconds, peak_rss_bytes = load.carry_out(order), None, None
        else:
            process.forget_peak_rss()
            before = process.cpu_seconds()
            figures = load.carry_out(order)
            cpu_seconds, peak_rss_bytes = process.cpu_seconds() - before, process.peak_rss_bytes()
            process.settle()
        return Sample(
            requests=figures.requests,
            requests_per_second=figures.requests / figures.seconds,
            p50_us=figures.p50_us,
            p99_us=figures.p99_us,
            p999_us=figures.p999_us,
            late_p99_us=figures.late_p99_us,
            cpu_us_per_request=None if cpu_seconds is None else cpu_seconds * 1e6 / figures.requests,
            core_share=None if cpu_seconds is None else cpu_seconds / figures.seconds,
            peak_rss_bytes=peak_rss_bytes,
        )


def _rounds(stand: _Stand, started: Sequence[_Started], workload: Workload, plan: Plan) -> list[Row]:
    """Verify every peer, then let them take turns; what fails ends one row."""
    rows = [Row(peer.name, peer.version()) for peer, _ in started]
    taking_part: list[tuple[Row, Running]] = []
    for row, (_, running) in zip(rows, started, strict=True):
        try:
            if isinstance(running, Exception):
                raise running
            verify(running, stand.upstream_port, workload, stand.authority)
            taking_part.append((row, running))
        except Exception as error:  # whatever it is, it is one row's
            row.failure = str(error) or repr(error)
    for number in range(plan.rounds):
        print(f"{workload.name}, round {number + 1} of {plan.rounds}", file=sys.stderr)
        for row, running in taking_part if number % 2 == 0 else taking_part[::-1]:
            if row.failure is None:
                try:
                    row.samples.append(stand.sample(running, workload, plan.seconds * workload.rounds_long))
                except Exception as error:
                    row.failure = str(error) or repr(error)
    return rows


def _start(stand: _Stand, peers: Sequence[Peer], warming: Workload, warm_up_seconds: float) -> list[_Started]:
    started: list[_Started] = []
    for peer in peers:
        print(f"starting {peer.name} {peer.version()}", file=sys.stderr)
        try:
            running = stand.start(peer)
            verify(running, stand.upstream_port, warming, stand.authority)
            stand.sample(running, warming, warm_up_seconds)
            started.append((peer, running))
        except Exception as error:
            started.append((peer, error))
    return started


def _shape(workload: Workload) -> tuple[bool, bool]:
    return workload.has_tls, workload.has_routes


def measure(peers: Sequence[Peer], workloads: Sequence[Workload], plan: Plan, cores: Cores) -> Iterator[Measured]:
    """Measure every peer that is installed under every workload, and yield each workload once it is done.

    All peers run at once and take turns, so that a slow minute of the machine falls on all alike. They are started
    once for the workloads that need the same of them.
    """
    for key in dict.fromkeys(map(_shape, workloads)):
        has_tls, has_routes = key
        with Workshop() as workshop:
            certificate = Certificate.made_in(workshop.directory) if has_tls else None
            shape = Shape(certificate, prefixes() if has_routes else ())
            load = generator.choose(workshop.directory, cores.load)
            stand = _Stand(shape, workshop, start_upstream(workshop, cores.load), cores, load)
            able = [peer for peer in peers if peer.can(shape)]
            fitting = [workload for workload in workloads if _shape(workload) == key]
            installed = [peer for peer in able if peer.version() is not None]
            started = _start(stand, installed, fitting[0], plan.warm_up_seconds)
            for workload in fitting:
                rows = {row.name: row for row in _rounds(stand, started, workload, plan)}
                whole = [rows.get(peer.name) or Row(peer.name, None) for peer in able]
                yield Measured(workload, whole, stand.load_name(workload))
