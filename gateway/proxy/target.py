"""One address of an upstream: its connections, and whether it is fit to be asked."""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, Final

from gateway.proxy.errors import UpstreamUnreachable
from gateway.proxy.headers import HeaderTable
from gateway.proxy.upstream_connection import UpstreamConnection

MOST_IDLE: Final = 1024  # kept connections per target; more than that is a burst, not a working set
FAILURES_TO_EJECT: Final = 5  # in a row
FIRST_EJECTION_SECONDS: Final = 1.0  # and twice as long each time, until it has answered
LONGEST_EJECTION_SECONDS: Final = 60.0
MOST_DOUBLINGS: Final = 6  # the seventh would be over the longest

Connector = Callable[[Callable[[], UpstreamConnection]], Any]


class Target:
    """One address. The most recently used idle connection is taken first.

    `authority` is what the upstream is addressed by (Host); `connector` makes a connection from a protocol factory.
    A target is fit unless its health check says otherwise, or it is ejected: after failures in a row it is left alone
    for a while, then tried with one request (half open), whose end decides.
    """

    def __init__(self, authority: str, connector: Connector, table: HeaderTable) -> None:
        self.authority = authority
        self.host_line = f"Host: {authority}\r\n".encode("ascii")
        self.open: set[UpstreamConnection] = set()
        self.is_healthy = True  # as the active check says
        self.told_at = -inf  # when its failing was last told in the log
        self.ejected_until = 0.0  # monotonic seconds; 0 while it is not ejected
        self._idle: list[UpstreamConnection] = []
        self._connector = connector
        self._table = table
        self._failures = 0
        self._ejections = 0
        self.is_on_trial = False  # a half-open one has its one request

    # -- connections

    def take(self) -> UpstreamConnection | None:
        """An idle connection that is still open, or None. Hot."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                connection.is_reused = True
                return connection
        return None

    def give_back(self, connection: UpstreamConnection, now: float) -> None:
        """Keep a connection whose exchange is complete for the next one. Hot."""
        if connection.transport.is_closing():
            return
        if len(self._idle) >= MOST_IDLE or connection.is_outdated:
            connection.transport.close()
            return
        connection.idle_since = now
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection has closed."""
        self.open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close_idle(self, since: float) -> None:
        """Close connections that have been idle since before `since`."""
        for connection in [c for c in self._idle if c.idle_since < since]:
            connection.transport.close()

    def moved(self, addresses: frozenset[str]) -> None:
        """The target's name stands for other addresses now: connections to those that are gone end when they may."""
        for connection in tuple(self.open):
            connection.is_outdated = str(connection.transport.get_extra_info("peername")[0]) not in addresses
            if connection.is_outdated and connection in self._idle:
                connection.transport.close()

    @property
    def idle_count(self) -> int:
        """How many connections wait for work."""
        return len(self._idle)

    @property
    def busy_count(self) -> int:
        """How many connections are in an exchange."""
        return len(self.open) - len(self._idle)

    async def connect(self, timeout_seconds: float) -> UpstreamConnection:
        """A new connection. Raises UpstreamUnreachable."""
        try:
            async with asyncio.timeout(timeout_seconds):
                _, connection = await self._connector(lambda: UpstreamConnection(self, self._table))
        except TimeoutError as late:
            raise UpstreamUnreachable(f"no connection to {self.authority} in {timeout_seconds} s") from late
        except OSError as error:
            raise UpstreamUnreachable(f"no connection to {self.authority}: {error}") from error
        assert isinstance(connection, UpstreamConnection)
        return connection

    # -- fitness

    def is_fit(self, now: float) -> bool:
        """Whether it may be asked at `now`. A half-open one is fit while nobody tries it."""
        return self.is_healthy and (not self.ejected_until or (now >= self.ejected_until and not self.is_on_trial))

    @property
    def is_troubled(self) -> bool:
        """Whether `is_fit` has to be asked at all."""
        return self.is_out or self._failures > 0

    @property
    def is_out(self) -> bool:
        """Whether it is unhealthy or ejected."""
        return not self.is_healthy or self.ejected_until > 0

    def chosen(self) -> None:
        """A request goes to it; for a half-open one that is the trial."""
        self.is_on_trial = self.ejected_until > 0

    def trial_ended(self) -> None:
        """The request on trial is over, and may have said nothing of the target: another one may try."""
        self.is_on_trial = False

    def answered(self) -> None:
        """It has answered: whatever was held against it is forgotten."""
        self._failures = self._ejections = 0
        self.is_on_trial = False
        self.ejected_until = 0.0

    def failed(self, now: float, *, may_eject: bool) -> bool:
        """A connection or a reply failed. Whether this ejected it; `may_eject` is False where too many are already."""
        if now < self.ejected_until:
            return False  # of a request that was under way when it was ejected: that has been held against it
        self._failures += 1
        is_due = self.is_on_trial or self._failures >= FAILURES_TO_EJECT
        self.is_on_trial = False
        if not is_due or not may_eject:
            return False
        self.ejected_until = now + min(LONGEST_EJECTION_SECONDS, FIRST_EJECTION_SECONDS * 2**self._ejections)
        self._ejections = min(self._ejections + 1, MOST_DOUBLINGS)
        self._failures = 0
        return True
