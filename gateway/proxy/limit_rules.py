"""Limits, made from the configuration. Must not know: how they are counted."""

from gateway.limits.concurrency import Concurrency
from gateway.limits.limit import Allowance, limits_of
from gateway.limits.rules import GUARD, PLAN, ROUTE, By, RouteLimits, Rule
from gateway.proxy.explained_limits import LimitTerms
from gateway.setting_rules import LIMIT_WINDOWS
from gateway.settings import LimitSettings, Route, RouteLimit, Settings, Upstream
from gateway.telemetry.metrics import Metrics


def route_limits(settings: Settings, route: Route) -> RouteLimits:
    """What a route asks of the limiter."""
    upstream = settings.upstreams.get(route.upstream)
    is_upstream_bounded = upstream is not None and upstream.concurrency is not None
    by_address = any(By(limit.by) is By.ADDRESS for limit in route.limits)
    return RouteLimits(
        rules=tuple(_rule(route.name, number, limit) for number, limit in enumerate(route.limits)),
        cost=route.cost,
        is_bounded=is_upstream_bounded or settings.limits.key_concurrency is not None,
        needs_address=by_address or (bool(route.limits) and route.auth != "required"),
    )


def _rule(route: str, number: int, limit: RouteLimit) -> Rule:
    counts = {window: count for window in LIMIT_WINDOWS if (count := getattr(limit, window)) is not None}
    name = limit.name or limit.by
    return Rule(
        ROUTE,
        f"{ROUTE}.{route}.{limit.name or number}",
        By(limit.by),
        Allowance(limits_of(counts, name, limit.burst)),
        is_shadow=limit.mode == "shadow",
        is_closed=limit.without_redis == "refuse",
    )


def plan_rule(limits: LimitSettings) -> Rule:
    """Who shares what a plan allows."""
    return Rule(PLAN, PLAN, By(limits.plan.by))


def guard_rule(limits: LimitSettings) -> Rule | None:
    """How many unknown keys of one address are looked up, if that is limited."""
    if limits.unknown_keys_per_minute is None:
        return None
    allowance = Allowance(limits_of({"per_minute": limits.unknown_keys_per_minute}, "unknown_keys"))
    return Rule(GUARD, GUARD, By.ADDRESS, allowance, is_closed=True)


def limit_terms(settings: Settings) -> LimitTerms:
    """What holds beside the rules of routes, for who explains them."""
    limits = settings.limits
    is_local = settings.redis is None or limits.mode == "local"
    counted = "local" if is_local else limits.shared
    return LimitTerms(plan_rule(limits), guard_rule(limits), limits.key_concurrency, counted)


def upstream_slots(upstream: Upstream, metrics: Metrics) -> Concurrency | None:
    """What counts the requests that are under way to an upstream, if they are limited."""
    if upstream.concurrency is None:
        return None
    return Concurrency(upstream.concurrency, limiter="upstream_concurrency", metrics=metrics)
