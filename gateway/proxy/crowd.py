"""How many connections are open, in all and from one address, and whether one more may be."""

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Final

import structlog
from prometheus_client import Counter as MetricCounter

from gateway.proxy.edge import Edge, counted

log = structlog.get_logger(__name__)

TOLD_SECONDS: Final = 10.0  # between two log lines: a flood must not become a flood of lines


class Crowd:
    """The open connections of the public listener. A limit of None means none; trusted proxies count in all alone."""

    def __init__(
        self,
        *,
        limit: int | None,
        address_limit: int | None,
        refused: MetricCounter,
        monotonic: Callable[[], float],
    ) -> None:
        self._limit = limit
        self._address_limit = address_limit
        self._refused = refused
        self._monotonic = monotonic
        self._total = 0
        self._by_address: Counter[str] = Counter()
        self._told_at = -inf

    def enter(self) -> "Visit | None":
        """Count a connection in; None where it may not stay."""
        if self._limit is not None and self._total >= self._limit:
            self._refuse("total")
            return None
        self._total += 1
        return Visit(self)

    def _name(self, edge: Edge) -> str | None:
        """Count one that is in with its address, an IPv6 one as its network: as what, or None where it may not stay.

        As nothing where an address is not counted.
        """
        if self._address_limit is None or edge.is_trusted:
            return ""
        address = counted(edge.address)
        if self._by_address[address] >= self._address_limit:
            self._refuse("address")
            return None
        self._by_address[address] += 1
        return address

    def _leave(self, address: str) -> None:
        self._total -= 1
        if address:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _refuse(self, limit: str) -> None:
        self._refused.labels(limit).inc()
        now = self._monotonic()
        if now >= self._told_at + TOLD_SECONDS:
            self._told_at = now
            log.warning("connection_refused", limit=limit)


class Visit:
    """One connection that is counted, until its `end`. `edge` is its peer, once that is known."""

    __slots__ = ("_address", "_crowd", "edge")

    def __init__(self, crowd: Crowd) -> None:
        self._crowd: Crowd | None = crowd
        self._address = ""
        self.edge: Edge | None = None

    def identify(self, edge: Edge) -> bool:
        """Count it with the address of its peer, too, once; whether it may stay. If not, `end` is still due."""
        assert self._crowd is not None
        assert self.edge is None
        self.edge = edge
        address = self._crowd._name(edge)
        self._address = address or ""
        return address is not None

    def end(self) -> None:
        """Count it out. Does nothing a second time."""
        crowd, self._crowd = self._crowd, None
        if crowd is not None:
            crowd._leave(self._address)
