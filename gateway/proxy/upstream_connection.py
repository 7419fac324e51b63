"""One connection to an upstream: from its bytes to a reply. Must not know: who is calling, or why this target."""

import asyncio
from typing import Any, Final, Protocol

from gateway.proxy.errors import UpstreamError, UpstreamHungUp
from gateway.proxy.framing import BadFraming, Body, ChunkedBody, UntilClose
from gateway.proxy.headers import HeaderTable
from gateway.proxy.response_head import HEAD_LIMIT, INTERIM_LIMIT, ResponseFields, ResponseReader, body_of

HEAD_END: Final = b"\r\n\r\n"
WRITE_BUFFER_BYTES: Final = 262_144  # after which the other side is told to wait


class ReplyReceiver(Protocol):
    """Who an upstream's reply is for (an exchange)."""

    method: bytes

    def on_interim(self, response: ResponseFields) -> None:
        """A 1xx other than 100 and 101 has come; the reply is still to come."""
        ...

    def on_switch(self, response: ResponseFields, rest: bytes) -> bool:
        """A 101 has come, with what follows it. False where it was not asked for; else the transport is taken over."""
        ...

    def on_whole(self, response: ResponseFields, payload: bytes) -> None:
        """The whole reply has come at once; the only call for it."""
        ...

    def on_response(self, response: ResponseFields, body: Body) -> None:
        """The reply's head has come; `body` reads the rest."""
        ...

    def on_payload(self, payload: bytes, is_complete: bool) -> None:
        """A part of the reply's body has come; the first, at once after the head, and the last may be empty."""
        ...

    def on_upstream_lost(self, error: UpstreamError) -> None:
        """The connection ended, or said something that cannot be relayed, before the reply was complete."""
        ...

    def on_upstream_writable(self, is_writable: bool) -> None:
        """The connection can or cannot take more of the request's body."""
        ...


class Owner(Protocol):
    """The target that a connection belongs to."""

    open: set["UpstreamConnection"]

    def forget(self, connection: "UpstreamConnection") -> None:
        """It has closed."""
        ...

    def give_back(self, connection: "UpstreamConnection", now: float) -> None:
        """Its exchange is complete."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """One connection to a target. Idle (no receiver) or in one exchange, which it serves from head to last byte."""

    __slots__ = (
        "_body",
        "_held",
        "_interim",
        "_keeps_alive",
        "_reader",
        "_receiver",
        "idle_since",
        "is_outdated",
        "is_reused",
        "target",
        "transport",
    )

    def __init__(self, target: Owner, table: HeaderTable) -> None:
        self.target = target
        self.transport: Any = None  # asyncio.Transport, once connected; Any spares a cast on the hot path
        self.is_reused = False
        self.is_outdated = False  # its target is at another address by now
        self.idle_since = 0.0
        self._reader = ResponseReader(table)
        self._receiver: ReplyReceiver | None = None
        self._body: Body | None = None  # once the head of the reply has come
        self._held = b""
        self._interim = 0
        self._keeps_alive = False

    def start(self, receiver: ReplyReceiver, head: bytes) -> None:
        """Send a request's head; its reply goes to `receiver`. Hot."""
        assert self._receiver is None, "a connection serves one exchange at a time"
        self._receiver = receiver
        self.transport.write(head)

    def abandon(self) -> None:
        """Close at once: what is under way here will not be finished, and the upstream has to see that."""
        self._receiver = None
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self.transport = transport
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.target.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self.target.forget(self)
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        if isinstance(self._body, UntilClose) and exc is None:
            receiver.on_payload(b"", True)
        elif self._body is None and not self._held and not self._interim:
            receiver.on_upstream_lost(UpstreamHungUp(f"the upstream hung up: {exc}"))
        else:
            receiver.on_upstream_lost(UpstreamError(f"the upstream's connection ended in the middle: {exc}"))

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol. Hot."""
        if self._receiver is None:
            self.transport.abort()  # bytes that nobody asked for: whatever comes next is not to be trusted
            return
        try:
            self._read(data)
        except BadFraming as doubt:
            self._fail(UpstreamError(f"the reply's body: {doubt}"))
        except UpstreamError as error:
            self._fail(error)

    def _read(self, data: bytes) -> None:
        receiver = self._receiver
        assert receiver is not None
        if self._body is None:
            if self._held:
                data, self._held = self._held + data, b""
            end = data.find(HEAD_END)
            if end < 0:
                self._hold(data)
                return
            response = self._reader.read(data[:end])
            data = data[end + 4 :]
            status = response.status
            if status < 200:
                self._read_interim(response, data)
                return
            if len(data) == response.content_length and receiver.method != b"HEAD" and status not in (204, 304):
                self._finish(is_clean=response.keeps_alive)
                receiver.on_whole(response, data)
                return
            self._keeps_alive = response.keeps_alive
            self._body = body_of(response, receiver.method)
            receiver.on_response(response, self._body)
            payload, rest = self._body.feed(data)
        else:
            payload, rest = self._body.feed(data)
        is_complete = self._body.is_complete
        if is_complete:
            if isinstance(self._body, ChunkedBody) and self._body.trailers:
                self._body.trailers = self._reader.allowed_trailers(self._body.trailers)
            self._finish(is_clean=self._keeps_alive and not rest)
        receiver.on_payload(payload, is_complete)

    def _finish(self, *, is_clean: bool) -> None:
        """The reply is complete. Unless the connection is clean, it ends here."""
        self._receiver = self._body = None
        self._interim = 0
        if not is_clean:
            self.transport.close()

    def _hold(self, data: bytes) -> None:
        if len(data) > HEAD_LIMIT:
            raise UpstreamError("the reply's head is too large")
        if data.count(b"\n") != data.count(b"\r\n"):
            raise UpstreamError("a bare LF in the reply's head")  # its end, as this upstream writes it, never comes
        self._held = data

    def _read_interim(self, response: ResponseFields, data: bytes) -> None:
        receiver = self._receiver
        assert receiver is not None
        self._interim += 1
        if response.status == 101:
            if not receiver.on_switch(response, data):
                raise UpstreamError("the upstream switched protocols without being asked")
            return
        if self._interim > INTERIM_LIMIT:
            raise UpstreamError("the upstream sends interim replies without end")
        if response.status != 100:  # the gateway has answered the expectation itself
            receiver.on_interim(response)
        if data:
            self._read(data)

    def _fail(self, error: UpstreamError) -> None:
        receiver, self._receiver = self._receiver, None
        self.transport.abort()
        if receiver is not None:
            receiver.on_upstream_lost(error)

    def pause_writing(self) -> None:
        """As asyncio.Protocol."""
        if self._receiver is not None:
            self._receiver.on_upstream_writable(False)

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        if self._receiver is not None:
            self._receiver.on_upstream_writable(True)
