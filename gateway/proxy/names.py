"""A target's name, resolved again and again. An answer that fails never takes a good one away.

Connections that are kept alive never ask: without a watch of its own, a name that has moved would be noticed with the
next new connection, which a busy pool may not make for days. Must not know: what is said on the connections.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Final

import structlog
from aiohappyeyeballs import AddrInfoType, start_connection

log = structlog.get_logger(__name__)

RESOLVE_SECONDS: Final = 5.0  # between two looks; the system's resolver does not tell how long an answer holds
NEXT_ADDRESS_SECONDS: Final = 0.25  # the delay that RFC 8305 recommends

Resolve = Callable[[str], Awaitable[list[str]]]


async def system_resolver(host: str) -> list[str]:
    """The addresses of a host as the system knows them: hosts file, DNS, whatever it is set up with. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_address(host: str) -> bool:
    """Whether there is nothing to resolve."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class WatchedName:
    """The addresses of one host name. `on_change` is told the new ones whenever they differ."""

    def __init__(self, host: str, resolve: Resolve, on_change: Callable[[frozenset[str]], None]) -> None:
        self._host = host
        self._resolve = resolve
        self._on_change = on_change
        self._addresses: list[str] = []
        self._turns = 0
        self._is_failing = False
        self._task: asyncio.Task[None] | None = None
        self._question: asyncio.Task[None] | None = None  # one at a time, however slow the answer is

    async def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop."""
        tasks = [task for task in (self._task, self._question) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def addresses(self) -> list[str]:
        """The addresses last known, those of a family in turn; the first caller waits. Raises OSError for none.

        The family that the resolver names first stays first: it is the one that the system has a way to.
        """
        if not self._addresses:
            await self.look_again()
        if not self._addresses:
            raise OSError(f"{self._host} cannot be resolved")
        self._turns += 1
        families: dict[bool, list[str]] = {}
        for address in self._addresses:
            families.setdefault(":" in address, []).append(address)
        return [address for family in families.values() for address in _turned(family, self._turns)]

    async def _watch(self) -> None:
        while True:
            await self.look_again()
            await asyncio.sleep(RESOLVE_SECONDS)

    async def look_again(self) -> None:
        """Wait for an answer; whoever asks meanwhile gets the same one, and leaving does not stop the question."""
        if self._question is None or self._question.done():
            self._question = asyncio.create_task(self._look())
        await asyncio.shield(self._question)

    async def _look(self) -> None:
        try:
            found = await self._resolve(self._host)
        except OSError as error:
            if not self._is_failing:
                self._is_failing = True
                log.warning("name_not_resolved", host=self._host, error=str(error), kept=self._addresses)
            return
        if self._is_failing:
            self._is_failing = False
            log.info("name_resolved_again", host=self._host)
        if found and set(found) != set(self._addresses):
            self._addresses = found
            self._on_change(frozenset(found))


def _turned(addresses: list[str], turns: int) -> list[str]:
    start = turns % len(addresses)
    return addresses[start:] + addresses[:start]


async def connected(addresses: list[str], port: int) -> socket.socket:
    """A socket connected to the first address that answers, the next one tried after a moment (RFC 8305).

    Raises OSError where none does.
    """
    infos: list[AddrInfoType] = [
        (
            (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
        )
        for address in addresses
    ]
    return await start_connection(infos, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS)
