"""The keys that tests plant straight in the database are keys that the gateway could have issued."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.stand import FORMAT, Stand


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    """A stand with one node."""
    stand = Stand(tmp_path, cache={})
    try:
        await stand.start()
        yield stand
    finally:
        await stand.stop()


def shape(value: Any) -> str:
    """What kind of value it is: letters and digits alike, ids and prefixes by their first part."""
    return f"{type(value).__name__} {re.sub(r'(?<=_)[0-9A-Za-z]+$', lambda m: str(len(m[0])), str(value))}"


async def test_planted_keys_are_like_issued_ones(stand: Stand) -> None:
    """Column by column of the same kind, and secrets of the published form with its checksum. R380."""
    node = await stand.start_node()
    planted = (await stand.insert_keys(1))[0]
    made = await stand.manage(node, "POST", "/v1/keys", {"user_id": "ann", "name": "issued"})
    assert made.status == 201
    async with stand.connection() as connection:
        rows = await connection.fetch("SELECT * FROM api_keys ORDER BY user_id")
    issued, ours = ({name: value for name, value in row.items() if name in SHAPED} for row in rows)
    assert {name: shape(value) for name, value in ours.items()} == {name: shape(v) for name, v in issued.items()}
    assert [len(row["digest"]) for row in rows] == [32, 32]
    assert FORMAT.is_well_formed(planted.secret.encode())
    assert (await stand.call(node, planted.secret)).who == planted.id


SHAPED = frozenset({"id", "kind", "prefix", "environment", "secret_id", "revoked_at", "expires_at", "scopes"})
