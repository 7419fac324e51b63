"""The closed loop: each connection sends its next request when the reply to the last one is whole.

Reads an order (`bench.orders`): `{"port", "connections", "seconds", "requests": [...], "is_kept", "authority"}`. With
`seconds` null every request is sent once. Where a connection is not kept, each request has one of its own, and its
latency begins with opening it. Prints one JSON document, `bench.figures.Figures`; failures are replies other than 200
and broken connections.
"""

import asyncio
import ssl
import time

from bench.figures import document_of
from bench.orders import carry_out
from bench.replies import Reply


class Run:
    """What the connections share: the requests to send, the end, the figures."""

    def __init__(self, requests: list[bytes], seconds: float | None) -> None:
        self._requests = requests
        self._position = 0
        self._is_once = seconds is None
        self.latencies: list[float] = []
        self.failures = 0
        self.started = time.perf_counter()
        self._end = self.started + seconds if seconds is not None else float("inf")

    def take(self) -> bytes | None:
        """Return the next request, or `None` when the run is over."""
        if self._is_once:
            if self._position == len(self._requests):
                return None
        elif time.perf_counter() >= self._end:
            return None
        elif self._position == len(self._requests):
            self._position = 0
        request = self._requests[self._position]
        self._position += 1
        return request


class Kept(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, run: Run, done: asyncio.Future[None]) -> None:
        self._run = run
        self._done = done
        self._reply = Reply()
        self._sent = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Send the first request."""
        self._transport = transport
        self._send()

    def _send(self) -> None:
        request = self._run.take()
        if request is None:
            self._done.set_result(None)
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Read a reply; when it is whole, note its latency and send the next request."""
        is_good = self._reply.feed(data)
        if is_good is None:
            return
        self._run.failures += not is_good
        self._run.latencies.append(time.perf_counter() - self._sent)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a connection that broke before the run was over."""
        if not self._done.done():
            self._run.failures += 1
            self._done.set_result(None)


class Single(asyncio.Protocol):
    """One request on a connection of its own; `done` says whether it was answered well."""

    def __init__(self, request: bytes, done: asyncio.Future[bool]) -> None:
        self._request = request
        self._done = done
        self._reply = Reply()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Send the request."""
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Read the reply; when it is whole, close."""
        is_good = self._reply.feed(data)
        if is_good is not None and not self._done.done():
            self._done.set_result(is_good)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of a connection that ended too early."""
        if not self._done.done():
            self._done.set_result(False)


async def _one_after_the_other(run: Run, port: int, context: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    while (request := run.take()) is not None:
        done: asyncio.Future[bool] = loop.create_future()
        begun = time.perf_counter()
        try:
            await loop.create_connection(
                lambda request=request, done=done: Single(request, done),
                "127.0.0.1",
                port,
                ssl=context,
            )
        except OSError:
            run.failures += 1
            continue
        is_good = await done
        run.latencies.append(time.perf_counter() - begun)
        run.failures += not is_good


async def generate(
    port: int,
    requests: list[bytes],
    *,
    connections: int,
    seconds: float | None,
    is_kept: bool = True,
    context: ssl.SSLContext | None = None,
) -> dict[str, float | None]:
    """Run the load to its end and return the figures."""
    loop = asyncio.get_running_loop()
    run = Run(requests, seconds)
    if is_kept:
        ends: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]
        for done in ends:
            await loop.create_connection(
                lambda done=done: Kept(run, done),
                "127.0.0.1",
                port,
                ssl=context,
            )
        await asyncio.gather(*ends)
    else:
        await asyncio.gather(*(_one_after_the_other(run, port, context) for _ in range(connections)))
    return document_of(run.latencies, time.perf_counter() - run.started, run.failures)


if __name__ == "__main__":
    carry_out(generate)
