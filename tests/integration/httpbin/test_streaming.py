"""Bodies on their way: part by part as they come, ten megabytes and more, and a gateway that keeps none of it."""

import asyncio
import base64
import contextlib
import hashlib
import json
import random
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.embedded.server_process import HOST
from tests.fixtures.connections import closed, connected
from tests.fixtures.waiting import until
from tests.integration.httpbin.answers import parse, parse_request
from tests.integration.httpbin.clients import Client, Requests
from tests.integration.httpbin.memory import PeakMemory
from tests.integration.httpbin.raw import head
from tests.integration.httpbin.world import World

pytestmark = pytest.mark.asyncio(loop_scope="package")

LARGE = random.Random(3).randbytes(10_000_000)
LARGE_DIGEST = hashlib.sha256(LARGE).digest()
# What a gateway that keeps nothing may still need for its buffers; one that collects a body needs ten.
GROWTH_LIMIT_BYTES = 3_000_000
OCTETS = [("Content-Type", "application/octet-stream")]
WAIT_SECONDS = 20


def digest_of_echo(document: bytes) -> bytes:
    """SHA-256 of the data that httpbin says it has got; it shows binary data in base64."""
    return hashlib.sha256(base64.b64decode(json.loads(document)["data"].partition(",")[2])).digest()


async def settled(count: Callable[[], int], *, seconds: float = 0.5) -> int:
    """The number once it has stood still for so long."""
    loop = asyncio.get_running_loop()
    last, since = count(), loop.time()

    def stands_still() -> bool:
        nonlocal last, since
        now = count()
        if now != last:
            last, since = now, loop.time()
        return loop.time() - since > seconds

    await until(stands_still, seconds=WAIT_SECONDS, what="a count to stand still")
    return last


# -- part by part

STREAMS = [
    "/stream/3",
    "/stream-bytes/5000?seed=1&chunk_size=500",
    "/drip?numbytes=5&duration=0",
    "/range/5000?chunk_size=500",
]


@pytest.mark.parametrize("path", STREAMS)
async def test_the_first_part_arrives_before_the_last_has_left(world: World, client: Client, path: str) -> None:
    """While the upstream still holds the rest back, the client has read the first byte. R190."""
    reply = world.tap.reply
    reply.hold_after(body_bytes=10 if "drip" not in path else 1)
    async with asyncio.timeout(WAIT_SECONDS), client.opened(world.tapped + path, world.credential) as read:
        body = await read()
        assert body
        has_passed = behind_head(bytes(reply.seen[: reply.passed]))
        reply.release()
        while part := await read():
            body += part
    whole = parse(bytes(reply.seen)).body
    assert body == whole
    assert len(has_passed) < len(whole), "the upstream had more to say when the first part was read"


def behind_head(raw: bytes) -> bytes:
    """What has come of a body, with its framing."""
    return raw.partition(b"\r\n\r\n")[2]


async def test_the_head_arrives_before_the_body_has_left(world: World) -> None:
    """Status and headers do not wait for the first byte of the body. R190."""
    reply = world.tap.reply
    reply.hold_after(body_bytes=0)
    async with connected(world.gateway.proxy_port) as (reader, writer), asyncio.timeout(WAIT_SECONDS):
        writer.write(head(world, "GET /tapped/drip?numbytes=5&duration=0 HTTP/1.1", "Connection: close"))
        first = await reader.readuntil(b"\r\n\r\n")
        assert reply.seen[: reply.passed].endswith(b"\r\n\r\n")
        reply.release()
        assert parse(first + await reader.read()).body == b"*****"


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_the_first_part_of_an_upload_arrives_before_the_last_is_sent(world: World, is_chunked: bool) -> None:
    """The upstream gets a body as the client sends it. R025."""
    framing = "Transfer-Encoding: chunked" if is_chunked else "Content-Length: 10"
    first, last = (b"5\r\nfirst\r\n", b"5\r\n last\r\n0\r\n\r\n") if is_chunked else (b"first", b" last")
    sent = world.tap.request.seen
    async with connected(world.gateway.proxy_port) as (reader, writer), asyncio.timeout(WAIT_SECONDS):
        writer.write(head(world, "POST /tapped/post HTTP/1.1", framing, "Connection: close") + first)
        await until(lambda: b"first" in sent, what="the first part to reach the upstream")
        writer.write(last)
        reply = parse(await reader.read())
    assert json.loads(reply.body)["data"] == "first last"
    assert parse_request(bytes(sent)).body == b"first last"


# -- ten megabytes


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_ten_megabytes_up_and_down(world: World, client: Client, is_chunked: bool) -> None:
    """They arrive whole, come back whole (in base64: 13 MB), and the gateway keeps none of it. R025."""
    peak = PeakMemory(world.gateway.pid)
    headers = [*OCTETS, *world.credential]
    reply = await client.fetch("POST", f"{world.via}/post", headers, LARGE, is_chunked=is_chunked)
    assert reply.status == 200
    assert digest_of_echo(reply.body) == LARGE_DIGEST
    assert json.loads(reply.body)["headers"].get("Transfer-Encoding") == ("chunked" if is_chunked else None)
    assert peak.growth_bytes < GROWTH_LIMIT_BYTES


async def test_a_chunked_reply_of_megabytes_arrives_whole(world: World, client: Client) -> None:
    """A hundred chunks of 17 kB: what the client reads is what left the upstream. R190."""
    headers = [*((f"X-Long-{number}", "x" * 3_000) for number in range(5)), *world.credential]
    reply = await client.fetch("GET", f"{world.tapped}/stream/100?long={'y' * 1_000}", headers)
    sent = parse(bytes(world.tap.reply.seen))
    assert reply.header("Transfer-Encoding") == sent.header("Transfer-Encoding") == "chunked"
    assert len(reply.body) > 1_700_000
    assert hashlib.sha256(reply.body).digest() == hashlib.sha256(sent.body).digest()


async def test_many_large_bodies_at_once_need_little_memory(world: World) -> None:
    """Four times ten megabytes at the same time: the gateway grows by its buffers. R025."""
    peak = PeakMemory(world.gateway.pid)
    replies = await asyncio.gather(
        *(
            Requests().fetch(
                "POST", f"{world.via}/post", [*OCTETS, *world.credential], LARGE, is_chunked=number % 2 == 0
            )
            for number in range(4)
        )
    )
    assert [digest_of_echo(reply.body) for reply in replies] == [LARGE_DIGEST] * 4
    assert peak.growth_bytes < 2 * GROWTH_LIMIT_BYTES


@contextlib.asynccontextmanager
async def slow_reader(world: World) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the gateway that takes in little: small buffers, and it reads when told to."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (HOST, world.gateway.proxy_port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=16_384)
    try:
        yield reader, writer
    finally:
        await closed(writer)


@pytest.mark.threat("readers that never read")
async def test_a_client_that_does_not_read_makes_the_upstream_wait(world: World) -> None:
    """The reply stays with the upstream until the client wants it; then it comes whole. R190."""
    async with asyncio.timeout(WAIT_SECONDS), slow_reader(world) as (reader, writer):
        length = f"Content-Length: {len(LARGE)}"
        writer.write(head(world, "POST /tapped/post HTTP/1.1", length, "Connection: close") + LARGE)
        first = await reader.readuntil(b"\r\n\r\n")
        peak = PeakMemory(world.gateway.pid)
        await settled(lambda: world.tap.reply.passed)
        assert peak.growth_bytes < GROWTH_LIMIT_BYTES
        reply = parse(first + await reader.read())
    assert digest_of_echo(reply.body) == LARGE_DIGEST
    assert peak.growth_bytes < GROWTH_LIMIT_BYTES


async def test_an_upstream_that_does_not_read_makes_the_client_wait(world: World) -> None:
    """An upload stays with the client until the upstream wants it; then it arrives whole. R025."""
    peak = PeakMemory(world.gateway.pid)
    world.tap.request.hold_after(body_bytes=0)
    async with asyncio.timeout(WAIT_SECONDS), connected(world.gateway.proxy_port) as (reader, writer):
        length = f"Content-Length: {len(LARGE)}"
        writer.write(head(world, "POST /tapped/post HTTP/1.1", length, "Connection: close") + LARGE)
        await settled(writer.transport.get_write_buffer_size)
        assert peak.growth_bytes < GROWTH_LIMIT_BYTES
        world.tap.request.release()
        reply = parse(await reader.read())
    assert digest_of_echo(reply.body) == LARGE_DIGEST
    assert peak.growth_bytes < GROWTH_LIMIT_BYTES


async def test_a_connection_that_was_held_back_is_fit_for_the_next_request(world: World) -> None:
    """Also where a reply ends just as its client takes no more: that connection's next reply is read. R190.

    The search comes close to the longest reply that the gateway finishes with for a client that reads nothing.
    """
    shortest, longest = 500_000, len(LARGE)
    async with asyncio.timeout(2 * WAIT_SECONDS):
        while longest - shortest > 8_000:
            middle = (shortest + longest) // 2
            if await is_finished_unread(world, LARGE[:middle]):
                shortest = middle
            else:
                longest = middle


async def is_finished_unread(world: World, body: bytes) -> bool:
    """Whether the reply has left the upstream's connection though its client reads nothing. Uses it again."""
    world.tap.forget()
    async with slow_reader(world) as (_, writer):
        writer.write(head(world, "POST /tapped/post HTTP/1.1", f"Content-Length: {len(body)}") + body)
        await until(lambda: world.tap.reply.passed > 0, what="the reply")
        await settled(lambda: world.tap.reply.passed, seconds=0.1)
        connections = world.tap.connections
        async with connected(world.gateway.proxy_port) as (reader, other):
            other.write(head(world, "GET /tapped/status/418 HTTP/1.1", "Connection: close"))
            assert parse(await reader.read()).status == 418
        return world.tap.connections == connections
