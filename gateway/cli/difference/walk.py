"""Two configurations side by side: every setting whose effect differs.

Order where it means nothing, defaults that are written out, and other spellings of one thing are no difference. The
walk goes over the models themselves, so that a setting which is added to them cannot be forgotten here.
"""

from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Any, Final

from pydantic import BaseModel

from gateway.cli.difference.change import ABSENT, Difference, Place
from gateway.limits.limit import FLOW_SECONDS, UNLIMITED
from gateway.settings import CredentialPlace, Pepper, Route, RouteLimit, Settings, Timeouts

# Tuples whose order means nothing, by the name of their setting.
SETS: Final = frozenset(
    {"paths", "hosts", "methods", "scopes", "features", "origins", "upgrades", "algorithms", "key_scopes", "targets"}
)
HEADERS: Final = frozenset({"header", "headers"})  # names of headers, which have no case
NETWORKS: Final = frozenset({"allow", "deny", "trusted_proxies"})


class Walk:
    """`renamed` maps the old name of a route to its new one."""

    def __init__(self, old: Settings, new: Settings, renamed: Mapping[str, str]) -> None:
        self._old = old
        self._new = new
        self._renamed = renamed

    def differences(self) -> Iterator[Difference]:
        """Every setting that differs in effect."""
        yield from self._between((), self._old, self._new)

    def _between(self, place: Place, old: Any, new: Any) -> Iterator[Difference]:
        if place == ("routes",):
            yield from self._of_routes(old, new)
        elif isinstance(old, BaseModel) and isinstance(new, BaseModel):
            for name in type(old).model_fields:
                yield from self._between((*place, name), getattr(old, name), getattr(new, name))
        elif (keyed := _KEYED.get(place[-1] if place else "")) is not None and isinstance(old, tuple):
            yield from self._between(place, keyed(old), keyed(new))
            if place == ("keys", "peppers") and old and new and old[0].id != new[0].id:
                yield Difference(place, old[0].id, new[0].id)
        elif isinstance(old, Mapping) and isinstance(new, Mapping):
            if place[0] == "plans" and place[-1] == "limits":
                old, new = _limiting(old), _limiting(new)
            for name in {**old, **new}:
                yield from self._between((*place, str(name)), old.get(name, ABSENT), new.get(name, ABSENT))
        elif self._normal(place, old, self._old) != self._normal(place, new, self._new):
            yield Difference(place, old, new)

    def _of_routes(self, old: tuple[Route, ...], new: tuple[Route, ...]) -> Iterator[Difference]:
        before = {self._renamed.get(route.name, route.name): route for route in old}
        after = {route.name: route for route in new}
        for name in {**before, **after}:
            place, one, other = ("routes", name), before.get(name), after.get(name)
            if one is None or other is None:
                yield Difference(place, ABSENT if one is None else one, ABSENT if other is None else other)
                continue
            if one.name != other.name:
                yield Difference((*place, "name"), one.name, other.name)
            yield from self._between(
                place, _resolved(one, other, self._old), _resolved(other, one, self._new, name=one.name)
            )

    def _normal(self, place: Place, value: Any, settings: Settings) -> Any:
        """A value of which equal effects are equal."""
        name = place[-1]
        if place == ("limits", "mode") and value is None:
            return "local" if settings.redis is None else "shared"
        if name in HEADERS or (place and place[0] == "identity_headers"):
            return frozenset(one.lower() for one in value) if isinstance(value, tuple) else str(value).lower()
        if name in NETWORKS and isinstance(value, tuple):
            return collapsed(value)
        if name in SETS and isinstance(value, tuple):
            return frozenset(value)
        return value


def collapsed(networks: tuple[IPv4Network | IPv6Network, ...]) -> frozenset[IPv4Network | IPv6Network]:
    """The same addresses, in the fewest networks."""
    fours = [network for network in networks if isinstance(network, IPv4Network)]
    sixes = [network for network in networks if isinstance(network, IPv6Network)]
    return frozenset((*collapse_addresses(fours), *collapse_addresses(sixes)))


def _resolved(route: Route, other: Route, settings: Settings, *, name: str | None = None) -> Route:
    """The route with what it takes from elsewhere filled in, where the other configuration's says it by itself."""
    given: dict[str, Any] = {} if name is None else {"name": name}
    client, upstream = settings.client, settings.upstreams.get(route.upstream)
    timeouts = Timeouts() if upstream is None else upstream.timeouts  # of the gateway's own upstream, the portal
    if route.addresses is None and other.addresses is not None:
        given["addresses"] = client.addresses
    if route.body_limit_bytes is None and other.body_limit_bytes is not None:
        given["body_limit_bytes"] = client.body_limit_bytes
    waits = {
        wait: getattr(timeouts, wait)
        for wait in ("response", "idle")
        if getattr(route.timeouts, wait) is None and getattr(other.timeouts, wait) is not None
    }
    if waits:
        given["timeouts"] = route.timeouts.model_copy(update=waits)
    return route.model_copy(update=given)


def _limiting(counts: Mapping[str, Any]) -> dict[str, Any]:
    """A plan's limits without those that limit nothing."""
    return {window: count for window, count in counts.items() if count not in UNLIMITED}


def _credentials(places: tuple[CredentialPlace, ...]) -> dict[str, CredentialPlace]:
    found = {}
    for one in places:
        kind = "header" if one.header else "query" if one.query else "websocket_protocol"
        found[f"{kind} {one.name.lower() if one.header else one.name}"] = one
    return found


def _peppers(peppers: tuple[Pepper, ...]) -> dict[str, Any]:
    return {pepper.id: pepper.secret for pepper in peppers}


def _route_limits(limits: tuple[RouteLimit, ...]) -> dict[str, RouteLimit]:
    found: dict[str, RouteLimit] = {}
    for limit in limits:
        name = base = limit.name or f"by {limit.by}"
        number = 1
        while name in found:
            number += 1
            name = f"{base} ({number})"
        found[name] = _without_idle_burst(limit)
    return found


def _without_idle_burst(limit: RouteLimit) -> RouteLimit:
    """A burst that is all of every window says nothing."""
    counts = [getattr(limit, window) for window in FLOW_SECONDS]
    is_idle = all(count in (None, limit.burst) for count in counts)
    return limit.model_copy(update={"burst": None}) if is_idle else limit


_KEYED: Final[dict[str, Callable[[Any], Mapping[str, Any]]]] = {
    "credentials": _credentials,
    "peppers": _peppers,
    "limits": _route_limits,
}
