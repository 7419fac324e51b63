"""The open loop against a server that waits, and one that stands still for a while."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

from bench.load import generate
from bench.offered import arrivals, offer

_REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
_STALL_SECONDS = 0.2


class Waiting(asyncio.Protocol):
    """Answers each request when `delay()` seconds have passed."""

    def __init__(self, delay: Callable[[], float], reply: bytes) -> None:
        self._delay = delay
        self._reply = reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self._delay(), self._transport.write, self._reply)


@asynccontextmanager
async def waiting(delay: Callable[[], float], reply: bytes = _REPLY) -> AsyncIterator[int]:
    """Serve so, and give the port."""
    server = await asyncio.get_running_loop().create_server(lambda: Waiting(delay, reply), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def standing_still(after_seconds: float) -> Callable[[], float]:
    """No delay, but for one span of `_STALL_SECONDS`, at whose end all that came meanwhile is answered."""
    loop = asyncio.get_running_loop()
    begin = loop.time() + after_seconds

    def delay() -> float:
        now = loop.time()
        return begin + _STALL_SECONDS - now if begin <= now < begin + _STALL_SECONDS else 0.0

    return delay


def test_arrivals_are_the_same_for_all_and_as_many_as_asked_for() -> None:
    """Two peers meet the same crowd; it comes at random times, not in step."""
    times = arrivals(1000, 10)
    assert times == arrivals(1000, 10)
    assert times == sorted(times)
    assert 9_500 < len(times) < 10_500
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gaps) > 3 * sum(gaps) / len(gaps)


async def test_a_known_delay_is_measured() -> None:
    """No latency is shorter than what the server waits, and every request that was due is counted."""
    async with waiting(lambda: 0.02) as port:
        figures = await offer(port, [_GET], connections=64, rate=300, seconds=1)
    assert figures["requests"] == len(arrivals(300, 1))
    assert figures["failures"] == 0
    assert figures["p50_us"] is not None
    assert 20_000 <= figures["p50_us"] < 100_000
    assert figures["late_p99_us"] is not None


async def test_a_stall_is_seen_by_all_that_was_due_in_it() -> None:
    """Requests due while the server stands still wait, though four connections alone could carry them."""
    async with waiting(standing_still(0.4)) as port:
        figures = await offer(port, [_GET], connections=4, rate=500, seconds=1)
    assert figures["failures"] == 0
    assert figures["p99_us"] is not None
    assert figures["p99_us"] > 0.75 * _STALL_SECONDS * 1e6


async def test_a_closed_loop_hardly_notices_the_same_stall() -> None:
    """Coordinated omission: each of four connections has one slow reply among hundreds. This is why there are two."""
    async with waiting(standing_still(0.4)) as port:
        figures = await generate(port, [_GET], connections=4, seconds=1)
    assert figures["failures"] == 0
    assert figures["p99_us"] is not None
    assert figures["p99_us"] < 0.75 * _STALL_SECONDS * 1e6


async def test_other_replies_and_lost_connections_are_failures() -> None:
    """A fast refusal must not pass for a fast reply."""
    async with waiting(lambda: 0.0, b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n") as port:
        figures = await offer(port, [_GET], connections=4, rate=100, seconds=0.2)
        assert figures["failures"] == figures["requests"] == len(arrivals(100, 0.2))


class Hanging(asyncio.Protocol):
    """Closes instead of answering."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.close()


async def test_a_server_that_hangs_up_ends_the_run_as_a_failure() -> None:
    """Nor does the run wait for what cannot come any more."""
    server = await asyncio.get_running_loop().create_server(Hanging, "127.0.0.1", 0)
    async with server, asyncio.timeout(5):
        port = server.sockets[0].getsockname()[1]
        figures = await offer(port, [_GET], connections=2, rate=100, seconds=0.2)
    assert figures["requests"] == 0
    assert figures["failures"] is not None
    assert figures["failures"] >= len(arrivals(100, 0.2))
