"""A client that sends exactly the bytes it is told to."""

import asyncio

from tests.fixtures.connections import connected
from tests.integration.httpbin.world import World

READ_SECONDS = 30


def head(world: World, *lines: str) -> bytes:
    """A request head of these lines, with Host and the credential."""
    fields = [f"{name}: {value}" for name, value in world.credential]
    return "\r\n".join([lines[0], "Host: gateway.example", *lines[1:], *fields, "", ""]).encode("latin-1")


async def exchange(world: World, *lines: str, body: bytes = b"") -> bytes:
    """All that the gateway says until it closes, to a request with these lines and Host and the credential."""
    async with connected(world.gateway.proxy_port) as (reader, writer):
        writer.write(head(world, *lines) + body)
        async with asyncio.timeout(READ_SECONDS):
            return await reader.read()
