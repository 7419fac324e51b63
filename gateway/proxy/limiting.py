"""Limits, as an exchange meets them: whether it may go on, and what its caller is told of that.

What is told follows draft-ietf-httpapi-ratelimit-headers-10: RateLimit-Policy says what holds, RateLimit what is left
of it and in how many seconds all of it is there again. Must not know: how limits are counted.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from gateway.auth.admission import Admitted
from gateway.auth.principal import Principal
from gateway.auth.refusal import Reason, Refusal
from gateway.limits.account import Shortage
from gateway.limits.calendar import Calendar
from gateway.limits.concurrency import Concurrency
from gateway.limits.guard import Guard
from gateway.limits.limit import RATE_LIMIT_LINES, Unit
from gateway.limits.limiter import Denied, Limiter, Verdict
from gateway.limits.rules import Held, RouteLimits
from gateway.proxy.edge import Edge, Lines
from gateway.proxy.errors import QuotaExhausted, RateLimited, UpstreamBusy
from gateway.proxy.upstream import Upstream

Slots = tuple[tuple[Concurrency, str], ...]
UNKNOWN_KEYS: Final = (Reason.INVALID_API_KEY, Reason.INVALID_TOKEN)


class Limiting:
    """The limits of one process. `guard` is None where no look-ups are limited, `keys` where no key's requests are."""

    def __init__(self, limiter: Limiter, *, guard: Guard | None = None, keys: Concurrency | None = None) -> None:
        self._limiter = limiter
        self.guard = guard
        self._keys = keys

    def check(self, limits: RouteLimits, admitted: Admitted, edge: Edge, said: Lines) -> bytes | None:
        """The header lines for the reply to a request that may go on; None where that has to be asked. Hot.

        Raises RateLimited. `said` are the request's own lines about where it comes from.
        """
        principal = admitted.principal
        verdict = self._limiter.check(limits, principal, edge.client_name(said) if limits.needs_address else "")
        return None if verdict is None else self._told(verdict, principal)

    async def resolve(self, limits: RouteLimits, admitted: Admitted, edge: Edge, said: Lines) -> bytes:
        """The same, by asking. Raises RateLimited, LimitsUnavailable."""
        principal = admitted.principal
        address = edge.client_name(said) if limits.needs_address else ""
        return self._told(await self._limiter.resolve(limits, principal, address), principal)

    def _told(self, verdict: Verdict, principal: Principal | None) -> bytes:
        if isinstance(verdict, Denied):
            raise _refusal(verdict, principal, self._limiter.calendar)
        return header_lines(verdict, self._limiter.calendar)

    # -- how many at once

    def occupied(self, upstream: Upstream, principal: Principal | None) -> Slots:
        """Count a request in that begins; what it occupies is for `leave`. Raises RateLimited, UpstreamBusy."""
        keys, slots = self._keys, upstream.slots
        if keys is not None and principal is not None and not keys.enter(principal.key_id):
            error = RateLimited("requests of the key that are under way")
            error.retry_after_seconds = 1
            error.details = {"plan": principal.plan, "policy": "concurrency", "limit": keys.limit}
            raise error
        occupied = () if keys is None or principal is None else ((keys, principal.key_id),)
        if slots is None:
            return occupied
        if not slots.enter(upstream.name):
            leave(occupied)
            raise UpstreamBusy(f"{upstream.name}: as many requests are under way as may be")
        return (*occupied, (slots, upstream.name))


async def guarded(
    guard: Guard, look_up: Callable[[], Awaitable[Admitted | Refusal]], address: str
) -> Admitted | Refusal:
    """What the look-up of a key that is not known here finds, if the guard lets that address.

    Raises RateLimited, and Outage, also where the guard cannot count (R290).
    """
    denied = await guard.enter(address)
    if denied is not None:
        raise _refusal(denied, None, guard.calendar)
    # A task of its own: the stores answer also where the client has left, and what it asked for counts all the same.
    looking = asyncio.ensure_future(look_up())
    looking.add_done_callback(partial(_forgive_the_known, guard, address))
    return await asyncio.shield(looking)


def _forgive_the_known(guard: Guard, address: str, looked: "asyncio.Future[Admitted | Refusal]") -> None:
    """Take back what was counted, unless the key turned out to be one that nobody knows."""
    if looked.cancelled():
        return
    decision = None if looked.exception() is not None else looked.result()
    if not isinstance(decision, Refusal) or decision.reason not in UNKNOWN_KEYS:
        guard.forgive(address)


def leave(slots: Slots) -> None:
    """The request is over: let the next ones in."""
    for concurrency, holder in slots:
        concurrency.leave(holder)


def header_lines(accounts: list[Held], calendar: Calendar) -> bytes:
    """RateLimit-Policy and RateLimit, each with its CRLF; nothing of what is in the shadow. Hot."""
    if len(accounts) == 1 and not (account := accounts[0]).rule.is_shadow:  # as mostly
        return account.allowance.lines % account.standing(calendar)
    told = [account for account in accounts if not account.rule.is_shadow]
    if not told:
        return b""
    policies = b", ".join([account.allowance.policy for account in told])
    return RATE_LIMIT_LINES % (
        policies,
        b", ".join([account.allowance.told % account.standing(calendar) for account in told]),
    )


def _refusal(denied: Denied, principal: Principal | None, calendar: Calendar) -> RateLimited:
    shortage = denied.shortage
    kind = RateLimited if shortage.limit.unit is Unit.FLOW else QuotaExhausted
    error = kind(f"{denied.rule.name}: {shortage.limit.window}")
    error.retry_after_seconds = shortage.retry_seconds
    error.details = _members(shortage, principal)
    error.lines = header_lines(denied.accounts, calendar)
    return error


def _members(shortage: Shortage, principal: Principal | None) -> dict[str, object]:
    return {
        "plan": None if principal is None else principal.plan,
        "policy": shortage.limit.label,
        "limit": shortage.limit.count,
        "window": shortage.limit.window,
        "remaining": shortage.remaining,
        "reset": shortage.reset_seconds,
        "retry_after": shortage.retry_seconds,
    }
