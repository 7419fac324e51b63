"""How long a refusal takes says nothing of how much of a key is right, nor of whether there once was such a key.

Some hundred samples of each kind, where an attacker would take millions: what is looked for is a comparison that stops
at the first wrong byte, or a refusal that takes a way of its own, and both show in hundreds.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from gateway.auth.secrets import ALPHABET, CHECKSUM_CHARACTERS, checksum
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.stand import Key, Stand, unknown_secret
from tests.integration.threats.raw import ask_in_a_row, get
from tests.integration.threats.timing import Measured, differs, measure, ratio

pytestmark = pytest.mark.asyncio(loop_scope="session")

SAMPLES = 1200  # of each kind, where memory answers
COLD_SAMPLES = 300  # where Postgres does
TRIES = 3  # a difference that is there is there every time
OTHER_WAY = 1.5  # a refusal that took another way would take some times as long
SEED = 20261122


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(shared_stand: Stand) -> AsyncIterator[GatewayProcess]:
    """A node that remembers refusals for as long as a test lasts."""
    node = await shared_stand.start_node({"cache": {"negative_ttl_seconds": 60}})
    yield node
    shared_stand.nodes.remove(node)
    await node.stop()


def near_misses(keys: Sequence[Key]) -> list[str]:
    """Well-formed secrets that share all but the last random character with one of the keys."""
    bodies = [key.secret[:-CHECKSUM_CHARACTERS] for key in keys]
    near = [body[:-1] + last for body in bodies for last in ALPHABET if last != body[-1]]
    return [body + checksum(body) for body in near][:COLD_SAMPLES]


async def warmed(stand: Stand, node: GatewayProcess, count: int) -> list[Key]:
    """Good keys that the node knows."""
    keys = await stand.new_keys(count)
    assert set(await ask_in_a_row(node.proxy_port, [get(key.secret) for key in keys])) == {200}
    return keys


async def timed(node: GatewayProcess, one: Sequence[str], other: Sequence[str], number: int = 0) -> Measured:
    """The times of requests with these wrong secrets."""
    requests = {"one": [get(secret) for secret in one], "other": [get(secret) for secret in other]}
    return await asyncio.to_thread(measure, node.proxy_port, requests, SEED + number)


async def check_indistinguishable(node: GatewayProcess, one: Sequence[str], other: Sequence[str]) -> None:
    """The same secrets, asked for again and again, are not told apart by time in at least one of some tries."""
    for number in range(TRIES):
        if not differs(**await timed(node, repeated(one), repeated(other), number)):
            return
    raise AssertionError(f"told apart by their times, {TRIES} times in a row")


def repeated(secrets: Sequence[str]) -> list[str]:
    """As many as are to be measured, each as often as the others."""
    return list(secrets) * (SAMPLES // len(secrets))


@pytest.mark.threat("time as an oracle")
async def test_nearly_right_is_as_wrong_as_anything(shared_stand: Stand, node: GatewayProcess) -> None:
    """A wrong key that shares 31 of 32 characters with a good one takes as long as one that shares none. R015.

    Cold, so that Redis and Postgres search for it; then from memory.
    """
    good = await warmed(shared_stand, node, TRIES * (1 + COLD_SAMPLES // (len(ALPHABET) - 1)))
    for number in range(TRIES):
        near = near_misses(good[number::TRIES])
        far = [unknown_secret() for _ in near]
        is_told_apart = differs(**await timed(node, near, far, number))
        if not is_told_apart:
            break
    assert not is_told_apart, "a lookup takes longer or shorter for what is nearly right"
    await check_indistinguishable(node, near, far)


@pytest.mark.threat("time as an oracle")
async def test_a_mistyped_key_is_as_wrong_as_anything(shared_stand: Stand, node: GatewayProcess) -> None:
    """A good key with one character changed is refused in the time that noise of its shape takes. R006 R015."""
    (key,) = await warmed(shared_stand, node, 1)
    mistyped = [
        key.secret[:place] + wrong + key.secret[place + 1 :]
        for place in range(len(key.secret) - 32, len(key.secret))
        for wrong in ALPHABET
        if wrong != key.secret[place]
    ]
    chance = random.Random(SEED)
    noise = [unknown_secret()[:-CHECKSUM_CHARACTERS] + "000000" for _ in range(SAMPLES)]
    await check_indistinguishable(node, chance.sample(mistyped, SAMPLES), noise)


@pytest.mark.threat("time as an oracle")
@pytest.mark.parametrize("column", ["revoked_at", "expires_at"])
async def test_a_key_that_once_was_takes_no_way_of_its_own(
    shared_stand: Stand, node: GatewayProcess, column: str
) -> None:
    """From memory, a revoked or expired key is refused about as fast as an unknown one; the code tells them apart."""
    ended = await shared_stand.new_keys(20)
    await shared_stand.execute(
        f"UPDATE api_keys SET {column} = now() - interval '1 minute' WHERE id = ANY($1)", [key.id for key in ended]
    )
    await shared_stand.heard_by([node])
    former, never = [key.secret for key in ended], [unknown_secret() for _ in ended]
    assert set(await ask_in_a_row(node.proxy_port, [get(secret) for secret in (*former, *never)])) == {401}
    ratios = [ratio(**await timed(node, repeated(former), repeated(never), number)) for number in range(TRIES)]
    assert min(ratios) < OTHER_WAY, ratios


@pytest.mark.threat("time as an oracle")
async def test_the_yardstick_sees_a_difference(node: GatewayProcess) -> None:
    """What takes half as long again is told apart, and what does not is not: the tests above could fail. R382."""
    secrets = [unknown_secret() for _ in range(20)]
    await ask_in_a_row(node.proxy_port, [get(secret) for secret in secrets])
    measured = await timed(node, repeated(secrets), repeated(secrets))
    assert not differs(**measured)
    assert differs([1.5 * seconds for seconds in measured["one"]], measured["other"])
