"""All nodes start at once over a Redis that has lost everything, or has come back with old contents."""

import asyncio
import random
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fixtures import processes
from tests.fixtures.stand import Answer, Key, Stand

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODES, KEYS, REVOKED, CLIENTS = 3, 200, 20, 6
AT_ONCE, FEW_AT_ONCE = 60, 10
# As Postgres logs a search: whose it is, the statement over several lines, and what was asked for.
SEARCH = re.compile(
    r"^(node-\d): LOG:  execute .*\n(?:\t.*\n)*\t +FROM (api_keys AS k|retired_secrets AS s .*)\n(?:\t.*\n)*"
    r"node-\d: DETAIL:  Parameters: \$1 = '(.*)'$",
    re.MULTILINE,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    """Nodes whose statements can be told apart in Postgres' log."""
    folder: Path = tmp_path_factory.mktemp("cold-start")
    made = Stand(folder, cache={})
    try:
        await made.start()
        await made.execute("ALTER SYSTEM SET log_line_prefix = '%a: '")
        await made.execute("SELECT pg_reload_conf()")
        for number in range(NODES):
            await made.start_node({"postgres": {"dsn": f"{made.postgres.dsn}?application_name=node-{number}"}})
        yield made
    finally:
        await made.stop()


@pytest.mark.threat("herd after a cache restart", "missed revocation")
@pytest.mark.parametrize("contents", ["none", "old"])
async def test_a_cold_start_asks_once_and_admits_nobody_who_was_revoked(
    stand: Stand, tmp_path_factory: pytest.TempPathFactory, contents: str
) -> None:
    """All keys on all nodes by many clients at once: right answers, and one search per key and node. R048 R049 R231."""
    keys = await stand.insert_keys(KEYS)
    revoked = (await shared(stand, keys))[:REVOKED]
    assert len(revoked) == REVOKED
    dump = tmp_path_factory.getbasetemp() / "cold-start0" / "own-redis" / "redis" / "dump.rdb"
    async with stand.redis_client() as client:
        await client.save()
    old = shutil.copy(dump, dump.with_suffix(".old"))
    for number, key in enumerate(revoked):
        answer = await stand.manage(stand.nodes[number % NODES], "POST", f"/v1/keys/{key.id}/revoke", {})
        assert answer.status == 200, answer.text
    await asyncio.gather(*(node.stop() for node in stand.nodes))
    processes.kill(stand.redis.pid)
    await stand.redis.stop()
    dump.unlink()
    if contents == "old":
        shutil.move(old, dump)
    await stand.redis.start()
    assert await count_entries(stand, revoked) == (REVOKED if contents == "old" else 0)
    await asyncio.gather(*(node.start() for node in stand.nodes))

    mark = stand.mark()
    for key, answer in await everybody(stand, keys):
        if key in revoked:
            assert (answer.status, answer.code) == (401, "key_revoked")
        else:
            assert (answer.status, answer.who) == (200, key.id)
    searches = Counter(match.groups() for match in SEARCH.finditer(stand.statements(mark)))
    assert searches.total() == sum(stand.lookups(mark)), "every search was read"
    assert set(searches.values()) == {1}, searches.most_common(5)
    asked_for = {asked for _, _, asked in searches}
    needed = revoked if contents == "old" else keys
    assert all(any(key.digest.hex() in asked for asked in asked_for) for key in needed)


async def shared(stand: Stand, keys: Sequence[Key]) -> list[Key]:
    """Have every key admitted; those of which Redis then holds an entry."""
    there: list[Key] = []
    # A Redis that is slow for a moment is left alone: then another node finds none there, and leaves one.
    for node in stand.nodes:
        missing = [key for key in keys if key not in there]
        for begin in range(0, len(missing), FEW_AT_ONCE):
            few = missing[begin : begin + FEW_AT_ONCE]
            answers = await asyncio.gather(*(stand.call(node, key.secret) for key in few))
            assert all(answer.status == 200 for answer in answers)
        async with stand.redis_client() as client:
            there += [key for key in missing if await client.exists(key.entry_name)]
    return there


async def count_entries(stand: Stand, keys: Sequence[Key]) -> int:
    """How many of these Redis holds something about."""
    async with stand.redis_client() as client:
        return int(await client.exists(*(key.entry_name for key in keys)))


async def everybody(stand: Stand, keys: Sequence[Key]) -> list[tuple[Key, Answer]]:
    """Every key on every node by so many clients, in random order."""
    requests = [(key, node) for key in keys for node in stand.nodes for _ in range(CLIENTS)]
    random.Random(1).shuffle(requests)
    answers: list[tuple[Key, Answer]] = []

    async def ask() -> None:
        while requests:
            key, node = requests.pop()
            answers.append((key, await stand.call(node, key.secret)))

    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return answers
