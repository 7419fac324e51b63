"""Transports in memory, as strict as the event loop's own: what they would raise on, these raise on."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, NamedTuple, TypeVarTuple

from tests.fixtures.admission_world import MovedClock

_Arguments = TypeVarTuple("_Arguments")

MOST_TURNS = 100
HIGH_WATER_BYTES = 64  # once the other side takes no more


class MemoryLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is moved, and whose connections are made in memory."""

    def __init__(self, network: "Network") -> None:
        super().__init__()
        self._network = network
        self._calls = 0

    def call_soon(
        self, callback: Callable[[*_Arguments], object], *args: *_Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        """As asyncio."""
        self._calls += 1
        return super().call_soon(callback, *args, context=context)

    async def settled(self) -> None:
        """Let everything run that can: until nothing but this has been called for two turns."""
        quiet = 0
        for _ in range(MOST_TURNS):
            before = self._calls
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._calls == before + 1 else 0
            if quiet == 2:
                return

    def time(self) -> float:
        """As asyncio: the monotonic time."""
        return self._network.clock.now

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        """As asyncio: a connected transport and its protocol."""
        return await self._network.connect(protocol_factory, f"{host}:{port}")


class Written(NamedTuple):
    """A write: to what, how much had been written there by then, and how much had been received."""

    transport: "MemoryTransport"
    size: int
    received: int


class Network:
    """All connections that are made to upstreams."""

    def __init__(self) -> None:
        self.clock = MovedClock()
        self.made: list[MemoryTransport] = []
        self.journal: list[Written] = []
        self.is_refusing = False
        self.is_silent = False
        self.attempts = 0

    async def connect(self, factory: Any, peer: str) -> Any:
        """Connect, refuse, or keep silent, as has been arranged."""
        self.attempts += 1
        if self.is_refusing:
            raise ConnectionRefusedError(f"{peer} refuses")
        while self.is_silent:
            await asyncio.sleep(1.0)
        transport = MemoryTransport(factory(), peer, self.journal)
        self.made.append(transport)
        transport.begin()
        return transport, transport.protocol


class _Socket:
    """A socket that takes options."""

    family = socket.AF_INET

    def setsockopt(self, *option: Any) -> None:
        """As socket.socket."""


class MemoryTransport:
    """One end of a connection. `written` is all that its protocol has handed over, `received` all that it was given."""

    def __init__(self, protocol: Any, peer: str, journal: list[Written], *, can_half_close: bool = True) -> None:
        self.protocol = protocol
        self.peer = peer
        self.written = bytearray()
        self.received = bytearray()
        self.is_lost = False
        self.is_aborted = False
        self.is_broken_off = False  # by the other side
        self.has_ended = False  # our side said that it will send no more
        self.is_blocked = False  # the other side takes no more
        self._journal = journal
        self._can_half_close = can_half_close
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[bytes | None] = deque()  # None is the end
        self._is_reading = True
        self._is_at_end = False  # the other side sends no more
        self._is_closing = False
        self._is_losing = False
        self._unsent = 0
        self._is_paused = False

    def begin(self) -> None:
        """Tell the protocol that it is connected."""
        self.protocol.connection_made(self)

    # -- what the other side does

    def deliver(self, data: bytes | None) -> None:
        """Bytes arrive, or the end, and nothing after that; they wait while the protocol does not read."""
        if self._is_at_end:
            return
        self._is_at_end = data is None
        self._inbox.append(data)
        self._flush()

    def _flush(self) -> None:
        while self._inbox and self._is_reading and not self._is_closing:
            data = self._inbox.popleft()
            if data is None:
                # asyncio.Protocol's own does nothing, and nothing keeps nothing open.
                if not self.protocol.eof_received() or not self._can_half_close:
                    self.is_broken_off = True
                    self.close()
            elif data:
                self.received += data
                self.protocol.data_received(data)

    def break_off(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._is_closing = self.is_broken_off = True
        self._lose_soon(error)

    def block(self, is_blocked: bool) -> None:
        """The other side takes no more, or does again."""
        self.is_blocked = is_blocked
        if is_blocked:
            return
        self._unsent = 0
        if self._is_paused and not self.is_lost:
            self._is_paused = False
            self.protocol.resume_writing()
        if self._is_closing:
            self._lose_soon(None)

    # -- asyncio.Transport

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As asyncio.Transport."""

    def get_write_buffer_size(self) -> int:
        """As asyncio.Transport."""
        return self._unsent

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As asyncio.Transport."""
        return {"peername": (self.peer, 5000), "socket": _Socket()}.get(name, default)

    def set_protocol(self, protocol: Any) -> None:
        """As asyncio.Transport."""
        self.protocol = protocol

    def is_closing(self) -> bool:
        """As asyncio.Transport."""
        return self._is_closing

    def write(self, data: bytes) -> None:
        """As asyncio.Transport. What is written to one that has nothing left to send but its end is lost."""
        self._check_alive()
        if self.has_ended:
            raise RuntimeError("write() after write_eof()")
        if self._is_losing or not data:
            return
        self.written += data
        self._journal.append(Written(self, len(self.written), len(self.received)))
        if self.is_blocked:
            self._unsent += len(data)
            if self._unsent > HIGH_WATER_BYTES and not self._is_paused:
                self._is_paused = True
                self.protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """As asyncio.Transport: TLS cannot."""
        return self._can_half_close

    def write_eof(self) -> None:
        """As asyncio.Transport."""
        if not self._can_half_close:
            raise NotImplementedError
        self._check_alive()
        self.has_ended = True

    def pause_reading(self) -> None:
        """As asyncio.Transport."""
        if not self._is_closing:
            self._is_reading = False

    def resume_reading(self) -> None:
        """As asyncio.Transport."""
        if not self._is_reading and not self._is_closing:
            self._is_reading = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """As asyncio.Transport: what has been written goes out first."""
        if not self._is_closing:
            self._is_closing = True
            if not self._unsent:
                self._lose_soon(None)

    def abort(self) -> None:
        """As asyncio.Transport: at once."""
        self._is_closing = self.is_aborted = True
        self._lose_soon(None)

    def _check_alive(self) -> None:
        if self.is_lost:
            raise RuntimeError("the transport is closed")

    def _lose_soon(self, error: Exception | None) -> None:
        if not self._is_losing:
            self._is_losing = True
            self._loop.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        self.is_lost = True
        self.protocol.connection_lost(error)
