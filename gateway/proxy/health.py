"""Active health checks: each target is asked its path again and again, and left out while it does not answer well."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from gateway.proxy.target import Target
from gateway.proxy.upstream import Upstream

GOOD_STATUS: Final = range(200, 400)


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How an upstream is checked. `url_of` a target is its scheme and address; times are seconds."""

    path: str
    interval_seconds: float
    timeout_seconds: float
    unhealthy_after: int  # bad answers in a row
    healthy_after: int  # good answers in a row


class HealthChecks:
    """The checks of one upstream, a task per target. `urls` holds the base URL of each target, `tls` its context."""

    def __init__(self, upstream: Upstream, check: HealthCheck, urls: dict[Target, str], tls: Any) -> None:
        self._upstream = upstream
        self._check = check
        self._urls = urls
        self._tls = tls
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin."""
        self._tasks = [asyncio.create_task(self._watch(target)) for target in self._urls]

    async def close(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, target: Target) -> None:
        check, in_a_row = self._check, 0
        timeout = aiohttp.ClientTimeout(total=check.timeout_seconds)
        # A connection of its own each time: a check must see whether one can be made.
        connector = aiohttp.TCPConnector(force_close=True, ssl=self._tls if self._tls is not None else True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            while True:
                is_good = await self._is_good(session, self._urls[target] + check.path)
                in_a_row = in_a_row + 1 if is_good is not target.is_healthy else 0
                if in_a_row >= (check.healthy_after if is_good else check.unhealthy_after):
                    self._upstream.set_health(target, is_good)
                    in_a_row = 0
                await asyncio.sleep(check.interval_seconds)

    @staticmethod
    async def _is_good(session: aiohttp.ClientSession, url: str) -> bool:
        try:
            async with session.get(url, allow_redirects=False) as response:
                return response.status in GOOD_STATUS
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
