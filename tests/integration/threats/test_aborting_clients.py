"""Clients that leave at any moment, by the thousand: whoever stays gets the answer to the own request.

Some four thousand requests here; in life it is millions, of which one mix-up would be too many. All is set up for
mix-ups: short lifetimes, so that many requests wait for Redis or Postgres when their client leaves, and connections
that are shared by all.
"""

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass, field

import pytest

from tests.fixtures.connections import connected
from tests.fixtures.stand import Key, Stand
from tests.fixtures.waiting import until
from tests.integration.threats.raw import get, reply

pytestmark = pytest.mark.asyncio(loop_scope="session")

SEED = 20261122
CLIENTS = 40
ROUNDS = 55  # of each client: a connection with up to three requests
KEYS = 60
TTL_SECONDS = 0.2
RESET = struct.pack("ii", 1, 0)


@dataclass
class Crowd:
    """Clients with a key each time, most of whom do not stay for the answer."""

    port: int
    keys: list[Key]
    chance: random.Random
    answered: int = 0
    left: int = 0
    mixed_up: list[str] = field(default_factory=list)

    async def visit(self, number: int) -> None:
        """One connection: some requests in one go, each with another key; leave anywhere, or stay to the end."""
        chosen = self.chance.choices(range(len(self.keys)), k=self.chance.randint(1, 3))
        sent = b"".join(get(self.keys[key].secret, f"/orders/{key}/{number}") for key in chosen)
        stays = self.chance.random() < 0.4
        async with connected(self.port) as (reader, writer):
            writer.write(sent if stays else sent[: self.chance.choice((len(sent), self.chance.randint(1, len(sent))))])
            if stays:
                for key in chosen:
                    self._check(key, number, await reply(reader))
                return
            # Before the head is read, during a lookup, while the upstream is asked, or in the middle of the reply.
            await asyncio.sleep(self.chance.choice((0.0, 0.0, 0.001, 0.003, 0.01)))
            if self.chance.random() < 0.2:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await reader.read(self.chance.randint(1, 300))
            if self.chance.random() < 0.7:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
            self.left += 1

    def _check(self, key: int, number: int, answer: tuple[int, bytes]) -> None:
        status, body = answer
        mine = f'["X-Key-Id", "{self.keys[key].id}"]'.encode()
        if status == 200 and mine in body and f'"/orders/{key}/{number}"'.encode() in body:
            self.answered += 1
        elif status != 503:  # a busy machine's lookup may be late
            self.mixed_up.append(f"{status} for {self.keys[key].id}, {key}/{number}: {body!r}")


@pytest.mark.threat("answer of another request")
async def test_nobody_gets_the_answer_of_one_who_left(stand: Stand) -> None:
    """Thousands of requests, most of them given up at random: no identity and no reply goes to another. R049 R050."""
    node = await stand.start_node({"cache": {"ttl_seconds": TTL_SECONDS}})
    keys = await stand.new_keys(KEYS)
    mark, calls = stand.mark(), await stand.redis_calls()
    crowd = Crowd(node.proxy_port, keys, random.Random(SEED))

    async def client(first: int) -> None:
        for number in range(first, CLIENTS * ROUNDS, CLIENTS):
            await crowd.visit(number)

    await asyncio.gather(*map(client, range(CLIENTS)))
    assert crowd.mixed_up == []
    for request in stand.upstream.requests:
        key = int(request.target.split("/")[2])
        assert request.all("X-Key-Id") == [keys[key].id], request.target
    # What the above rests on: many left, many stayed, and they met at the stores and at the upstream.
    assert crowd.left > 1000
    assert crowd.answered > 1000
    assert sum(stand.lookups(mark)) > 2 * KEYS
    assert (await stand.redis_calls())["get"] - calls.get("get", 0) > KEYS  # a busy machine spares a slow Redis
    assert await stand.sample(node, "ostiary_requests_total", status="499") > 20  # by far most leave sooner
    assert stand.upstream.connections < len(stand.upstream.requests)

    async def is_empty() -> bool:
        return await stand.sample(node, "ostiary_connections", side="client") == 0

    await until(is_empty, seconds=3, what="the connections of all who left to end")
    answers = [await stand.call(node, key.secret) for key in keys]
    assert [answer.who for answer in answers] == [key.id for key in keys]
