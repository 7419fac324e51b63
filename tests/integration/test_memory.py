"""What connections and keys cost in memory, so that a node's size can be told from its load."""

import asyncio
import subprocess
import sys

import psutil

from gateway.auth.held import NEGATIVE_ENTRIES
from tests.conftest import StartGateway
from tests.fixtures.waiting import until

MB = 1_000_000
CONNECTIONS = 1_000
KEYS = 50_000


async def test_idle_connections_are_cheap(gateway: StartGateway) -> None:
    """A thousand clients that have been served and stay connected cost a node less than 30 MB. R060."""
    node = await gateway()
    process = psutil.Process(node.pid)
    writers = [await served(node.proxy_port) for _ in range(20)]
    before = process.memory_info().rss
    writers += await served_lot(node.proxy_port)
    grown = process.memory_info().rss - before
    assert grown < 30 * MB, f"{grown / MB:.1f} MB"
    ends = [connection for connection in process.net_connections("tcp") if connection.laddr.port == node.proxy_port]
    assert sum(end.status == psutil.CONN_ESTABLISHED for end in ends) == CONNECTIONS + 20
    for writer in writers:
        writer.close()

    def all_gone() -> bool:
        ends = process.net_connections("tcp")
        return not any(end.laddr.port == node.proxy_port and end.status == psutil.CONN_ESTABLISHED for end in ends)

    await until(all_gone, what="the node to notice")


async def test_the_large_heads_of_idle_connections_are_forgotten(gateway: StartGateway) -> None:
    """Those of a thousand clients, 30 kB each, leave room for those of the next thousand. R060."""
    node = await gateway({"client": {"head_timeout_seconds": 1}})
    process = psutil.Process(node.pid)
    lines = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 320) for number in range(90))
    writers = await served_lot(node.proxy_port, lines)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.proxy_port)
    assert await reader.read() == b""  # a silent one is closed by a sweep, which sees to all others too
    writer.close()
    before = process.memory_info().rss
    writers += await served_lot(node.proxy_port, lines)
    grown = process.memory_info().rss - before
    for writer in writers:
        writer.close()
    assert grown < 30 * MB, f"{grown / MB:.1f} MB"


async def served_lot(port: int, more: bytes = b"") -> list[asyncio.StreamWriter]:
    """So many of them, a few at a time."""
    lot = []
    for _ in range(CONNECTIONS // 20):
        lot += await asyncio.gather(*(served(port, more) for _ in range(20)))
    return lot


async def served(port: int, more: bytes = b"") -> asyncio.StreamWriter:
    """A new connection that has had one request answered, with `more` header lines, and stays open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /public/1 HTTP/1.1\r\nHost: x\r\nUser-Agent: idler/1.0\r\nAccept: */*\r\n%b\r\n" % more)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return writer


async def test_cached_keys_are_cheap() -> None:
    """A hundred thousand keys, all warm, two to a user, cost a node less than 150 MB: 1,500 bytes each. R060."""
    # Half of them will do: the tables double as they grow, so that each key then costs the same.
    warm, grown = await filled(KEYS, keys_of_a_user=2)
    assert warm == KEYS
    assert 500 < grown / KEYS < 1_500


async def test_ever_new_unknown_keys_take_no_more_than_their_share() -> None:
    """A flood of keys that nobody has, each another one: ten thousand are remembered, and not a byte for more. R060."""
    warm, grown = await filled(4 * NEGATIVE_ENTRIES, keys_of_a_user=0)
    assert warm == NEGATIVE_ENTRIES
    assert grown < 4 * MB, f"{grown / MB:.1f} MB"  # at the cost of a remembered one it would be some 20


async def filled(count: int, *, keys_of_a_user: int) -> tuple[int, int]:
    """How many of so many keys admission remembers, and the bytes by which a process has grown with them."""
    process = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tests.fixtures.cached_keys", str(count), str(keys_of_a_user)],
        capture_output=True,
        text=True,
        check=True,
    )
    warm, grown = (int(number) for number in process.stdout.split())
    return warm, grown
