"""Starting, pinning, reading and stopping processes. Linux: the figures come from /proc and the CPU clocks."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_SETTLE_SECONDS = 5.0
_SETTLE_LOOK_SECONDS = 0.1
_SETTLED_SHARE = 0.2  # of a core
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CPUCLOCK_SCHED = 2
_PR_SET_PDEATHSIG = 1


class BenchError(Exception):
    """A part of the benchmark did not do what it must; the text says which and why."""


class Cores(NamedTuple):
    """The core of the proxies, and that of the load generator, the upstream and all else."""

    proxy: int
    load: int


def take_cores() -> Cores:
    """Choose two cores (the same one twice where there is only one) and move this process off the proxies'."""
    usable = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {usable[-1]})
    return Cores(usable[0], usable[-1])


def free_port() -> int:
    """Return a loopback port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stat_fields(pid: int) -> list[str]:
    # The command's name may hold spaces and parentheses: the fields begin after the last one.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_clock(pid: int) -> int:
    # clock_getcpuclockid(3), which Python lacks: nanoseconds, where /proc/PID/stat counts hundredths of a second.
    return (~pid << 3) | _CPUCLOCK_SCHED


def family(root: int) -> list[int]:
    """Return the ids of a process and of all its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(_stat_fields(int(entry.name))[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


@contextlib.contextmanager
def _signals_held() -> Iterator[set[int | signal.Signals]]:
    """Let those that end this process wait until the block has ended; give the mask before it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _spawn(
    command: list[str], core: int, env: Mapping[str, str] | None, *, stdin: int, stdout: IO[bytes] | int, stderr: int
) -> subprocess.Popen[bytes]:
    """Start a process group on one core, whose first process gets SIGTERM when this process dies.

    Signals wait meanwhile: what Python runs around a fork would swallow the exceptions that they raise.
    """
    libc = ctypes.CDLL(None)
    with _signals_held() as mask:

        def before_exec() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            os.sched_setaffinity(0, {core})
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=before_exec,
        )


@dataclass(frozen=True)
class Finished:
    """What a command that has ended said."""

    code: int
    output: str
    errors: str


def cpu_seconds_of(root: int) -> float:
    """Return what a process that is not ours, and its descendants, have used so far."""
    ticks = sum(map(int, _stat_fields(root)[13:15]))  # of those children that have ended
    used = ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    for pid in family(root):
        # Of many processes that do little each, the clock ticks of their `stat` would round most of it away.
        with contextlib.suppress(FileNotFoundError):  # one that has just ended
            used += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return used / 1e9


def run_on(
    core: int, command: list[str], *, timeout_seconds: float, text: str = "", env: Mapping[str, str] | None = None
) -> Finished:
    """Run a command to its end, with `text` to read. Raises `BenchError` when it takes longer."""
    with _spawn(command, core, env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            output, errors = child.communicate(text.encode(), timeout_seconds)
        except subprocess.TimeoutExpired as expired:
            child.kill()
            raise BenchError(f"{command[0]} took longer than {timeout_seconds:g} s") from expired
        except BaseException:
            child.kill()
            raise
    return Finished(child.returncode, output.decode(), errors.decode())


class Beside:
    """A command that runs on a core while other things are done, with `text` to read."""

    def __init__(self, core: int, command: list[str], text: str) -> None:
        self._name = command[0]
        pipe = subprocess.PIPE
        self._child = _spawn(command, core, None, stdin=pipe, stdout=pipe, stderr=pipe)
        assert self._child.stdin is not None
        self._child.stdin.write(text.encode())
        self._child.stdin.close()
        self._child.stdin = None

    def line(self) -> str:
        """Return the next line that it prints, once it does; empty where it has ended."""
        assert self._child.stdout is not None
        return self._child.stdout.readline().decode()

    def finish(self, timeout_seconds: float) -> Finished:
        """Return what it has said besides, once it has ended. Raises `BenchError` when that takes longer."""
        try:
            output, errors = self._child.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired as expired:
            self._child.kill()
            raise BenchError(f"{self._name} took longer than {timeout_seconds:g} s") from expired
        return Finished(self._child.returncode, output.decode(), errors.decode())

    def end(self) -> None:
        """End it, whatever it is at. Harmless when it has ended."""
        self._child.kill()
        self._child.communicate()


class Process:
    """A child process of ours, on one core, in its own process group, with its output in a file.

    It gets SIGTERM when this process dies, however that happens.
    """

    def __init__(
        self, name: str, command: list[str], *, core: int, directory: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._log = directory / f"{name.replace(' ', '-')}.log"
        with self._log.open("wb") as log:
            self._child = _spawn(command, core, env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    @property
    def pid(self) -> int:
        """The id of the process that was started."""
        return self._child.pid

    def output(self) -> str:
        """Return what it has written so far."""
        return self._log.read_text(errors="replace")

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Return when `is_ready()`; raise `BenchError` when the process has ended or half a minute has passed."""
        deadline = time.monotonic() + _START_SECONDS
        while not is_ready():
            ended = self._child.poll()
            if ended is not None or time.monotonic() > deadline:
                what = f"ended with {ended}" if ended is not None else "was not ready in time"
                raise BenchError(f"{self.name} {what}: {self.output()[-2000:].strip()}")
            time.sleep(0.02)

    def wait_for_port(self, port: int) -> None:
        """Return when something accepts connections on `port`."""

        def is_listening() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        self.wait_until(is_listening)

    def printed_port(self) -> int:
        """Return the port that the process prints as its first line."""
        self.wait_until(lambda: self.output().endswith("\n"))
        return int(self.output().split()[0])

    def pids(self) -> list[int]:
        """Return the ids of the process and of all its descendants. Raises `BenchError` when it has ended."""
        ended = self._child.poll()
        if ended is not None:
            raise BenchError(f"{self.name} ended with {ended}: {self.output()[-2000:].strip()}")
        return family(self.pid)

    def cpu_seconds(self) -> float:
        """Return the user and system time that the process and its descendants have used so far."""
        return sum(time.clock_gettime(_cpu_clock(pid)) for pid in self.pids())

    def settle(self) -> None:
        """Return when it computes next to nothing any more, or when its patience has passed.

        What was on its way when a load ended is its next neighbour's disturbance.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(_SETTLE_LOOK_SECONDS)
            now = self.cpu_seconds()
            if now - before <= _SETTLED_SHARE * _SETTLE_LOOK_SECONDS:
                return
            before = now

    def rss_bytes(self) -> int:
        """Return the resident memory of the process and its descendants."""
        return sum(int(_stat_fields(pid)[21]) for pid in self.pids()) * _PAGE_BYTES

    def forget_peak_rss(self) -> None:
        """Begin anew with what `peak_rss_bytes` answers."""
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_rss_bytes(self) -> int:
        """Return the highest resident memory since it was forgotten, each process by itself, added up."""
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in self.pids()]
        return sum(int(status.partition("VmHWM:")[2].split()[0]) for status in statuses) * 1024

    def stop(self) -> None:
        """End the whole process group: SIGTERM, then SIGKILL. Harmless when it has ended."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                break
            try:
                self._child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        self._child.wait()


class Workshop:
    """A temporary folder and the processes started in it; all are gone when the block ends, last first."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self.directory = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))

    def start(self, name: str, command: list[str], *, core: int, env: Mapping[str, str] | None = None) -> Process:
        """Start a process that is stopped when the block ends."""
        process = Process(name, command, core=core, directory=self.directory, env=env)
        self._open.callback(process.stop)
        return process

    def on_close(self, closer: Callable[[], object]) -> None:
        """Call `closer` when the block ends, before what was registered earlier."""
        self._open.callback(closer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _signals_held():  # whoever presses Ctrl-C twice gets the same
            self._open.__exit__(kind, error, trace)
