"""The embedded servers: real, private, and never left behind."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio

from gateway.embedded.keeper import Keeper
from gateway.embedded.server_process import EmbeddedServerError
from tests.fixtures import processes, psql
from tests.fixtures.stores import OwnPostgres, OwnRedis
from tests.fixtures.waiting import until


async def test_a_test_database_is_migrated_and_its_own(postgres_dsn: str, empty_postgres_dsn: str) -> None:
    """Two databases of one test share nothing; one has the schema, one is empty."""
    assert await psql.value(postgres_dsn, "SELECT value FROM revision") == 1
    assert await psql.value(empty_postgres_dsn, "SELECT to_regclass('revision')") is None


async def test_the_shared_redis_is_empty(redis_url: str) -> None:
    """A test finds nothing of the test before it."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("left", "behind")


async def test_postgres_takes_no_connection_without_its_password(own_postgres: OwnPostgres) -> None:
    """Another user of the machine, who can reach the port, gets no further."""
    scheme, _, address = own_postgres.dsn.partition("://")
    place = address.partition("@")[2]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(f"{scheme}://ostiary:wrong@{place}", timeout=10)


async def test_redis_takes_no_command_without_its_password(own_redis: OwnRedis) -> None:
    """Another user of the machine, who can reach the port, gets no further."""
    place = own_redis.url.partition("@")[2]
    async with redis.asyncio.Redis.from_url(f"redis://{place}") as client:
        with pytest.raises(redis.exceptions.AuthenticationError):
            await client.ping()


async def test_passwords_stand_in_files_of_the_owner_and_in_no_argument(
    own_postgres: OwnPostgres, own_redis: OwnRedis, own_folder: Path
) -> None:
    """No argument of a server process holds a password, and no other user may read the files that do."""
    passwords = [
        address.partition(":")[2].rpartition("@")[0].rpartition(":")[2] for address in (own_postgres.dsn, own_redis.url)
    ]
    assert all(len(password) == 64 for password in passwords)
    for process in [*processes.family(own_postgres.pid), *processes.family(own_redis.pid)]:
        assert not any(password in " ".join(process.cmdline()) for password in passwords)
    holding = [p for p in own_folder.rglob("*") if p.is_file() and any(w in p.read_text("latin-1") for w in passwords)]
    assert {p.name for p in holding} == {"postgres.password", "redis.password", "redis.conf"}
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in holding)


async def test_postgres_does_not_run_as_root(own_postgres: OwnPostgres) -> None:
    """Started by root, the server runs as somebody else; started by another user, as that one."""
    owners = {process.uids().effective for process in processes.family(own_postgres.pid)}
    assert owners == ({os.geteuid()} if os.geteuid() else owners - {0})
    assert len(owners) == 1


async def test_a_killed_postgres_comes_back_at_its_address_with_what_was_committed(own_postgres: OwnPostgres) -> None:
    """SIGKILL of every process loses no commit, and the address stays."""
    dsn = own_postgres.dsn
    await psql.value(dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
    await own_postgres.kill()
    with pytest.raises(OSError):  # noqa: PT011  # refused
        await asyncpg.connect(dsn, timeout=10)
    await own_postgres.start()
    assert own_postgres.dsn == dsn
    assert await psql.value(dsn, "SELECT answer FROM kept") == 42


async def test_a_stopped_redis_comes_back_at_its_address_with_its_contents(own_redis: OwnRedis) -> None:
    """An orderly stop saves a snapshot, which the next start loads."""
    url = own_redis.url
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.set("kept", "42")
    await own_redis.stop()
    await own_redis.start()
    assert own_redis.url == url
    async with redis.asyncio.Redis.from_url(url) as client:
        assert await client.get("kept") == b"42"


async def test_a_paused_server_is_silent_until_it_is_resumed(own_postgres: OwnPostgres, own_redis: OwnRedis) -> None:
    """The fault "frozen": connections are taken and nothing answers; afterwards all is as before."""
    own_postgres.pause()
    own_redis.pause()
    with pytest.raises(TimeoutError):
        await asyncpg.connect(own_postgres.dsn, timeout=0.2)
    with socket.create_connection(("127.0.0.1", int(own_redis.url.rpartition(":")[2].partition("/")[0]))) as connection:
        connection.settimeout(0.2)
        connection.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)
    own_postgres.resume()
    own_redis.resume()
    assert await psql.value(own_postgres.dsn, "SELECT 1") == 1
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        assert await client.ping()


OWNER = """
import json, signal, sys, dataclasses, pathlib
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where whoever runs the tests ignores it
from gateway.embedded.keeper import Keeper
keeper = Keeper(pathlib.Path(sys.argv[1]), is_durable=False)
print(json.dumps(dataclasses.asdict(keeper.start())), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner(own_folder: Path) -> subprocess.Popen[str]:
    """A process that has started servers in `own_folder`/servers."""
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, str(own_folder / "servers")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def started(owner: subprocess.Popen[str]) -> list[int]:
    """The ids of the two servers, once they run."""
    assert owner.stdout is not None
    addresses = json.loads(owner.stdout.readline())
    return [addresses["postgres_pid"], addresses["redis_pid"]]


def buried(owner: subprocess.Popen[str]) -> None:
    owner.wait()
    for pipe in (owner.stdin, owner.stdout):
        assert pipe is not None
        pipe.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_servers_end_with_their_owner(owner: subprocess.Popen[str], number: signal.Signals) -> None:
    """However the process that asked for the servers ends, they end too."""
    pids = await started(owner)
    families = [process.pid for pid in pids for process in processes.family(pid)]
    assert len(families) > 2
    owner.send_signal(number)
    buried(owner)
    await until(lambda: not any(map(processes.is_alive, families)), what="the servers to end")


async def test_servers_end_with_their_keeper(owner: subprocess.Popen[str]) -> None:
    """Also the process in between may be killed: the kernel then ends the servers."""
    pids = await started(owner)
    (keeper,) = (
        process for process in processes.family(owner.pid)[1:] if "gateway.embedded.keeper" in process.cmdline()
    )
    keeper.kill()
    await until(lambda: not any(map(processes.is_alive, pids)), what="the servers to end")
    owner.kill()
    buried(owner)


async def test_a_keeper_ends_when_a_server_does(own_folder: Path) -> None:
    """Half a pair is no use: when one server dies the other is stopped, and the owner can know."""
    keeper = Keeper(own_folder / "servers", is_durable=False)
    addresses = keeper.start()
    assert addresses.redis_pid is not None
    assert addresses.postgres_pid is not None
    processes.kill(addresses.redis_pid)
    keeper.wait_for_end()
    assert not processes.is_alive(addresses.postgres_pid)
    keeper.stop()


async def test_a_folder_has_one_owner(own_folder: Path) -> None:
    """A second start on the same folder is refused with a reason, and harms nothing."""
    first, second = (Keeper(own_folder / "servers", is_durable=False) for _ in range(2))
    addresses = first.start()
    with pytest.raises(EmbeddedServerError, match="in use by another process"):
        second.start()
    assert addresses.postgres_dsn is not None
    assert await psql.value(addresses.postgres_dsn, "SELECT 1") == 1
    first.stop()


async def test_a_server_that_cannot_start_says_why(own_folder: Path) -> None:
    """The last words in the server's log reach whoever asked for it."""
    folder = own_folder / "servers"
    keeper = Keeper(folder, redis=False, is_durable=False)
    keeper.start()
    keeper.stop()
    (folder / "postgres" / "PG_VERSION").write_text("8\n")
    with pytest.raises(EmbeddedServerError, match="incompatible with server"):
        keeper.start()
