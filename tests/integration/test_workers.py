"""Several processes behind one set of ports."""

import asyncio
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import trustme

from gateway.embedded.server_process import HOST
from tests.conftest import StartGateway
from tests.fixtures import processes
from tests.fixtures.connections import closed
from tests.fixtures.crew import GET, Client, Crew, Traffic
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.launching import command
from tests.fixtures.planted import plant
from tests.fixtures.waiting import until

OPENAPI = b"GET /v1/openapi.json HTTP/1.1\r\nHost: gw.test\r\n\r\n"
CONNECTIONS = 32  # that all of them come to one of two workers happens once in two thousand million times


class SlowUpstream:
    """Answers nothing before it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.url = ""
        self._server: asyncio.Server | None = None
        self._open = 0

    async def __aenter__(self) -> "SlowUpstream":
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.url = f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        self.may_answer.set()
        await until(lambda: self._open == 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        await self.may_answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nslow")
        await closed(writer)
        self._open -= 1


@pytest.fixture
async def slow() -> AsyncIterator[SlowUpstream]:
    async with SlowUpstream() as upstream:
        yield upstream


Settings = dict[str, Any]
CrewOfTwo = Callable[..., Awaitable[Crew]]


@pytest.fixture
async def crew_of_two(gateway: StartGateway) -> AsyncIterator[CrewOfTwo]:
    """A gateway of two workers, with changed settings."""
    crews: list[Crew] = []

    async def start(changes: Settings | None = None) -> Crew:
        crews.append(Crew(await gateway(changes, workers=2)))
        return crews[-1]

    yield start
    for crew in crews:
        await crew.leave()


def request_with(secret: str) -> bytes:
    return f"GET /orders/1 HTTP/1.1\r\nHost: gw.test\r\nX-Api-Key: {secret}\r\n\r\n".encode()


async def connections_to_all(crew: Crew) -> list[Client]:
    """Connections, on each of which a request was served; every worker has some of them."""
    clients = [await crew.connect() for _ in range(CONNECTIONS)]
    assert [await client.ask() for client in clients] == [200] * CONNECTIONS
    assert all(crew.accepted_by(pid) for pid in await crew.ready_pids())
    return clients


# -- one gateway of many nodes


async def test_every_worker_serves_and_is_a_node(
    crew_of_two: CrewOfTwo, postgres_dsn: str, operator_token: str
) -> None:
    """Callers come to all of them, each is on the list of nodes, a revoked key is dead on all at once. R221, R280."""
    crew = await crew_of_two()
    caller = await plant(postgres_dsn)
    clients = await connections_to_all(crew)
    admin = {"Authorization": f"Bearer {operator_token}"}
    async with aiohttp.ClientSession(crew.node.admin_url, headers=admin) as session:
        async with session.get("/v1/nodes") as answer:
            listed = {node["id"] for node in (await answer.json())["items"]}
        assert {worker["node"] for worker in (await crew.health())["workers"]} == listed
        assert len(listed) == 2
        assert {await client.ask(request_with(caller.secret)) for client in clients} == {200}
        async with session.post(f"/v1/keys/{caller.key_id}/revoke") as answer:
            assert answer.status == 200
        assert {await client.ask(request_with(caller.secret)) for client in clients} == {401}


async def test_what_it_is_given_is_nobody_elses_to_read(crew_of_two: CrewOfTwo, postgres_dsn: str) -> None:
    """No secret of the configuration stands in the arguments or the environment of a worker. R324."""
    pepper = "a pepper that nobody else may ever read, and of some length"
    crew = await crew_of_two({"keys": {"peppers": [{"id": "one", "secret": pepper}]}})
    for pid in crew.pids():
        told = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert b"gateway.workers" in told
        assert pepper.encode() not in told
        assert postgres_dsn.encode() not in told


# -- what is told of them


async def test_metrics_are_sums_and_never_fall(crew_of_two: CrewOfTwo) -> None:
    """What workers have counted is added up, that of one that dies or falls silent included. R079."""
    crew = await crew_of_two()
    await connections_to_all(crew)

    async def requests() -> float:
        return (await crew.scrape()).sum("ostiary_requests_total", route="public")

    samples = await crew.scrape()
    assert samples.sum("ostiary_requests_total", route="public") == CONNECTIONS
    assert samples.sum("ostiary_connections", side="client") == CONNECTIONS
    first, second = await crew.ready_pids()

    processes.freeze(second)
    samples = await crew.scrape()
    assert samples.sum("ostiary_requests_total", route="public") == CONNECTIONS
    assert samples.sum("ostiary_connections", side="client") == crew.accepted_by(first)
    assert samples.sum("ostiary_worker_unanswered_total") == 1
    assert samples.workers() == {"wanted": 2, "alive": 2, "ready": 1, "leaving": 0}
    health = await crew.health()
    assert [worker["status"] for worker in health["workers"]] == ["ready", "silent"]
    assert health["status"] == "unready"

    crew.kill(second)
    await until(lambda: len(crew.events("worker_died")) == 1)
    assert await requests() == CONNECTIONS
    assert await crew.ready_pids() != [first, second]
    newcomers = [await crew.connect() for _ in range(8)]
    assert [await client.ask() for client in newcomers] == [200] * 8
    samples = await crew.scrape()
    assert samples.sum("ostiary_requests_total", route="public") == CONNECTIONS + 8
    assert samples.sum("ostiary_worker_restarts_total") == 1
    assert samples.workers() == {"wanted": 2, "alive": 2, "ready": 2, "leaving": 0}


# -- death


async def test_connections_that_wait_outlive_a_worker(crew_of_two: CrewOfTwo) -> None:
    """Those that a killed worker had not accepted are served, by the others and by the one that takes its place."""
    crew = await crew_of_two()
    victim = (await crew.ready_pids())[0]
    processes.freeze(victim)  # so that it accepts nothing
    clients = [await crew.connect() for _ in range(CONNECTIONS)]
    answers = [asyncio.create_task(client.ask()) for client in clients]
    other = (await crew.health())["workers"][1]["pid"]
    await until(lambda: sum(answer.done() for answer in answers) == crew.accepted_by(other) > 0)
    assert crew.accepted_by(victim) == 0
    assert not all(answer.done() for answer in answers)
    crew.kill(victim)
    assert await asyncio.wait_for(asyncio.gather(*answers), 10) == [200] * CONNECTIONS
    await crew.ready_pids()
    assert "signal=SIGKILL restart_in_seconds=0" in await crew.first("worker_died")


async def pauses_after_a_death(crew: Crew, survivor: int) -> list[str]:
    """Kill the other worker, as soon as there is one, and return all pauses so far."""
    deaths = len(crew.events("worker_died"))
    await until(lambda: len(crew.pids()) == 2, what="its successor")
    crew.kill(next(pid for pid in crew.pids() if pid != survivor))
    await until(lambda: len(crew.events("worker_died")) > deaths)
    return [line.rpartition("=")[2] for line in crew.events("worker_died")]


async def test_one_that_dies_at_once_is_given_pauses(crew_of_two: CrewOfTwo) -> None:
    """It is started again ever later; meanwhile the others serve in its place, and nobody waits for it."""
    crew = await crew_of_two()
    survivor = (await crew.ready_pids())[1]
    while (pauses := await pauses_after_a_death(crew, survivor))[-1] != "4.0":
        pass
    died = time.monotonic()
    assert pauses[-4:] == ["0.0", "1.0", "2.0", "4.0"]

    assert await crew.states() == ["dead", "ready"]
    assert (await crew.health())["status"] == "ready"
    clients = [await crew.connect() for _ in range(CONNECTIONS)]
    assert await asyncio.gather(*(client.ask() for client in clients)) == [200] * CONNECTIONS
    assert crew.pids() == [survivor]

    await until(lambda: len(crew.pids()) == 2)
    assert time.monotonic() - died > 3.5
    await crew.ready_pids()
    await connections_to_all(crew)


# -- beginning and end


async def test_what_would_end_one_process_ends_all(gateway: StartGateway, empty_postgres_dsn: str) -> None:
    """Where no worker can serve, the reason is told as one process tells it, and nothing is tried for ever. R077."""
    alone = await gateway({"postgres": {"dsn": empty_postgres_dsn}}, is_ready_awaited=False)
    several = await gateway({"postgres": {"dsn": empty_postgres_dsn}}, is_ready_awaited=False, workers=2)
    assert await alone.wait_for_end() == 1
    assert await several.wait_for_end() == 1
    assert several.log.splitlines()[-1] == alone.log.splitlines()[-1]
    assert several.log.splitlines()[-1].startswith("ostiary: ")


async def test_a_port_is_one_gateways_own(tmp_path: Path, postgres_dsn: str) -> None:
    """An address is refused where somebody listens, though the workers' sockets could share it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((HOST, 0))
        sock.listen()
        node = GatewayProcess(tmp_path, {"environment": "test", "postgres": {"dsn": postgres_dsn}}, workers=2)
        node.configure({"listen": {"admin": "{}:{}".format(*sock.getsockname())}})
        await node.start(is_ready_awaited=False)
        assert await node.wait_for_end() == 1
        assert f"cannot listen on {HOST}:{sock.getsockname()[1]}: Address already in use" in node.log


async def test_mistakes_are_told_before_anything_starts(tmp_path: Path) -> None:
    """Exit code 2, as without workers."""
    path = tmp_path / "gateway.yaml"
    path.write_text("environment: test\nnonsense: 1\n")
    result = await command("serve", "-c", str(path), "--workers", "2")
    assert result.returncode == 2
    assert "nonsense" in result.stderr
    assert (await command("serve", "-c", str(path), "--workers", "0")).returncode == 2


async def test_stopping_answers_what_was_asked(crew_of_two: CrewOfTwo, slow: SlowUpstream) -> None:
    """SIGTERM: new callers are refused, requests under way are answered, and no process is left. R346."""
    crew = await crew_of_two({"upstreams": {"orders": {"targets": [slow.url]}}})
    clients = [await crew.connect() for _ in range(8)]
    for client in clients:
        client.send()
    await until(lambda: slow.asked == 8)
    pids = crew.pids()
    crew.node.signal(signal.SIGTERM)
    await until(lambda: not can_connect(crew.node))
    slow.may_answer.set()
    assert [await client.status() for client in clients] == [200] * 8
    assert all(client.is_told_to_close for client in clients)
    assert await crew.node.wait_for_end() == 0
    assert not any(processes.is_alive(pid) for pid in pids)


async def test_who_is_told_twice_does_not_wait(crew_of_two: CrewOfTwo, slow: SlowUpstream) -> None:
    """Ctrl-C is the supervisor's to act on; the second time, what is under way is cut, and it says so."""
    crew = await crew_of_two({"upstreams": {"orders": {"targets": [slow.url]}}})
    client = await crew.connect()
    client.send()
    await until(lambda: slow.asked == 1)
    pids = crew.pids()
    for pid in pids:
        assert os.getpgid(pid) == pid  # so that a terminal's Ctrl-C does not reach it
        psutil.Process(pid).send_signal(signal.SIGINT)
    assert [psutil.Process(pid).ppid() for pid in await crew.ready_pids()] == [crew.node.pid] * 2
    crew.node.signal(signal.SIGINT)
    await until(lambda: not can_connect(crew.node))
    crew.node.signal(signal.SIGINT)
    assert await client.status() == 0
    assert await crew.node.wait_for_end() == 1
    assert not any(processes.is_alive(pid) for pid in pids)
    assert "killed before they had finished" in crew.node.log


async def test_workers_do_not_outlive_their_supervisor(crew_of_two: CrewOfTwo, slow: SlowUpstream) -> None:
    """When it is killed they finish what is under way, and end by themselves."""
    crew = await crew_of_two({"upstreams": {"orders": {"targets": [slow.url]}}})
    client = await crew.connect()
    client.send()
    await until(lambda: slow.asked == 1)
    pids = crew.pids()
    crew.node.signal(signal.SIGKILL)
    await until(lambda: not can_connect(crew.node))
    slow.may_answer.set()
    assert await client.status() == 200
    await until(lambda: not any(processes.is_alive(pid) for pid in pids))


def can_connect(node: GatewayProcess) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((HOST, node.proxy_port)) == 0


# -- new settings


ROUTES = [
    {"name": "public", "paths": ["/public"], "upstream": "orders", "auth": "none"},
    {"name": "news", "paths": ["/news"], "upstream": "orders", "auth": "none"},
]


async def reload(crew: Crew, changes: dict[str, Any], *, ends_with: str) -> None:
    """Have the gateway read its changed settings, and wait for the end of that."""
    seen = len(crew.events(ends_with))
    crew.node.configure(changes)
    crew.node.signal(signal.SIGHUP)
    await until(lambda: len(crew.events(ends_with)) > seen, seconds=30, what=f"{ends_with} in:\n{crew.node.log}")


async def test_new_settings_come_without_losing_a_request(crew_of_two: CrewOfTwo) -> None:
    """SIGHUP: each worker is replaced by one that has them, under traffic that is answered to the last. R346."""
    crew = await crew_of_two()
    before = await crew.ready_pids()
    client = await crew.connect()
    assert await client.ask(GET.replace(b"/public", b"/news")) in (401, 404)
    callers, operators = Traffic(crew.node.proxy_port), Traffic(crew.node.admin_port, OPENAPI)
    async with callers.running(), operators.running(staying=3, single=3):
        await reload(crew, {"routes": ROUTES}, ends_with="reloaded")
        await until(lambda: not set(before) & set(crew.pids()), what="the old ones to end")
        so_far = callers.seen.total()
        await until(lambda: callers.seen.total() > so_far + 100)
    assert (set(callers.seen), set(operators.seen)) == ({200}, {200}), (callers.seen, operators.seen)
    samples = await crew.scrape()
    assert samples.sum("ostiary_requests_total", route="public", status="200") == callers.seen.total()
    assert samples.sum("ostiary_worker_restarts_total") == 0
    assert samples.workers()["leaving"] == 0
    newcomers = [await crew.connect() for _ in range(8)]
    assert [await client.ask(GET.replace(b"/public", b"/news")) for client in newcomers] == [200] * 8


async def test_settings_that_cannot_be_used_change_nothing(crew_of_two: CrewOfTwo, tmp_path: Path) -> None:
    """Mistakes are told, all of them; addresses stay; a worker that cannot serve takes nobody's place. R077."""
    crew = await crew_of_two()
    before = await crew.ready_pids()
    await reload(crew, {"nonsense": 1, "environment": "Not A Name"}, ends_with="configuration_refused")
    await until(lambda: len(crew.events("configuration_refused")) == 2)
    assert all(word in "".join(crew.events("configuration_refused")) for word in ("nonsense", "environment"))
    admin = crew.node.config["listen"]["admin"]
    changes: Settings = {"nonsense": None, "environment": "test", "listen": {"admin": f"{HOST}:1"}}
    await reload(crew, changes, ends_with="configuration_refused")
    assert "listen.admin: a new address needs a restart" in crew.events("configuration_refused")[2]

    (tmp_path / "no.pem").write_text("no certificate")
    tls = {"cert": str(tmp_path / "no.pem"), "key": str(tmp_path / "no.pem")}
    await reload(crew, {"listen": {"admin": admin, "tls": tls}}, ends_with="reload_given_up")
    assert "listen.tls" in await crew.first("worker_not_ready")
    assert await crew.ready_pids() == before

    await reload(crew, {"listen": {"tls": None}}, ends_with="reloaded")
    assert not set(before) & set(await crew.ready_pids())


# -- other listeners


async def test_tls_and_the_proxy_protocol(crew_of_two: CrewOfTwo, tmp_path: Path) -> None:
    """Listeners with TLS, behind balancers that speak the PROXY protocol, serve as well. R346."""
    authority = trustme.CA()
    leaf = authority.issue_cert(HOST)
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    listen = {
        "tls": {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")},
        "proxy_protocol": True,
    }
    crew = await crew_of_two({"listen": listen, "trusted_proxies": [f"{HOST}/32"]})
    before = await crew.ready_pids()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    preface = b"PROXY TCP4 192.0.2.7 192.0.2.9 1000 80\r\n"
    async with Traffic(crew.node.proxy_port, tls=context, preface=preface).running() as traffic:
        await reload(crew, {"routes": ROUTES}, ends_with="reloaded")
        await until(lambda: not set(before) & set(crew.pids()), what="the old ones to end")
    assert set(traffic.seen) == {200}, traffic.seen
