"""Request targets, Host and methods: one reading, the same for policy and for the upstream."""

import pytest

from tests.fixtures.edge import OURS, Edge

pytestmark = pytest.mark.asyncio(loop_scope="session")

REST = b" HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n"

PASSED = [
    pytest.param(b"GET /", b"GET /", id="root"),
    pytest.param(b"GET /a/b/", b"GET /a/b/", id="a folder"),
    pytest.param(b"GET /a?b=c&d=%20;e//../", b"GET /a?b=c&d=%20;e//../", id="a query is left alone"),
    pytest.param(b"GET /?", b"GET /?", id="an empty query"),
    pytest.param(b"GET /a%20b%C3%A9", b"GET /a%20b%C3%A9", id="encoded bytes stay encoded"),
    pytest.param(b'GET /a|b"<>{}^`', b'GET /a|b"<>{}^`', id="signs that browsers leave in"),
    pytest.param(b"GET /a:80/@b,c=d+e~'()*!$&", b"GET /a:80/@b,c=d+e~'()*!$&", id="signs of the grammar"),
    pytest.param(b"GET //a///b", b"GET /a/b", id="empty segments"),
    pytest.param(b"GET /a/./b/../c", b"GET /a/c", id="dot segments"),
    pytest.param(b"GET /../../a", b"GET /a", id="dots above the root"),
    pytest.param(b"GET /a/..", b"GET /", id="dots at the end"),
    pytest.param(b"GET /a...b/.c", b"GET /a...b/.c", id="dots that are no dot segments"),
    pytest.param(b"PROPFIND /a", b"PROPFIND /a", id="another method"),
    pytest.param(b"OPTIONS *", b"OPTIONS *", id="asterisk form"),
]


@pytest.mark.threat("path of two readings")
@pytest.mark.parametrize(("asked", "arrived"), PASSED)
async def test_a_target_arrives_as_it_was_matched(edge: Edge, asked: bytes, arrived: bytes) -> None:
    """The cleaned path goes upstream, and everything else byte for byte. R341."""
    await edge.assert_forwarded(asked + REST, arrived + b" HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"\r\n")


REFUSED = [
    pytest.param(b"GET /a%2fb", id="an encoded slash"),
    pytest.param(b"GET /a%2Fb", id="an encoded slash, upper case"),
    pytest.param(b"GET /a%252fb", id="a slash encoded twice"),
    pytest.param(b"GET /a%25%32%66b", id="a slash encoded piece by piece"),
    pytest.param(b"GET /a%5cb", id="an encoded backslash"),
    pytest.param(b"GET /a\\b", id="a backslash"),
    pytest.param(b"GET /a/%2e%2e/keyed", id="encoded dots"),
    pytest.param(b"GET /a/.%2e/keyed", id="one encoded dot"),
    pytest.param(b"GET /a/%252e%252e/keyed", id="dots encoded twice"),
    pytest.param(b"GET /a%00", id="an encoded NUL"),
    pytest.param(b"GET /a;b=c", id="a path parameter"),
    pytest.param(b"GET /a/..;/keyed", id="dots with a parameter"),
    pytest.param(b"GET /a#b", id="a fragment"),
    pytest.param(b"GET /a?b#c", id="a fragment behind a query"),
    pytest.param(b"GET /%6beyed", id="an encoded letter of a protected route"),
    pytest.param(b"GET /%256beyed", id="a letter of a protected route encoded twice"),
    pytest.param(b"GET /keyed%3fa", id="a protected route before an encoded question mark"),
    pytest.param(b"GET *", id="asterisk form for GET"),
    pytest.param(b"GET a", id="a relative path"),
    pytest.param(b"GET ?a", id="a query alone"),
    pytest.param(b"GET gw.test:80", id="authority form"),
    pytest.param(b"GET ftp://gw.test/", id="a foreign scheme"),
    pytest.param(b"GET http://user:pass@gw.test/", id="userinfo"),
    pytest.param(b"GET http:///a", id="no authority"),
    pytest.param(b"GET http://gw.test:70000/", id="a port that does not exist"),
]


@pytest.mark.threat("path of two readings")
@pytest.mark.parametrize("asked", REFUSED)
async def test_a_target_of_two_readings_is_refused(edge: Edge, asked: bytes) -> None:
    """Nothing that an upstream might read as another path goes upstream, nor past the rule of that path. R341."""
    await edge.assert_refused(asked + REST, 400, "bad_request")


@pytest.mark.threat("path of two readings")
@pytest.mark.parametrize(
    "asked",
    [b"GET /keyed", b"GET /keyed/", b"GET //keyed", b"GET /./keyed", b"GET /a/../keyed/x", b"GET http://gw.test/keyed"],
)
async def test_a_protected_route_is_protected_in_every_spelling(edge: Edge, asked: bytes) -> None:
    """The path that is forwarded is the path that was judged. R341."""
    replies = await edge.line_says(asked + REST)
    assert [reply.status for reply in replies] == [401]
    assert edge.upstream.received == []


ABSOLUTE = [
    pytest.param(b"http://other.test/a?b", b"/a?b", b"other.test", id="a path"),
    pytest.param(b"http://other.test", b"/", b"other.test", id="no path"),
    pytest.param(b"http://other.test?b", b"/?b", b"other.test", id="a query alone"),
    pytest.param(b"HTTPS://other.test:8443//a", b"/a", b"other.test:8443", id="another scheme and port"),
    pytest.param(b"http://169.254.169.254/latest/meta-data", b"/latest/meta-data", b"169.254.169.254", id="an address"),
    pytest.param(b"http://[::1]/a", b"/a", b"[::1]", id="an IPv6 address"),
]


@pytest.mark.threat("Host as a lever")
@pytest.mark.parametrize(("asked", "target", "host"), ABSOLUTE)
async def test_absolute_form_goes_to_the_configured_upstream(
    edge: Edge, asked: bytes, target: bytes, host: bytes
) -> None:
    """What the target names is told in X-Forwarded-Host, and decides nothing else. R342."""
    await edge.assert_forwarded(
        b"GET " + asked + REST,
        b"GET " + target + b" HTTP/1.1\r\nHost: upstream\r\n" + OURS.replace(b"gw.test", host) + b"\r\n",
    )


async def test_options_of_the_server_in_absolute_form(edge: Edge) -> None:
    """The last proxy writes `*` again. RFC 9112 3.2.4."""
    await edge.assert_forwarded(
        b"OPTIONS http://gw.test" + REST, b"OPTIONS * HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"\r\n"
    )


HOSTS = [
    pytest.param(b"", id="none"),
    pytest.param(b"Host:\r\n", id="empty"),
    pytest.param(b"Host: gw.test\r\nHost: gw.test\r\n", id="twice"),
    pytest.param(b"Host: gw.test\r\nhost: evil.test\r\n", id="two"),
    pytest.param(b"Host: gw.test, evil.test\r\n", id="a list"),
    pytest.param(b"Host: gw.test evil.test\r\n", id="two words"),
    pytest.param(b"Host: user@gw.test\r\n", id="userinfo"),
    pytest.param(b"Host: gw.test/a\r\n", id="a path"),
    pytest.param(b"Host: x/#@y\r\n", id="a path and a fragment"),
    pytest.param(b"Host: gw.test?a\r\n", id="a query"),
    pytest.param(b"Host: gw.test#a\r\n", id="a fragment"),
    pytest.param(b"Host: gw.test\\a\r\n", id="a backslash"),
    pytest.param(b"Host: gw.test:80a\r\n", id="a port that is no number"),
    pytest.param(b"Host: gw.test:99999\r\n", id="a port that does not exist"),
    pytest.param(b"Host: http://gw.test\r\n", id="a URL"),
    pytest.param(b"Host: [::1\r\n", id="half an IPv6 address"),
    pytest.param(b"Host: gw..test\r\n", id="an empty label"),
    pytest.param(b"Host: gw\xc3\xa9.test\r\n", id="not ASCII"),
    pytest.param(b"Host: gw%2etest\r\n", id="percent-encoded"),
    pytest.param(b"Host: gw.test\x00\r\n", id="NUL"),
]


@pytest.mark.threat("Host as a lever")
@pytest.mark.parametrize("lines", HOSTS)
async def test_a_host_that_is_none_is_refused(edge: Edge, lines: bytes) -> None:
    """Exactly one Host of the grammar. RFC 9112 3.2, R342."""
    await edge.assert_refused(b"GET /a HTTP/1.1\r\n" + lines + b"\r\n", 400, "bad_request")


@pytest.mark.threat("CONNECT", "methods in disguise")
@pytest.mark.parametrize("asked", [b"CONNECT gw.test:443", b"CONNECT /", b"TRACE /a"])
async def test_connect_and_trace_are_never_forwarded(edge: Edge, asked: bytes) -> None:
    """405 with Allow, and the connection ends. R340."""
    replies = await edge.line_says(asked + b" HTTP/1.1\r\nHost: gw.test\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n")
    assert [reply.status for reply in replies] == [405]
    assert replies[0].all(b"Allow")
    assert replies[0].closes
    assert edge.upstream.received == []


async def test_a_wrong_method_is_told_with_the_right_ones(edge: Edge) -> None:
    """405 with Allow. R340."""
    replies = await edge.line_says(b"PUT /reading/a" + REST)
    assert [(reply.status, reply.all(b"Allow")) for reply in replies] == [(405, [b"GET"])]
    assert edge.upstream.received == []
