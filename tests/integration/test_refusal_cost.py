"""What refusing a wrong key takes, in steps of the interpreter: the same, whatever the key shares with a good one.

Where these are the same, and the digest alone is looked up, no clock can tell the keys apart.
`tests/integration/threats/test_timing.py` looks with a clock, at what is beneath, too.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median_low

import asyncpg
import pytest

from gateway.auth.secrets import ALPHABET, CHECKSUM_CHARACTERS, SecretFormat, checksum, sha256_digest
from gateway.embedded.server_process import HOST
from tests.fixtures.planted import ENVIRONMENT
from tests.integration.test_warm_path_cost import Counts, counting, standing

ROUNDS = 12
MOST_APART = 20  # steps, of more than a thousand: which words to say
FORMAT = SecretFormat("ost", ENVIRONMENT)
END = b"\r\n\r\n"


class Stranger:
    """A client on one connection, whose keys are wrong."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def refused(self, secret: str) -> bytes:
        """The reply's body to a request with this key."""
        self._writer.write(b"GET /orders/1 HTTP/1.1\r\nHost: a.test\r\nX-Api-Key: " + secret.encode() + END)
        async with asyncio.timeout(10):
            head = await self._reader.readuntil(END)
            assert head.startswith(b"HTTP/1.1 401 "), head
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            return await self._reader.readexactly(int(length.partition(b":")[2]))

    async def steps_of(self, secret: str) -> int:
        """How many refusing this one takes."""
        counts = Counts()
        with counting(counts):
            await self.refused(secret)
        return counts.steps

    async def steps(self, *secrets: str) -> int:
        """How many refusing these takes in the middle, all of them being known.

        Not the fewest: what repeats a connection's first request to the letter takes fewer, whatever it is.
        """
        return median_low([await self.steps_of(secrets[number % len(secrets)]) for number in range(ROUNDS)])


@asynccontextmanager
async def stranger(port: int) -> AsyncIterator[Stranger]:
    """One that is connected."""
    reader, writer = await asyncio.open_connection(HOST, port)
    yield Stranger(reader, writer)
    writer.close()
    await writer.wait_closed()


def with_checksum(body: str) -> str:
    """A secret of the right shape."""
    return body + checksum(body)


def near(secret: str) -> list[str]:
    """Secrets that share all but the last random character with a good one."""
    body = secret[:-CHECKSUM_CHARACTERS]
    return [with_checksum(body[:-1] + last) for last in ALPHABET if last != body[-1]][:ROUNDS]


def unknown(count: int = ROUNDS) -> list[str]:
    """Secrets that nobody has."""
    return [FORMAT.generate() for _ in range(count)]


@pytest.mark.threat("time as an oracle")
async def test_nearly_right_takes_the_steps_of_anything(postgres_dsn: str, redis_url: str) -> None:
    """A wrong key takes as many steps as any other, be it one character away from a good one that is remembered. R015.

    Known wrong ones first, from memory; then such as have to be looked up.
    """
    async with standing(postgres_dsn, redis_url) as caller, stranger(caller.port) as client:
        await caller.ask(b"GET", b"/orders/1")
        kinds = {"near": near(caller.secret), "unknown": unknown()}
        cold = {kind: [await client.steps_of(secret) for secret in secrets] for kind, secrets in kinds.items()}
        warm = {kind: await client.steps(*secrets) for kind, secrets in kinds.items()}
    assert median_low(cold["near"]) == median_low(cold["unknown"]) > warm["near"] == warm["unknown"] > 50


@pytest.mark.threat("time as an oracle")
async def test_a_slip_anywhere_takes_the_steps_of_noise(postgres_dsn: str, redis_url: str) -> None:
    """A checksum that is wrong is refused in the same steps, wherever the slip is; nothing is looked up. R006, R015."""
    async with standing(postgres_dsn, redis_url) as caller, stranger(caller.port) as client:
        await caller.ask(b"GET", b"/orders/1")
        good = caller.secret
        start = len(good) - len(good.rpartition("_")[2])
        places = (start, start + 16, len(good) - CHECKSUM_CHARACTERS - 1, len(good) - 1)
        slips = [good[:place] + ("a" if good[place] != "a" else "b") + good[place + 1 :] for place in places]
        noise = [secret[:-CHECKSUM_CHARACTERS] + "000000" for secret in unknown()]
        await client.refused(noise[0])
        counted = {secret: await client.steps(secret) for secret in (*slips, *noise[:4])}
    assert len(set(counted.values())) == 1


@pytest.mark.threat("time as an oracle")
async def test_what_once_was_takes_the_steps_of_what_never_was(postgres_dsn: str, redis_url: str) -> None:
    """From memory: revoked and expired keys in the steps of unknown ones, but for a hundredth.

    The reply tells their holders which it is, so time tells nothing new; it is about as long all the same.
    """
    async with standing(postgres_dsn, redis_url) as caller, stranger(caller.port) as client:
        await caller.ask(b"GET", b"/orders/1")
        ended = await planted_ended(postgres_dsn)
        kinds = {"unknown": unknown(1)[0], **ended}
        codes = {kind: await client.refused(secret) for kind, secret in kinds.items()}
        steps = {kind: await client.steps(secret) for kind, secret in kinds.items()}
    assert b"key_revoked" in codes["revoked"]
    assert b"key_expired" in codes["expired"]
    assert max(steps.values()) - min(steps.values()) <= MOST_APART, steps


async def planted_ended(dsn: str) -> dict[str, str]:
    """Keys of the caller that have been revoked, and have expired."""
    secrets = dict(zip(("revoked", "expired"), unknown(2), strict=True))
    connection = await asyncpg.connect(dsn)
    try:
        for kind, secret in secrets.items():
            await connection.execute(
                f"""INSERT INTO api_keys
                    (id, tenant_id, user_id, kind, name, prefix, environment, secret_id, digest, {kind}_at)
                SELECT $1, tenant_id, user_id, kind, $1, prefix, environment, $1, $2, now() - interval '1 hour'
                FROM api_keys LIMIT 1""".replace("expired_at", "expires_at"),
                f"key_{kind}",
                sha256_digest(secret.encode()),
            )
    finally:
        await connection.close()
    return secrets
