"""Listens to streams of events and counts them.

Reads one JSON document on standard input: `{"port", "request", "streams", "seconds"}`. Prints a line once every stream
has had an event, and `{"events", "seconds"}` of the time from then on.
"""

import asyncio
import json
import sys
import time

import uvloop

from bench.keys.event_upstream import MARK
from bench.orders import BEGUN

_AT_ONCE = 50
_START_SECONDS = 30.0


class Listener(asyncio.Protocol):
    """One stream."""

    total = 0  # of all of them

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask for the stream."""
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count what is in it."""
        count = data.count(MARK)
        Listener.total += count
        if count and not self.first.done():
            self.first.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody ends these streams but this process."""
        sys.exit(f"a stream broke off: {exc}")


async def listen(port: int, request: bytes, streams: int, seconds: float) -> dict[str, float]:
    """Count for so long; returns the figures."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_START_SECONDS):
        for start in range(0, streams, _AT_ONCE):
            batch = [
                (await loop.create_connection(lambda: Listener(request), "127.0.0.1", port))[1].first
                for _ in range(min(_AT_ONCE, streams - start))
            ]
            await asyncio.gather(*batch)
    print(BEGUN, end="", flush=True)
    Listener.total, began = 0, time.monotonic()
    await asyncio.sleep(seconds)
    return {"events": Listener.total, "seconds": time.monotonic() - began}


def main() -> None:
    """Read the order, carry it out, print the figures."""
    order = json.load(sys.stdin)
    order["request"] = order["request"].encode()
    print(json.dumps(uvloop.run(listen(**order))), flush=True)


if __name__ == "__main__":
    main()
