"""`ostiary up`, as somebody meets it who has never seen the product."""

import asyncio
import json
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from gateway.embedded.server_process import HOST
from tests.fixtures import processes
from tests.fixtures.ports import free_port
from tests.fixtures.waiting import until

START_SECONDS = 30.0


@dataclass(frozen=True)
class Answer:
    status: int
    text: str

    def json(self) -> dict[str, object]:
        document = json.loads(self.text)
        assert isinstance(document, dict)
        return document


class Up:
    """A running `ostiary up`."""

    def __init__(self, data: Path, port: int) -> None:
        self.data = data
        self.port = port
        self._log = data.with_name(f"{data.name}.log")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "up", "--data", str(data), "--port", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def printed(self) -> str:
        """All that it has printed."""
        return self._log.read_text(errors="replace")

    async def ready(self) -> list[str]:
        """The curl lines, once they are printed."""
        began = time.monotonic()
        while "Ctrl-C stops everything" not in self.printed:
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < began + START_SECONDS, self.printed
            await asyncio.sleep(0.02)
        return re.findall(r"^  (curl .*)$", self.printed, re.MULTILINE)

    def family(self) -> list[int]:
        """The process and all that it has started."""
        return [process.pid for process in processes.family(self.process.pid)]


@pytest.fixture
def up(own_folder: Path) -> Iterator[Callable[[], Up]]:
    """Starts `ostiary up` on the same folder, as often as it is called."""
    started: list[Up] = []

    def start(port: int | None = None) -> Up:
        one = Up(own_folder / "data", port or free_ports())
        started.append(one)
        return one

    yield start
    for one in started:
        family = one.family() if one.process.poll() is None else []
        one.process.kill()
        one.process.wait()
        deadline = time.monotonic() + START_SECONDS
        while any(map(processes.is_alive, family)) and time.monotonic() < deadline:
            time.sleep(0.02)


def free_ports() -> int:
    """The first of three free ports in a row."""
    while True:
        first, *others = (free_port() for _ in range(3))
        if others == [first + 1, first + 2]:
            return first


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """To send what the curl lines say; a machine that runs the tests need not have curl."""
    async with aiohttp.ClientSession() as one:
        yield one


async def run(session: aiohttp.ClientSession, line: str) -> Answer:
    """Do what a shell and curl do with a printed line."""
    expanded = re.sub(r"\$\(cat ([^)]+)\)", lambda match: Path(shlex.split(match[1])[0]).read_text(), line)
    words = iter(shlex.split(expanded)[1:])
    method, url, body, headers = "GET", "", None, {}
    for word in words:
        match word:
            case "-i":
                pass
            case "-X":
                method = next(words)
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "-d":
                body = next(words)
            case _:
                url = word
    async with session.request(method, url, data=body, headers=headers) as response:
        return Answer(response.status, await response.text())


async def test_the_printed_lines_do_what_is_said_beside_them(
    up: Callable[[], Up], session: aiohttp.ClientSession
) -> None:
    """A key is forwarded with an identity, a wrong one is not; rotation overlaps; revocation ends all. R221."""
    good, wrong, rotate, revoke = await up().ready()
    forwarded = await run(session, good)
    assert forwarded.status == 200
    caller = forwarded.json()["caller"]
    assert isinstance(caller, dict)
    assert (caller["X-User-Id"], caller["X-Tenant-Id"]) == ("ada", "demo")
    refused = await run(session, wrong)
    assert (refused.status, refused.json()["code"]) == (401, "invalid_api_key")
    document = await run(session, f"curl {rotate[rotate.index('http') : rotate.index('/keys/')]}/openapi.json")
    assert document.json()["openapi"] == "3.1.0"
    rotated = await run(session, rotate)
    assert rotated.status == 200
    old_secret = re.findall(r"Bearer ([^']+)'", good)[0]
    new_secret = rotated.json()["secret"]
    assert isinstance(new_secret, str)
    renewed = good.replace(old_secret, new_secret)
    assert [(await run(session, line)).status for line in (good, renewed)] == [200, 200]
    revoked = await run(session, revoke)
    assert revoked.status == 200, revoked.text
    for line in (good, renewed):
        answer = await run(session, line)
        assert (answer.status, answer.json()["code"]) == (401, "key_revoked")


async def test_a_second_start_finds_what_the_first_one_left(
    up: Callable[[], Up], session: aiohttp.ClientSession
) -> None:
    """The key is the same one with a new secret, and the secret of the first start has ended. R108."""
    first = up()
    old, _, rotate, _ = await first.ready()
    first.process.send_signal(signal.SIGINT)
    first.process.wait(START_SECONDS)
    second = up()
    new, _, rotate_again, revoke = await second.ready()
    assert "the key's secret is new" in second.printed
    assert key_of(rotate) == key_of(rotate_again)
    assert (await run(session, new)).status == 200
    assert (await run(session, old.replace(f":{first.port}/", f":{second.port}/"))).status == 401
    assert (await run(session, revoke)).status == 200


async def test_a_start_after_the_key_was_revoked_makes_another(
    up: Callable[[], Up], session: aiohttp.ClientSession
) -> None:
    """Trying the fourth line does not spoil the next start. R222."""
    first = up()
    _, _, _, revoke = await first.ready()
    assert (await run(session, revoke)).status == 200
    first.process.send_signal(signal.SIGTERM)
    first.process.wait(START_SECONDS)
    new, _, rotate, _ = await up().ready()
    assert key_of(rotate) != key_of(revoke)
    assert (await run(session, new)).status == 200


async def test_data_that_allow_no_new_key_are_served_all_the_same(
    up: Callable[[], Up], session: aiohttp.ClientSession
) -> None:
    """Whatever was changed meanwhile, the next start gives access to it, and says why it has no key to try."""
    first = up()
    _, _, _, revoke = await first.ready()
    assert (await run(session, revoke)).status == 200
    operator = {"Authorization": f"Bearer {(first.data / 'operator.token').read_text()}"}
    api = f"http://{HOST}:{first.port + 1}/v1"
    async with session.patch(f"{api}/tenants/demo", json={"issuance": "closed"}, headers=operator) as response:
        assert response.status == 200
    first.process.send_signal(signal.SIGINT)
    first.process.wait(START_SECONDS)
    second = up()
    assert await second.ready() == []
    assert "POST /v1/keys: 403" in second.printed
    assert "issuance_closed" in second.printed
    async with session.get(f"http://{HOST}:{second.port + 1}/v1/keys", headers=operator) as response:
        assert [key["status"] for key in (await response.json())["items"]] == ["revoked"]


def key_of(line: str) -> str:
    return line.rpartition("/keys/")[2].partition("/")[0]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)]
)
async def test_nothing_is_left_behind(up: Callable[[], Up], number: signal.Signals, code: int) -> None:
    """However `up` ends, the servers it started end too, and all its ports are free."""
    one = up()
    await one.ready()
    family = one.family()
    assert len(family) > 3
    one.process.send_signal(number)
    assert one.process.wait(START_SECONDS) == code, one.printed
    await until(lambda: not any(map(processes.is_alive, family)), what="everything to end")
    for port in (one.port, one.port + 1, one.port + 2):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))


async def test_the_operator_token_and_passwords_are_the_owners_alone(up: Callable[[], Up]) -> None:
    """The operator's token is not printed, and no other user of the machine can read the files that hold secrets."""
    one = up()
    await one.ready()
    token = (one.data / "operator.token").read_text()
    assert token not in one.printed
    for name in ("operator.token", "gateway.yaml", "postgres.password", "redis.password"):
        assert stat.S_IMODE((one.data / name).stat().st_mode) == 0o600, name


async def test_a_taken_port_is_named_with_the_way_out(own_folder: Path) -> None:
    """Whichever of the three ports is taken, the message names it and the flag, and nothing is left running."""
    first = free_ports()
    with socket.create_server((HOST, first + 1)):
        one = Up(own_folder / "data", first)
        assert one.process.wait(START_SECONDS) == 1
    assert f"port {first + 1}" in one.printed
    assert "--port" in one.printed
    assert "Traceback" not in one.printed


async def test_a_folder_that_is_in_use_is_refused(up: Callable[[], Up], own_folder: Path) -> None:
    """Two gateways do not share one private database by accident."""
    one = up()
    await one.ready()
    second = up()
    assert await asyncio.to_thread(second.process.wait, START_SECONDS) == 1
    assert f"{own_folder / 'data'} is in use by another process" in second.printed
    assert "Traceback" not in second.printed


async def test_it_ends_when_one_of_its_servers_does(up: Callable[[], Up]) -> None:
    """A gateway without its database would only look alive: `up` says where to look and ends with a failure."""
    one = up()
    await one.ready()
    family = one.family()
    (redis,) = (p for p in processes.family(one.process.pid) if "redis-server" in " ".join(p.cmdline()))
    redis.kill()
    assert await asyncio.to_thread(one.process.wait, START_SECONDS) == 1
    assert "redis.log" in one.printed
    await until(lambda: not any(map(processes.is_alive, family)), what="everything to end")
