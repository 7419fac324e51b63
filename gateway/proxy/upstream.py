"""An upstream: which of its targets is asked, how often a request may be tried again, what is told of its failing."""

from collections.abc import Callable, Collection
from typing import Final

import structlog

from gateway.auth.assertions import Asserter
from gateway.errors import GatewayError
from gateway.limits.concurrency import Concurrency
from gateway.proxy.balance import Balance, balancer
from gateway.proxy.errors import UpstreamUnavailable
from gateway.proxy.target import Target

log = structlog.get_logger(__name__)

MOST_EJECTED: Final = 0.5  # of the targets: beyond that the fault is more likely elsewhere, and the rest would drown
TOLD_SECONDS: Final = 10.0  # between two log lines about the failing of one target
RETRY_SHARE: Final = 0.2  # retries per request, in the long run: a failing upstream must not be asked twice as much
RETRY_BURST: Final = 10.0


class Upstream:
    """A named service. Times are seconds; `observe` takes each response time; `attempts` counts the first try.

    `idle_seconds` is how long a connection is kept between two requests; `asserter` signs for it who is calling, where
    it asks for that; `slots` counts its requests, where they are limited.
    """

    def __init__(
        self,
        name: str,
        targets: list[Target],
        *,
        balance: Balance,
        attempts: int,
        connect_seconds: float,
        idle_seconds: float,
        observe: Callable[[float], None],
        monotonic: Callable[[], float],
        asserter: Asserter | None = None,
        slots: Concurrency | None = None,
    ) -> None:
        self.name = name
        self.asserter = asserter
        self.slots = slots
        self.targets = targets
        self.connect_seconds = connect_seconds
        self.idle_seconds = idle_seconds
        self.observe = observe
        self.is_troubled = False  # some target is not fit, or this upstream was failing: the slower way is taken
        self.only = targets[0] if len(targets) == 1 else None  # nothing to choose while it is not troubled
        self._balance = balancer(balance)
        self._attempts = attempts
        self._monotonic = monotonic
        self._retries_left = RETRY_BURST

    def pick(self, user: str) -> Target:
        """A target for a request of `user` (empty for nobody). Raises UpstreamUnavailable. Hot."""
        if not self.is_troubled:
            return self._balance(self.targets, user)
        return self.pick_other(user, ())

    def pick_other(self, user: str, tried: Collection[Target]) -> Target:
        """A fit target that is not among those tried, or, where all fit ones were, one of those."""
        now = self._monotonic()
        fit = [target for target in self.targets if target.is_fit(now)]
        if not fit:
            raise UpstreamUnavailable(f"every target of {self.name} is out")
        target = self._balance([target for target in fit if target not in tried] or fit, user)
        target.chosen()
        return target

    def may_retry(self, tries: int) -> bool:
        """Whether a request that has been tried so often may be tried again; takes it from the budget."""
        if tries >= self._attempts or self._retries_left < 1:
            return False
        self._retries_left -= 1
        return True

    def earn_retry(self) -> None:
        """A request has come in: the budget of retries grows with the load. Needed only where there are retries."""
        self._retries_left = min(RETRY_BURST, self._retries_left + RETRY_SHARE)

    @property
    def has_retries(self) -> bool:
        """Whether a failed request may ever be tried again."""
        return self._attempts > 1

    # -- what is learned of the targets

    def failed(self, target: Target, error: GatewayError) -> None:
        """An exchange with `target` failed on its side. Told now and then, not once a request."""
        now = self._monotonic()
        out = sum(other.is_out for other in self.targets if other is not target)
        is_ejected = target.failed(now, may_eject=out + 1 <= MOST_EJECTED * len(self.targets))
        self.is_troubled = True
        if is_ejected:
            seconds = round(target.ejected_until - now)
            log.warning("target_ejected", upstream=self.name, target=target.authority, seconds=seconds)
        if now >= target.told_at + TOLD_SECONDS:
            target.told_at = now
            log.warning("upstream_failing", upstream=self.name, target=target.authority, error=str(error))

    def answered(self, target: Target) -> None:
        """`target` has begun to answer. Needed only while `is_troubled`."""
        if target.ejected_until:
            log.info("target_answers_again", upstream=self.name, target=target.authority)
        target.answered()
        self.review()

    def set_health(self, target: Target, is_healthy: bool) -> None:
        """The active check has found something new."""
        log.warning("target_health", upstream=self.name, target=target.authority, is_healthy=is_healthy)
        target.is_healthy = is_healthy
        self.review()

    def review(self) -> None:
        """Take the quick way again once every target is fit."""
        self.is_troubled = any(target.is_troubled for target in self.targets)

    def close(self) -> None:
        """Close every connection."""
        for target in self.targets:
            for connection in tuple(target.open):
                connection.transport.abort()
