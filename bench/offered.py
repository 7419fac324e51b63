"""The open loop: requests are due at times that no reply can delay, and latency counts from when a request was due.

A closed loop asks nothing of a proxy that stands still, and so sees one slow reply where a crowd would have waited
(coordinated omission). Here what falls due meanwhile waits for a connection, and its wait is part of its latency.

Arrivals are those of a crowd, independent of each other (Poisson), and the same in every run of one rate and length;
or they come at even distances. Reads an order (`bench.orders`): `{"port", "connections", "seconds", "requests": [...],
"rate", "is_even", "status", "authority"}`. Prints a line as the first request is due, then the figures of `bench.load`,
and how late it was itself; failures are replies other than `status` and broken connections.
"""

import asyncio
import random
import ssl
import time
from collections import deque

from bench.alarm import Alarm
from bench.figures import document_of
from bench.orders import BEGUN, carry_out
from bench.replies import Reply

_SEED = 1729
_LEAD_SECONDS = 0.05  # between the last connection and the first request
_PATIENCE_SECONDS = 10.0  # for what has not been answered when the last request has been due


def arrivals(rate: float, seconds: float) -> list[float]:
    """Return when requests are due, in seconds from the start: about `rate` of them in each second."""
    times: list[float] = []
    chance = random.Random(_SEED)
    due = chance.expovariate(rate)
    while due < seconds:
        times.append(due)
        due += chance.expovariate(rate)
    return times


def even_arrivals(rate: float, seconds: float) -> list[float]:
    """Return the same for requests at even distances, the first of them at once."""
    return [number / rate for number in range(round(rate * seconds))]


class Line(asyncio.Protocol):
    """One keep-alive connection, free or waiting for the reply to the one request on it."""

    def __init__(self, schedule: "Schedule", status: int) -> None:
        self._schedule = schedule
        self._reply = Reply(status)
        self._due = 0.0
        self._is_waiting = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        """Send a request that was due at `due`."""
        self._due = due
        self._is_waiting = True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Read the reply; when it is whole, the line is free."""
        is_good = self._reply.feed(data)
        if is_good is not None:
            self._is_waiting = False
            self._schedule.answered(self, self._due, is_good=is_good)

    def connection_lost(self, exc: Exception | None) -> None:
        """Its request will not be answered, nor can it take another."""
        self._schedule.lost(self, is_waiting=self._is_waiting)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


class Schedule:
    """Which request is due when, which lines are free, and the figures."""

    def __init__(self, requests: list[bytes], dues: list[float]) -> None:
        self._requests = requests
        self._dues = dues
        self._next = 0
        self._waiting: deque[float] = deque()
        self._sent = 0
        self._lines_left = 0
        self._unanswerable = 0
        self.free: deque[Line] = deque()
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.failures = 0
        self.is_over = asyncio.Event()
        self._alarm = Alarm(self._fall_due)

    def start(self) -> None:
        """Let time run; the first request is due in a moment."""
        self._lines_left = len(self.free)
        self.started = time.monotonic() + _LEAD_SECONDS
        self._dues = [self.started + due for due in self._dues]
        self._alarm.set(self._dues[0])

    def _fall_due(self) -> None:
        now = time.monotonic()
        while self._next < len(self._dues) and self._dues[self._next] <= now:
            due = self._dues[self._next]
            self._next += 1
            self.late.append(now - due)
            if self.free:
                self._send(self.free.popleft(), due)
            else:
                self._waiting.append(due)
        if self._next < len(self._dues):
            self._alarm.set(self._dues[self._next])

    def _send(self, line: Line, due: float) -> None:
        request = self._requests[self._sent % len(self._requests)]
        self._sent += 1
        line.send(request, due)

    def answered(self, line: Line, due: float, *, is_good: bool) -> None:
        """Note a whole reply, and give the line to what has waited longest."""
        self.latencies.append(time.monotonic() - due)
        self.failures += not is_good
        if self._waiting:
            self._send(line, self._waiting.popleft())
        else:
            self.free.append(line)
        self._look_whether_over()

    def lost(self, line: Line, *, is_waiting: bool) -> None:
        """Go on without a line that has ended, and without its request; the run has failed."""
        self._lines_left -= 1
        if is_waiting:
            self._unanswerable += 1
        else:
            self.free.remove(line)
        self._look_whether_over()

    def _look_whether_over(self) -> None:
        if not self._lines_left or len(self.latencies) + self._unanswerable == len(self._dues):
            self.is_over.set()

    def end(self) -> None:
        """Count what was never answered, and take the alarm down."""
        self.failures += len(self._dues) - len(self.latencies)
        self._alarm.close()


async def offer(
    port: int,
    requests: list[bytes],
    *,
    connections: int,
    rate: float,
    seconds: float,
    is_even: bool = False,
    status: int = 200,
    context: ssl.SSLContext | None = None,
) -> dict[str, float | None]:
    """Offer `rate` requests a second for `seconds` and return the figures. Each reply is to have `status`."""
    loop = asyncio.get_running_loop()
    schedule = Schedule(requests, even_arrivals(rate, seconds) if is_even else arrivals(rate, seconds))
    lines = []
    for _ in range(connections):
        _, line = await loop.create_connection(lambda: Line(schedule, status), "127.0.0.1", port, ssl=context)
        schedule.free.append(line)
        lines.append(line)
    schedule.start()
    print(BEGUN, end="", flush=True)
    try:
        async with asyncio.timeout(_LEAD_SECONDS + seconds + _PATIENCE_SECONDS):
            await schedule.is_over.wait()
    except TimeoutError:
        pass  # `end` counts them
    elapsed = time.monotonic() - schedule.started
    schedule.end()
    for line in lines:
        line.close()
    return document_of(schedule.latencies, elapsed, schedule.failures, schedule.late)


if __name__ == "__main__":
    carry_out(offer)
