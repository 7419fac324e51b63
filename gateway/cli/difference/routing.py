"""Which requests are answered by another route than before, or by none: found by asking the router itself.

A route takes all under its paths that no longer path takes, so one that comes or goes changes what others answer. Every
host, path and method that either configuration names is asked for once, and one that neither names.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product

from gateway.auth.verdict import Access
from gateway.cli.difference.change import Change, Danger, network_text, worded
from gateway.cli.difference.walk import collapsed
from gateway.proxy.router import Route as RoutedRoute
from gateway.proxy.router import Router
from gateway.settings import Addresses, Route, Settings

OTHER_HOST = "any.other.host.invalid"
OTHER_METHOD = "OTHER"  # what no route names
Point = tuple[str, str, str]  # path, host, method
AUTH = ("required", "optional", "none")  # each lets more in


class Table:
    """One configuration's routes, asked by the real router."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.routes = {route.name: route for route in settings.routes}
        self._router = Router(_routed(route) for route in settings.routes)

    def answers(self, point: Point) -> Route | None:
        """The route that takes such a request."""
        path, host, method = point
        match = self._router.match(method.encode(), path.encode(), host.encode())
        return None if match is None or match.allowed else self.routes[match.route.name]

    def addresses_of(self, route: Route) -> Addresses:
        """From where a route may be used."""
        return self.settings.client.addresses if route.addresses is None else route.addresses


def _routed(route: Route) -> RoutedRoute:
    return RoutedRoute(
        route.name,
        tuple(path.encode() for path in route.paths),
        route.upstream,
        Access(route.auth),
        response_seconds=0.0,
        idle_seconds=0.0,
        methods=frozenset(method.encode() for method in route.methods),
        hosts=frozenset(host.encode() for host in route.hosts),
    )


class Rerouting:
    """What two configurations do with the same requests. `renamed`: routes that match as before by another name.

    `mentioned` are the (new) names of routes of which a change tells.
    """

    def __init__(self, old: Settings, new: Settings) -> None:
        self._old, self._new = Table(old), Table(new)
        self.renamed = _renamed(old, new)
        self._points = _points((*old.routes, *new.routes))
        self.mentioned: set[str] = set()

    def changes(self) -> Iterator[Change]:
        """One change for all requests that go from one route to another."""
        groups: dict[tuple[str | None, str | None], list[Point]] = defaultdict(list)
        for point in product(*self._points):
            before, after = self._old.answers(point), self._new.answers(point)
            names = None if before is None else before.name, None if after is None else after.name
            if self.renamed.get(names[0] or "", names[0]) != names[1]:
                groups[names].append(point)
        for (one, other), points in groups.items():
            self.mentioned |= {name for name in (self.renamed.get(one or "", one), other) if name is not None}
            yield self._told(
                None if one is None else self._old.routes[one],
                None if other is None else self._new.routes[other],
                "; ".join(self._wheres(points)),
            )

    def _told(self, before: Route | None, after: Route | None, where: str) -> Change:
        if before is None:
            assert after is not None
            said = f"{where}: exposed, by route {after.name} ({_access(after, self._new)}) to upstream {after.upstream}"
            return Change(Danger.OPENS, f"routes.{after.name}", _whom(after), said, None, after.name)
        if after is None:
            said = f"{where}: no longer served, by route {before.name} until now"
            return Change(Danger.CLOSES, f"routes.{before.name}", _whom(before), said, before.name, None)
        said = (
            f"{where}: answered by route {after.name} ({_access(after, self._new)}) and no longer by {before.name}"
            f" ({_access(before, self._old)})"
        )
        danger = self._danger(before, after)
        return Change(danger, f"routes.{after.name}", _whom(after), said, before.name, after.name)

    def _danger(self, before: Route, after: Route) -> Danger:
        """Of moving requests from one route to another."""
        one, other = before.require, after.require
        from_before, from_after = self._old.addresses_of(before), self._new.addresses_of(after)
        opens = (
            AUTH.index(after.auth) > AUTH.index(before.auth)
            or (before.auth == "required" and not set(one.scopes) <= set(other.scopes))
            or (before.auth == "required" and not set(one.features) <= set(other.features))
            or other.tier < one.tier
            or (after.tokens and not before.tokens)
            or _lets_more_in(from_before, from_after)
        )
        if opens:
            return Danger.OPENS
        is_same = _what_is_asked(before) == _what_is_asked(after) and not _lets_more_in(from_after, from_before)
        return Danger.OTHER if is_same else Danger.CLOSES

    def _wheres(self, points: Sequence[Point]) -> Iterator[str]:
        """The points in words, those of a path together where they are all of some methods at some hosts."""
        _, all_hosts, all_methods = self._points
        by_path: dict[str, list[Point]] = defaultdict(list)
        for point in points:
            by_path[point[0]].append(point)
        for path, of_path in by_path.items():
            by_host: dict[frozenset[str], list[str]] = defaultdict(list)
            for host in dict.fromkeys(point[1] for point in of_path):
                by_host[frozenset(point[2] for point in of_path if point[1] == host)].append(host)
            for methods, hosts in by_host.items():
                what = _named(methods, all_methods, OTHER_METHOD, "method")
                where = "" if len(hosts) == len(all_hosts) else f" at {_named(hosts, all_hosts, OTHER_HOST, 'host')}"
                yield f"{what} on {path}{where}"


def _points(routes: Sequence[Route]) -> tuple[list[str], list[str], list[str]]:
    paths = {path for route in routes for path in route.paths}
    hosts = {host for route in routes for host in route.hosts}
    methods = {method for route in routes for method in route.methods}
    return sorted(paths), [*sorted(hosts), OTHER_HOST], [*sorted(methods), OTHER_METHOD]


def _renamed(old: Settings, new: Settings) -> dict[str, str]:
    """Routes of which nothing but the name tells that they are not the same."""
    kept = {route.name for route in old.routes} & {route.name for route in new.routes}
    gone = {_matching(route): route.name for route in old.routes if route.name not in kept}
    come = {_matching(route): route.name for route in new.routes if route.name not in kept}
    return {name: come[match] for match, name in gone.items() if match in come}


def _matching(route: Route) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    return frozenset(route.paths), frozenset(route.hosts), frozenset(route.methods)


def _named(some: Sequence[str] | frozenset[str], every: Sequence[str], other: str, noun: str) -> str:
    if len(some) == len(every):
        return f"any {noun}"
    if other in some:
        return f"any {noun} but {', '.join(sorted(set(every) - set(some)))}"
    return ", ".join(sorted(some))


def _whom(route: Route) -> str:
    return "everybody" if route.auth != "required" else f"callers of route {route.name}"


def _access(route: Route, table: Table) -> str:
    """Who may use a route, in a few words."""
    parts = [{"required": "key required", "optional": "with or without a key", "none": "public"}[route.auth]]
    require = route.require
    parts += [f"scopes {worded(require.scopes)}"] if require.scopes else []
    parts += [f"features {worded(require.features)}"] if require.features else []
    parts += [f"tier {require.tier} or more"] if require.tier else []
    parts += ["tokens accepted"] if route.tokens else []
    addresses = table.addresses_of(route)
    parts += [f"from {_networks(addresses.allow)} only"] if addresses.allow else []
    parts += [f"never from {_networks(addresses.deny)}"] if addresses.deny else []
    return ", ".join(parts)


def _networks(networks: Sequence[object]) -> str:
    return ", ".join(network_text(network) for network in networks)  # type: ignore[arg-type]


def _what_is_asked(route: Route) -> tuple[object, ...]:
    """What a route asks of its callers, but for where they come from."""
    asked = route.require
    return route.auth, set(asked.scopes), set(asked.features), asked.tier, route.tokens


def _lets_more_in(before: Addresses, after: Addresses) -> bool:
    """Whether some address may come in that could not; where it is not plain to see, yes."""
    allow_before, allow_after = collapsed(before.allow), collapsed(after.allow)
    is_wider = bool(allow_before) and (not allow_after or not allow_after <= allow_before)
    return is_wider or not collapsed(before.deny) <= collapsed(after.deny)
