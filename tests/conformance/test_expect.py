"""Expect: 100-continue is answered by the gateway, when reading begins, and never reaches an upstream."""

import pytest

from tests.fixtures.edge import OURS, Edge

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEAD = b"POST /a HTTP/1.1\r\nHost: gw.test\r\nExpect: 100-continue\r\nConnection: close\r\n"
ARRIVED = b"POST /a HTTP/1.1\r\nHost: upstream\r\n" + OURS + b"Content-Length: 4\r\n\r\nbody"


@pytest.mark.threat("Expect")
async def test_the_body_is_asked_for_once_the_upstream_is_there(edge: Edge) -> None:
    """100, then the body goes through, then the reply. RFC 9110 10.1.1."""
    async with edge.line() as line:
        await line.send(HEAD + b"Content-Length: 4\r\n\r\n")
        assert await line.until(lambda received: b"\r\n\r\n" in received) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await line.send(b"body")
        replies = await line.replies(b"POST")
    assert [reply.status for reply in replies] == [100, 200]
    assert edge.arrived() == [ARRIVED]


async def test_a_body_that_does_not_wait_is_taken(edge: Edge) -> None:
    """The client may send at once. RFC 9110 10.1.1."""
    replies = await edge.line_says(HEAD + b"Content-Length: 4\r\n\r\nbody")
    assert [reply.status for reply in replies if reply.status >= 200] == [200]
    assert edge.arrived() == [ARRIVED]


@pytest.mark.threat("Expect", "unread body after an early answer")
@pytest.mark.parametrize("target", [b"/keyed", b"/small", b"/reading", b"/dead"])
async def test_a_refused_body_is_not_asked_for(edge: Edge, target: bytes) -> None:
    """The refusal comes instead of 100. RFC 9110 10.1.1."""
    async with edge.line() as line:
        await line.send(HEAD.replace(b"/a", target) + b"Content-Length: 4000\r\n\r\n")
        replies = await line.replies(b"POST")
        await line.until_ended()
    assert len(replies) == 1
    assert replies[0].status in (401, 413, 405, 502)
    assert replies[0].closes
    assert edge.upstream.received == []


async def test_http_10_expects_nothing(edge: Edge) -> None:
    """A client of HTTP/1.0 would not understand 100. RFC 9110 10.1.1."""
    replies = await edge.line_says(
        b"POST /a HTTP/1.0\r\nHost: gw.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody"
    )
    assert [reply.status for reply in replies] == [200]
    assert edge.arrived() == [ARRIVED]


async def test_without_a_body_there_is_nothing_to_ask_for(edge: Edge) -> None:
    """No 100 where nothing would follow. RFC 9110 10.1.1."""
    for framing in (b"", b"Content-Length: 0\r\n"):
        replies = await edge.line_says(HEAD + framing + b"\r\n")
        assert [reply.status for reply in replies] == [200]
    assert all(b"xpect" not in received for received in edge.arrived())


@pytest.mark.threat("Expect")
@pytest.mark.parametrize("value", [b"", b"200-ok", b"100-continue, x", b"100-continued"])
async def test_other_expectations_are_refused(edge: Edge, value: bytes) -> None:
    """417, and nothing reaches the upstream. RFC 9110 10.1.1."""
    await edge.assert_refused(
        b"POST /a HTTP/1.1\r\nHost: gw.test\r\nExpect: %b\r\nContent-Length: 0\r\n\r\n" % value,
        417,
        "expectation_failed",
    )


@pytest.mark.threat("Expect")
@pytest.mark.parametrize("name", [b"Expec-t", b"EXPE_CT"])
async def test_twins_of_expect_do_not_arrive(edge: Edge, name: bytes) -> None:
    """Nor is anything expected by a name that only looks like it. R022."""
    replies = await edge.line_says(
        b"POST /a HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n%b: 100-continue\r\nContent-Length: 4\r\n\r\nbody"
        % name
    )
    assert [reply.status for reply in replies] == [200]
    assert edge.arrived() == [ARRIVED]
