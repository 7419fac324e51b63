"""Load at a fixed rate, whatever becomes of it: a request leaves when it is due, and its latency begins then.

One that finds no free connection waits for one, and that wait is in its latency: a server that stands still for a
moment pays for all who come in it, as it would in life. `offer` is for a loop of `precise_loop`: uvloop's timers, as
those of epoll, are whole milliseconds.

As a program it reads one order on standard input, prints a line when the first request leaves, and then the figures.
"""

import asyncio
import itertools
import json
import os
import re
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from bench.processes import BenchError

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_GRACE_SECONDS = 30.0
_BEGUN = "begun\n"


@dataclass(frozen=True)
class Order:
    """What is offered: these requests in turn, and again from the first. Each reply must have `status`."""

    port: int
    requests: Sequence[bytes]
    rate: float  # per second
    seconds: float
    connections: int = 32
    status: int = 200


@dataclass(frozen=True)
class Offered:
    """What became of it: seconds from when each request was due to the end of its reply, in order of size.

    `late_seconds`: how late the generator itself was in all but one of a hundred; what is below that is not measured.
    """

    latencies: list[float]
    late_seconds: float

    def percentile_ms(self, share: float) -> float:
        """Milliseconds that `share` of the requests did not exceed."""
        return _at(self.latencies, share) * 1000


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class _Crowd:
    """The connections, and the requests that are due and wait for one, first come first served."""

    def __init__(self, status: int) -> None:
        self.status_line = b"HTTP/1.1 %d " % status
        self.idle: deque[_Line] = deque()
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.latencies: list[float] = []
        self.complaint: str | None = None
        self.is_settled = asyncio.Event()

    def send(self, request: bytes, due_at: float) -> None:
        if self.idle:
            self.idle.popleft().send(request, due_at)
        else:
            self.waiting.append((due_at, request))

    def answered(self, line: "_Line", seconds: float) -> None:
        self.latencies.append(seconds)
        if self.waiting:
            due_at, request = self.waiting.popleft()
            line.send(request, due_at)
        else:
            self.idle.append(line)
            self.is_settled.set()

    def complain(self, text: str) -> None:
        self.complaint = self.complaint or text
        self.is_settled.set()


class _Line(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, crowd: _Crowd) -> None:
        self._crowd = crowd
        self._now = asyncio.get_running_loop().time
        self._reply = b""
        self._missing = -1  # bytes of the reply's body; below zero while its head is not whole
        self._due_at = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self._crowd.idle.append(self)

    def send(self, request: bytes, due_at: float) -> None:
        self._due_at = due_at
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._reply += data
            end = self._reply.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self._reply, 0, end + 2)
            if length is None or not self._reply.startswith(self._crowd.status_line):
                self._crowd.complain(f"an unexpected reply: {self._reply[:end]!r}")
                return
            self._missing = end + 4 + int(length[1]) - len(self._reply)
        else:
            self._missing -= len(data)
        if self._missing == 0:
            self._reply, self._missing = b"", -1
            self._crowd.answered(self, self._now() - self._due_at)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.complain(f"a connection was lost: {exc}")


def precise_loop() -> asyncio.AbstractEventLoop:
    """A loop whose timers are good to some microseconds: that of select(2), for a thousand connections at most."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def offer(
    port: int,
    requests: Iterable[bytes],
    rate: float,
    seconds: float,
    *,
    connections: int = 32,
    status: int = 200,
    on_begun: Callable[[], None] = lambda: None,
) -> Offered:
    """Send `requests` at even distances and return when all are answered. Raises BenchError for any other reply."""
    loop = asyncio.get_running_loop()
    crowd = _Crowd(status)
    for _ in range(connections):
        await loop.create_connection(lambda: _Line(crowd), "127.0.0.1", port)
    lines = list(crowd.idle)
    endless, late = itertools.cycle(requests), []
    on_begun()
    began = loop.time()
    for number in range(count := round(rate * seconds)):
        due_at = began + number / rate
        await asyncio.sleep(max(0.0, due_at - loop.time()))  # of no time: replies are read also by one that is late
        late.append(loop.time() - due_at)
        crowd.send(next(endless), due_at)
    async with asyncio.timeout(_GRACE_SECONDS):
        while crowd.complaint is None and len(crowd.latencies) < count:
            crowd.is_settled.clear()
            await crowd.is_settled.wait()
    if crowd.complaint is not None:
        raise BenchError(crowd.complaint)
    for line in lines:
        line.transport.close()
    return Offered(sorted(crowd.latencies), _at(sorted(late), 0.99))


class Offering:
    """An order that is carried out, by a process of its own on `core`."""

    def __init__(self, order: Order, core: int) -> None:
        self._order = order
        self._child = subprocess.Popen(
            [sys.executable, "-m", "bench.keys.offered"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        assert self._child.stdin is not None
        # On standard input, so that no secret stands in a command line.
        json.dump({**asdict(order), "requests": [request.decode() for request in order.requests]}, self._child.stdin)
        self._child.stdin.close()
        self._child.stdin = None
        assert self._child.stdout is not None
        if self._child.stdout.readline() != _BEGUN:
            self.result()
            raise BenchError("the load generator has not begun")

    def result(self) -> Offered:
        """The figures, once it has ended. Raises BenchError where not all went as ordered."""
        output, errors = self._child.communicate(timeout=self._order.seconds + 2 * _GRACE_SECONDS)
        if self._child.returncode:
            raise BenchError(f"bench.keys.offered ended with {self._child.returncode}: {errors.strip()[-2000:]}")
        return Offered(**json.loads(output.strip().splitlines()[-1]))


def main() -> None:
    """Read the order, carry it out, print the figures."""
    order = json.load(sys.stdin)
    requests = [request.encode() for request in order.pop("requests")]
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        offered = runner.run(offer(requests=requests, on_begun=lambda: print(_BEGUN, end="", flush=True), **order))
        print(json.dumps(asdict(offered)))


if __name__ == "__main__":
    main()
