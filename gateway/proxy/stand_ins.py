"""What stands at both ends of a request that is only explained: a client that looks on, an upstream that is none."""

import asyncio
from collections.abc import Sequence
from typing import Any

from gateway.auth.refusal import Refusal
from gateway.errors import GatewayError
from gateway.proxy.edge import Edge
from gateway.proxy.replies import Replies
from gateway.proxy.request_head import RequestHead


class Onlooker:
    """Stands where a client's connection does."""

    has_served = True

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.transport: Any = None
        self.is_over = asyncio.Event()

    def write(self, data: bytes) -> None:
        """As Client; the reply is noted before it is written."""

    def resume_body(self) -> None:
        """As Client."""

    def pause_body(self, is_paused: bool) -> None:
        """As Client."""

    def ask(self, request: RequestHead) -> None:
        """As Client. What is asked there is not explained."""
        self.is_over.set()

    def finished(self, keeps_alive: bool) -> None:
        """As Client."""
        self.is_over.set()

    def cut(self) -> None:
        """As Client."""
        self.is_over.set()

    def switch(self) -> tuple[bytes, bool]:
        """As Client. Nothing answers, so nothing is switched."""
        raise AssertionError("no upstream has answered")

    def gone(self) -> None:
        """As Client."""


class Nowhere:
    """The transport of a connection to no upstream: keeps the head that is written to it."""

    def __init__(self, is_over: asyncio.Event) -> None:
        self.head = b""
        self._is_over = is_over

    def write(self, data: bytes) -> None:
        """As asyncio.Transport."""
        self.head += data
        self._is_over.set()

    def set_write_buffer_limits(self, high: int) -> None:
        """As asyncio.Transport."""

    def is_closing(self) -> bool:
        """As asyncio.Transport."""
        return False

    def abort(self) -> None:
        """As asyncio.Transport."""


class NotedReplies(Replies):
    """The gateway's own replies; keeps what the last one says."""

    said: Refusal | GatewayError | None = None

    def refusal(self, refusal: Refusal, request_id: bytes, **how: Any) -> tuple[int, bytes]:
        """As Replies."""
        self.said = refusal
        return super().refusal(refusal, request_id, **how)

    def error(self, error: GatewayError, request_id: bytes, **how: Any) -> tuple[int, bytes]:
        """As Replies."""
        self.said = error
        return super().error(error, request_id, **how)


class Unwritten:
    """Where neither last uses nor usage is written."""

    async def write(self, uses: Sequence[str], *, interval_seconds: float) -> None:
        """As the store of LastUsed."""

    async def add(self, batch: int, age_seconds: float, rows: Sequence[Any]) -> None:
        """As the store of Meter."""

    async def keep_partitions(self) -> None:
        """As the store of Meter."""
