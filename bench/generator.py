"""Drives the load generators, `wrk`, `bench.load` and `bench.offered`, and reads their figures."""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.figures import Figures
from bench.orders import BEGUN
from bench.processes import BenchError, Beside, Finished, run_on

_WRK_SCRIPT = Path(__file__).with_name("wrk.lua")
_GRACE_SECONDS = 30.0
_ONCE_SECONDS = 60 * _GRACE_SECONDS
_CLOSED = ("is_kept",)  # what an order says to `bench.load` alone
_OPEN = ("rate", "is_even", "status")  # and to `bench.offered` alone


@dataclass(frozen=True, repr=False)
class Order:
    """What is to be sent: the requests in turn, for `seconds`, or each once where that is None."""

    port: int
    requests: Sequence[bytes]
    connections: int
    seconds: float | None
    is_kept: bool = True
    authority: Path | None = None
    """Whose certificates are believed; with one, the connections are TLS."""
    rate: float | None = None
    """Requests a second, whatever the replies do; without one, a connection's next follows the reply to its last."""
    is_even: bool = False
    """With a rate: at even distances, where otherwise they come as a crowd does."""
    status: int = 200
    """With a rate: what each reply is to have."""

    def document(self) -> str:
        """Return what the generator reads that is meant for it."""
        document = {
            **asdict(self),
            "requests": [request.decode() for request in self.requests],
            "authority": str(self.authority) if self.authority else None,
        }
        for name in _CLOSED if self.rate is not None else _OPEN:
            del document[name]
        return json.dumps(document)


def _figures(name: str, finished: Finished) -> Figures:
    if finished.code:
        raise BenchError(f"{name} ended with {finished.code}: {finished.errors.strip()[-2000:]}")
    figures = Figures(**json.loads(finished.output.strip().splitlines()[-1]))
    if figures.failures or not figures.requests:
        raise BenchError(f"{figures.failures} of {figures.requests} requests failed")
    return figures


class Wrk:
    """`wrk`, one thread. For closed loops; it keeps no schedule."""

    name = "wrk"

    def __init__(self, directory: Path, core: int) -> None:
        self._requests_file = directory / "requests"
        self._core = core

    def carry_out(self, order: Order) -> Figures:
        """Send what was ordered, for whole seconds, and return the figures."""
        assert order.seconds is not None
        assert order.rate is None
        self._requests_file.touch(mode=0o600)
        self._requests_file.write_bytes(b"".join(b"%d\n%b" % (len(request), request) for request in order.requests))
        duration = f"{max(1, round(order.seconds))}s"
        command = ["wrk", "-t1", f"-c{order.connections}", f"-d{duration}", "--timeout", "10s", "-s", str(_WRK_SCRIPT)]
        finished = run_on(
            self._core,
            [*command, f"{'https' if order.authority else 'http'}://127.0.0.1:{order.port}/"],
            timeout_seconds=order.seconds + _GRACE_SECONDS,
            env={"BENCH_REQUESTS_FILE": str(self._requests_file)},
        )
        return _figures("wrk", finished)


class OwnGenerator:
    """`bench.load`, or `bench.offered` where there is a rate, in a process of its own."""

    name = "bench.load"

    def __init__(self, core: int) -> None:
        self._core = core

    def run(self, port: int, head: bytes, *, connections: int, seconds: float) -> Figures:
        """Repeat `head` for `seconds` and return the figures."""
        return self.carry_out(Order(port, [head], connections, seconds))

    def run_once_each(self, port: int, heads: Sequence[bytes], *, connections: int) -> Figures:
        """Send every head once and return the figures."""
        return self.carry_out(Order(port, heads, connections, None))

    def carry_out(self, order: Order) -> Figures:
        """Send what was ordered and return the figures."""
        module = "bench.load" if order.rate is None else "bench.offered"
        finished = run_on(
            self._core,
            [sys.executable, "-m", module],
            timeout_seconds=_ONCE_SECONDS if order.seconds is None else order.seconds + _GRACE_SECONDS,
            text=order.document(),
        )
        return _figures(module, finished)


class Offering:
    """An order with a rate that is being carried out; it has begun."""

    def __init__(self, order: Order, core: int) -> None:
        assert order.seconds is not None
        self._seconds = order.seconds + 2 * _GRACE_SECONDS
        self._command = Beside(core, [sys.executable, "-m", "bench.offered"], order.document())
        if self._command.line() != BEGUN:
            raise BenchError(f"bench.offered has not begun: {self._command.finish(_GRACE_SECONDS).errors[-2000:]}")

    def result(self) -> Figures:
        """Return the figures, once it has ended. Raises `BenchError` where not all went as ordered."""
        return _figures("bench.offered", self._command.finish(self._seconds))


def choose(directory: Path, core: int) -> Wrk | OwnGenerator:
    """Return the generator for a whole run: peers are comparable only under the same one."""
    return Wrk(directory, core) if shutil.which("wrk") else OwnGenerator(core)
