"""The script that shared budgets rest on, in a real Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio

from gateway.limits.ledger import TAKE
from gateway.stores.redis.connection import Redis
from gateway.stores.redis.scripts import Script
from gateway.telemetry.metrics import Metrics

HOUR = 3_600_000_000


def hourly(count: int, burst: int | None = None) -> list[str | int]:
    return ["per_hour", count, burst or count, HOUR, 0, 0]


def daily(count: int, number: int = 20_000, ends: int = 3600) -> list[str | int]:
    return ["per_day", count, count, 0, number, ends]


class Budgets:
    """Accounts, by name."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def take(self, need: int, want: int, **accounts: list[list[str | int]]) -> list[int]:
        arguments: list[str | int] = [need, want]
        for limits in accounts.values():
            arguments += [len(limits), *(value for limit in limits for value in limit)]
        answer: list[int] = await self._script.run(
            [self._script.name("limit", name) for name in accounts], arguments, seconds=2.0
        )
        return answer


@asynccontextmanager
async def budgets(url: str) -> AsyncIterator[Budgets]:
    store = Redis(url, environment="test", metrics=Metrics(), deadline_seconds=2.0)
    await store.open()
    try:
        yield Budgets(Script(store, TAKE.read_text()))
    finally:
        await store.close()


async def test_as_many_as_there_are(redis_url: str) -> None:
    """One at a time, all of a burst is granted, then none; the wait is that until the next one is there. R291."""
    async with budgets(redis_url) as account:
        assert [(await account.take(1, 1, a=[hourly(5)]))[0] for _ in range(7)] == [1] * 5 + [0] * 2
        granted, wait, short_account, short_limit, left = await account.take(1, 1, a=[hourly(5)])
        assert (granted, short_account, short_limit, left) == (0, 0, 0, 0)
        assert 0.9 * HOUR / 5 < wait <= HOUR / 5


async def test_all_or_none(redis_url: str) -> None:
    """Where one limit of one account is short, nothing is taken of any. R293."""
    async with budgets(redis_url) as account:
        assert (await account.take(2, 2, a=[hourly(9), daily(3)], b=[hourly(5)]))[0] == 2
        answer = await account.take(2, 2, a=[hourly(9), daily(3)], b=[hourly(5)])
        assert (answer[0], answer[2], answer[3]) == (0, 0, 1)
        assert answer[1] == 3600 * 1_000_000
        assert answer[4:] == [7, 1, 3]


async def test_a_lease_leaves_most_to_others(redis_url: str) -> None:
    """No more than a quarter of what is left is taken ahead, but what is needed; and it can be given back."""
    async with budgets(redis_url) as account:
        assert (await account.take(1, 10, a=[daily(20)]))[0] == 5
        assert (await account.take(1, 10, a=[daily(20)]))[0] == 3
        assert (await account.take(7, 10, a=[daily(20)]))[0] == 7
        assert (await account.take(-7, -7, a=[daily(20)]))[4] == 12
        assert (await account.take(-99, -99, a=[daily(20)]))[4] == 20


async def test_a_day_begins_once(redis_url: str) -> None:
    """A new day is a new quota; a node that still has the old one draws on the new. R293."""
    async with budgets(redis_url) as account:
        assert (await account.take(3, 3, a=[daily(3, number=20_000)]))[0] == 3
        assert (await account.take(1, 1, a=[daily(3, number=20_000)]))[0] == 0
        assert (await account.take(2, 2, a=[daily(3, number=20_001)]))[0] == 2
        assert (await account.take(1, 1, a=[daily(3, number=20_000)]))[0] == 1
        assert (await account.take(1, 1, a=[daily(3, number=20_000)]))[0] == 0
        assert (await account.take(1, 1, a=[daily(3, number=20_001)]))[0] == 0


async def test_another_plan_keeps_what_was_used(redis_url: str) -> None:
    """What was used of an hour counts against whatever the hour now holds."""
    async with budgets(redis_url) as account:
        assert (await account.take(6, 6, a=[hourly(10)]))[0] == 6
        assert (await account.take(1, 1, a=[hourly(8)]))[4] == 1
        assert (await account.take(1, 1, a=[hourly(7), daily(5)]))[0] == 0


@pytest.mark.parametrize("limits", [[hourly(5)], [daily(5)], [hourly(5), daily(5)]])
async def test_values_expire(redis_url: str, limits: list[list[str | int]]) -> None:
    """Not before what they say is worth nothing, and not much later. R298."""
    async with budgets(redis_url) as account:
        await account.take(2, 2, a=limits)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        life = await client.ttl("ostiary:test:limit:a")
    assert (1440 if len(limits[0]) and limits[0][0] == "per_hour" else 3600) <= life <= 7201
