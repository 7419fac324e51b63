"""What an exchange works with: the parts that all share, and the client's connection as it sees it."""

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.auth.admission import Admission
from gateway.auth.last_used import LastUsed
from gateway.limits.metering import Meter
from gateway.proxy.edge import Edge
from gateway.proxy.limiting import Limiting
from gateway.proxy.naming import Naming
from gateway.proxy.replies import Replies
from gateway.proxy.request_head import RequestHead
from gateway.proxy.router import Router
from gateway.proxy.tally import Tally
from gateway.proxy.upstream import Upstream
from gateway.proxy.watch import Watch
from gateway.telemetry.tracing import Tracing


class Client(Protocol):
    """The client's connection, as the exchange sees it."""

    edge: Edge
    transport: Any
    has_served: bool  # an earlier request of this connection has been answered

    def switch(self) -> tuple[bytes, bool]:
        """Give the transport away to a tunnel; returns what came behind the handshake, and whether no more will."""
        ...

    def gone(self) -> None:
        """The transport that was given away has closed."""
        ...

    def write(self, data: bytes) -> None:
        """Send to the client."""
        ...

    def resume_body(self) -> None:
        """The upstream is there: body bytes that have waited can come."""
        ...

    def pause_body(self, is_paused: bool) -> None:
        """Stop or go on reading the body."""
        ...

    def ask(self, request: RequestHead) -> None:
        """What the request asks is what is to be decided: another exchange takes the place of the one under way."""
        ...

    def finished(self, keeps_alive: bool) -> None:
        """The exchange is over. Without `keeps_alive` the connection ends, after what was written has gone out."""
        ...

    def cut(self) -> None:
        """End the connection so that the client can tell that the reply is incomplete."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What every exchange works with."""

    router: Router
    admission: Admission
    upstreams: Mapping[str, Upstream]
    tally: Tally
    monotonic: Callable[[], float]
    body_seconds: float
    replies: Replies
    new_request_id: Callable[[], bytes]
    last_used: LastUsed
    meter: Meter
    watch: Watch
    watched_from_seconds: float  # its own; here, since every request asks
    tracing: Tracing | None = None
    limiting: Limiting | None = None  # none where nothing is limited
    naming: Naming | None = None  # none where a request is only explained


def request_ids() -> Callable[[], bytes]:
    """A source of request ids: unique across processes by 64 random bits, ordered within one."""
    # From one end to the other in C: it is called for every request.
    return map((os.urandom(8).hex().encode() + b"-%x").__mod__, itertools.count(1)).__next__
