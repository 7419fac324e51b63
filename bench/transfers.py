"""What a gigabyte each way and 100,000 WebSocket messages cost the proxy."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

from bench import report
from bench.measure import ask
from bench.peers import Peer, Running
from bench.processes import BenchError, Cores, Workshop, run_on
from bench.transfer_workload import MESSAGE_BYTES, checksum
from bench.workload import Request

GIGABYTE = 10**9
MESSAGES = 100_000
CONNECTIONS = 32
WINDOW = 32
_PROOF_BYTES = 8_000_001
_PROOF_MESSAGES = 3_200
_GRACE_SECONDS = 120.0
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class Transfer:
    """One workload. `count` is of bytes or messages; `unit` says what a CPU figure is per."""

    name: str
    what: str
    count: int
    unit: str
    window: int = 1


TRANSFERS = (
    Transfer("1 GB down", "download", GIGABYTE, "CPU s/GB"),
    Transfer("1 GB up", "upload", GIGABYTE, "CPU s/GB"),
    Transfer("messages, 1 under way", "messages", MESSAGES, "CPU µs/message"),
    Transfer(f"messages, {WINDOW} under way", "messages", MESSAGES, "CPU µs/message", WINDOW),
)


@dataclass(frozen=True)
class Sample:
    """One transfer of one peer. CPU and memory are of the proxy's processes; `None` where there is no proxy."""

    seconds: float
    cpu_seconds: float | None
    peak_rss_bytes: int | None


@dataclass
class Row:
    """What is known of one peer: absent, failed, or measured; samples by the name of the transfer."""

    name: str
    version: str | None
    failure: str | None = None
    samples: dict[str, list[Sample]] = field(default_factory=dict)


def _carry(running: Running, transfer: Transfer, core: int, *, is_checked: bool = False) -> tuple[float, int]:
    """Have `bench.transfer_load` carry it; return seconds and checksum. Raises `BenchError`."""
    order = {
        "what": transfer.what,
        "port": running.port,
        "secret": running.secret,
        "count": transfer.count,
        "connections": CONNECTIONS,
        "window": transfer.window,
        "is_checked": is_checked,
    }
    command = [sys.executable, "-m", "bench.transfer_load"]
    finished = run_on(core, command, timeout_seconds=_GRACE_SECONDS, text=json.dumps(order))
    if finished.code:
        raise BenchError(f"{transfer.name}: {finished.errors.strip()[-2000:]}")
    figures = json.loads(finished.output)
    return float(figures["seconds"]), int(figures["crc"])


def verify(running: Running, core: int) -> None:
    """Raise `BenchError` unless bodies arrive unchanged both ways, messages come back, and no key brings 401."""
    for what in ("download", "upload"):
        _, crc = _carry(running, Transfer(what, what, _PROOF_BYTES, ""), core, is_checked=True)
        if crc != checksum(_PROOF_BYTES):
            raise BenchError(f"a body changed on its way ({what})")
    for window in (1, WINDOW):
        _carry(running, Transfer("messages", "messages", _PROOF_MESSAGES, "", window), core)
    if running.is_authenticating:
        status, _ = ask(running.port, Request(None, running.port, "/orders/bytes?1").head())
        if status != 401:
            raise BenchError(f"no key brought {status}, not 401")


def _sample(running: Running, transfer: Transfer, core: int) -> Sample:
    process = running.process
    if process is None:
        return Sample(_carry(running, transfer, core)[0], None, None)
    process.forget_peak_rss()
    before = process.cpu_seconds()
    seconds, _ = _carry(running, transfer, core)
    return Sample(seconds, process.cpu_seconds() - before, process.peak_rss_bytes())


def measure(peers: Sequence[Peer], rounds: int, cores: Cores) -> list[Row]:
    """Measure every peer that is installed; all run at once and take turns, as in `bench.measure`."""
    rows = [Row(peer.name, peer.version()) for peer in peers]
    taking_part: list[tuple[Row, Running]] = []
    with Workshop() as workshop:
        command = [sys.executable, "-m", "bench.transfer_upstream"]
        upstream_port = workshop.start("transfer_upstream", command, core=cores.load).printed_port()
        for peer, row in zip(peers, rows, strict=True):
            if row.version is None:
                continue
            print(f"starting {row.name} {row.version}", file=sys.stderr)
            try:
                running = peer.start(workshop, upstream_port, cores.proxy)
                verify(running, cores.load)
            except Exception as error:  # whatever it is, it is one row's
                row.failure = str(error) or repr(error)
                continue
            taking_part.append((row, running))
        for number in range(rounds):
            print(f"transfers, round {number + 1} of {rounds}", file=sys.stderr)
            for row, running in taking_part if number % 2 == 0 else taking_part[::-1]:
                if row.failure is not None:
                    continue
                try:
                    for transfer in TRANSFERS:
                        row.samples.setdefault(transfer.name, []).append(_sample(running, transfer, cores.load))
                except Exception as error:
                    row.failure = str(error) or repr(error)
    return rows


def _cost(transfer: Transfer, samples: Sequence[Sample]) -> list[str]:
    """CPU with its spread, seconds, and peak memory of one transfer."""
    seconds = f"{median(sample.seconds for sample in samples):.2f}"
    cpu = [sample.cpu_seconds for sample in samples if sample.cpu_seconds is not None]
    peaks = [sample.peak_rss_bytes for sample in samples if sample.peak_rss_bytes is not None]
    if not cpu or not peaks:
        return ["-", "-", seconds, "-"]
    scale, digits = (1e6 / transfer.count, 1) if transfer.what == "messages" else (1.0, 2)
    spread = f"{min(cpu) * scale:.{digits}f} - {max(cpu) * scale:.{digits}f}"
    return [f"**{median(cpu) * scale:.{digits}f}**", spread, seconds, f"{max(peaks) / _MEBIBYTE:.0f}"]


def table(rows: Sequence[Row]) -> str:
    """Return one Markdown table for each transfer."""
    parts = []
    for transfer in TRANSFERS:
        lines = [["proxy", "version", transfer.unit, "spread", "seconds", "peak MiB"], ["---", "---", *["---:"] * 4]]
        for row in rows:
            if row.version is None:
                lines.append([row.name, "not installed", *["-"] * 4])
            elif row.failure is not None:
                lines.append([row.name, row.version, f"failed: {row.failure.splitlines()[-1][:120]}", *["-"] * 3])
            else:
                lines.append([row.name, row.version, *_cost(transfer, row.samples[transfer.name])])
        parts.append(f"**{transfer.name}**\n\n{report.markdown(lines)}")
    return "\n\n".join(parts)


def caption(rounds: int) -> str:
    """Return one paragraph that says what was measured and on what."""
    return (
        f"Medians of {rounds} interleaved rounds. A body of {GIGABYTE:,} bytes with a length, on one connection. "
        f"{MESSAGES:,} text messages of {MESSAGE_BYTES} bytes, each of which comes back, over {CONNECTIONS} WebSockets "
        f"with 1 or {WINDOW} messages under way on each. {report.machine_sentence()}"
    )


def write(rows: Sequence[Row], rounds: int, text: str) -> None:
    """Write the results, every sample included, and `text`."""
    report.write("transfers", text, {"rounds": rounds, "rows": [asdict(row) for row in rows]})
