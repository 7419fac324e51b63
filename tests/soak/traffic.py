"""Callers of every kind, at an even rate. Each answer is held against what the key is worth."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import websockets

from gateway.auth.secrets import SecretFormat
from gateway.embedded.server_process import HOST
from tests.fixtures.connections import connected
from tests.fixtures.crew import Client
from tests.fixtures.everyday import PAUSE_SECONDS, PIECES
from tests.fixtures.planted import ENVIRONMENT
from tests.soak.ring import Ring
from tests.soak.world import LIMITED

CALLERS: Final = 8  # of a node, for short requests
STREAMS: Final = 3
SOCKETS: Final = 3
MESSAGES: Final = 40
MOST_TOLD: Final = 20
_UNKNOWN: Final = SecretFormat("ost", ENVIRONMENT)
_NO_ANSWER: Final = (OSError, EOFError, asyncio.IncompleteReadError)


class Traffic:
    """Good keys, tokens, streams, sockets, uploads, bad keys and limits. `seen` counts answers; `wrong` says what was.

    No answer (0) is nobody's fault here: workers are killed. `busy` holds good keys that are in use by a stream, whose
    end is then told by the gateway.
    """

    def __init__(self, ports: Sequence[int], ring: Ring, *, per_second: float) -> None:
        self._ports = ports
        self._ring = ring
        self._pause_seconds = len(ports) * CALLERS / per_second
        self._random = random.Random(2)
        self._tasks: list[asyncio.Task[None]] = []
        self.seen: Counter[tuple[str, int]] = Counter()
        self.wrong: list[str] = []

    def start(self) -> None:
        """Begin."""
        for port in self._ports:
            kinds = [self._short] * CALLERS + [self._stream] * STREAMS + [self._socket] * SOCKETS
            self._tasks += [asyncio.create_task(self._repeat(kind, port)) for kind in kinds]

    async def flood(self, count: int) -> None:
        """Send each node so many unknown keys: as many as it remembers, so that more of them add nothing later."""

        async def some(port: int) -> None:
            async with connected(port) as streams:
                client = Client(*streams)
                for _ in range(count // CALLERS):
                    head = f"GET /public HTTP/1.1\r\nHost: gw.test\r\nX-Api-Key: {_UNKNOWN.generate()}\r\n\r\n"
                    self._judge("unknown key", await client.ask(head.encode()), 401)

        await asyncio.gather(*(some(port) for port in self._ports for _ in range(CALLERS)))

    async def stop(self) -> None:
        """End, with every connection closed."""
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _repeat(self, kind: Callable[[int], Awaitable[None]], port: int) -> None:
        while True:
            try:
                await kind(port)
            except _NO_ANSWER:
                self.seen["no answer", 0] += 1
                await asyncio.sleep(self._pause_seconds)

    def _judge(self, kind: str, status: int, *allowed: int) -> None:
        self.seen[kind, status] += 1
        if status not in (0, 503, *allowed) and len(self.wrong) < MOST_TOLD:
            self.wrong.append(f"{kind}: {status}")

    # -- short requests

    async def _short(self, port: int) -> None:
        """A kept connection, until it is told to close, or by chance."""
        async with connected(port) as streams:
            client = Client(*streams)
            due = time.monotonic() + self._random.uniform(0, self._pause_seconds)
            while not client.is_told_to_close and self._random.random() > 0.05:
                await asyncio.sleep(due - time.monotonic())
                due = max(due, time.monotonic() - 1) + self._pause_seconds
                if await self._ask(client) == 0:
                    raise EOFError

    async def _ask(self, client: Client) -> int:
        share, key = self._random.random(), self._ring.pick()
        kind, credential, path, method, allowed = "good key", key.secret, "/public", "GET", {200}
        if share < 0.15 and key.token:
            kind, credential = "token", key.token
        elif share < 0.25:
            kind, path, allowed = "limited", LIMITED, {404, 429}
        elif share < 0.35:
            kind, path, method = "upload", "/public/up", "POST"
        elif share < 0.45:
            kind, credential, allowed = "unknown key", _UNKNOWN.generate(), {401}
        elif share < 0.48:
            kind, credential, allowed = "malformed key", "ost_nonsense", {401}
        elif share < 0.55 and (revoked := self._ring.pick_revoked()) is not None:
            kind, credential, allowed = "revoked key", revoked, {401}
        body = "12345" * PIECES if method == "POST" else ""
        status = await client.ask(
            f"{method} {path} HTTP/1.1\r\nHost: gw.test\r\nAuthorization: Bearer {credential}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        if status == 401 and key not in self._ring.good:
            allowed = {*allowed, 401}  # it was revoked meanwhile
        self._judge(kind, status, *allowed)
        return status

    # -- long ones

    async def _stream(self, port: int) -> None:
        key = self._ring.pick()
        async with connected(port) as (reader, writer):
            writer.write(
                f"GET /public/stream HTTP/1.1\r\nHost: gw.test\r\nAuthorization: Bearer {key.secret}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status == 200:
                await reader.readuntil(b"\r\n0\r\n\r\n")
            self._judge("stream", status, 200, *(() if key in self._ring.good else (401,)))

    async def _socket(self, port: int) -> None:
        key = self._ring.pick()
        headers = {"Authorization": f"Bearer {key.secret}"}
        with contextlib.suppress(websockets.ConnectionClosed):  # revoked, or replaced
            try:
                async with websockets.connect(f"ws://{HOST}:{port}/public/ws", additional_headers=headers) as socket:
                    for _ in range(MESSAGES):
                        await socket.send("ping")
                        assert await socket.recv() == "ping"
                        await asyncio.sleep(PAUSE_SECONDS)
                    self._judge("socket", 101, 101)
            except websockets.InvalidStatus as refused:
                status = refused.response.status_code
                self._judge("socket", status, *(() if key in self._ring.good else (401,)))
            except websockets.InvalidHandshake as broken:
                raise EOFError from broken
