"""Traces: what upstreams are told of them, what a collector is, and that nobody waits for either."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.telemetry.tracing import MOST_PER_SECOND
from tests.conftest import StartGateway
from tests.fixtures.collector import Collected, Collector
from tests.fixtures.edge import Edge
from tests.fixtures.exposition import page_of
from tests.fixtures.planted import Caller, plant
from tests.fixtures.raw_upstream import RawConnection, RawUpstream, reply

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
LAST = b"Connection: close\r\n\r\n"
SERVER, CLIENT, INTERNAL = 2, 3, 1
DECIDING = f"traceparent: 00-{TRACE}-{PARENT}-"
CONTEXTS = [
    pytest.param(f"00-{TRACE}-{PARENT}-01", id="sampled"),
    pytest.param(f"00-{TRACE}-{PARENT}-00", id="not sampled"),
    pytest.param(f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", id="another version"),
    pytest.param("nonsense", id="malformed"),
    pytest.param(f"00-{'0' * 32}-{PARENT}-01", id="no trace"),
]


@asynccontextmanager
async def tracing_edge(
    gateway: StartGateway, dsn: str, tracing: dict[str, Any] | None, **changes: Any
) -> AsyncIterator[tuple[Edge, Caller]]:
    caller = await plant(dsn)
    async with RawUpstream() as upstream:
        node = await gateway({"tracing": tracing, "upstreams": {"orders": {"targets": [upstream.url]}}, **changes})
        yield Edge(node, upstream, caller), caller


def asked(path: str, *lines: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: gw.test\r\n".encode() + "".join(f"{line}\r\n" for line in lines).encode() + LAST
    )


def told(received: bytes) -> list[str]:
    """The lines about traces that an upstream got, whatever their case."""
    return re.findall(r"(?im)^(trace[^:]+: [^\r]*)", received.decode())


@pytest.mark.parametrize("context", CONTEXTS)
async def test_a_trace_that_is_not_ours_passes_untouched(
    gateway: StartGateway, postgres_dsn: str, context: str
) -> None:
    """Who makes no span changes nothing: both lines arrive as they came, in any case, malformed or not (W3C)."""
    async with tracing_edge(gateway, postgres_dsn, None) as (edge, _):
        lines = [f"TraceParent: {context}", "tracestate: vendor=1,other=2", "Tracestate: third=3"]
        await edge.converse(asked("/public", *lines))
        assert told(edge.upstream.received[0]) == lines


async def test_a_request_is_a_trace(gateway: StartGateway, postgres_dsn: str) -> None:
    """The request below the caller's span, its admission with each store that was asked, and the call of the upstream.

    The upstream is told the span of that call.
    """
    async with Collector() as collector:
        tracing = {"endpoint": collector.url, "share": 0}
        async with tracing_edge(gateway, postgres_dsn, tracing) as (edge, caller):
            key = f"X-Api-Key: {caller.secret}"
            started = time.time()
            await edge.converse(
                asked("/orders/1?secret=1", key, f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: a=1")
            )
            spans = {span.name: span for span in await collector.traces(5)}
            assert spans.keys() == {
                "GET orders",
                "admission",
                "admission redis",
                "admission postgres",
                "upstream orders",
            }
            root, call = spans["GET orders"], spans["upstream orders"]
            assert {span.trace_id for span in spans.values()} == {TRACE}
            assert (root.parent, root.kind, call.parent, call.kind) == (PARENT, SERVER, root.span_id, CLIENT)
            assert spans["admission"].parent == root.span_id
            assert spans["admission postgres"].parent == spans["admission"].span_id
            assert spans["admission"].attributes == {"ostiary.tier": "postgres"}
            assert told(edge.upstream.received[0]) == [f"traceparent: 00-{TRACE}-{call.span_id}-01", "tracestate: a=1"]
            request_id = root.attributes.pop("ostiary.request_id")
            assert isinstance(request_id, str)
            assert root.attributes == {
                "http.request.method": "GET",
                "http.response.status_code": 200,
                "url.path": "/orders/1",
                "ostiary.route": "orders",
                "ostiary.outcome": "forwarded",
                "ostiary.key_id": caller.key_id,
            }
            assert root.resource["service.name"] == "ostiary"
            assert root.resource["deployment.environment.name"] == "test"
            assert started - 1 < root.began <= spans["admission redis"].began <= spans["admission postgres"].ended
            assert spans["admission postgres"].ended <= spans["admission"].ended <= call.began + 0.001
            assert call.ended <= root.ended + 0.001 < time.time() + 1
            assert caller.secret[15:] not in repr(spans)

            collector.spans.clear()  # the key is known by now
            await edge.converse(asked("/orders/2", key, f"traceparent: 00-{TRACE}-{PARENT}-01"))
            warm = {span.name: span for span in await collector.traces(3)}
            assert warm["admission"].attributes == {"ostiary.tier": "local"}
            await assert_exemplified(edge)


async def assert_exemplified(edge: Edge) -> None:
    """Durations of what is traced show the trace, in OpenMetrics alone."""
    for accept, is_shown in (("text/plain", False), ("application/openmetrics-text; version=1.0.0", True)):
        page = await page_of(edge.gateway, accept)
        assert (f'# {{trace_id="{TRACE}"}}' in page) is is_shown
        for family in ("request", "upstream"):
            shown = re.search(rf'ostiary_{family}_duration_seconds_bucket{{[^\n]*trace_id="{TRACE}"', page)
            assert (shown is not None) is is_shown


@pytest.mark.parametrize(
    ("context", "share", "traced"),
    [
        pytest.param(f"00-{TRACE}-{PARENT}-01", 0, "below theirs", id="the caller's is"),
        pytest.param(f"00-{TRACE}-{PARENT}-00", 1, "", id="the caller's is not"),
        pytest.param(f"cc-{TRACE}-{PARENT}-01-more", 0, "below theirs", id="of another version"),
        pytest.param("", 1, "anew", id="none, all wanted"),
        pytest.param("", 0, "", id="none, none wanted"),
        pytest.param("nonsense", 1, "anew", id="malformed, all wanted"),
        pytest.param(f"00-{TRACE}-{PARENT}-01-more", 1, "anew", id="too long, all wanted"),
        pytest.param(f"ff-{TRACE}-{PARENT}-01", 1, "anew", id="no version, all wanted"),
        pytest.param(f"00-{TRACE.upper()}-{PARENT}-01", 1, "anew", id="capitals, all wanted"),
        pytest.param("nonsense", 0, "", id="malformed, none wanted"),
    ],
)
async def test_what_is_traced(
    gateway: StartGateway, postgres_dsn: str, context: str, share: float, traced: str
) -> None:
    """As the caller's own trace says; of all others, a share. A malformed one is none, and is not passed on."""
    async with Collector() as collector:
        async with tracing_edge(gateway, postgres_dsn, {"endpoint": collector.url, "share": share}) as (edge, _):
            lines = ([f"traceparent: {context}"] if context else []) + ["tracestate: a=1"]
            await edge.converse(asked("/public", *lines))
            said = told(edge.upstream.received[0])
            await edge.gateway.stop()  # what waits is sent
        if not traced:
            assert (said, collector.spans) == (lines, [])
            return
        root = next(span for span in collector.spans if span.kind == SERVER)
        call = next(span for span in collector.spans if span.kind == CLIENT)
        is_theirs = traced == "below theirs"
        assert (root.trace_id == TRACE, root.parent) == ((True, PARENT) if is_theirs else (False, ""))
        state = ["tracestate: a=1"] if is_theirs else []
        assert said == [f"traceparent: 00-{root.trace_id}-{call.span_id}-01", *state]


async def test_how_a_request_fails_is_in_its_trace(gateway: StartGateway, postgres_dsn: str) -> None:
    """A refusal is no failure of ours; an upstream that breaks is, and each try has a span of its own."""

    async def hang_up(connection: RawConnection) -> None:
        await connection.request()
        connection.abort()

    async with Collector() as collector, RawUpstream() as upstream:
        node = await gateway(
            {
                "tracing": {"endpoint": collector.url, "share": 1},
                "upstreams": {"orders": {"targets": [upstream.url], "retries": {"attempts": 2}}},
            }
        )
        edge = Edge(node, upstream, Caller())
        await edge.converse(asked("/orders"))
        refused = {span.name: span for span in await collector.traces(2)}
        assert refused.keys() == {"GET orders", "admission"}
        assert refused["GET orders"].attributes["ostiary.code"] == "missing_api_key"
        assert not refused["GET orders"].is_failed
        collector.spans.clear()
        upstream.script = hang_up
        await edge.converse(asked("/public"))
        broken = await collector.traces(4)
        tries = [span for span in broken if span.kind == CLIENT]
        assert len(tries) == 2
        assert all(span.is_failed for span in broken if span.kind in (SERVER, CLIENT))
        assert [told(received)[0].split("-")[2] for received in upstream.received] == [one.span_id for one in tries]


async def trouble(collector: Collector, kind: str) -> None:
    """Make a collector refuse, hang or go."""
    match kind:
        case "refuses":
            collector.status = 500
        case "hangs":
            collector.gate.clear()
        case "is away":
            await collector.__aexit__(None, None, None)


@pytest.mark.parametrize("kind", ["refuses", "hangs", "is away"])
async def test_a_collector_in_trouble_is_no_trouble_of_callers(
    gateway: StartGateway, postgres_dsn: str, kind: str
) -> None:
    """Requests are served as before, and the gateway stops in time; what is lost is counted, and told once."""
    collector = await Collector().__aenter__()
    try:
        async with tracing_edge(gateway, postgres_dsn, {"endpoint": collector.url, "share": 1}) as (edge, _):
            await trouble(collector, kind)
            for _ in range(3):
                for _ in range(20):
                    began = time.monotonic()
                    assert b" 200 " in (await edge.converse(asked("/public")))[:20]
                    assert time.monotonic() - began < 5
                await asyncio.sleep(0)
            began = time.monotonic()
            assert await edge.gateway.stop() == 0
            assert time.monotonic() - began < 8
            assert edge.gateway.log.count("traces_not_exported") <= 1
            assert "Traceback" not in edge.gateway.log
            assert "opentelemetry" not in edge.gateway.log.lower()
    finally:
        if kind != "is away":
            await collector.__aexit__(None, None, None)


async def test_traces_have_a_bound(gateway: StartGateway, postgres_dsn: str) -> None:
    """A caller who says of all requests that they are sampled has a bounded number of them traced."""
    async with Collector() as collector:
        async with tracing_edge(gateway, postgres_dsn, {"endpoint": collector.url}) as (edge, _):
            edge.upstream.script = reply(b"HTTP/1.1 204 No Content\r\n\r\n")
            lines = f"GET /nowhere HTTP/1.1\r\nHost: gw.test\r\n{DECIDING}01\r\n".encode()
            began = time.monotonic()
            count = 3 * MOST_PER_SECOND
            async with edge.line() as line:
                await line.send((lines + b"\r\n") * (count - 1) + lines + LAST)
                await line.until_ended()
            seconds = time.monotonic() - began
            await edge.gateway.stop()
        roots = [span for span in collector.spans if span.kind == SERVER]
        assert 0 < len(roots) <= MOST_PER_SECOND * (int(seconds) + 2)
        assert roots_are_whole(collector.spans)


def roots_are_whole(spans: list[Collected]) -> bool:
    """Every request that has a span has its admission too."""
    roots = {span.span_id for span in spans if span.kind == SERVER}
    return roots == {span.parent for span in spans if span.name == "admission"}
