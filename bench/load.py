"""The load generator: each connection sends its next request when the reply to the last one is whole.

Reads one JSON document on standard input, so that no secret stands in a command line:
`{"port", "connections", "seconds", "heads": [...]}`. With `seconds` null every head is sent once. Prints one
JSON document: requests, seconds, failures (replies other than 200, broken connections), p50 and p99 in
microseconds.
"""

import asyncio
import json
import re
import sys
import time

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Run:
    """What the connections share: the heads to send, the end, the figures."""

    def __init__(self, heads: list[bytes], seconds: float | None) -> None:
        self.heads = heads
        self.position = 0
        self.is_once = seconds is None
        self.latencies: list[float] = []
        self.failures = 0
        self.started = time.perf_counter()
        self.end = self.started + seconds if seconds is not None else float("inf")

    def take(self) -> bytes | None:
        """Return the next head, or `None` when the run is over."""
        if self.is_once:
            if self.position == len(self.heads):
                return None
        elif time.perf_counter() >= self.end:
            return None
        elif self.position == len(self.heads):
            self.position = 0
        head = self.heads[self.position]
        self.position += 1
        return head


class Client(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, run: Run, done: asyncio.Future[None]) -> None:
        self._run = run
        self._done = done
        self._buffer = b""
        self._missing = 0
        self._sent = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Send the first request."""
        self._transport = transport
        self._send()

    def _send(self) -> None:
        head = self._run.take()
        if head is None:
            self._done.set_result(None)
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(head)

    def data_received(self, data: bytes) -> None:
        """Read a reply; when it is whole, note its latency and send the next request."""
        if self._missing:
            self._missing -= len(data)
        else:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self._buffer, 0, end + 2)
            if length is None or not self._buffer.startswith(b"HTTP/1.1 200"):
                self._run.failures += 1
            self._missing = end + 4 + (int(length[1]) if length else 0) - len(self._buffer)
            self._buffer = b""
        if self._missing <= 0:
            self._missing = 0
            self._run.latencies.append(time.perf_counter() - self._sent)
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a connection that broke before the run was over."""
        if not self._done.done():
            self._run.failures += 1
            self._done.set_result(None)


async def generate(port: int, connections: int, seconds: float | None, heads: list[bytes]) -> dict[str, float]:
    """Run the load to its end and return the figures."""
    loop = asyncio.get_running_loop()
    run = Run(heads, seconds)
    ends: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]
    for done in ends:
        await loop.create_connection(lambda done=done: Client(run, done), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*ends)
    elapsed = time.perf_counter() - run.started
    run.latencies.sort()
    count = len(run.latencies)

    def percentile(share: float) -> float:
        return run.latencies[min(count - 1, int(count * share))] * 1e6 if count else 0.0

    return {
        "requests": count,
        "seconds": elapsed,
        "failures": run.failures,
        "p50_us": percentile(0.50),
        "p99_us": percentile(0.99),
    }


def main() -> None:
    """Read the order, run it, print the figures."""
    order = json.load(sys.stdin)
    heads = [head.encode() for head in order["heads"]]
    print(json.dumps(uvloop.run(generate(order["port"], order["connections"], order["seconds"], heads))))


if __name__ == "__main__":
    main()
