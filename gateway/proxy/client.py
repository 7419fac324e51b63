"""The client's side of a connection: from bytes to exchanges, one after another, answered in order.

Pipelined requests wait, as bytes, until the exchange before them is over; so does a body whose upstream is not there
yet. What waits is bounded: past the bound the socket is not read.
"""

import asyncio
import socket
import struct
from enum import Enum
from math import inf
from typing import Any, Final, Protocol

from gateway.errors import GatewayError
from gateway.limits.metering import NOBODY
from gateway.proxy.crowd import Visit
from gateway.proxy.edge import Edge
from gateway.proxy.errors import BadRequest, HeadersTooLarge, RequestTimeout, UriTooLong
from gateway.proxy.exchange import Exchange
from gateway.proxy.framing import NO_BODY, BadFraming
from gateway.proxy.inquiry import Inquiry
from gateway.proxy.request_head import REQUEST_LINE, RequestHead, RequestReader
from gateway.proxy.services import Services
from gateway.proxy.tally import Outcome
from gateway.proxy.watch import Ended

HEAD_END: Final = b"\r\n\r\n"
WAITING_LIMIT: Final = 65_536  # bytes held for later
WRITE_BUFFER_BYTES: Final = 262_144
DRAIN_LIMIT: Final = 262_144  # bytes read and thrown away after a refusal, so that the reply is not lost to a reset
DRAIN_SECONDS: Final = 2.0
LAST_REQUEST_SECONDS: Final = 2.0  # for an idle client to send one more request to a gateway that stops
RESET: Final = struct.pack("ii", 1, 0)  # linger for no time: closing throws away what is unsent, and resets


class State(Enum):
    """What the connection is doing."""

    HEAD = 1  # between requests, or inside a head
    EXCHANGE = 2
    DRAINING = 3  # the last reply has been written; what still comes is thrown away
    TUNNEL = 4  # the transport belongs to a tunnel now
    CLOSED = 5


# The hot ones by name: to read an enum's member costs as much as to call a small function.
HEAD, EXCHANGE, DRAINING = State.HEAD, State.EXCHANGE, State.DRAINING


class ConnectionLimits(Protocol):
    """The client's limits of the configuration."""

    @property
    def head_limit_bytes(self) -> int:
        """Of request line and header section together."""
        ...

    @property
    def line_limit_bytes(self) -> int:
        """Of the request line, and of each header line."""
        ...

    @property
    def head_timeout_seconds(self) -> float:
        """From the first byte of a head to its last."""
        ...

    @property
    def idle_timeout_seconds(self) -> float:
        """Between two requests."""
        ...


class Registry(Protocol):
    """Who keeps track of the open connections."""

    is_draining: bool

    def opened(self, connection: "ClientConnection") -> Edge:
        """A connection has been made; answers who the peer is."""
        ...

    def closed(self, connection: "ClientConnection") -> None:
        """It is gone."""
        ...


class ClientConnection(asyncio.Protocol):
    """One client connection. `visit` is how it is counted: None until it is made, if nothing came before that."""

    __slots__ = (
        "_deadline",
        "_drained",
        "_exchange",
        "_head_timer",
        "_held",
        "_is_body_paused",
        "_is_half_closed",
        "_is_reading",
        "_is_writing_paused",
        "_last_data",
        "_last_request",
        "_limits",
        "_reader",
        "_registry",
        "_services",
        "_state",
        "_unsent",
        "edge",
        "has_served",
        "transport",
        "visit",
    )

    def __init__(
        self,
        services: Services,
        reader: RequestReader,
        limits: ConnectionLimits,
        registry: Registry,
        visit: Visit | None,
    ) -> None:
        self._services = services
        self._reader = reader
        self._limits = limits
        self._registry = registry
        self._state = HEAD
        self._exchange: Exchange | None = None
        self._held = b""
        self._is_reading = True
        self._is_body_paused = False
        self._is_half_closed = False
        self._is_writing_paused = False
        self._last_data = b""
        self._last_request: Any = None  # a RequestHead: of that data, where it has no body
        self._head_timer: asyncio.TimerHandle | None = None  # runs once the first byte of a head has come
        self._drained = 0
        self._unsent = inf  # bytes of the last reply that the client had not taken at the last sweep
        self._deadline = 0.0
        self.has_served = False  # a request on this connection has been answered
        self.visit = visit
        self.transport: Any = None  # asyncio.Transport, once connected; Any spares a cast on the hot path
        self.edge: Edge

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self.transport = transport
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._bound_kernel_buffer()
        self.edge = self._registry.opened(self)
        # A connection that says nothing gets as long as a head does: an idle one has shown first that it can speak.
        self._deadline = self._services.monotonic() + self._limits.head_timeout_seconds

    def _bound_kernel_buffer(self) -> None:
        """Keep the kernel from taking megabytes for a client that does not read: what waits there, nobody can stop."""
        sock = self.transport.get_extra_info("socket")
        if hasattr(socket, "TCP_NOTSENT_LOWAT") and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol. Hot."""
        if self._held:
            data, self._held = self._held + data, b""
        elif self._state is HEAD and not self._is_writing_paused:
            data = self._read_head(data)
            if not data:
                return  # one head and nothing behind it: the common case needs no loop
        self._advance(data)

    def eof_received(self) -> bool:
        """As asyncio.Protocol. A client that has sent its whole request may close its side and still get its reply."""
        exchange = self._exchange
        if exchange is None:
            self._is_half_closed = self._state is HEAD and HEAD_END in self._held
        else:  # what is held may be the rest of the body
            self._is_half_closed = exchange.client_half_closed() or bool(self._held)
        # False closes the connection; one of TLS has no half-closed state, and would log that it was asked for.
        return self._is_half_closed and bool(self.transport.can_write_eof())

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._state = State.CLOSED
        self._stop_head_timer()
        self._registry.closed(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_left()

    def pause_writing(self) -> None:
        """As asyncio.Protocol: the client reads slower than the upstream sends."""
        self._is_writing_paused = True
        if self._exchange is not None:
            self._exchange.pause_reply(True)

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        self._is_writing_paused = False
        if self._exchange is not None:
            self._exchange.pause_reply(False)
        else:
            self._advance_held()

    # -- from bytes to exchanges

    def _advance(self, data: bytes) -> None:
        """Consume `data` as far as possible; hold the rest. Hot."""
        while data:
            if self._state is HEAD:
                if self._is_writing_paused:
                    self._held = data  # a client that does not read its replies gets no more of them
                    break
                data = self._read_head(data)
            elif self._state is EXCHANGE:
                exchange = self._exchange
                assert exchange is not None
                if not exchange.wants_body or self._is_body_paused:
                    self._held = data
                    break
                data = self._read_body(exchange, data)
            else:
                self._drain(data)
                break
        self._update_reading()

    def _read_head(self, data: bytes) -> bytes:
        """Begin an exchange if the head is complete; returns what lies behind the head."""
        if data == self._last_data:  # to the letter, and nothing behind it: the common case needs no reading
            request, rest = self._last_request, b""
        else:
            if data.startswith(b"\r\n"):
                data = data[2:]  # one empty line in front of a request is forgiven (RFC 9112 2.2)
            end = data.find(HEAD_END)
            if end < 0 or end > self._limits.head_limit_bytes:
                return self._wait_for_head(data)
            try:
                request = self._reader.read(data[:end])
            except GatewayError as error:
                self._refuse(error)
                return b""
            rest = data[end + 4 :]
            if request.body is NO_BODY and not rest:
                self._last_data, self._last_request = data, request
        if self._registry.is_draining:
            request.keeps_alive = False
        self._state = EXCHANGE
        if self._head_timer is not None:
            self._stop_head_timer()
        self._exchange = exchange = Exchange(self, request, self._services)
        if self._is_half_closed:
            exchange.client_half_closed()
        exchange.begin()
        return rest

    def _wait_for_head(self, data: bytes) -> bytes:
        limits = self._limits
        if len(data) >= limits.head_limit_bytes + len(HEAD_END):
            is_line = b"\r\n" not in data[: limits.line_limit_bytes]
            self._refuse(UriTooLong("an endless request line") if is_line else HeadersTooLarge("the head's size"))
            return b""
        if self._is_half_closed:
            self._begin_draining()  # the rest of the head will never come
            return b""
        if data not in (b"", b"\r") and self._head_timer is None:  # an empty line in front is the beginning of nothing
            # A timer of its own, where all else is swept: a head in pieces is rare, and a trickle of them an attack.
            loop = asyncio.get_running_loop()
            self._head_timer = loop.call_later(limits.head_timeout_seconds, self._head_is_late)
        self._held = data
        if data and not _may_begin_a_request(data):
            self._refuse(BadRequest("not the beginning of a request"))
        return b""

    def _head_is_late(self) -> None:
        if self._state is HEAD:
            self._refuse(RequestTimeout("the head did not arrive in time"))

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _read_body(self, exchange: Exchange, data: bytes) -> bytes:
        try:
            rest = exchange.feed_body(data)
        except BadFraming as error:
            exchange.fail(BadRequest(str(error)))
            return b""
        if self._is_half_closed and self._exchange is exchange and not exchange.client_half_closed():
            self.transport.close()  # the rest of the body will never come
        return rest

    def _refuse(self, error: GatewayError) -> None:
        """Answer bytes that never became an exchange, and end the connection."""
        self._stop_head_timer()
        allowed = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
        services = self._services
        request_id = services.new_request_id()
        status, reply = services.replies.error(error, request_id, closes=True, allowed=allowed)
        self.write(reply)
        services.tally.finished("none", b"other", status, Outcome.CLIENT_ERROR, 0.0)
        if services.watch.is_logged(Outcome.CLIENT_ERROR):
            client, outcome = self.edge.client_name(()), Outcome.CLIENT_ERROR
            ended = Ended(None, request_id, client, "none", status, outcome, error.code, 0.0)
            services.watch.ended(ended, is_logged=True)
        services.meter.ended(NOBODY, "none", Outcome.CLIENT_ERROR, error.code, 0, 0)
        self._begin_draining()

    # -- what the exchange asks for

    def write(self, data: bytes) -> None:
        """As Client. Hot."""
        self.transport.write(data)

    def resume_body(self) -> None:
        """As Client."""
        if self._held:
            data, self._held = self._held, b""
            self._advance(data)

    def pause_body(self, is_paused: bool) -> None:
        """As Client."""
        self._is_body_paused = is_paused
        if not is_paused:
            self.resume_body()
        self._update_reading()

    def ask(self, request: RequestHead) -> None:
        """As Client."""
        self._exchange = inquiry = Inquiry(self, request, self._services)
        inquiry.begin()

    def finished(self, keeps_alive: bool) -> None:
        """As Client. Hot."""
        if self._state is not EXCHANGE:
            return
        self._exchange = None
        self.has_served = True
        self._is_body_paused = False
        if not keeps_alive or (self._is_half_closed and not self._held):
            self._begin_draining()
            return
        self._state = HEAD
        self._deadline = self._services.monotonic() + self._limits.idle_timeout_seconds
        if not self._is_reading:
            self._update_reading()
        if self._held:
            # Not from inside the call that ended the exchange: a long pipeline must not become a deep stack.
            asyncio.get_running_loop().call_soon(self._advance_held)

    def _advance_held(self) -> None:
        if self._state is HEAD and self._held:
            data, self._held = self._held, b""
            self._advance(data)

    def switch(self) -> tuple[bytes, bool]:
        """As Client."""
        self._state = State.TUNNEL
        self._resume_reading()
        early, self._held = self._held, b""
        return early, self._is_half_closed

    def gone(self) -> None:
        """As Client."""
        self.connection_lost(None)

    def cut(self) -> None:
        """As Client: a reset, so that a reply that ends with the connection does not look complete."""
        exchange, self._exchange = self._exchange, None
        self._state = State.CLOSED
        if exchange is not None:
            exchange.client_left()  # nothing to do where the exchange has asked for the cut itself
        if not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()

    # -- ending

    def _begin_draining(self) -> None:
        """Close our side, and throw away what the client still sends: closing at once would reset the reply away."""
        self._state = DRAINING
        self._held = b""
        self._unsent = inf
        self._deadline = self._services.monotonic() + self._limits.idle_timeout_seconds
        self._resume_reading()
        if self._is_half_closed or not self.transport.can_write_eof():
            self.transport.close()
        else:
            self.transport.write_eof()

    def _drain(self, data: bytes) -> None:
        self._drained += len(data)
        if self._drained > DRAIN_LIMIT:
            self.transport.abort()

    def end_soon(self, *, is_told: bool) -> None:
        """Close after the reply that is under way, or the next one (shutdown). With `is_told`, end a socket as well.

        A connection between requests is not closed at once: its client may have sent the next one already.
        """
        if self._state is HEAD:
            self._deadline = min(self._deadline, self._services.monotonic() + LAST_REQUEST_SECONDS)
        elif self._exchange is not None:
            self._exchange.end_soon(is_told=is_told)

    def sweep(self, now: float) -> None:
        """Act on deadlines that have passed; called about twice a second."""
        if self._exchange is not None:
            self._exchange.sweep(now)
        elif self._state is DRAINING:
            self._sweep_draining(now)
        elif now >= self._deadline and self._head_timer is None:
            if self.transport.get_write_buffer_size():
                self._begin_draining()  # the last reply is still being taken: it arrives whole
            elif self.transport.is_closing():
                self.transport.abort()  # it waits for the client's end of TLS
            else:
                self.transport.close()
        elif len(self._last_data) > self._limits.line_limit_bytes:
            # Nobody waits: a large head is forgotten. Ten thousand idle connections would hold a gigabyte of them.
            self._last_data, self._last_request = b"", None

    def _sweep_draining(self, now: float) -> None:
        """End once the reply has been taken, and a moment later; cut where the client has stopped taking it."""
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent < self._unsent:
            self._unsent = unsent
            self._deadline = now + self._limits.idle_timeout_seconds
        elif unsent and now >= self._deadline:
            self.cut()
        elif not unsent and self._unsent:
            self._unsent = 0.0
            self._deadline = now + DRAIN_SECONDS
        elif now >= self._deadline:
            self.transport.abort()

    @property
    def next_deadline(self) -> float:
        """That of the exchange under way; between two of them nobody waits for the moment."""
        return inf if self._exchange is None else self._exchange.next_deadline

    @property
    def is_busy(self) -> bool:
        """Whether an exchange is under way."""
        return self._exchange is not None

    # -- reading

    def _update_reading(self) -> None:
        if len(self._held) >= WAITING_LIMIT or self._is_body_paused:
            if self._is_reading:
                self._is_reading = False
                self.transport.pause_reading()
        else:
            self._resume_reading()

    def _resume_reading(self) -> None:
        if not self._is_reading and not self.transport.is_closing():
            self._is_reading = True
            self.transport.resume_reading()


def _may_begin_a_request(data: bytes) -> bool:
    """Whether an unfinished head can still become one: garbage is told at once, not after a timeout."""
    if data == b"\r":
        return True
    line, line_end, _ = data.partition(b"\r\n")
    if line_end and REQUEST_LINE.fullmatch(line) is None:
        return False
    method = line.partition(b" ")[0]
    is_text = line.isascii() and b"\x00" not in line and data.count(b"\n") == data.count(b"\r\n")
    return is_text and len(method) <= 32 and method[:1].isalpha()
