"""Budgets that several nodes share: leases taken ahead, or a call for each request. Must not know: Redis, HTTP.

A lease is charged to the shared budget when it is taken, so what all nodes have let through is never more than what
was granted; a node uses its lease a little later than that, which is the whole of the overshoot (docs/limits.md).
What is not used is given back after IDLE_SECONDS.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any, Final, Protocol

from gateway.errors import StoreUnavailable
from gateway.limits.calendar import Calendar
from gateway.limits.limit import Limit
from gateway.limits.rules import Leased

TAKE: Final = Path(__file__).with_name("take.lua")
IDLE_SECONDS: Final = 1.0  # a lease that nobody uses for so long is given back
ASK_AGAIN_SECONDS: Final = 1.0  # other nodes may give back before time does
CLOSED: Final = 10  # times as long is waited where a request could not go on: better served late than refused
MOST_FLIGHTS: Final = 16  # leases asked for at once in the background
MICRO: Final = 1_000_000


class Script(Protocol):
    """take.lua where all nodes reach it (gateway.stores.redis.scripts)."""

    @property
    def is_up(self) -> bool:
        """Whether it is asked at all."""
        ...

    @property
    def is_cluster(self) -> bool:
        """Whether a call can have one name alone."""
        ...

    def name(self, kind: str, *parts: str) -> str:
        """A name."""
        ...

    async def run(self, names: Sequence[str], arguments: Sequence[str | int], *, seconds: float) -> Any:
        """What the script returns, within `seconds`. Raises StoreUnavailable."""
        ...


class Ledger:
    """One node's access to the shared budgets. `patience_seconds` is how long a request waits for an answer.

    Where it may go on without one, that is; else it waits for `closed_patience_seconds`.
    """

    def __init__(
        self,
        script: Script,
        *,
        is_exact: bool,
        patience_seconds: float,
        calendar: Calendar,
        monotonic: Callable[[], float],
    ) -> None:
        self.is_exact = is_exact
        self.patience_seconds = patience_seconds
        self.closed_patience_seconds = CLOSED * patience_seconds
        self._script = script
        self._calendar = calendar
        self._monotonic = monotonic
        self._wanting: deque[Leased] = deque()
        self._wake = asyncio.Event()
        self._flights: set[asyncio.Task[None]] = set()
        self._outstanding: dict[Leased, None] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_up(self) -> bool:
        """Whether it is asked at all."""
        return self._script.is_up

    async def start(self) -> None:
        """Begin to take leases ahead, and to give back what is not used."""
        self._tasks = [asyncio.create_task(self._lease_ahead()), asyncio.create_task(self._give_back_idle())]

    async def close(self) -> None:
        """Give back what is left."""
        tasks = [*self._tasks, *self._flights]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._give_back(list(self._outstanding))

    # -- leases

    def want(self, account: Leased) -> None:
        """Have a lease taken soon. Hot."""
        account.is_wanted = True
        self._wanting.append(account)
        self._wake.set()

    def flight(self, account: Leased, cost: int, seconds: float) -> asyncio.Task[None]:
        """The task that takes a lease of at least `cost`; the one that is under way, if there is one."""
        account.waiting += cost
        return self._fly(account, cost, seconds)

    def _fly(self, account: Leased, cost: int, seconds: float) -> asyncio.Task[None]:
        if account.flight is not None:
            return account.flight
        account.flight = flight = asyncio.create_task(self._lease(account, cost, seconds))
        self._flights.add(flight)
        flight.add_done_callback(self._flights.discard)
        return flight

    async def _lease(self, account: Leased, cost: int, seconds: float) -> None:
        want = max(1, max(account.allowance.slice, cost) + account.waiting - account.leased)
        need = min(want, max(1, cost - account.leased))
        account.waiting = 0
        allowance = account.allowance
        try:
            answer = await self._run([account], need, want, seconds)
        except StoreUnavailable:
            return  # whoever waits finds the ledger down, or asks again
        finally:
            account.flight = None
        if allowance is not account.allowance:
            return  # the plan has changed meanwhile: what was taken of the old one is not used
        granted = answer[0]
        account.known = tuple(answer[4:])
        if granted:
            account.leased += granted
            self._outstanding[account] = None
        else:
            self._refused(account, answer)

    def _refused(self, account: Leased, answer: Sequence[int]) -> None:
        now = self._monotonic()
        wait_seconds = answer[1] / MICRO
        account.short = answer[3]
        account.refilled_at = now + wait_seconds
        account.denied_until = now + min(wait_seconds, ASK_AGAIN_SECONDS)

    async def _lease_ahead(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._wanting:
                account = self._wanting.popleft()
                account.is_wanted = False
                if self.is_up and account.leased * 2 < account.allowance.slice:
                    self._fly(account, 1, self.patience_seconds)
                if len(self._flights) >= MOST_FLIGHTS:
                    await asyncio.wait(self._flights, return_when=asyncio.FIRST_COMPLETED)

    async def _give_back_idle(self) -> None:
        while True:
            await asyncio.sleep(IDLE_SECONDS)
            before = self._monotonic() - IDLE_SECONDS
            await self._give_back([one for one in self._outstanding if one.at <= before])

    async def _give_back(self, accounts: Sequence[Leased]) -> None:
        """Best effort: what cannot be given back is lost to the caller until time gives it back."""
        calendar, now = self._calendar, self._monotonic()
        if now >= calendar.turns_at:
            calendar.turn(now)
        for account in accounts:
            if account.flight is not None:
                continue
            account.settle(account.allowance, now, calendar.began)  # of a day before is no part of today
            left, account.leased = account.leased, min(0, account.leased)
            self._outstanding.pop(account, None)
            if left > 0:
                await self._refund(account, left)

    # -- exactly

    async def take(self, accounts: Sequence[Leased], cost: int, seconds: float) -> Leased | None:
        """Take `cost` from all accounts, or from none: then the one that is short.

        Raises StoreUnavailable, where the ledger does not answer within `seconds`.
        """
        if not accounts:
            return None
        if not self._script.is_cluster:
            return self._told(accounts, await self._run(accounts, cost, cost, seconds))
        for number, account in enumerate(accounts):
            short = self._told([account], await self._run([account], cost, cost, seconds))
            if short is not None:
                for taken in accounts[:number]:
                    await self._run([taken], -cost, -cost, seconds)
                return short
        return None

    def _told(self, accounts: Sequence[Leased], answer: Sequence[int]) -> Leased | None:
        start = 4
        for account in accounts:
            end = start + len(account.allowance.limits)
            account.known = tuple(answer[start:end])
            start = end
        if answer[0]:
            return None
        short = accounts[answer[2]]
        self._refused(short, answer)
        return short

    def refund(self, account: Leased, cost: int) -> None:
        """Have `cost` given back that was taken by `take`, soon. Best effort."""
        flight = asyncio.create_task(self._refund(account, cost))
        self._flights.add(flight)
        flight.add_done_callback(self._flights.discard)

    async def _refund(self, account: Leased, cost: int) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._run([account], -cost, -cost, self.closed_patience_seconds)

    # -- the call

    async def _run(self, accounts: Sequence[Leased], need: int, want: int, seconds: float) -> list[int]:
        arguments: list[str | int] = [need, want]
        now = self._monotonic()
        for account in accounts:
            arguments.append(len(account.allowance.limits))
            for limit in account.allowance.limits:
                arguments += self._arguments(limit, now)
        names = [self._script.name("limit", one.rule.name, one.rule.by.value, one.subject) for one in accounts]
        answer: list[int] = await self._script.run(names, arguments, seconds=seconds)
        return answer

    def _arguments(self, limit: Limit, now: float) -> list[str | int]:
        if limit.rate:
            return [limit.window, limit.count, limit.burst, limit.seconds * MICRO, 0, 0]
        calendar = self._calendar
        ends = max(1, ceil(calendar.ends[limit.unit] - now))
        return [limit.window, limit.count, limit.burst, 0, calendar.index[limit.unit], ends]
