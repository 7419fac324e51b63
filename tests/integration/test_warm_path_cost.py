"""What a warm request costs, counted in what does not depend on the machine: steps of the interpreter, and tasks.

The counts are those of CPython 3.11; other versions differ by a few per cent. A change that needs more of them should
be worth it: raise the bound in the commit that says why, with the figures of `make bench` before and after.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import gateway
from gateway.app import Gateway
from gateway.embedded.server_process import HOST
from gateway.settings import Settings
from tests.fixtures.planted import ENVIRONMENT, plant
from tests.fixtures.ports import free_port

SOURCES = str(Path(gateway.__file__).parent)
NOT_OF_A_REQUEST = ("consistency", "proxy/server.py", "stores/postgres", "stores/redis", "auth/last_used.py")
ROUNDS = 40
BODY = b"x" * 964
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 964\r\n\r\n" + BODY


@dataclass
class Counts:
    """What happened while somebody counted."""

    steps: int = 0  # instructions of the interpreter, in the gateway's own code
    tasks: list[str] = field(default_factory=list)  # the coroutines of all that were made


class Origin(asyncio.Protocol):
    """An upstream that answers every read with one reply: requests here come whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        self.transport.write(REPLY)


class Caller:
    """A client on one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: str) -> None:
        self._reader = reader
        self._writer = writer
        self.secret = secret
        self.port: int = writer.get_extra_info("peername")[1]

    async def ask(self, method: bytes, path: bytes, *lines: bytes, body: bytes = b"") -> None:
        """One request of a dozen headers, and its reply, which is the upstream's."""
        head = [
            method + b" " + path + b" HTTP/1.1",
            b"Host: api.example.com",
            b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)",
            *(b"Accept: application/json", b"Accept-Encoding: gzip, deflate", b"Accept-Language: en-US,en;q=0.9"),
            *(b"Cache-Control: no-cache", b"Authorization: Bearer " + self.secret.encode()),
            *(b"Referer: https://app.example.com/", b"Cookie: session=abcdefghijklmnop", b"X-Client: web/1.9"),
            *lines,
        ]
        self._writer.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        async with asyncio.timeout(10):
            answer = await self._reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            assert await self._reader.readexactly(len(BODY)) == BODY


@asynccontextmanager
async def standing(dsn: str, redis_url: str) -> AsyncIterator[Caller]:
    """A gateway in this process, with everything on that is on by default, and a caller whose key is warm."""
    loop = asyncio.get_running_loop()
    planted = await plant(dsn)
    origin = await loop.create_server(Origin, HOST, 0)
    ports = [free_port() for _ in range(3)]
    listen = dict(zip(("proxy", "admin", "status"), (f"{HOST}:{port}" for port in ports), strict=True))
    node = Gateway(
        Settings.model_validate(
            {
                "environment": ENVIRONMENT,
                "listen": listen,
                "postgres": {"dsn": dsn},
                "redis": {"url": redis_url},
                "plans": {"starter": {"tier": 1, "features": {"api_access": True}}},
                "upstreams": {"origin": {"targets": [f"http://{HOST}:{origin.sockets[0].getsockname()[1]}"]}},
                "routes": [{"name": "orders", "paths": ["/orders"], "upstream": "origin", "auth": "required"}],
            }
        )
    )
    await node.start()
    try:
        reader, writer = await asyncio.open_connection(HOST, ports[0])
        caller = Caller(reader, writer, planted.secret)
        yield caller
        writer.close()
        await writer.wait_closed()
    finally:
        await node.close()
        origin.close()
        await origin.wait_closed()


@contextmanager
def counting(counts: Counts) -> Iterator[None]:
    """Count what the gateway's code does in this thread."""
    loop = asyncio.get_running_loop()

    def steps(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        if event == "opcode":
            counts.steps += 1
        return steps

    def entered(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        name = frame.f_code.co_filename
        if not name.startswith(SOURCES) or any(part in name for part in NOT_OF_A_REQUEST):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return steps

    def made(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        counts.tasks.append(getattr(coroutine, "__qualname__", type(coroutine).__name__))  # compiled ones have no name
        return asyncio.Task(coroutine, loop=loop, **more)

    before = sys.gettrace()
    loop.set_task_factory(made)
    sys.settrace(entered)
    try:
        yield
    finally:
        sys.settrace(before)
        loop.set_task_factory(None)


Ask = Callable[[Caller, int], Any]
KINDS: dict[str, tuple[Ask, int]] = {
    "repeated to the letter": (lambda caller, _: caller.ask(b"GET", b"/orders/1"), 1215),
    "another path and trace id": (
        lambda caller, number: caller.ask(b"GET", b"/orders/%d" % number, b"traceparent: 00-%032x-01" % number),
        1685,
    ),
    "another request id": (
        lambda caller, number: caller.ask(b"GET", b"/orders/1", b"X-Request-Id: client-%d" % number),
        1705,
    ),
    "a body of another size": (
        lambda caller, number: caller.ask(
            b"POST", b"/orders/1", b"Content-Length: %d" % (100 + number), body=b"x" * (100 + number)
        ),
        1965,
    ),
    "another header section": (
        lambda caller, number: caller.ask(b"GET", b"/orders/1", *([b"X-More: 1"] * (number % 3))),
        2435,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_warm_request_takes_no_more_steps_than_it_did(postgres_dsn: str, redis_url: str, kind: str) -> None:
    """The fewest steps that any of a few requests took are within the bound, and none of them made a task."""
    ask, bound = KINDS[kind]
    async with standing(postgres_dsn, redis_url) as caller:
        await caller.ask(b"GET", b"/orders/1")
        for number in range(5):
            await ask(caller, number)
        fewest = sys.maxsize
        tasks: list[str] = []
        for number in range(5, 5 + ROUNDS):
            counts = Counts()
            with counting(counts):
                await ask(caller, number)
            fewest = min(fewest, counts.steps)
            tasks += counts.tasks
    assert 50 < fewest <= bound
    assert not [name for name in tasks if "Exchange" in name or "Lookup" in name]


async def test_the_count_sees_a_task_where_there_is_one(postgres_dsn: str, redis_url: str) -> None:
    """The first request with a key is looked up by a task of its own, and takes more steps than a warm one."""
    async with standing(postgres_dsn, redis_url) as caller:
        counts = Counts()
        with counting(counts):
            await caller.ask(b"GET", b"/orders/1")
    assert [name for name in counts.tasks if "Exchange" in name]
    assert [name for name in counts.tasks if "Lookup" in name]
    assert counts.steps > KINDS["repeated to the letter"][1]
