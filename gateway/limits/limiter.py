"""Whether a request may go on: the warm path is `check`, what waits is `resolve`. Must not know: HTTP, Redis.

Every account is asked before any is charged, so that a refused request consumes nothing (R293). Where nodes share
budgets and the ledger does not answer, each node goes on by its own counts, which a metric tells (R296).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateway.auth.principal import Principal
from gateway.errors import LimitsUnavailable, StoreUnavailable
from gateway.limits.account import Shortage
from gateway.limits.calendar import Calendar
from gateway.limits.ledger import Ledger
from gateway.limits.limit import Allowance
from gateway.limits.rules import Held, Leased, RouteLimits, Rule
from gateway.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Denied:
    """A request that has to wait, and why. `accounts` are all that it would have been charged to."""

    rule: Rule
    shortage: Shortage
    accounts: list[Held]


Verdict = list[Held] | Denied  # the accounts that were charged, or why none was


class Limiter:
    """Decides by the rules of a route and by the plan of the caller. One per process.

    `plan` is the rule of plans: who shares what a plan allows. `ledger` is None where this node counts alone.
    """

    def __init__(
        self,
        *,
        plan: Rule,
        calendar: Calendar,
        monotonic: Callable[[], float],
        metrics: Metrics,
        ledger: Ledger | None = None,
    ) -> None:
        self.calendar = calendar
        self._plan = plan
        self._monotonic = monotonic
        self._ledger = ledger
        self._limited = metrics.limited
        self._degraded = metrics.limits_degraded

    # -- the warm door

    def check(self, limits: RouteLimits, principal: Principal | None, address: str) -> Verdict | None:
        """Decide now, or None where only the ledger can tell. Hot: no await, no I/O, no task.

        `address`: of the caller, where the route's rules need it.
        """
        now = self._monotonic()
        accounts = self._accounts(limits, principal, address, now)
        ledger = self._ledger
        if not accounts:
            return accounts
        if ledger is None:
            return self._alone(accounts, limits.cost)
        if not ledger.is_up:
            return self._blind(accounts, limits.cost)
        return None if ledger.is_exact else self._by_leases(ledger, accounts, limits.cost, now)

    def _accounts(self, limits: RouteLimits, principal: Principal | None, address: str, now: float) -> list[Held]:
        """The accounts of a request, settled up to now."""
        if now >= self.calendar.turns_at:
            self.calendar.turn(now)
        accounts: list[Held] = []
        allowance = None if principal is None else principal.allowance
        if allowance is not None and allowance.limits:
            accounts.append(self._account(self._plan, self._plan.subject(principal, ""), allowance, now))
        for rule in limits.rules:
            allowance = rule.allowance
            assert allowance is not None, "only plans bring their own"
            accounts.append(self._account(rule, rule.subject(principal, address), allowance, now))
        return accounts

    def _account(self, rule: Rule, subject: str, allowance: Allowance, now: float) -> Held:
        account = rule.accounts.get(subject)
        if account is None:
            alone = self._ledger is None
            account = Held(rule, allowance, now) if alone else Leased(rule, subject, allowance, now)
            rule.accounts.put(subject, account)
        else:
            account.settle(allowance, now, self.calendar.began)
        return account

    def _alone(self, accounts: list[Held], cost: int) -> Verdict:
        """Decide by what this node has counted."""
        for account in accounts:
            if account.is_short(cost) and not account.rule.is_shadow:
                return self._denied(accounts, [one for one in accounts if one.is_short(cost)], cost)
        for account in accounts:
            if account.rule.is_shadow and account.is_short(cost):
                self._limited.inc(account.rule.limiter, "shadow")
            else:
                account.charge(cost)
        return accounts

    def _blind(self, accounts: list[Held], cost: int) -> Verdict:
        """The same while the ledger does not answer. Raises LimitsUnavailable for a rule that is closed then."""
        for account in accounts:
            self._degraded.inc(account.rule.limiter)
            if account.rule.is_closed and not account.rule.is_shadow:
                raise LimitsUnavailable(f"{account.rule.name}: the ledger does not answer")
        return self._alone(accounts, cost)

    def _by_leases(self, ledger: Ledger, accounts: list[Held], cost: int, now: float) -> Verdict | None:
        """Decide by what this node has taken ahead."""
        is_unknown = False
        for account in accounts:
            assert isinstance(account, Leased)
            if account.rule.is_shadow:
                continue
            if account.is_short(cost) or (account.leased < cost and now < account.denied_until):
                return self._denied(accounts, [one for one in accounts if _is_used_up(one, cost, now)], cost)
            if account.leased < cost:
                is_unknown = True
        if is_unknown:
            return None
        for account in accounts:
            assert isinstance(account, Leased)
            if account.rule.is_shadow and _is_used_up(account, cost, now):
                self._limited.inc(account.rule.limiter, "shadow")
                continue
            account.charge(cost)
            account.leased -= cost  # below 0 only in the shadow: the next lease makes up for it
            if account.leased * 2 < account.allowance.slice and not account.is_wanted:
                ledger.want(account)
        return accounts

    def _denied(self, accounts: list[Held], short: list[Held], cost: int) -> Denied:
        """Of the accounts that are short, the one to wait for longest."""
        now = self._monotonic()
        found = [(one.rule, _shortage(one, cost, now, self.calendar)) for one in short if not one.rule.is_shadow]
        rule, shortage = max(found, key=lambda pair: pair[1].retry_seconds)
        self._limited.inc(rule.limiter, "enforced")
        return Denied(rule, shortage, accounts)

    # -- the cold door

    async def resolve(self, limits: RouteLimits, principal: Principal | None, address: str) -> Verdict:
        """Decide by asking the ledger. Raises LimitsUnavailable where it does not answer and a rule is closed."""
        ledger = self._ledger
        assert ledger is not None, "alone, a node knows by itself"
        is_closed = any(rule.is_closed and not rule.is_shadow for rule in limits.rules)
        patience_seconds = ledger.closed_patience_seconds if is_closed else ledger.patience_seconds
        give_up_at = self._monotonic() + patience_seconds
        while (now := self._monotonic()) < give_up_at:
            verdict = self.check(limits, principal, address)
            if verdict is not None:
                return verdict
            accounts = self._accounts(limits, principal, address, now)
            try:
                if ledger.is_exact:
                    return await self._exactly(ledger, accounts, limits.cost, patience_seconds)
                lacking = [one for one in accounts if isinstance(one, Leased) and one.leased < limits.cost]
                flights = [
                    ledger.flight(one, limits.cost, patience_seconds) for one in lacking if not one.rule.is_shadow
                ]
                await asyncio.wait(flights, timeout=give_up_at - now)
            except StoreUnavailable:
                break
        return self._blind(self._accounts(limits, principal, address, self._monotonic()), limits.cost)

    async def _exactly(self, ledger: Ledger, accounts: list[Held], cost: int, seconds: float) -> Verdict:
        """One call for all accounts that can refuse; those in the shadow are asked apart, and refuse nobody."""
        leased = [one for one in accounts if isinstance(one, Leased)]
        short = await ledger.take([one for one in leased if not one.rule.is_shadow], cost, seconds)
        if short is not None:
            return self._denied(accounts, [short], cost)
        for account in leased:
            if account.rule.is_shadow and await ledger.take([account], cost, seconds) is not None:
                self._limited.inc(account.rule.limiter, "shadow")
            else:
                account.charge(cost)
        return accounts


def _is_used_up(account: Held, cost: int, now: float) -> bool:
    if account.is_short(cost):
        return True
    return isinstance(account, Leased) and account.leased < cost and now < account.denied_until


def _shortage(account: Held, cost: int, now: float, calendar: Calendar) -> Shortage:
    """By this node's own counts where these are used up, else by what was told of the shared budget."""
    if account.is_short(cost):
        return account.shortage(cost, calendar)
    assert isinstance(account, Leased), "alone, an account is short by its own counts"
    return account.told_shortage(now, calendar)
