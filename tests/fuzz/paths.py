"""Paths: cleaning them twice is cleaning them once, and however often an upstream decodes, it stays in the route."""

import re

from gateway.proxy.errors import BadRequest
from gateway.proxy.router import Match, Router, clean_path
from tests.fixtures.readings import readings
from tests.fuzz import parts

READ = re.compile(rb"/[!-\"$-~]*")  # what the reader of heads lets through


def check(data: bytes) -> None:
    """`data` is the target, and the host behind a line's end if there is one."""
    target, found, host = data.partition(b"\n")
    method = b"DELETE" if host.endswith(b"!") else b"GET"
    host = host.rstrip(b"!") if found else b"a.test"
    path, question, query = target.partition(b"?")
    if READ.fullmatch(target) is None:
        return
    cleaned = clean(path)
    if cleaned is not None:
        assert clean(cleaned) == cleaned, "cleaning twice is not cleaning once"
        assert b"//" not in cleaned
        assert not {b".", b".."} & set(cleaned.split(b"/"))
        assert cleaned.startswith(b"/")
    match = matched(parts.router(), method, target, host)
    if match is None:
        return
    assert cleaned is not None
    forwarded, _, rest = match.target.partition(b"?")
    assert (match.target != forwarded) == bool(question)
    assert rest == query
    stripped = match.route.paths[0] if match.route.strip_prefix else b""
    assert stripped or forwarded == cleaned
    # An encoded path may read as another, but never as one of another route.
    for reading in readings(stripped + forwarded):
        assert territory(reading, host) == match.route.name, reading


def territory(path: bytes, host: bytes) -> str | None:
    """The name of the route that a plain path is in, if any: the longest that fits, and one for this host first."""
    name = host.lower().partition(b":")[0].rstrip(b".")
    fitting = [
        (len(place.rstrip("/")), bool(route.hosts), route.name)
        for route in parts.settings().routes
        for place in route.paths
        if (path + b"/").startswith(place.rstrip("/").encode() + b"/")
        and (not route.hosts or name.decode("latin-1") in route.hosts)
    ]
    return max(fitting)[2] if fitting else None


def clean(path: bytes) -> bytes | None:
    """The cleaned path; None where it is refused."""
    try:
        return clean_path(path)
    except BadRequest:
        return None


def matched(router: Router, method: bytes, target: bytes, host: bytes) -> Match | None:
    """The match; None where it is refused, which a path that only an upstream reads cannot be."""
    try:
        return router.match(method, target, host)
    except BadRequest:
        return None


SEEDS = [
    *(b"/", b"/k", b"/k/", b"/k/a?b=c", b"/s/a/b", b"/s", b"/s?x", b"/o/../k", b"//k", b"/./k/.", b"/a/b/../../k/.."),
    *(b"/k/shop\nshop.test", b"/k/shop/x\nSHOP.TEST.:80", b"/m/x\na.test!", b"/k/%2e%2e/o", b"/k/%252e%252e/o"),
    *(b"/%6b", b"/%256b/x", b"/k%2fa", b"/k%5ca", b"/k%00", b"/k;a=b", b"/s/%2e%2e/k", b"/s//evil.test/", b"/%73/a"),
    *(b"/k/%3fa", b"/o%23/k", b"/k/100%25", b"/k/%zz/%", b"/k?%2e%2e/;//..", b"/K", b"/k/%C3%A9/~a/%7Ea"),
]
TOKENS = [
    *(b"%2e", b"%2E", b"%2f", b"%5c", b"%00", b"%25", b"%252e", b"%3f", b"%23", b"%3b", b"/..", b"/.", b"//", b"/k"),
    *(b"/o", b"/s", b"/k/shop", b"%6b", b"%73", b"\nshop.test", b";", b"\\", b"?", b"!"),
]
