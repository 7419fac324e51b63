"""Nodes whose wall clock is ten minutes off, or jumps: ends are the database's, lifetimes are monotonic."""

import json
import secrets
import time
from pathlib import Path

import pytest

from gateway.control.ids import ALPHABET, TIME_CHARACTERS
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.stand import Key, Stand, unknown_secret
from tests.integration.threats.wrong_clock import WrongClock

pytestmark = pytest.mark.asyncio(loop_scope="session")

MINUTES = 60
LIFE_SECONDS = 2.5  # of a key that ends during the test
EARLY_SECONDS = 0.5  # a key may end so much before its time, by the way of a poll, and never after it


async def expiring_key(stand: Stand, node: GatewayProcess, seconds: float) -> tuple[Key, float]:
    """A key that ends in so many seconds, and the moment (monotonic) at which it does, at the latest."""
    key = await stand.new_key()
    await stand.execute(
        "UPDATE api_keys SET expires_at = now() + make_interval(secs => $2) WHERE id = $1", key.id, seconds
    )
    ends_at = time.monotonic() + seconds
    await stand.heard_by([node])
    return key, ends_at


async def check_end(stand: Stand, node: GatewayProcess, key: Key, ends_at: float) -> None:
    """The key is admitted up to its end, and not beyond it."""
    while True:
        sent_at = time.monotonic()
        answer = await stand.call(node, key.secret)
        if answer.status != 200:
            assert (answer.status, answer.code) == (401, "key_expired")
            assert time.monotonic() > ends_at - EARLY_SECONDS, f"{ends_at - time.monotonic()} s early"
            return
        assert answer.who == key.id
        assert sent_at < ends_at, "an expired key is admitted"


async def check_is_off(stand: Stand, node: GatewayProcess, seconds: int) -> None:
    """The node's clock is really wrong: the ids that it makes begin with the time, and tell another one."""
    made = await stand.manage(node, "POST", "/v1/keys", {"user_id": "ann", "name": secrets.token_hex(8)})
    assert made.status == 201, made.text
    key_id: str = json.loads(made.text)["id"]
    assert (await stand.manage(node, "POST", f"/v1/keys/{key_id}/revoke", {})).status == 200
    milliseconds = 0
    for character in key_id.removeprefix("key_")[:TIME_CHARACTERS]:
        milliseconds = milliseconds * len(ALPHABET) + ALPHABET.index(character)
    assert abs(milliseconds / 1000 - time.time() - seconds) < MINUTES


@pytest.mark.threat("clock that lies")
@pytest.mark.parametrize("minutes", [10, -10])
async def test_a_node_whose_clock_is_off_decides_like_any_other(stand: Stand, tmp_path: Path, minutes: int) -> None:
    """Started ten minutes ahead or behind: keys end when they end, and live until then. R044 R045 R094."""
    clock = WrongClock(tmp_path)
    clock.set(minutes * MINUTES)
    node = await stand.start_node(environment=clock.environment)
    await check_is_off(stand, node, minutes * MINUTES)
    ended, _ = await expiring_key(stand, node, -300)
    ending, ends_at = await expiring_key(stand, node, LIFE_SECONDS)
    far, _ = await expiring_key(stand, node, 300)
    good = await stand.new_key()
    for key in (good, far):
        assert (await stand.call(node, key.secret)).who == key.id
    assert (await stand.call(node, ended.secret)).code == "key_expired"
    await check_end(stand, node, ending, ends_at)
    for key in (good, far):
        assert (await stand.call(node, key.secret)).who == key.id


@pytest.mark.threat("clock that lies")
async def test_a_clock_that_jumps_ends_nothing_and_prolongs_nothing(stand: Stand, tmp_path: Path) -> None:
    """Forward and back: no key is looked up anew, none is lost, each ends at its end, a revocation acts. R042 R221."""
    clock = WrongClock(tmp_path)
    node = await stand.start_node(environment=clock.environment)
    known = await stand.new_keys(30)
    doomed, unknown = await stand.new_key(), unknown_secret()
    far, _ = await expiring_key(stand, node, 300)
    for key in (*known, far, doomed):
        assert (await stand.call(node, key.secret)).who == key.id
    assert (await stand.call(node, unknown)).status == 401
    for minutes in (10, -10, 0, -10, 10):
        clock.set(minutes * MINUTES)
        mark = stand.mark()
        for key in (*known, far, doomed):
            assert (await stand.call(node, key.secret)).who == key.id
        assert (await stand.call(node, unknown)).status == 401
        assert stand.lookups(mark) == (0, 0), "a jump of the clock makes every key cold"
        await check_is_off(stand, node, minutes * MINUTES)
    ending, ends_at = await expiring_key(stand, node, LIFE_SECONDS)
    assert (await stand.call(node, ending.secret)).who == ending.id
    clock.set(-10 * MINUTES)
    await check_end(stand, node, ending, ends_at)
    revoked = await stand.manage(node, "POST", f"/v1/keys/{doomed.id}/revoke", {})
    assert revoked.status == 200, revoked.text
    assert (await stand.call(node, doomed.secret)).code == "key_revoked"
    assert (await stand.ask("GET", f"{node.status_url}/health/ready")).status == 200
