"""Another process takes the place of one that runs, on the same sockets: another version of the code, say."""

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.embedded.server_process import HOST
from tests.conftest import StartGateway
from tests.fixtures.crew import Crew
from tests.fixtures.everyday import Everyday, slow_upstream
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.waiting import until

Successor = Callable[..., Awaitable[GatewayProcess]]
TAKEN = 40.0  # seconds for the whole of it


@pytest.fixture
async def slow() -> AsyncIterator[str]:
    async with slow_upstream() as url:
        yield url


@pytest.fixture
def path(own_folder: Path) -> Path:
    return own_folder / "handover.sock"


@pytest.fixture
async def successor() -> AsyncIterator[Successor]:
    """Starts the process that takes the place of another."""
    started: list[GatewayProcess] = []

    async def start(node: GatewayProcess, *, workers: int = 1) -> GatewayProcess:
        heir = node.successor(workers=workers)
        heir.log_path = heir.log_path.with_name(f"after-{len(started)}.log")
        heir.log_path.touch()
        started.append(heir)
        await heir.start(is_ready_awaited=False)
        return heir

    yield start
    for one in started:
        await one.stop()


async def has_taken_over(node: GatewayProcess, heir: GatewayProcess) -> None:
    await until(
        lambda: bool(Crew(node).events("leaving")) or not heir.is_running(),
        seconds=TAKEN,
        what=f"the change; the logs:\n{node.log}\n{heir.log}",
    )
    assert heir.is_running(), heir.log


async def status(node: GatewayProcess, way: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(node.proxy_url + way) as answer:
        return answer.status


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 2), (2, 1), (2, 3)])
async def test_a_take_over_loses_nothing_and_cuts_nothing(
    gateway: StartGateway, successor: Successor, slow: str, path: Path, before: int, after: int
) -> None:
    """Under requests, uploads, streams and sockets, from one process to several and back. R346."""
    changes = {"upstreams": {"orders": {"targets": [slow]}}, "listen": {"handover": str(path)}}
    node = await gateway(changes, workers=before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with Everyday(node.proxy_port).running() as callers:
        heir = await successor(node, workers=after)
        await has_taken_over(node, heir)
        await callers.go_on()
        assert (await Crew(heir).health())["status"] == "ready"
    assert callers.lost == []
    assert callers.codes == []
    assert await node.wait_for_end() == 0
    done = (await Crew(heir).scrape()).sum("ostiary_requests_total", route="public", status="200")
    assert done > 100
    assert await status(heir, "/public") == 200
    assert stat.S_ISSOCK(path.stat().st_mode), "for the next one"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


async def test_one_after_another(gateway: StartGateway, successor: Successor, path: Path) -> None:
    """Who has taken over can be taken over; of three queues that are left to one process, none is forgotten."""
    node = await gateway({"listen": {"handover": str(path)}}, workers=3)
    for workers in (1, 2):
        heir = await successor(node, workers=workers)
        await has_taken_over(node, heir)
        assert await node.wait_for_end() == 0
        assert {await status(heir, "/public") for _ in range(40)} == {200}
        node = heir


async def test_workers_after_one_process_share_the_work(
    gateway: StartGateway, successor: Successor, path: Path
) -> None:
    """Each of them gets connections, also of those that come all at once; and one more that takes over, all of them."""
    node = await gateway({"listen": {"handover": str(path)}})
    heir = await successor(node, workers=2)
    await has_taken_over(node, heir)
    assert await node.wait_for_end() == 0
    crew = Crew(heir)
    pids = await crew.ready_pids()

    async def is_shared() -> bool:  # from when the second queue is open, which is soon after the old process has left
        clients = await asyncio.gather(*(crew.connect() for _ in range(32)))
        assert await asyncio.gather(*(client.ask() for client in clients)) == [200] * 32
        return all(crew.accepted_by(pid) for pid in pids)

    await until(is_shared, what="both to get connections")
    crew.kill(pids[1])
    await until(lambda: bool(crew.events("worker_died")))
    assert {await status(heir, "/public") for _ in range(40)} == {200}
    await crew.ready_pids()
    assert {await status(heir, "/public") for _ in range(40)} == {200}
    await crew.leave()
    last = await successor(heir)
    await has_taken_over(heir, last)
    assert {await status(last, "/public") for _ in range(40)} == {200}


async def test_who_does_not_become_ready_takes_nothing(
    gateway: StartGateway, successor: Successor, path: Path, postgres_dsn: str, tmp_path: Path
) -> None:
    """Killed, or refused by its settings, or at other addresses: the old one goes on as if nothing was."""
    node = await gateway({"listen": {"handover": str(path)}})
    away = postgres_dsn.rpartition("@")[0] + f"@{HOST}:1/nothing"
    node.configure({"postgres": {"dsn": away}})
    heir = await successor(node, workers=2)
    await until(lambda: "database_away_at_start" in heir.log, seconds=TAKEN)
    assert {await status(node, "/public") for _ in range(20)} == {200}
    second = await successor(node)
    assert await second.wait_for_end() == 1
    assert f"no process gives its place at {path}: it is busy with another" in second.log
    heir.signal(signal.SIGTERM)
    assert await heir.wait_for_end() == 1
    assert "it was told to stop before it was ready" in heir.log
    await until(lambda: len(Crew(node).events("take_over_given_up")) == 1)
    heir = await successor(node)
    await until(lambda: "database_away_at_start" in heir.log, seconds=TAKEN)
    heir.kill()
    await until(lambda: len(Crew(node).events("take_over_given_up")) == 2)

    (tmp_path / "no.pem").write_text("no certificate")
    tls = {"cert": str(tmp_path / "no.pem"), "key": str(tmp_path / "no.pem")}
    node.configure({"postgres": {"dsn": postgres_dsn}, "listen": {"tls": tls}})
    heir = await successor(node)
    assert await heir.wait_for_end() == 1
    assert "listen.tls" in heir.log

    address = node.config["listen"]["admin"]
    node.configure({"listen": {"tls": None, "admin": f"{HOST}:1"}})
    heir = await successor(node)
    assert await heir.wait_for_end() == 1
    assert (
        f"listen.admin is {HOST}:1, and process {node.pid} is at {address}: a new address needs a restart" in heir.log
    )

    node.configure({"listen": {"admin": address, "handover": None}})
    heir = await successor(node)
    assert await heir.wait_for_end() == 1
    assert "--take-over needs listen.handover" in heir.log

    assert {await status(node, "/public") for _ in range(20)} == {200}
    node.configure({"listen": {"handover": str(path)}})
    await has_taken_over(node, await successor(node))


async def test_nobody_is_there(gateway: StartGateway, successor: Successor, path: Path) -> None:
    """Without a process to take over from it does not start; and a socket that a killed one has left is no obstacle."""
    node = await gateway({"listen": {"handover": str(path)}})
    node.kill()
    assert path.is_socket()
    heir = await successor(node)
    assert await heir.wait_for_end() == 1
    assert f"no process gives its place at {path}: Connection refused" in heir.log
    await node.start()
    await has_taken_over(node, await successor(node))


async def test_nothing_else_is_overwritten(gateway: StartGateway, path: Path) -> None:
    """A file that stands where the socket was to be stays, and the start says so."""
    path.write_text("somebody's")
    node = await gateway({"listen": {"handover": str(path)}}, is_ready_awaited=False)
    assert await node.wait_for_end() == 1
    assert f"{path} is somebody else's" in node.log
    assert path.read_text() == "somebody's"


async def test_other_users_get_nothing(gateway: StartGateway, path: Path) -> None:
    """Who is neither the gateway's user nor root gets no socket, though the path were open to all. R324."""
    node = await gateway({"listen": {"handover": str(path)}})
    path.parent.chmod(0o755)
    path.chmod(0o777)
    script = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "s.connect(sys.argv[1])\n"
        "print(socket.recv_fds(s, 65536, 100)[:2])\n"
    )
    if os.geteuid() == 0:
        got = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-I", "-c", script, str(path)], capture_output=True, text=True
        )
        assert got.stdout == "(b'', [])\n", got
        await until(lambda: "user=65534" in "".join(Crew(node).events("take_over_refused")))
    assert await status(node, "/public") == 200


async def test_nothing_is_taken_from_other_users(gateway: StartGateway, successor: Successor, path: Path) -> None:
    """Whoever else can put a socket at the path gives no sockets to a gateway: it does not start by theirs. R324."""
    node = await gateway({"listen": {"handover": str(path)}})
    script = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "s.bind(sys.argv[1]); s.listen(); print(flush=True)\n"
        "c, _ = s.accept(); c.recv(1)\n"
    )
    if os.geteuid() == 0:
        node.kill()
        path.unlink()
        path.parent.chmod(0o777)
        with subprocess.Popen([sys.executable, "-I", "-c", script, str(path)], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            await asyncio.to_thread(other.stdout.readline)
            heir = await successor(node)
            assert await heir.wait_for_end() == 1
            assert f"process {other.pid} at {path} is of another user (65534)" in heir.log
            other.kill()


async def test_sockets_of_the_old_one_end_with_their_bound(
    gateway: StartGateway, successor: Successor, slow: str, path: Path
) -> None:
    """The old process goes on for its sockets, `drain.replaced_seconds` at most; SIGTERM shortens that. R346."""
    drain = {"delay_seconds": 0, "replaced_seconds": 2}
    changes = {"upstreams": {"orders": {"targets": [slow]}}, "listen": {"handover": str(path)}, "drain": drain}
    node = await gateway(changes)
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(f"ws://{HOST}:{node.proxy_port}/public/ws")
        node.configure({"drain": {"replaced_seconds": 3600}})
        heir = await successor(node)
        await has_taken_over(node, heir)
        assert node.is_running()
        message: Any = await asyncio.wait_for(socket.receive(), 10)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
        assert await node.wait_for_end() == 0

        socket = await session.ws_connect(f"ws://{HOST}:{node.proxy_port}/public/ws")
        third = await successor(heir)
        await has_taken_over(heir, third)
        await socket.send_str("still there")
        assert await socket.receive_str() == "still there"
        heir.signal(signal.SIGTERM)
        message = await asyncio.wait_for(socket.receive(), 10)
        assert message.data == 1001
        assert await heir.wait_for_end() == 0


async def test_the_system_manager_is_told(
    gateway: StartGateway, successor: Successor, own_folder: Path, path: Path
) -> None:
    """Systemd hears of readiness, of reloads, of the process that takes over, and of the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(own_folder / "notify"))
        manager.setblocking(False)
        told: list[str] = []

        def hear() -> list[str]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    told.append(manager.recv(4096).decode())
            return told

        node = await gateway(
            {"listen": {"handover": str(path)}}, environment={"NOTIFY_SOCKET": str(own_folder / "notify")}
        )
        await until(lambda: hear() == ["READY=1"])
        node.signal(signal.SIGHUP)
        await until(lambda: len(hear()) == 3)
        assert told[1].startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert told[2] == "READY=1"
        heir = await successor(node)
        assert await node.wait_for_end() == 0
        await until(lambda: set(hear()[3:]) == {"READY=1", f"MAINPID={heir.pid}\nREADY=1"})
        heir.signal(signal.SIGTERM)
        await until(lambda: hear()[5:] == ["STOPPING=1"])
