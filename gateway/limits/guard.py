"""The guard before authentication: how many keys that nobody knows one address may have looked up (R290).

It counts a look-up as it begins, so that many at once are counted as well, and takes that back where the key turns
out to be known. Unlike the limits of those who are known, it is closed where it cannot count. Must not know: HTTP.
"""

from collections.abc import Callable

from gateway.errors import Outage, StoreUnavailable
from gateway.limits.account import Shortage
from gateway.limits.calendar import Calendar
from gateway.limits.ledger import Ledger
from gateway.limits.limiter import Denied
from gateway.limits.rules import Held, Leased, Rule
from gateway.telemetry.metrics import Metrics


class Guard:
    """Counts look-ups by address. `rule` brings its allowance; `ledger` is None where this node counts alone."""

    def __init__(
        self,
        rule: Rule,
        *,
        calendar: Calendar,
        monotonic: Callable[[], float],
        metrics: Metrics,
        ledger: Ledger | None = None,
    ) -> None:
        self._rule = rule
        self.calendar = calendar
        self._monotonic = monotonic
        self._limited = metrics.limited
        self._ledger = ledger

    async def enter(self, address: str) -> Denied | None:
        """Count one look-up for this address, or say why it may have none. Raises Outage."""
        now = self._monotonic()
        account = self._account(address, now)
        if isinstance(account, Leased) and self._ledger is not None:
            ledger = self._ledger
            try:
                is_short = await ledger.take([account], 1, ledger.closed_patience_seconds) is not None
            except StoreUnavailable as error:
                raise Outage("the guard cannot count look-ups: the ledger does not answer") from error
            if is_short:
                return self._denied(account, account.told_shortage(now, self.calendar))
            return None
        if account.is_short(1):
            return self._denied(account, account.shortage(1, self.calendar))
        account.charge(1)
        return None

    def forgive(self, address: str) -> None:
        """The key that was looked up for this address is known."""
        account = self._account(address, self._monotonic())
        if isinstance(account, Leased) and self._ledger is not None:
            self._ledger.refund(account, 1)
        else:
            account.refund(1)

    def _account(self, address: str, now: float) -> Held:
        rule, allowance = self._rule, self._rule.allowance
        assert allowance is not None, "a guard has limits"
        account = rule.accounts.get(address)
        if account is None:
            account = Held(rule, allowance, now) if self._ledger is None else Leased(rule, address, allowance, now)
            rule.accounts.put(address, account)
        else:
            account.settle(allowance, now, self.calendar.began)
        return account

    def _denied(self, account: Held, shortage: Shortage) -> Denied:
        self._limited.inc(self._rule.limiter, "enforced")
        return Denied(self._rule, shortage, [account])
