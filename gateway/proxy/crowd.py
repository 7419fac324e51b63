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

    def enter(self, edge: Edge) -> bool:
        """Count a connection in; whether it may stay. `leave` is due in either case."""
        self._total += 1
        address = self._counted(edge)
        if address:
            self._by_address[address] += 1
        if self._limit is not None and self._total > self._limit:
            return self._refuse("total")
        if address and self._by_address[address] > (self._address_limit or 0):
            return self._refuse("address")
        return True

    def leave(self, edge: Edge) -> None:
        """Count it out."""
        self._total -= 1
        address = self._counted(edge)
        if address:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _counted(self, edge: Edge) -> str:
        """What an address counts as, an IPv6 one as its network; empty for one that is not counted."""
        if self._address_limit is None or edge.is_trusted:
            return ""
        return counted(edge.address)

    def _refuse(self, limit: str) -> bool:
        self._refused.labels(limit).inc()
        now = self._monotonic()
        if now >= self._told_at + TOLD_SECONDS:
            self._told_at = now
            log.warning("connection_refused", limit=limit)
        return False
