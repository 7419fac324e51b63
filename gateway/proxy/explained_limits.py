"""The limits that a request would meet, for `explain`: which hold, of what size, and whose account they are.

The exchange itself asks what stands in for its limits here, so what is told is what it would have asked. Nothing is
counted by that, and no account is opened. Must not know: what is left of a limit; that is for callers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from gateway.auth.admission import Admitted
from gateway.auth.principal import Principal
from gateway.auth.refusal import Refusal
from gateway.errors import GatewayError
from gateway.limits.limit import Allowance
from gateway.limits.rules import By, RouteLimits, Rule
from gateway.proxy.edge import Edge, Lines
from gateway.proxy.limiting import UNKNOWN_KEYS, Limiting, Slots
from gateway.proxy.told import Told
from gateway.proxy.upstream import Upstream

SHARED_BY: Final = {
    By.KEY: "the key alone",
    By.USER: "all keys of the user",
    By.TENANT: "all keys of the tenant",
    By.ROUTE: "everybody",
    By.ADDRESS: "the client's address",
}


@dataclass(frozen=True, slots=True)
class LimitTerms:
    """What holds beside a route's own rules. `counted` says whether nodes count together, and how."""

    plan: Rule
    guard: Rule | None
    key_concurrency: int | None
    counted: Literal["local", "approximate", "exact"]


class NotedLimiting(Limiting):
    """Stands where the limits of a process do: lets everything through, and keeps what it was asked."""

    def __init__(self) -> None:
        self.guard = None
        self.asked: tuple[RouteLimits, Principal | None, str] | None = None

    def occupied(self, upstream: Upstream, principal: Principal | None) -> Slots:
        """As Limiting; nothing is occupied."""
        return ()

    def check(self, limits: RouteLimits, admitted: Admitted, edge: Edge, said: Lines) -> bytes:
        """As Limiting; nothing is charged."""
        self.asked = limits, admitted.principal, edge.client_name(said) if limits.needs_address else ""
        return b""


def tell_limits(
    told: Told, terms: LimitTerms, noted: NotedLimiting, upstream: Upstream, said: Refusal | GatewayError | None
) -> None:
    """The steps of the limits of a request that was admitted: one for each that holds, or one that says: none.

    What was refused before its limits were asked meets none.
    """
    if said is not None and noted.asked is None:
        return
    steps = list(_steps(terms, noted, upstream))
    for name, text, facts in steps:
        told.step(f"limit {name}", None, text, facts)
    if not steps:
        told.step("limits", None, "none hold here")


def tell_guard(told: Told, terms: LimitTerms, said: Refusal | GatewayError | None, address: str) -> None:
    """The step of the limit on look-ups, where a key turned out to be one that nobody knows."""
    rule = terms.guard
    if rule is not None and rule.allowance is not None and isinstance(said, Refusal) and said.reason in UNKNOWN_KEYS:
        text = f"{_sizes(rule.allowance)} look-ups of unknown keys, shared by {SHARED_BY[rule.by]}"
        told.step("limit unknown_keys", None, text, _facts(rule, rule.allowance, address, 1, terms.counted))


def _steps(terms: LimitTerms, noted: NotedLimiting, upstream: Upstream) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if noted.asked is None:
        return
    limits, principal, address = noted.asked
    plans = None if principal is None else principal.allowance
    found = [] if plans is None or not plans.limits else [(terms.plan, plans)]
    found += [(rule, rule.allowance) for rule in limits.rules if rule.allowance is not None]
    for rule, allowance in found:
        text = f"{_sizes(allowance)}, shared by {SHARED_BY[rule.by]}"
        text += "; only counted, refuses nobody" if rule.is_shadow else ""
        subject = rule.subject(principal, address)
        yield rule.name, text, _facts(rule, allowance, subject, limits.cost, terms.counted)
    if terms.key_concurrency is not None and principal is not None:
        text = f"{terms.key_concurrency} of the key's requests at once, on each node"
        yield "key_concurrency", text, {"limit": terms.key_concurrency, "subject": principal.key_id}
    if upstream.slots is not None:
        text = f"{upstream.slots.limit} requests to {upstream.name} at once, from each node"
        yield "upstream_concurrency", text, {"limit": upstream.slots.limit, "subject": upstream.name}


def _sizes(allowance: Allowance) -> str:
    return ", ".join(f"{limit.count} {limit.window.replace('_', ' ')}" for limit in allowance.limits)


def _facts(rule: Rule, allowance: Allowance, subject: str, cost: int, counted: str) -> dict[str, Any]:
    windows = [
        {"window": limit.window, "count": limit.count, "burst": limit.burst, "policy": limit.label}
        for limit in allowance.limits
    ]
    return {
        "by": rule.by.value,
        "subject": subject,
        "cost": cost,
        "mode": "shadow" if rule.is_shadow else "enforce",
        "without_redis": "refuse" if rule.is_closed else "serve",
        "counted": counted,
        "windows": windows,
        "malformed": list(allowance.malformed),
    }
