"""The access log, as an operator reads it: what a line says, what it never says, and that nobody waits for it."""

import asyncio
import fcntl
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import websockets

from gateway.telemetry.access import FIELDS
from tests.conftest import StartGateway
from tests.fixtures.edge import Edge
from tests.fixtures.exposition import scraped
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import Caller, plant
from tests.fixtures.raw_upstream import RawConnection, RawUpstream
from tests.fixtures.waiting import until

FULL = {"log": {"format": "json", "access": "full"}}
STRUCTURE = {"timestamp", "level", "event"}
HOST = b" HTTP/1.1\r\nHost: gw.test\r\n"
LAST = b"Connection: close\r\n\r\n"
TRACE = "0af7651916cd43dd8448eb211c80319c"


async def hang_up(connection: RawConnection) -> None:
    """Read a request, and leave."""
    await connection.request()
    connection.abort()


async def forbid(connection: RawConnection) -> None:
    """Refuse to switch protocols."""
    await connection.head()
    await connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await connection.close()


def entries(node: GatewayProcess) -> list[dict[str, Any]]:
    """The lines about requests so far; every line of the log is one JSON object."""
    parsed = [json.loads(line) for line in node.log.splitlines()]
    return [entry for entry in parsed if entry["event"] == "request"]


async def lines_of(node: GatewayProcess, count: int) -> list[dict[str, Any]]:
    """The lines about requests, once there are so many."""
    await until(lambda: len(entries(node)) >= count, what=f"{count} lines; the log:\n{node.log}")
    found = entries(node)
    assert len(found) == count, found
    return found


@asynccontextmanager
async def logging_edge(
    gateway: StartGateway, dsn: str, log: dict[str, Any] | None = None
) -> AsyncIterator[tuple[Edge, Caller]]:
    """A gateway that logs requests, in front of an upstream of raw bytes."""
    caller = await plant(dsn)
    async with RawUpstream() as upstream:
        node = await gateway(
            {
                **FULL,
                **({} if log is None else {"log": log}),
                "upstreams": {"orders": {"targets": [upstream.url]}},
                "credentials": [
                    {"header": "X-Api-Key"},
                    {"query": "api_key"},
                    {"websocket_protocol": "ostiary.key"},
                ],
            }
        )
        yield Edge(node, upstream, caller), caller


async def test_a_line_tells_who_asked_for_what_and_how_it_ended(gateway: StartGateway, postgres_dsn: str) -> None:
    """One JSON object for each request, of the fields that are allowed, and no more. R325."""
    async with logging_edge(gateway, postgres_dsn) as (edge, caller):
        body = b"POST /orders/1?page=2" + HOST + b"X-Api-Key: " + caller.secret.encode() + b"\r\nContent-Length: 4\r\n"
        trace = f"traceparent: 00-{TRACE}-b7ad6b7169203331-01\r\n".encode()
        await edge.converse(body + trace + b"X-Request-Id: mine-1\r\n" + LAST + b"body")
        (line,) = await lines_of(edge.gateway, 1)
        assert 0 < line.pop("upstream_seconds") <= line.pop("seconds") < 10
        assert line.pop("timestamp").endswith("Z")
        assert line == {
            "level": "info",
            "event": "request",
            "request_id": "mine-1",
            "trace_id": TRACE,
            "method": "POST",
            "path": "/orders/1",
            "route": "orders",
            "status": 200,
            "outcome": "forwarded",
            "upstream": "orders",
            "received_bytes": 4,
            "sent_bytes": 2,
            "client": "127.0.0.1",
            "auth": "key",
            "key_id": caller.key_id,
            "user_id": caller.user_id,
            "tenant_id": caller.tenant_id,
        }
        refused = await edge.converse(b"GET /orders" + HOST + LAST)
        nonsense = await edge.converse(b"nonsense" + HOST + LAST)
        assert b"401" in refused[:20]
        assert b"400" in nonsense[:20]
        _, second, third = await lines_of(edge.gateway, 3)
        assert (second["status"], second["outcome"], second["code"]) == (401, "refused", "missing_api_key")
        assert (third["status"], third["outcome"], third["code"]) == (400, "client_error", "bad_request")
        assert all(entry.keys() <= STRUCTURE | set(FIELDS) for entry in entries(edge.gateway))


@pytest.mark.parametrize(
    ("sent", "script", "expected"),
    [
        pytest.param(b"GET /public" + HOST + LAST, None, ("info", 200, "forwarded"), id="200"),
        pytest.param(b"GET /orders" + HOST + LAST, None, ("info", 401, "refused"), id="401"),
        pytest.param(b"GET /public HTTP/1.1\r\n\r\n", None, ("info", 400, "client_error"), id="400"),
        pytest.param(b"GET /public" + HOST + LAST, hang_up, ("warning", 502, "upstream_error"), id="502"),
    ],
)
async def test_levels(
    gateway: StartGateway, postgres_dsn: str, sent: bytes, script: Any, expected: tuple[str, int, str]
) -> None:
    """What callers do wrong is no reason to be woken; what an upstream does, a warning. R327."""
    async with logging_edge(gateway, postgres_dsn) as (edge, _):
        if script is not None:
            edge.upstream.script = script
        await edge.converse(sent)
        (line,) = await lines_of(edge.gateway, 1)
        assert (line["level"], line["status"], line["outcome"]) == expected


async def test_a_client_that_leaves_is_a_499(gateway: StartGateway, postgres_dsn: str) -> None:
    """At info, and not held against the upstream. R327."""
    gate = asyncio.Event()

    async def silent(connection: RawConnection) -> None:
        await connection.head()
        gate.set()
        await connection.until_ended()

    async with logging_edge(gateway, postgres_dsn) as (edge, _):
        edge.upstream.script = silent
        async with edge.line() as line:
            await line.send(b"GET /public" + HOST + b"\r\n")
            await gate.wait()
            line.abort()
        (told,) = await lines_of(edge.gateway, 1)
        assert (told["level"], told["status"], told["outcome"], told["code"]) == (
            "info",
            499,
            "client_gone",
            "unanswered",
        )


@pytest.mark.threat("secrets in logs")
async def test_no_credential_is_in_a_line(gateway: StartGateway, postgres_dsn: str) -> None:
    """By header, query, subprotocol, or where it does not belong: nothing of the key beyond its prefix. R324."""
    async with logging_edge(gateway, postgres_dsn) as (edge, caller):
        key = caller.secret.encode()
        sent = [
            b"GET /orders" + HOST + b"X-Api-Key: " + key + b"\r\n" + LAST,
            b"GET /orders?api_key=" + key + b"&other=secret-value" + HOST + LAST,
            b"GET /orders/" + key + HOST + LAST,
            b"GET /orders/x" + key + b"y;" + key + HOST + LAST,
            b"GET /orders?" + key + HOST + LAST,
            key[:32] + b" /orders" + HOST + LAST,
            b"GET /orders" + HOST + b"Cookie: session=secret-value\r\nUser-Agent: secret-value\r\n" + LAST,
            b"GET /orders" + HOST + b"X-Request-Id: " + key + b"\r\n" + LAST,
            b"GET /orders" + HOST + b"traceparent: 00-" + key + b"-01\r\n" + LAST,
        ]
        for one in sent:
            await edge.converse(one)
        edge.upstream.script = forbid
        with pytest.raises(websockets.InvalidStatus):
            async with websockets.connect(
                edge.gateway.proxy_url.replace("http", "ws") + "/orders",
                subprotocols=[websockets.Subprotocol("ostiary.key"), websockets.Subprotocol(caller.secret)],
            ):
                pass
        lines = await lines_of(edge.gateway, len(sent) + 1)
        text = json.dumps(lines)
        assert caller.secret[15:] not in text
        assert caller.secret[15:32] not in text
        assert "secret-value" not in text
        assert {line.get("path") for line in lines} >= {"/orders", "/orders/ost_test***"}


@pytest.mark.parametrize("form", ["json", "text"])
async def test_nothing_that_a_client_sends_begins_a_line(gateway: StartGateway, postgres_dsn: str, form: str) -> None:
    """Line breaks in any form, controls and what is not ASCII: as many lines as requests, in both forms. R325."""
    hostile = [
        b'GET /public/%0d%0a{"event":"request"}' + HOST + LAST,
        b"GET /public" + HOST + b"X-Request-Id: a%0aforged\r\n" + LAST,
        b"GET /public/\xe2\x80\xa8forged" + HOST + LAST,
        b"GET /public" + HOST + b"X-Forwarded-For: 1.2.3.4\\nforged\r\n" + LAST,
        b"GET /public\nforged" + HOST + LAST,
        b"GET /public" + HOST + b"X-Request-Id: a\rforged\r\n" + LAST,
    ]
    async with logging_edge(gateway, postgres_dsn, {"format": form, "access": "full"}) as (edge, _):
        before = len(edge.gateway.log.splitlines())
        for sent in hostile:
            await edge.converse(sent)
        await until(lambda: len(edge.gateway.log.splitlines()) >= before + len(hostile), what="the lines")
        said = edge.gateway.log.splitlines()[before:]
        assert len(said) == len(hostile), said
        assert "\n".join(edge.gateway.log.splitlines()).replace("\n", "").isprintable()
        if form == "text":
            assert all("request" in line and "status=" in line for line in said), said


async def test_a_sample_has_all_that_failed(gateway: StartGateway, postgres_dsn: str) -> None:
    """None of those that went well or were refused, where the share is nothing; each that the upstream broke. R327."""
    log = {"format": "json", "access": "sampled", "access_share": 0}
    async with logging_edge(gateway, postgres_dsn, log) as (edge, _):
        for _ in range(5):
            await edge.converse(b"GET /public" + HOST + LAST)
            await edge.converse(b"GET /orders" + HOST + LAST)
        edge.upstream.script = hang_up
        for _ in range(3):
            await edge.converse(b"GET /public" + HOST + LAST)
        lines = await lines_of(edge.gateway, 3)
        assert {line["outcome"] for line in lines} == {"upstream_error"}


async def test_no_request_is_logged_unless_it_is_wanted(gateway: StartGateway) -> None:
    """By default, and from a level on that no request reaches."""
    for log in ({"format": "json"}, {"format": "json", "access": "full", "level": "error"}):
        node = await gateway({"log": log})
        async with aiohttp.ClientSession() as session:
            for _ in range(3):
                async with session.get(node.proxy_url + "/public") as answer:
                    assert answer.status == 200
        assert await node.stop() == 0
        assert '"request"' not in node.log


async def test_a_log_that_nobody_reads_holds_nobody_up(gateway: StartGateway, tmp_path: Path) -> None:
    """The pipe is full, requests are answered as before; lines are dropped and counted, and told of afterwards."""
    pipe = tmp_path / "node-0" / "gateway.log"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    node = await gateway({"log": {"format": "json", "access": "full"}})
    path = "/public/" + "/".join(["abcdefgh"] * 50)

    async def dropped() -> float:
        return (await scraped(node)).sum("ostiary_log_lines_dropped_total")

    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=20)) as session:

            async def ask() -> None:
                async with session.get(node.proxy_url + path, timeout=aiohttp.ClientTimeout(total=5)) as answer:
                    assert answer.status == 200

            for _ in range(200):
                if await dropped():
                    break
                await asyncio.gather(*(ask() for _ in range(100)))
            assert await dropped() > 0
            drained = b""

            async def has_told() -> bool:
                nonlocal drained
                while True:
                    try:
                        data = os.read(reader, 65_536)
                    except BlockingIOError:
                        break
                    drained += data
                return b"log_lines_dropped" in drained

            await until(has_told, what="a line about the lines that are missing")
    finally:
        os.set_blocking(reader, True)
        draining = asyncio.create_task(asyncio.to_thread(_drain, reader))
        node.log_path = tmp_path / "swept"  # by whoever stops it
        node.log_path.touch()
        assert await node.stop() == 0
        await draining
        os.close(reader)


def _drain(reader: int) -> None:
    while os.read(reader, 65_536):
        pass
