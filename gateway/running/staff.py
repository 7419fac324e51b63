"""What serves callers in a process, or behind it, as the service sees it."""

import asyncio
from typing import Any, Final, Protocol

from gateway.errors import GatewayError
from gateway.settings import Settings

READY_SECONDS: Final = 30.0  # for what is to take the place of something that serves
LEAVING_LIMIT: Final = (
    3  # of what was replaced, so many may finish at once; each holds some dozen connections to stores
)


class NotReady(GatewayError):
    """What was to take the place of another process did not become ready."""


class CutShort(GatewayError):
    """What was under way was cut, because somebody did not want to wait."""


class Staff(Protocol):
    """A gateway, or workers. `failed` completes with what makes going on impossible; `serving` is set once it serves.

    Ending begins with `close` or `leave`, which return once all is over; meanwhile `hurry` and `cut` shorten it.
    """

    failed: asyncio.Future[GatewayError]
    serving: asyncio.Event

    async def start(self, *, is_replacing: bool) -> None:
        """Begin to serve; where another process serves, not before all are ready. Raises GatewayError."""
        ...

    def settle(self) -> None:
        """No other process serves any more."""
        ...

    async def exposition(self, *, is_open: bool) -> bytes:
        """The metrics, as of one node: in OpenMetrics, or in Prometheus' text format."""
        ...

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether it is ready, and why."""
        ...

    async def renew(self, settings: Settings) -> bool:
        """Serve by these settings from now on; what is under way keeps its own. If not, the log says why."""
        ...

    async def close(self) -> None:
        """Finish what is under way, and end. Raises GatewayError where something had to be cut before its time."""
        ...

    async def leave(self) -> None:
        """The same as another process takes its place: streams and sockets go on until they end, or their bound."""
        ...

    def hurry(self) -> None:
        """Turn what `leave` has begun into what `close` does."""
        ...

    def cut(self) -> None:
        """Wait for nothing any more."""
        ...
