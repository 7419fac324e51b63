"""From target to route: the path is cleaned once, and what was matched is what is forwarded."""

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.auth.verdict import Access
from gateway.proxy.errors import BadRequest
from gateway.proxy.router import Match, Route, Router, clean_path

KEY = Access("required")
ANYBODY = Access("none")


def route(
    name: str,
    *paths: bytes,
    access: Access = KEY,
    strip_prefix: bool = False,
    methods: frozenset[bytes] = frozenset(),
    hosts: frozenset[bytes] = frozenset(),
) -> Route:
    return Route(
        name,
        paths,
        "up",
        access,
        response_seconds=1,
        idle_seconds=1,
        methods=methods,
        hosts=hosts,
        strip_prefix=strip_prefix,
    )


ROUTER = Router(
    [
        route("orders", b"/orders"),
        route("open orders", b"/orders/open", access=ANYBODY),
        route("stripped", b"/api/v1", strip_prefix=True),
        route("two", b"/one", b"/two"),
        route("reading", b"/files", methods=frozenset({b"GET", b"HEAD"})),
        route("writing", b"/files", methods=frozenset({b"PUT"})),
        route("shop", b"/shop", hosts=frozenset({b"shop.test", b"[::1]"})),
        route("any shop", b"/shop"),
        route("only here", b"/here", hosts=frozenset({b"here.test"})),
    ]
)
WITH_ROOT = Router([route("root", b"/", access=ANYBODY), route("admin", b"/admin")])


def named(match: Match | None) -> str | None:
    return None if match is None else match.route.name


@pytest.mark.parametrize(
    ("target", "name", "forwarded"),
    [
        (b"/orders", "orders", b"/orders"),
        (b"/orders/", "orders", b"/orders/"),
        (b"/orders/7?x=/y", "orders", b"/orders/7?x=/y"),
        (b"/orders?x", "orders", b"/orders?x"),
        (b"/orders/open", "open orders", b"/orders/open"),
        (b"/orders/open/7", "open orders", b"/orders/open/7"),
        (b"/orders/opening", "orders", b"/orders/opening"),
        (b"/ordersx", None, None),
        (b"/order", None, None),
        (b"/Orders", None, None),
        (b"/", None, None),
        (b"/two/x", "two", b"/two/x"),
        (b"/api/v1", "stripped", b"/"),
        (b"/api/v1/", "stripped", b"/"),
        (b"/api/v1/a/b?c", "stripped", b"/a/b?c"),
        (b"/api/v1?c", "stripped", b"/?c"),
        (b"/api/v1//evil.test/x", "stripped", b"/evil.test/x"),
        (b"/api", None, None),
        (b"//orders", "orders", b"/orders"),
        (b"/orders//7", "orders", b"/orders/7"),
        (b"/orders/./7", "orders", b"/orders/7"),
        (b"/x/../orders", "orders", b"/orders"),
        (b"/orders/open/../7", "orders", b"/orders/7"),
        (b"/orders/open/..", "orders", b"/orders/"),
        (b"/../../orders", "orders", b"/orders"),
        (b"/orders/.hidden", "orders", b"/orders/.hidden"),
        (b"/orders/...", "orders", b"/orders/..."),
        (b"/orders/a%20b", "orders", b"/orders/a%20b"),
        (b"/orders/100%25", "orders", b"/orders/100%25"),
        (b"/orders/a%2eb", "orders", b"/orders/a%2eb"),
        (b"/orders/%7Ea/%3F/%23/%C3%A9/%zz/%", "orders", b"/orders/%7Ea/%3F/%23/%C3%A9/%zz/%"),
        (b"/orders//%2541", "orders", b"/orders/%2541"),
        (b"/orders?a=%2e%2e%2f;//../", "orders", b"/orders?a=%2e%2e%2f;//../"),
    ],
)
def test_targets_find_their_route(target: bytes, name: str | None, forwarded: bytes | None) -> None:
    """The longest path wins, segments are whole, and the cleaned path is the one that travels. R341."""
    match = ROUTER.match(b"GET", target, b"a.test")
    assert named(match) == name
    assert (None if match is None else match.target) == forwarded


@pytest.mark.threat("path of two readings")
@pytest.mark.parametrize(
    "target",
    [
        b"/orders/%2e%2e/admin",
        b"/orders/%2E%2e/admin",
        b"/orders/.%2e/admin",
        b"/orders/%2e./admin",
        b"/orders/%2e",
        b"/orders/%252e%252e/admin",
        b"/orders/%25252e%25252e/admin",
        b"/orders%2fadmin",
        b"/orders%2Fadmin",
        b"/orders%252fadmin",
        b"/orders%5cadmin",
        b"/orders%255cadmin",
        b"/orders\\admin",
        b"/orders/..\\admin",
        b"/orders%00",
        b"/orders%2500",
        b"/orders;a=b",
        b"/orders/;/admin",
        b"/orders/..;/admin",
        b"/orders/%25%32%66admin",
        b"/orders/%%32%65%2e",
        b"/%6frders",
        b"/orders/%6fpen",
        b"/orders/%256fpen/7",
        b"/orders/open%3fx",
        b"/orders/open%2523x",
    ],
)
def test_a_path_of_two_readings_is_refused(target: bytes) -> None:
    """What an upstream might decode, fold or cut otherwise than we do is not routed at all. R341."""
    with pytest.raises(BadRequest):
        ROUTER.match(b"GET", target, b"a.test")


@pytest.mark.parametrize(
    "target",
    [b"/%61dmin", b"/%61dmi%6e/x", b"/%2561dmin", b"/%252561dmin", b"/a%64min", b"/%41DMIN/../%61dmin"],
)
def test_an_encoded_path_does_not_get_around_a_route(target: bytes) -> None:
    """However often an upstream decodes, a path that it reads as /admin was matched as /admin, or refused. R341."""
    try:
        match = WITH_ROOT.match(b"GET", target, b"a.test")
    except BadRequest:
        return
    assert named(match) == "admin"


def test_the_methods_of_a_path() -> None:
    """Routes share a path by method; a method that none has is told with all that some has. R340."""
    assert named(ROUTER.match(b"GET", b"/files/a", b"")) == "reading"
    assert named(ROUTER.match(b"PUT", b"/files/a", b"")) == "writing"
    wrong = ROUTER.match(b"POST", b"/files/a", b"")
    assert wrong is not None
    assert wrong.allowed == (b"GET", b"HEAD", b"PUT")


@pytest.mark.parametrize(
    ("host", "target", "name"),
    [
        (b"shop.test", b"/shop", "shop"),
        (b"SHOP.test:8080", b"/shop", "shop"),
        (b"shop.test.", b"/shop", "shop"),
        (b"shop.test.:80", b"/shop", "shop"),
        (b"[::1]", b"/shop", "shop"),
        (b"[::1]:8080", b"/shop", "shop"),
        (b"xshop.test", b"/shop", "any shop"),
        (b"", b"/shop", "any shop"),
        (b"here.test", b"/here", "only here"),
        (b"there.test", b"/here", None),
        (b"", b"/here", None),
    ],
)
def test_hosts_find_their_route(host: bytes, target: bytes, name: str | None) -> None:
    """A named host is compared without case, port and final dot, and goes before any host. R341."""
    assert named(ROUTER.match(b"GET", target, host)) == name


def test_the_asterisk_belongs_to_the_root() -> None:
    """`OPTIONS *` asks for the whole server: only a route for everything has it."""
    assert named(WITH_ROOT.match(b"OPTIONS", b"*", b"")) == "root"
    assert ROUTER.match(b"OPTIONS", b"*", b"") is None


pieces = st.sampled_from(
    rb"/ / . .. a admin dmin ~ %61 %41 %2e %2f %252e %2561 %25 % %zz %5c %00 %7e %c3%a9 %3b %3f %23 \ ;".split()
)
paths = st.lists(pieces, max_size=10).map(lambda parts: b"/" + b"".join(parts))


@given(paths)
@example(b"/./")
@example(b"//..//")
def test_cleaning_is_idempotent_and_leaves_no_dots_and_no_gaps(path: bytes) -> None:
    """Cleaned is cleaned: no dot segment and no empty segment is left, in any reading. R341."""
    try:
        cleaned = clean_path(path)
    except BadRequest:
        return
    assert clean_path(cleaned) == cleaned
    assert cleaned.startswith(b"/")
    assert b"//" not in cleaned
    assert not {b".", b".."} & set(cleaned.split(b"/"))
    decoded = cleaned
    for _ in range(4):
        decoded = unquote_to_bytes(decoded)
        assert not {b".", b".."} & set(re.split(rb"[/\\]", decoded))


@pytest.mark.threat("path of two readings")
@given(paths, st.sampled_from([b"", b"?", b"?a=/../b", b"?;//"]))
def test_however_often_an_upstream_decodes_it_stays_in_its_route(path: bytes, query: bytes) -> None:
    """A key for one path is no key for another, also at an upstream that decodes twice. R341."""
    try:
        match = WITH_ROOT.match(b"GET", path + query, b"")
    except BadRequest:
        return
    assert match is not None
    forwarded, _, rest = match.target.partition(b"?")
    assert match.target.endswith(query) or not query
    assert rest == query[1:]
    for _ in range(4):
        is_admin = forwarded == b"/admin" or forwarded.startswith(b"/admin/")
        assert is_admin == (match.route.name == "admin"), forwarded
        forwarded = unquote_to_bytes(forwarded)


plain = st.text("abc.~-_", min_size=1, max_size=5).filter(lambda text: text not in {".", ".."}).map(str.encode)


@given(st.lists(plain, min_size=1, max_size=5), st.booleans())
def test_an_ordinary_path_is_forwarded_to_the_letter(segments: list[bytes], is_folder: bool) -> None:
    """What needs no cleaning is not touched. R341."""
    path = b"/" + b"/".join(segments) + (b"/" if is_folder else b"")
    assert clean_path(path) == path
    match = WITH_ROOT.match(b"GET", path, b"")
    assert match is not None
    assert match.target == path
