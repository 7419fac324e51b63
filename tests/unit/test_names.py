"""Names of targets: resolved again and again, and never forgotten."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.proxy import names
from gateway.proxy.names import WatchedName, is_address, system_resolver
from tests.fixtures.waiting import until


class Directory:
    """What a resolver says: addresses, or that it does not know."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: list[str] | None = list(addresses)
        self.questions = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def resolve(self, host: str) -> list[str]:
        assert host == "up.test"
        self.questions += 1
        await self.may_answer.wait()
        if self.addresses is None:
            raise OSError("no such host")
        return list(self.addresses)


@pytest.fixture
async def watched() -> AsyncIterator[Callable[[Directory], WatchedName]]:
    made: list[WatchedName] = []

    def make(directory: Directory) -> WatchedName:
        made.append(WatchedName("up.test", directory.resolve, lambda addresses: None))
        return made[-1]

    yield make
    for name in made:
        await name.close()


async def test_addresses_take_turns(watched: Callable[[Directory], WatchedName]) -> None:
    """Connections are spread over the addresses of a name; the family that comes first stays first."""
    name = watched(Directory("192.0.2.1", "192.0.2.2", "2001:db8::1"))
    seen = [await name.addresses() for _ in range(4)]
    assert {tuple(addresses[:2]) for addresses in seen} == {("192.0.2.1", "192.0.2.2"), ("192.0.2.2", "192.0.2.1")}
    assert all(addresses[2:] == ["2001:db8::1"] for addresses in seen)


async def test_the_last_good_answer_stays(watched: Callable[[Directory], WatchedName]) -> None:
    """A resolver that fails, or falls silent, does not take the addresses away that were good."""
    directory = Directory("192.0.2.1")
    name = watched(directory)
    assert await name.addresses() == ["192.0.2.1"]
    nothing: list[str] = []
    for broken in (None, nothing):
        directory.addresses = broken
        await name.look_again()
        assert await name.addresses() == ["192.0.2.1"]
    directory.may_answer.clear()
    question = asyncio.create_task(name.look_again())
    assert await name.addresses() == ["192.0.2.1"]
    question.cancel()


async def test_a_name_that_was_never_known(watched: Callable[[Directory], WatchedName]) -> None:
    """Without any answer there is an error, at once, and the next request asks again."""
    directory = Directory()
    directory.addresses = None
    name = watched(directory)
    with pytest.raises(OSError, match=r"up\.test"):
        await name.addresses()
    directory.addresses = ["192.0.2.1"]
    assert await name.addresses() == ["192.0.2.1"]


async def test_many_ask_once(watched: Callable[[Directory], WatchedName]) -> None:
    """A slow resolver gets one question, and who stops waiting does not take the answer from the others."""
    directory = Directory("192.0.2.1")
    directory.may_answer.clear()
    name = watched(directory)
    waiting = [asyncio.create_task(name.addresses()) for _ in range(20)]
    await until(lambda: directory.questions == 1)
    waiting[0].cancel()
    directory.may_answer.set()
    assert await asyncio.gather(*waiting[1:]) == [["192.0.2.1"]] * 19
    assert directory.questions == 1


async def test_a_move_is_noticed_without_a_request() -> None:
    """The name is looked at again and again, since connections that are kept alive never ask."""
    directory = Directory("192.0.2.1")
    told: list[frozenset[str]] = []
    name = WatchedName("up.test", directory.resolve, told.append)
    await name.start()
    try:
        await until(lambda: told == [{"192.0.2.1"}])
        directory.addresses = ["192.0.2.2"]
        await until(lambda: told == [{"192.0.2.1"}, {"192.0.2.2"}], seconds=2 * names.RESOLVE_SECONDS)
        assert await name.addresses() == ["192.0.2.2"]
    finally:
        await name.close()


async def test_the_system_knows_names() -> None:
    """The resolver of the system answers for localhost, each address once; an address needs none."""
    found = await system_resolver("localhost")
    assert "127.0.0.1" in found or "::1" in found
    assert len(set(found)) == len(found)
    assert is_address("192.0.2.1")
    assert is_address("2001:db8::1")
    assert not is_address("localhost")
