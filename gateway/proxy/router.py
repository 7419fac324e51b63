"""From a request's target to a route. The path is cleaned once; what was matched is what is forwarded (R341)."""

import re
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from gateway.auth.verdict import Access
from gateway.limits.rules import RouteLimits
from gateway.proxy.cors import Cors
from gateway.proxy.door import DOOR, Door, Pages
from gateway.proxy.edge import AddressRule
from gateway.proxy.errors import BadRequest

_ENCODED: Final = re.compile(rb"%[0-9A-Fa-f]{2}")
_NESTED: Final = re.compile(rb"%(?:25)+")
# What stands behind a segment's name for one upstream or another: blanks, parameters, a query or a fragment.
_DOTS: Final = re.compile(rb"\.\.?[\0-\x20]*(?:[;?#].*)?", re.DOTALL)
_BEHIND_NAME: Final = re.compile(rb"[\0-\x20]*(?:;[^/]*)?(?=/|$)")
_GAPS: Final = re.compile(rb"/{2,}")
_PLAIN: Final = (string.ascii_letters + string.digits + "/-_~").encode()
_DOUBTFUL: Final = re.compile(rb"[%;\\]|//|/\.")


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A rule of the configuration, ready to be applied. `methods` and `hosts` empty mean any. Times are seconds."""

    name: str
    paths: tuple[bytes, ...]
    upstream: str
    access: Access
    response_seconds: float  # from the end of the request to the head of the reply
    idle_seconds: float  # between two pieces of the reply
    methods: frozenset[bytes] = frozenset()
    hosts: frozenset[bytes] = frozenset()
    strip_prefix: bool = False
    body_limit_bytes: int | None = None
    upgrades: frozenset[bytes] = frozenset()  # protocols that may be switched to, in lower case
    early: Cors | Door | Pages | None = None  # what may answer, or has a say, before the caller is looked at
    addresses: AddressRule | None = None
    closes_revoked: bool = True  # whether open streams and sockets end with their key
    limits: RouteLimits | None = None  # None: requests here count against no limit, not even the plan's


class Match:
    """A route and the target to forward. `allowed` is set where path and host fit but the method does not."""

    __slots__ = ("allowed", "route", "target")

    def __init__(self, route: Route, target: bytes, allowed: tuple[bytes, ...] = ()) -> None:
        self.route = route
        self.target = target
        self.allowed = allowed


class Router:
    """Finds the route of a request: the longest path first, a named host before any host.

    Costs one dictionary look-up per path segment, however many routes there are. `door` is the route of inquiries: no
    path is cleaned on to it, or away from it.
    """

    def __init__(self, routes: Iterable[Route], door: Route | None = None) -> None:
        self._door = door
        self._by_path: dict[bytes, list[Route]] = {}
        for route in routes:
            for path in route.paths:
                self._by_path.setdefault(path.rstrip(b"/"), []).append(route)
        for candidates in self._by_path.values():
            candidates.sort(key=lambda route: not route.hosts)

    def match(self, method: bytes, target: bytes, host: bytes) -> Match | None:
        """The match for a target in origin form. Raises BadRequest for a path that could be read in two ways. Hot."""
        path, question, query = target.partition(b"?")
        # Only a path that two readers may read in two ways is taken apart. (The first look is the quick one.)
        if (path.translate(None, _PLAIN) or path.find(b"//") >= 0) and _DOUBTFUL.search(path) is not None:
            if self._door is not None and path.startswith(DOOR) and path[len(DOOR) : len(DOOR) + 1] in (b"", b"/"):
                return Match(self._door, target)
            path = clean_path(path)
            target = path + question + query
            if b"%" in path:
                self._check_readings(method, path, host)
        prefix = path.rstrip(b"/") if path[-1:] == b"/" else path
        while True:
            candidates = self._by_path.get(prefix)
            if candidates is not None:
                first = candidates[0]
                route: Route | None = first
                allowed: tuple[bytes, ...] = ()
                if len(candidates) > 1 or first.hosts or (first.methods and method not in first.methods):
                    route, allowed = _pick(candidates, method, host)
                if route is not None:
                    if route.strip_prefix and prefix:
                        rest = path[len(prefix) :]
                        target = (rest if rest.startswith(b"/") else b"/" + rest) + question + query
                    return Match(route, target, allowed)
            if not prefix:
                return None
            prefix = prefix[: prefix.rfind(b"/")]

    def _check_readings(self, method: bytes, path: bytes, host: bytes) -> None:
        """Raise BadRequest if an upstream that decodes the path would find itself in another route's territory."""
        route = self._route_of(method, path, host)
        if any(self._route_of(method, read, host) is not route for read in loose_readings(path)):
            raise BadRequest("a path that leads elsewhere once it is decoded")

    def check_as_sent(self, method: bytes, target: bytes, host: bytes, match: Match) -> None:
        """Raise BadRequest if the path leads elsewhere when it is not cleaned: where somebody else sends it on."""
        path = target.partition(b"?")[0]
        if path.find(b"//") >= 0 or path.find(b"/.") >= 0:
            readings = (path, _GAPS.sub(b"/", path))
            if any(self._route_of(method, read, host) is not match.route for read in readings):
                raise BadRequest("a path that leads elsewhere as it came")

    def _route_of(self, method: bytes, path: bytes, host: bytes) -> Route | None:
        """As `match`, of a clean path, where time does not matter."""
        prefix = path.rstrip(b"/")
        while True:
            route, _ = _pick(self._by_path.get(prefix, ()), method, host)
            if route is not None or not prefix:
                return route
            prefix = prefix[: prefix.rfind(b"/")]


def _pick(candidates: Sequence[Route], method: bytes, host: bytes) -> tuple[Route | None, tuple[bytes, ...]]:
    """The first route that fits; else the first that fits but for the method, with the methods that would do."""
    allowed: set[bytes] = set()
    wrong_method: Route | None = None
    for route in candidates:
        if route.hosts and _bare_host(host) not in route.hosts:
            continue
        if not route.methods or method in route.methods:
            return route, ()
        wrong_method = wrong_method or route
        allowed |= route.methods
    return wrong_method, tuple(sorted(allowed))


def _bare_host(host: bytes) -> bytes:
    """Lower case, without port and without the root's dot."""
    name = host.lower()
    if not name.endswith(b"]"):
        name = name.rpartition(b":")[0] if b":" in name else name
    return name.rstrip(b".")


def clean_path(path: bytes) -> bytes:
    """The path with empty and dot segments taken out (RFC 3986 5.2.4).

    Raises BadRequest for what cannot be cleaned without guessing how the upstream reads it: an encoded slash,
    backslash, dot segment or NUL, however often encoded; a backslash; a path parameter.
    """
    if b";" in path or b"\\" in path or (b"%" in path and _has_hidden_parts(path)):
        raise BadRequest("a path that could be read in two ways")
    segments: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            if segments:
                segments.pop()
        elif segment not in (b"", b"."):
            segments.append(segment)
    is_folder = path.endswith((b"/", b"/.", b"/.."))
    return b"/" + b"/".join(segments) + (b"/" if is_folder and segments else b"")


def _has_hidden_parts(path: bytes) -> bool:
    """Whether decoding makes other segments of the path than there are."""
    plain = decoded(path)
    if plain.count(b"/") != path.count(b"/") or b"\\" in plain or b"\0" in plain:
        return True
    return any(
        inner != outer and _DOTS.fullmatch(inner) is not None
        for inner, outer in zip(plain.split(b"/"), path.split(b"/"), strict=True)
    )


def loose_readings(path: bytes) -> Iterator[bytes]:
    """A clean path as upstreams read it that decode all of it, and leave out what they take for no part of it."""
    plain = decoded(path)
    for read in (plain, re.split(rb"[?#]", plain, maxsplit=1)[0]):
        yield read
        yield _GAPS.sub(b"/", _BEHIND_NAME.sub(b"", read))


def decoded(path: bytes) -> bytes:
    """The path percent-decoded until nothing is left to decode: what the most eager upstream would read."""
    while _ENCODED.search(path) is not None:
        path = unquote_to_bytes(_NESTED.sub(b"%", path))
    return path
