"""Settings that this version reads and does not act on. When a feature lands, its line here goes."""

from collections.abc import Callable

from gateway.settings import Plan, Route, Settings

_Row = tuple[str, str]
_ROUTE: dict[_Row, Callable[[Route], bool]] = {
    ("limits", "rate limits are not enforced by this version"): lambda route: bool(route.limits),
}
_PLAN: dict[_Row, Callable[[Plan], bool]] = {
    ("limits", "rate limits are not enforced by this version"): lambda plan: bool(plan.limits),
}


def warnings_of(settings: Settings) -> list[str]:
    """Return a sentence (`routes[0].limits: ... .`) for each setting in use that this version does not act on."""
    used: list[str] = []
    for index, route in enumerate(settings.routes):
        used += [f"routes[{index}].{at}: {text}." for (at, text), is_used in _ROUTE.items() if is_used(route)]
    for name, plan in settings.plans.items():
        used += [f"plans.{name}.{at}: {text}." for (at, text), is_used in _PLAN.items() if is_used(plan)]
    return used
