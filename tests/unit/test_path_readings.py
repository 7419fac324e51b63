"""Paths as upstreams may read them: what is forwarded is in the same route in every reading."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.auth.verdict import Access
from gateway.proxy.errors import BadRequest
from gateway.proxy.router import Route, Router
from tests.fixtures.readings import readings

PLACES = (b"/", b"/a", b"/a/b")
ROUTER = Router(
    [
        Route(place.decode(), (place,), "x", Access("required"), response_seconds=1.0, idle_seconds=1.0)
        for place in PLACES
    ]
)
PIECES = st.sampled_from(
    rb"/ / / . .. a b %61 %62 %2e %2E. %252e %3b %253b %3bx %23 %2523 %3f %253f %20 %2520 %09 %0a %7f %25 %zz c".split()
)


def route_of(path: bytes) -> str:
    """The name of the route of a path that needs no reading."""
    return max((place for place in PLACES if is_in(path, place)), key=len).decode()


def is_in(path: bytes, place: bytes) -> bool:
    return (path + b"/").startswith(place.rstrip(b"/") + b"/")


@pytest.mark.threat("path of two readings")
@settings(max_examples=400)
@given(st.lists(PIECES, max_size=9).map(b"".join))
def test_every_reading_is_in_the_same_route(path: bytes) -> None:
    """Decoded up to three times, cut at what seems a query, a parameter or a blank: the same rule applies. R341."""
    try:
        match = ROUTER.match(b"GET", b"/" + path, b"")
    except BadRequest:
        return
    assert match is not None
    assert {route_of(read) for read in readings(match.target)} == {match.route.name}


@pytest.mark.parametrize(
    "path",
    [
        b"/a/..%3b/c",
        b"/a/..%253b/c",
        b"/a/..%23",
        b"/a/..%3fx",
        b"/a/..%20/c",
        b"/a/.%09",
        b"/a%3bx",
        b"/%3b/a",
        b"/a/b%20",
        b"/a/%20/b",
    ],
)
def test_a_step_in_disguise_is_refused(path: bytes) -> None:
    """What an upstream cuts off, once it has decoded it, hides no step out of a route, nor into one. R341."""
    with pytest.raises(BadRequest):
        ROUTER.match(b"GET", path, b"")


@pytest.mark.parametrize("path", [b"/a/report%231%3bfinal%3f", b"/c%3b/d%20", b"/a/..%20x", b"/a/...%3bx", b"/.%3dx"])
def test_what_leads_nowhere_else_passes(path: bytes) -> None:
    """Names with signs that must be encoded are names. R341."""
    match = ROUTER.match(b"GET", path, b"")
    assert match is not None
    assert match.target == path
