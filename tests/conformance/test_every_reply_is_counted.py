"""ostiary_requests_total grows by exactly one for each reply, whatever kind it is. R320, R321."""

import asyncio
from collections import Counter

import pytest

from tests.fixtures.edge import Edge
from tests.fixtures.exposition import scraped
from tests.fixtures.raw_upstream import RawConnection, Script, reply
from tests.fixtures.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOST = b" HTTP/1.1\r\nHost: gw.test\r\n"
END = b"Connection: close\r\n\r\n"


async def counts(edge: Edge) -> tuple[Counter[tuple[str, ...]], Counter[str]]:
    """Requests by (route, method, status, outcome), and observed durations by route."""
    samples = await scraped(edge.gateway)
    names = ("route", "method", "status", "outcome")
    requests: Counter[tuple[str, ...]] = Counter()
    for labels, value in samples.by_labels("ostiary_requests_total").items():
        assert {name for name, _ in labels} == set(names)
        requests[tuple(dict(labels)[name] for name in names)] = int(value)
    durations = Counter(
        {
            dict(labels)["route"]: int(value)
            for labels, value in samples.by_labels("ostiary_request_duration_seconds_count").items()
        }
    )
    return requests, durations


async def silence(connection: RawConnection) -> None:
    await connection.request()
    await connection.until_ended()


async def hang_up(connection: RawConnection) -> None:
    await connection.request()
    await connection.close()


def kind(*labels: str) -> tuple[str, ...]:
    return labels


CASES: list[object] = [
    pytest.param(b"GET /a" + HOST + END, None, kind("open", "GET", "200", "forwarded"), id="200"),
    pytest.param(b"HEAD /a" + HOST + END, None, kind("open", "HEAD", "200", "forwarded"), id="HEAD"),
    pytest.param(b"PROPFIND /a" + HOST + END, None, kind("open", "other", "200", "forwarded"), id="another method"),
    pytest.param(
        b"POST /a" + HOST + b"Content-Length: 4\r\n" + END + b"body",
        None,
        kind("open", "POST", "200", "forwarded"),
        id="POST",
    ),
    pytest.param(
        b"GET /a" + HOST + END,
        reply(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        kind("open", "GET", "404", "forwarded"),
        id="the upstream's own 404",
    ),
    pytest.param(
        b"GET /a" + HOST + END,
        reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        kind("open", "GET", "200", "forwarded"),
        id="chunked",
    ),
    pytest.param(
        b"GET /a" + HOST + END,
        reply(b"HTTP/1.1 200 OK\r\n\r\nok"),
        kind("open", "GET", "200", "forwarded"),
        id="until close",
    ),
    pytest.param(
        b"GET /keyed" + HOST + b"X-Api-Key: @KEY@\r\n" + END,
        None,
        kind("keyed", "GET", "200", "forwarded"),
        id="with a key",
    ),
    pytest.param(b"GET /keyed" + HOST + END, None, kind("keyed", "GET", "401", "refused"), id="no key"),
    pytest.param(
        b"GET /keyed" + HOST + b"X-Api-Key: x\r\n" + END,
        None,
        kind("keyed", "GET", "401", "refused"),
        id="a malformed key",
    ),
    pytest.param(
        b"GET /keyed" + HOST + b"X-Api-Key: x\r\nX-Api-Key: y\r\n" + END,
        None,
        kind("keyed", "GET", "400", "refused"),
        id="two keys",
    ),
    pytest.param(b"PUT /reading" + HOST + END, None, kind("reading", "PUT", "405", "client_error"), id="405"),
    pytest.param(
        b"POST /small" + HOST + b"Content-Length: 11\r\n" + END,
        None,
        kind("small", "POST", "413", "client_error"),
        id="413 by length",
    ),
    pytest.param(
        b"POST /small" + HOST + b"Transfer-Encoding: chunked\r\n" + END + b"b\r\nhello world\r\n0\r\n\r\n",
        None,
        kind("small", "POST", "413", "client_error"),
        id="413 by bytes",
    ),
    pytest.param(
        b"POST /a" + HOST + b"Transfer-Encoding: chunked\r\n" + END + b"x\r\n",
        None,
        kind("open", "POST", "400", "client_error"),
        id="a malformed body",
    ),
    pytest.param(b"GET /a%2fb" + HOST + END, None, kind("none", "GET", "400", "client_error"), id="a bad path"),
    pytest.param(b"nonsense\r\n\r\n", None, kind("none", "other", "400", "client_error"), id="nonsense"),
    pytest.param(b"GET /" + b"a" * 9000 + HOST + END, None, kind("none", "other", "414", "client_error"), id="414"),
    pytest.param(
        b"GET /a" + HOST + b"X: y\r\n" * 200 + END, None, kind("none", "other", "431", "client_error"), id="431"
    ),
    pytest.param(b"GET /a HTTP/1.1\r\n", None, kind("none", "other", "408", "client_error"), id="408 head"),
    pytest.param(
        b"POST /a" + HOST + b"Content-Length: 4\r\n\r\nbo",
        None,
        kind("open", "POST", "408", "client_error"),
        id="408 body",
    ),
    pytest.param(b"TRACE /a" + HOST + END, None, kind("none", "other", "405", "client_error"), id="TRACE"),
    pytest.param(
        b"POST /a" + HOST + b"Expect: x\r\n" + END, None, kind("none", "other", "417", "client_error"), id="417"
    ),
    pytest.param(b"GET /dead" + HOST + END, None, kind("dead", "GET", "502", "upstream_error"), id="502 away"),
    pytest.param(b"GET /a" + HOST + END, hang_up, kind("open", "GET", "502", "upstream_error"), id="502 hung up"),
    pytest.param(
        b"GET /a" + HOST + END, reply(b"x\r\n\r\n"), kind("open", "GET", "502", "upstream_error"), id="502 nonsense"
    ),
    pytest.param(b"GET /a" + HOST + END, silence, kind("open", "GET", "504", "upstream_error"), id="504"),
    pytest.param(
        b"GET /a" + HOST + END,
        reply(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"),
        kind("open", "GET", "200", "cut"),
        id="cut",
    ),
]


@pytest.mark.parametrize(("sent", "script", "expected"), CASES)
async def test_a_reply_counts_once(edge: Edge, sent: bytes, script: Script | None, expected: tuple[str, ...]) -> None:
    """One reply, one count, under labels of closed sets; and one duration. R320, R321."""
    if script is not None:
        edge.upstream.script = script
    before, durations_before = await counts(edge)
    await edge.converse(edge.filled(sent))
    after, durations_after = await counts(edge)
    assert after - before == Counter([expected])
    assert durations_after - durations_before == Counter([expected[0]])


@pytest.mark.parametrize("at", ["before the reply", "inside the reply", "inside the body"])
async def test_a_client_that_leaves_counts_once(edge: Edge, at: str) -> None:
    """499, whenever it left. R320."""
    gate = asyncio.Event()

    async def script(connection: RawConnection) -> None:
        await connection.head()
        if at == "inside the reply":
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
        gate.set()
        await connection.until_ended()

    edge.upstream.script = script
    before, _ = await counts(edge)
    async with edge.line() as line:
        body = b"Content-Length: 9\r\n\r\nhello" if at == "inside the body" else b"\r\n"
        await line.send(b"POST /a HTTP/1.1\r\nHost: gw.test\r\n" + body)
        await gate.wait()
        if at == "inside the reply":
            await line.until(lambda received: received.endswith(b"hello"))
        line.abort()

    async def is_counted() -> bool:
        return bool((await counts(edge))[0] - before)

    await until(is_counted, what="the count")
    await edge.upstream.until_quiet()
    assert (await counts(edge))[0] - before == Counter([("open", "POST", "499", "client_gone")])


async def test_a_pipeline_counts_each_reply(edge: Edge) -> None:
    """As many counts as replies. R320."""
    before, _ = await counts(edge)
    async with edge.line() as line:
        await line.send((b"GET /a" + HOST + b"\r\n") * 7 + b"GET /keyed" + HOST + END)
        await line.until_ended()
    after, _ = await counts(edge)
    assert after - before == Counter({("open", "GET", "200", "forwarded"): 7, ("keyed", "GET", "401", "refused"): 1})


async def test_silence_counts_nothing(edge: Edge) -> None:
    """A connection that never asked got no reply. R320."""
    before, _ = await counts(edge)
    async with edge.line():
        pass
    async with edge.line() as line:
        await line.send(b"GET /a HTTP/1.1\r\nHo")
    await edge.settle()
    after, _ = await counts(edge)
    assert after - before == Counter([("keyed", "GET", "401", "refused")])  # settle's own
