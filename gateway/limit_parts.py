"""The limits put together: the calendar, the ledger in Redis where nodes share budgets, and what exchanges ask."""

import contextlib
import time
from math import isfinite
from typing import Final

from gateway.clock import Clock
from gateway.consistency.view import View
from gateway.limits.calendar import Calendar
from gateway.limits.concurrency import Concurrency
from gateway.limits.guard import Guard
from gateway.limits.ledger import TAKE, Ledger
from gateway.limits.limiter import Limiter
from gateway.proxy.limit_rules import guard_rule, plan_rule
from gateway.proxy.limiting import Limiting
from gateway.settings import Settings
from gateway.stores.redis.connection import Redis
from gateway.stores.redis.scripts import Script
from gateway.telemetry.metrics import Metrics

TIMEOUTS_TO_OPEN: Final = 3  # one alone may be a pause of a loop: it costs a request's patience, and no budget
DEPENDENCY: Final = "redis_limits"  # apart from the cache: what is too slow for limits may still do for look-ups


async def open_limits(
    settings: Settings, view: View, clock: Clock, metrics: Metrics, stack: contextlib.AsyncExitStack
) -> Limiting:
    """What exchanges ask about limits; what closes its parts goes onto `stack`."""
    limits = settings.limits

    def epoch(now: float) -> float:
        told = view.to_database(now)
        return told if isfinite(told) else time.time()  # the database has not been heard yet

    calendar = Calendar(epoch)
    ledger = None
    if settings.redis is not None and limits.mode != "local":
        redis = Redis(
            settings.redis.url.get_secret_value(),
            environment=settings.environment,
            metrics=metrics,
            deadline_seconds=limits.patience_seconds,
            timeouts_to_open=TIMEOUTS_TO_OPEN,
            dependency=DEPENDENCY,
        )
        await redis.open()
        stack.push_async_callback(redis.close)
        script = Script(redis, TAKE.read_text())
        ledger = Ledger(
            script,
            is_exact=limits.shared == "exact",
            patience_seconds=limits.patience_seconds,
            calendar=calendar,
            monotonic=clock.monotonic,
        )
        await ledger.start()
        stack.push_async_callback(ledger.close)
    limiter = Limiter(
        plan=plan_rule(limits), calendar=calendar, monotonic=clock.monotonic, metrics=metrics, ledger=ledger
    )
    guard = keys = None
    rule = guard_rule(limits)
    if rule is not None:
        guard = Guard(rule, calendar=calendar, monotonic=clock.monotonic, metrics=metrics, ledger=ledger)
    if limits.key_concurrency is not None:
        keys = Concurrency(limits.key_concurrency, limiter="key_concurrency", metrics=metrics)
    return Limiting(limiter, guard=guard, keys=keys)
