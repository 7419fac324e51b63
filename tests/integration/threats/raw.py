"""Requests as bytes, to a port: one at a time, or many on a connection."""

import asyncio
import itertools
import re
from collections.abc import Sequence

from tests.fixtures.connections import connected

PATIENCE_SECONDS = 20.0
PIPELINE = 50  # requests that are sent before their replies are read
LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)\r\n")
GET = "GET {path} HTTP/1.1\r\nHost: gw.test\r\nX-Api-Key: {secret}\r\n\r\n"


def get(secret: str, path: str = "/orders/1") -> bytes:
    """A GET with a key."""
    return GET.format(path=path, secret=secret).encode()


async def exchange(port: int, request: bytes) -> tuple[int, bytes]:
    """Send a request that ends its connection; the reply's status and whatever follows its head."""
    async with connected(port) as (reader, writer), asyncio.timeout(PATIENCE_SECONDS):
        writer.write(request)
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


async def reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next reply on a connection, which has a length: its status and body."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        assert length is not None, head
        return int(head.split(b" ")[1]), await reader.readexactly(int(length[1]))


async def ask_in_a_row(port: int, requests: Sequence[bytes]) -> list[int]:
    """The statuses of all these, sent on one connection, some ahead of their replies."""
    statuses = []
    async with connected(port) as (reader, writer):
        for start in range(0, len(requests), PIPELINE):
            batch = requests[start : start + PIPELINE]
            writer.write(b"".join(batch))
            statuses += [(await reply(reader))[0] for _ in batch]
    return statuses


async def ask_all(port: int, requests: Sequence[bytes], *, connections: int) -> list[int]:
    """The statuses of all these in some order, on so many connections at once."""
    shares = [requests[number::connections] for number in range(connections)]
    answers = await asyncio.gather(*(ask_in_a_row(port, share) for share in shares if share))
    return list(itertools.chain.from_iterable(answers))
