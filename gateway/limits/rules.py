"""Whose requests are counted together: a rule, its accounts, and the rules of a route. Must not know: HTTP, Redis."""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil
from typing import Final

from gateway.auth.principal import Principal
from gateway.limits.account import Account, Accounts, Shortage
from gateway.limits.calendar import Calendar
from gateway.limits.limit import Allowance

PLAN: Final = "plan"
ROUTE: Final = "route"
GUARD: Final = "guard"


class By(StrEnum):
    """Whose requests share an account."""

    KEY = "key"
    USER = "user"
    TENANT = "tenant"
    ROUTE = "route"
    ADDRESS = "address"


# By name: to read an enum's member costs as much as to call a small function.
KEY, USER, EVERYBODY, ADDRESS = By.KEY, By.USER, By.ROUTE, By.ADDRESS


@dataclass(slots=True, eq=False)
class Rule:
    """Limits, and who shares them. `limiter` is its kind in metrics; `name` tells it from others in Redis.

    `allowance` is None where each caller brings its own, as plans do. One that `is_shadow` counts and refuses nobody
    (R294). One that `is_closed` refuses while Redis, which it rests on, does not answer (R296).
    """

    limiter: str
    name: str
    by: By
    allowance: Allowance | None = None
    is_shadow: bool = False
    is_closed: bool = False
    accounts: "Accounts[Held]" = field(default_factory=Accounts, repr=False)

    def subject(self, principal: Principal | None, address: str) -> str:
        """Whose account it is. A caller without a key counts as its address. Hot.

        It is made of ids, never of secrets: rotation does not change it, and Redis gets no credential (R299).
        """
        by = self.by
        if by is ADDRESS:
            return address
        if by is EVERYBODY:
            return ""
        if principal is None:
            return f"@{address}"  # no id begins like that
        if by is USER:
            return principal.user_id
        if by is KEY:
            return principal.key_id
        # What a plan allows a tenant is no business of the tenant's other plans.
        return principal.tenant_id if self.allowance is not None else f"{principal.tenant_id}/{principal.plan}"


class Held(Account):
    """An account that knows its rule."""

    __slots__ = ("rule",)

    def __init__(self, rule: Rule, allowance: Allowance, now: float) -> None:
        super().__init__(allowance, now)
        self.rule = rule


class Leased(Held):
    """An account whose budget is shared by several nodes: what this node has taken of it ahead, and has not used.

    `leased` requests may be let through without asking. From `known` the rest is told: what the shared budget held of
    each limit when it was asked last. Until `denied_until` (monotonic) it need not be asked again: nothing is left of
    the limit number `short`, and will not be before `refilled_at`.
    """

    __slots__ = ("denied_until", "flight", "is_wanted", "known", "leased", "refilled_at", "short", "subject", "waiting")

    def __init__(self, rule: Rule, subject: str, allowance: Allowance, now: float) -> None:
        super().__init__(rule, allowance, now)
        self.subject = subject
        self.leased = 0
        self.known: tuple[int, ...] = ()
        self.denied_until = self.refilled_at = 0.0
        self.short = 0
        self.waiting = 0  # the cost of requests that wait for the next lease
        self.is_wanted = False
        self.flight: asyncio.Task[None] | None = None  # the task that asks for a lease

    def settle(self, allowance: Allowance, now: float, began: list[float]) -> None:
        """As Account. What was taken of a day's quota is worth nothing the day after. Hot."""
        quota = allowance.quota
        if quota and self.at < began[quota]:
            self.leased = 0
            self.denied_until = 0.0
        if allowance is not self.allowance:
            self.known = ()
            self.short = 0
            self.denied_until = 0.0
        super().settle(allowance, now, began)

    def told_shortage(self, now: float, calendar: Calendar) -> Shortage:
        """Why the shared budget grants nothing, as it was told. Only before `denied_until`."""
        limit = self.allowance.limits[self.short]
        retry = max(1, ceil(self.refilled_at - now))
        used = limit.burst - self.known[self.short]
        reset = max(retry, ceil(used / limit.rate)) if limit.rate else retry
        return Shortage(limit, self.known[self.short], reset, retry)

    def remaining(self, index: int) -> int:
        """As Account; of the shared budget, as far as this node knows."""
        alone = super().remaining(index)
        return min(alone, max(0, self.known[index] + self.leased)) if index < len(self.known) else alone

    def standing(self, calendar: Calendar) -> tuple[int, ...]:
        """As Account; of the shared budget, as far as this node knows. Hot."""
        return self._standing(calendar.ends, self.known, self.leased)


@dataclass(frozen=True, slots=True, eq=False)
class RouteLimits:
    """What a route asks of the limiter: its own rules, and the weight of one request (R291)."""

    rules: tuple[Rule, ...] = ()
    cost: int = 1
    is_bounded: bool = False  # in how many requests of a key, or to its upstream, may be under way
    needs_address: bool = False  # of callers: for rules by address, or where callers may have no key
