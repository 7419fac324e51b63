"""Rules that hold between settings: names that must exist, names that must not meet.

They are checked on a tree that may be wrong in other ways as well, so that all mistakes can be told at once: what has
not the expected form is passed over here, since its own shape is reported elsewhere. Must not know: the models.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations
from typing import Any, Final, TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticCustomError

from gateway.setting_values import (
    OUTAGE_SECONDS,
    PORTAL_PATH,
    PORTAL_UPSTREAM,
    REFRESH_SECONDS,
    Address,
    read_address,
    read_target,
)

LIMIT_WINDOWS: Final = ("per_second", "per_minute", "per_hour", "per_day", "per_month")
Place = tuple[str | int, ...]
_T = TypeVar("_T")

# Headers that frame, route or describe the message itself: neither a key nor an identity may take their place.
OWN_HEADERS = frozenset(
    {
        "connection", "content-encoding", "content-length", "content-type", "cookie", "date", "expect", "forwarded",
        "host", "http2-settings", "keep-alive", "origin", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-key",
        "sec-websocket-protocol", "sec-websocket-version", "te", "trailer", "transfer-encoding", "upgrade", "via",
        "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """Where a rule is broken, what is wrong there (a verb phrase), and the cure (a sentence)."""

    place: Place
    what: str
    cure: str


def broken_rules(settings: object, is_written: Callable[[Place], bool] = lambda _: True) -> Iterator[BrokenRule]:
    """Yield every broken rule of `settings`: the models, or the mappings and lists of a file.

    Where two settings clash, the one that `is_written` in the file is blamed, and not the default of the other.
    """
    yield from _listeners(settings, is_written)
    yield from _peppers(settings)
    yield from _imported(settings)
    yield from _proxies(settings)
    yield from _provider(settings, is_written)
    yield from _portal(settings)
    yield from _credentials(settings)
    yield from _headers(settings, is_written)
    yield from _upstreams(settings)
    yield from _route_references(settings)
    yield from _route_collisions(settings)
    yield from _limits(settings)


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the sentence that leads from an unknown name to a known one."""
    close = get_close_matches(name, known, n=1)
    if close:
        return f'Did you mean "{close[0]}"?'
    return f"Known are: {', '.join(known)}." if known else "Define one first."


def normal_header(name: str) -> str:
    """Return the one spelling of a header's name that all its spellings share (case, `_` for `-`)."""
    return name.lower().replace("_", "-")


def _get(holder: object, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def _list(holder: object, name: str) -> Sequence[Any]:
    found = _get(holder, name)
    return found if isinstance(found, list | tuple) else ()


def _texts(holder: object, name: str) -> list[str]:
    return [item for item in _list(holder, name) if isinstance(item, str)]


def _map(holder: object, name: str) -> Mapping[str, Any]:
    found = _get(holder, name)
    return found if isinstance(found, Mapping) else {}


def _read(reader: Callable[[object], _T], value: object) -> _T | None:
    try:
        return reader(value)
    except PydanticCustomError:
        return None


def _listeners(settings: object, is_written: Callable[[Place], bool]) -> Iterator[BrokenRule]:
    seen: dict[Address, str] = {}
    for name in sorted(("proxy", "admin", "status"), key=lambda name: is_written(("listen", name))):
        address = _read(read_address, _get(_get(settings, "listen"), name))
        if address is None or address.port == 0:
            continue
        if first := seen.get(address):
            yield BrokenRule(
                ("listen", name), f"is the address of listen.{first} too", "Give each listener its own port."
            )
        seen.setdefault(address, name)


def _peppers(settings: object) -> Iterator[BrokenRule]:
    seen: set[str] = set()
    for index, pepper in enumerate(_list(_get(settings, "keys"), "peppers")):
        name = _get(pepper, "id")
        if isinstance(name, str):
            if name in seen:
                yield BrokenRule(
                    ("keys", "peppers", index, "id"),
                    "is the id of another pepper",
                    "Give each pepper its own.",
                )
            seen.add(name)


def _imported(settings: object) -> Iterator[BrokenRule]:
    imported = _get(_get(settings, "keys"), "imported")
    bounds = [_get(imported, name) for name in ("length_minimum", "length_maximum")]
    if all(isinstance(bound, int) for bound in bounds) and bounds[0] > bounds[1]:
        yield BrokenRule(
            ("keys", "imported", "length_minimum"), "is above length_maximum", "Write the smaller one here."
        )


def _proxies(settings: object) -> Iterator[BrokenRule]:
    if _get(_get(settings, "listen"), "proxy_protocol") is True and _get(settings, "trusted_proxies") in (None, [], ()):
        yield BrokenRule(
            ("listen", "proxy_protocol"),
            "believes nobody while trusted_proxies is empty",
            "List the proxies that send it in trusted_proxies.",
        )


def _seconds(holder: object, name: str, default: float) -> float:
    """A number of the file, or a text that is one; what is neither compares with nothing."""
    value = _get(holder, name)
    if value is None:
        return default
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _provider(settings: object, is_written: Callable[[Place], bool]) -> Iterator[BrokenRule]:
    oidc = _get(settings, "oidc")
    issuer = _get(oidc, "issuer")
    if isinstance(issuer, str) and issuer == _get(_get(settings, "tokens"), "issuer"):
        yield BrokenRule(
            ("oidc", "issuer"),
            "is tokens.issuer too: tokens of keys would sign users in",
            "Name the provider where users sign in.",
        )
    if _seconds(oidc, "outage_seconds", OUTAGE_SECONDS) < _seconds(oidc, "refresh_seconds", REFRESH_SECONDS):
        name = "outage_seconds" if is_written(("oidc", "outage_seconds")) else "refresh_seconds"
        yield BrokenRule(
            ("oidc", name),
            "lets keys lapse before they are read again",
            "Make outage_seconds at least refresh_seconds.",
        )


def _portal(settings: object) -> Iterator[BrokenRule]:
    portal, oidc = _get(settings, "portal"), _get(settings, "oidc")
    if portal is not None and oidc is None:
        yield BrokenRule(("portal",), "has nobody who signs in", "Set up oidc: {issuer, audience}, or leave this out.")
    client_id = _get(portal, "client_id")
    if isinstance(client_id, str) and client_id == _get(oidc, "audience"):
        yield BrokenRule(
            ("portal", "client_id"),
            "is oidc.audience too: ID tokens would do as access tokens",
            "Have the provider name this API by another audience than the client.",
        )
    for index, route in enumerate(_list(settings, "routes")):
        if _get(route, "upstream") != PORTAL_UPSTREAM:
            continue
        if portal is None:
            yield BrokenRule(
                ("routes", index, "upstream"),
                "leads to the portal, and there is none",
                "Set up portal: {url, client_id}, or leave this route out.",
            )
        if list(_list(route, "paths")) != [PORTAL_PATH] or _get(route, "strip_prefix") is True:
            yield BrokenRule(
                ("routes", index, "paths"),
                "is not where the portal is",
                f'Write paths: ["{PORTAL_PATH}"], without strip_prefix.',
            )
        if _get(route, "cors") is not None:
            yield BrokenRule(
                ("routes", index, "cors"), "is for pages of other sites", "Leave it out: the portal has its own."
            )
        if _get(route, "auth") != "none":
            yield BrokenRule(
                ("routes", index, "auth"), "asks for a key, which no browser sends", "Set auth to none: users sign in."
            )


CREDENTIAL_PLACES: Final = ("header", "query", "websocket_protocol")


def _credentials(settings: object) -> Iterator[BrokenRule]:
    seen: dict[tuple[str, str], int] = {}
    for index, place in enumerate(_list(settings, "credentials")):
        if not isinstance(place, Mapping | BaseModel):
            continue
        named = [(kind, _get(place, kind)) for kind in CREDENTIAL_PLACES if _get(place, kind) is not None]
        if len(named) != 1:
            yield BrokenRule(
                ("credentials", index),
                "names not exactly one place",
                "Give one of header, query and websocket_protocol.",
            )
            continue
        kind, name = named[0]
        if kind != "header" and isinstance(name, str):
            if (kind, name) in seen:
                yield BrokenRule(
                    ("credentials", index, kind),
                    f"is the place of credentials[{seen[kind, name]}] too",
                    "Leave one out.",
                )
            seen.setdefault((kind, name), index)


def _headers(settings: object, is_written: Callable[[Place], bool]) -> Iterator[BrokenRule]:
    seen: dict[str, str] = {}
    named: list[tuple[Place, object, str]] = [
        (("credentials", index, "header"), _get(place, "header"), f"credentials[{index}]")
        for index, place in enumerate(_list(settings, "credentials"))
    ]
    identity = _get(settings, "identity_headers")
    fields = dict(identity) if isinstance(identity, Mapping | BaseModel) else {}
    named += [(("identity_headers", name), header, f"identity_headers.{name}") for name, header in fields.items()]
    for place, header, title in sorted(named, key=lambda one: is_written(one[0])):
        if not isinstance(header, str):
            continue
        normal = normal_header(header)
        if normal in OWN_HEADERS:
            yield BrokenRule(place, "is a header that HTTP or the proxy needs for itself", "Choose another name.")
        elif first := seen.get(normal):
            yield BrokenRule(place, f"is the header of {first} too", "Give each its own name.")
        seen.setdefault(normal, title)


def _upstreams(settings: object) -> Iterator[BrokenRule]:
    for name, upstream in _map(settings, "upstreams").items():
        targets = [_read(read_target, target) for target in _list(upstream, "targets")]
        for index, target in enumerate(targets):
            if target is not None and target in targets[:index]:
                yield BrokenRule(("upstreams", name, "targets", index), "is listed twice", "Leave one out.")
        tls = _get(upstream, "tls")
        if tls is not None and (_get(tls, "cert") is None) != (_get(tls, "key") is None):
            yield BrokenRule(
                ("upstreams", name, "tls"), "has one of cert and key without the other", "Give both, or none."
            )
        if _get(upstream, "assertion") is True and _get(settings, "tokens") is None:
            yield BrokenRule(
                ("upstreams", name, "assertion"),
                "needs keys to sign by, and there are none",
                "Set up tokens: {issuer, audience, sealing_key}, or leave this out.",
            )


def _route_references(settings: object) -> Iterator[BrokenRule]:
    upstreams = list(_map(settings, "upstreams"))
    is_known = _get(settings, "upstreams") is None or isinstance(_get(settings, "upstreams"), Mapping)
    seen: dict[str, int] = {}
    for index, route in enumerate(_list(settings, "routes")):
        name, upstream = _get(route, "name"), _get(route, "upstream")
        if isinstance(name, str):
            if name in seen:
                yield BrokenRule(
                    ("routes", index, "name"),
                    f"is the name of routes[{seen[name]}] too",
                    "Give each its own.",
                )
            seen.setdefault(name, index)
        if is_known and isinstance(upstream, str) and upstream not in (*upstreams, PORTAL_UPSTREAM):
            yield BrokenRule(
                ("routes", index, "upstream"), "names no upstream of this file", nearest(upstream, upstreams)
            )
        if _get(route, "tokens") is True and _get(settings, "tokens") is None:
            yield BrokenRule(
                ("routes", index, "tokens"),
                "accepts tokens, and there are none",
                "Set up tokens: {issuer, audience, sealing_key}, or leave this out.",
            )
        require = _get(route, "require")
        if _get(route, "auth") in ("none", "optional") and any(
            _get(require, what) for what in ("scopes", "features", "tier")
        ):
            yield BrokenRule(
                ("routes", index, "require"),
                "asks something of callers who need no key here",
                "Set auth to required, or leave out require.",
            )


def _route_collisions(settings: object) -> Iterator[BrokenRule]:
    routes = list(enumerate(_list(settings, "routes")))
    for index, route in routes:
        paths = _texts(route, "paths")
        for at, path in enumerate(paths):
            if path in paths[:at]:
                yield BrokenRule(("routes", index, "paths", at), "is listed twice", "Leave one out.")
    for (first, one), (second, other) in combinations(routes, 2):
        if not _shares_hosts(one, other) or not _shares_methods(one, other):
            continue
        for at, path in enumerate(_texts(other, "paths")):
            if path in _texts(one, "paths"):
                yield BrokenRule(
                    ("routes", second, "paths", at),
                    f"is matched by routes[{first}] too, for the same host and method",
                    "Tell the routes apart by path, hosts or methods.",
                )


def _shares_hosts(one: object, other: object) -> bool:
    """Whether two routes stand in the same host's table: a named host is asked before "any host"."""
    mine = {host.lower() for host in _texts(one, "hosts")} or {""}
    return bool(mine & ({host.lower() for host in _texts(other, "hosts")} or {""}))


def _shares_methods(one: object, other: object) -> bool:
    mine, theirs = set(_texts(one, "methods")), set(_texts(other, "methods"))
    return not mine or not theirs or bool(mine & theirs)


def _limits(settings: object) -> Iterator[BrokenRule]:
    for index, route in enumerate(_list(settings, "routes")):
        for number, limit in enumerate(_list(route, "limits")):
            if all(_get(limit, window) is None for window in LIMIT_WINDOWS):
                yield BrokenRule(
                    ("routes", index, "limits", number),
                    "limits nothing",
                    f"Give it one of {', '.join(LIMIT_WINDOWS)}.",
                )
    has_redis = _get(settings, "redis") is not None
    if _get(_get(settings, "limits"), "mode") == "shared" and not has_redis:
        yield BrokenRule(
            ("limits", "mode"), "has nothing that nodes could share it by", "Set up redis: {url}, or count locally."
        )
