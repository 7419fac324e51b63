"""Genuine records that somebody keeps in Redis beyond their time."""

import asyncio

import pytest

from tests.fixtures.stand import Key, Stand, unknown_secret
from tests.fixtures.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIFE_SECONDS = 3.0


@pytest.mark.threat("poisoned cache entry")
async def test_a_record_that_never_ends_admits_nobody_beyond_its_end(stand: Stand) -> None:
    """Kept for ever, an entry is still refused at the end of its key or window, by a node that knows no other. R045."""
    finder, late = await asyncio.gather(*(stand.start_node() for _ in range(2)))
    expiring, rotated = await stand.new_keys(2)
    retired = Key(rotated.id, unknown_secret())
    await stand.execute(
        "UPDATE api_keys SET expires_at = now() + make_interval(secs => $2) WHERE id = $1", expiring.id, LIFE_SECONDS
    )
    await stand.execute(
        "INSERT INTO retired_secrets (id, key_id, digest, prefix, expires_at)"
        " VALUES ($1, $2, $3, 'ost_', now() + make_interval(secs => $4))",
        f"old-{rotated.id}",
        rotated.id,
        retired.digest,
        LIFE_SECONDS,
    )
    await stand.heard_by(stand.nodes)
    codes = {expiring: "key_expired", retired: "key_rotated"}
    async with stand.redis_client() as client:
        for key in codes:

            async def is_kept(key: Key = key) -> bool:
                assert (await stand.call(finder, key.secret)).who == key.id
                return bool(await client.persist(key.entry_name))

            await until(is_kept, seconds=LIFE_SECONDS, what="an entry to keep")
        for key, code in codes.items():

            async def is_over(key: Key = key, code: str = code) -> bool:
                return (await stand.call(finder, key.secret)).code == code

            await until(is_over, what="the end")
            assert await client.ttl(key.entry_name) == -1
            mark = stand.mark()
            answer = await stand.call(late, key.secret)
            assert (answer.status, answer.code) == (401, code)
            assert stand.lookups(mark) == (0, 0), "it was not this entry that was judged"
