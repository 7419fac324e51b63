"""The end of a gateway: told to balancers first, and lost on nobody."""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from gateway.embedded.server_process import HOST
from tests.conftest import StartGateway
from tests.fixtures import processes
from tests.fixtures.crew import GET, Client, Crew
from tests.fixtures.everyday import Everyday, slow_upstream
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.waiting import until


@pytest.fixture
async def slow() -> AsyncIterator[str]:
    async with slow_upstream() as url:
        yield url


def can_connect(node: GatewayProcess) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((HOST, node.proxy_port)) == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_end_loses_nothing(gateway: StartGateway, slow: str, workers: int) -> None:
    """Not ready at once, and serving on; then what is under way is answered, and sockets are told to go. R346."""
    changes = {"upstreams": {"orders": {"targets": [slow]}}, "drain": {"delay_seconds": 3}}
    node = await gateway(changes, workers=workers)
    async with Everyday(node.proxy_port).running() as callers:
        node.signal(signal.SIGTERM)
        began = time.monotonic()
        await until(lambda: bool(Crew(node).events("not_ready_any_more")))
        health = await Crew(node).health()
        assert (health["status"], health["stopping"]) == ("unready", True)
        before = callers.done["single"]
        await until(lambda: callers.done["single"] > before + 5, what="new connections to be accepted")
        assert callers.codes == []
        assert callers.lost == []
        callers.is_ending = True
        await until(lambda: not can_connect(node), what="the end of accepting")
        assert time.monotonic() - began >= 2.9
        await until(lambda: not node.is_running())
    assert callers.lost == []
    assert callers.codes == [1001] * 4
    assert await node.wait_for_end() == 0


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM)])
async def test_who_does_not_want_to_wait(
    gateway: StartGateway, workers: int, signals: tuple[signal.Signals, ...]
) -> None:
    """A second SIGTERM, or Ctrl-C, skips the delay; what is under way is finished all the same."""
    node = await gateway({"drain": {"delay_seconds": 60}}, workers=workers)
    steps = ("not_ready_any_more", "stopping")[-len(signals) :]
    for step, one in zip(steps, signals, strict=True):
        node.signal(one)
        await until(lambda event=step: bool(Crew(node).events(event)))
    assert await node.wait_for_end() == 0


async def test_who_is_told_a_third_time_cuts(gateway: StartGateway, slow: str) -> None:
    """One process as several: what is under way ends at once, and the exit code says that it did."""
    node = await gateway({"upstreams": {"orders": {"targets": [slow]}}, "drain": {"delay_seconds": 60}})
    async with aiohttp.ClientSession() as session, session.get(f"{node.proxy_url}/public/stream") as answer:
        assert answer.status == 200
        for step in ("not_ready_any_more", "stopping"):
            node.signal(signal.SIGTERM)
            await until(lambda event=step: bool(Crew(node).events(event)))
        node.signal(signal.SIGTERM)
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
    assert await node.wait_for_end() == 1
    assert "was cut before it had finished" in node.log


async def test_requests_have_their_bound(gateway: StartGateway, slow: str) -> None:
    """What takes longer than `drain.finish_seconds` is cut. R346."""
    node = await gateway({"upstreams": {"orders": {"targets": [slow]}}, "drain": {"finish_seconds": 0.1}})
    async with aiohttp.ClientSession() as session, session.get(f"{node.proxy_url}/public/stream") as answer:
        assert answer.status == 200
        node.signal(signal.SIGTERM)
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
    assert await node.wait_for_end() == 0


async def test_a_connection_is_ended_by_a_reply_that_says_so(gateway: StartGateway, slow: str) -> None:
    """A reply whose head went out before the end promised another one: the request after it is answered. R346."""
    node = await gateway({"upstreams": {"orders": {"targets": [slow]}}})
    reader, writer = await asyncio.open_connection(HOST, node.proxy_port)
    writer.write(b"GET /public/stream HTTP/1.1\r\nHost: gw.test\r\n\r\n")
    assert b"connection: close" not in (await reader.readuntil(b"\r\n\r\n")).lower()
    node.signal(signal.SIGTERM)
    await until(lambda: not can_connect(node))
    await reader.readuntil(b"\r\n0\r\n\r\n")
    await asyncio.sleep(1)
    client = Client(reader, writer)
    assert await client.ask(GET) == 200
    assert client.is_told_to_close
    await client.close()
    assert await node.wait_for_end() == 0


async def test_sockets_that_begin_during_the_end_are_told(gateway: StartGateway, slow: str) -> None:
    """One that was asked for as the gateway stopped gets close code 1001 too."""
    node = await gateway({"upstreams": {"orders": {"targets": [slow]}}})
    reader, writer = await asyncio.open_connection(HOST, node.proxy_port)
    writer.write(GET)
    await reader.readuntil(b"short")
    node.signal(signal.SIGTERM)
    await until(lambda: not can_connect(node))
    writer.write(
        b"GET /public/ws HTTP/1.1\r\nHost: gw.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    assert await asyncio.wait_for(reader.read(), 5) == b"\x88\x02" + (1001).to_bytes(2)
    writer.close()
    assert await node.wait_for_end() == 0


# -- workers


async def test_a_killed_worker_costs_what_it_had(gateway: StartGateway, slow: str) -> None:
    """Under all kinds of callers: what the worker had under way is lost, and nothing else. R346."""
    node = await gateway({"upstreams": {"orders": {"targets": [slow]}}}, workers=2)
    crew = Crew(node)
    victim = (await crew.ready_pids())[0]
    async with Everyday(node.proxy_port).running() as callers:
        processes.freeze(victim)  # so that what it has is what it had
        had = crew.accepted_by(victim)
        crew.kill(victim)
        await until(lambda: bool(crew.events("worker_died")))
        lost = list(callers.lost)
        assert len(lost) <= had
        callers.lost.clear()
        await callers.go_on()
        assert victim not in await crew.ready_pids()
    assert len(callers.lost) + len(lost) <= had, callers.lost


async def test_a_worker_that_hangs_is_killed(gateway: StartGateway) -> None:
    """After a quarter of a minute of silence, and another takes its place: those who wait for it are served."""
    node = await gateway(workers=2)
    crew = Crew(node)
    victim = (await crew.ready_pids())[0]
    processes.freeze(victim)
    connections = [await asyncio.open_connection(HOST, node.proxy_port) for _ in range(16)]
    clients = [Client(*streams) for streams in connections]
    answers: list[Any] = await asyncio.wait_for(asyncio.gather(*(client.ask() for client in clients)), 40)
    assert answers == [200] * 16
    died = await crew.first("worker_died")
    assert f"pid={victim}" in died
    assert "signal=SIGKILL" in died
    assert "silent_seconds=15" in died
    assert victim not in await crew.ready_pids()
    await asyncio.gather(*(client.close() for client in clients))
