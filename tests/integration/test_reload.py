"""New settings for a gateway that runs, in one process and in several."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import yaml

from gateway.embedded.server_process import HOST
from gateway.running.configuration_file import ConfigurationFile
from gateway.settings import Settings
from tests.conftest import StartGateway
from tests.fixtures.crew import Crew
from tests.fixtures.everyday import Everyday, slow_upstream
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import plant
from tests.fixtures.waiting import until

ROUTES = [
    {"name": "public", "paths": ["/public"], "upstream": "orders", "auth": "none"},
    {"name": "news", "paths": ["/news"], "upstream": "orders", "auth": "none"},
]
ALIKE = {"name": "public", "paths": ["/public"], "upstream": "orders", "auth": "none"}


@pytest.fixture
async def slow() -> AsyncIterator[str]:
    async with slow_upstream() as url:
        yield url


def count(node: GatewayProcess, event: str) -> int:
    return len(Crew(node).events(event))


async def reload(node: GatewayProcess, changes: dict[str, Any], *, ends_with: str = "reloaded") -> None:
    """Have it read its changed settings, and wait for the end of that."""
    seen = count(node, ends_with)
    node.configure(changes)
    node.signal(signal.SIGHUP)
    await until(lambda: count(node, ends_with) > seen, seconds=40, what=f"{ends_with} in:\n{node.log}")


async def status(node: GatewayProcess, path: str, **headers: str) -> int:
    async with aiohttp.ClientSession(headers=headers) as session, session.get(node.proxy_url + path) as answer:
        return answer.status


# -- by signal


@pytest.mark.parametrize("workers", [1, 2])
async def test_reload_loses_nothing_and_cuts_nothing(gateway: StartGateway, slow: str, workers: int) -> None:
    """Under requests, uploads, streams and sockets: all of them go on, and new ones have the new settings. R346."""
    node = await gateway({"upstreams": {"orders": {"targets": [slow]}}}, workers=workers)
    assert await status(node, "/news") in (401, 404)
    async with Everyday(node.proxy_port).running() as callers:
        await reload(node, {"routes": ROUTES})
        await callers.go_on()
        assert await status(node, "/news") == 404  # of the upstream, which has no such thing
        await reload(node, {"routes": [*ROUTES, {**ALIKE, "name": "more", "paths": ["/more"]}]})
        await callers.go_on()
    assert callers.lost == []
    assert callers.codes == []
    samples = await Crew(node).scrape()
    done = sum(callers.done[kind] for kind in ("kept", "single", "upload", "stream"))
    assert samples.sum("ostiary_requests_total", route="public", status="200") == done


async def test_what_is_told_is_of_the_one_that_serves(gateway: StartGateway, slow: str) -> None:
    """Counters never fall, gauges are of those that serve, and health of the new one. R079."""
    node = await gateway({"upstreams": {"orders": {"targets": [slow]}}})
    crew = Crew(node)
    assert await status(node, "/public") == 200
    await reload(node, {"redis": None})
    assert await status(node, "/public") == 200
    samples = await crew.scrape()
    assert samples.sum("ostiary_requests_total", route="public", status="200") == 2

    async def has_left() -> bool:
        return (await crew.scrape()).sum("ostiary_dependency_up", dependency="redis") == 0

    await until(has_left, what="the gauges of the old one to go")
    samples = await crew.scrape()
    assert samples.sum("ostiary_dependency_up", dependency="postgres") == 1
    assert 0 < samples.sum("ostiary_view_age_seconds") < 2
    health = await crew.health()
    assert health["status"] == "ready"
    assert set(health["checks"]) == {"schema", "view", "listening"}


async def test_settings_that_cannot_be_used_change_nothing(gateway: StartGateway, tmp_path: Path) -> None:
    """Every mistake is told with its cure; addresses stay; a gateway that cannot serve takes nobody's place. R077."""
    node = await gateway()
    await reload(node, {"nonsense": 1, "environment": "Not A Name"}, ends_with="configuration_refused")
    await until(lambda: count(node, "configuration_refused") == 2)
    refused = "\n".join(Crew(node).events("configuration_refused"))
    assert "nonsense: is not a known setting" in refused
    assert "environment: is not an environment. Use a lower-case letter" in refused

    admin = node.config["listen"]["admin"]
    changes = {"nonsense": None, "environment": "test", "listen": {"admin": f"{HOST}:1", "handover": "/tmp/h"}}
    await reload(node, changes, ends_with="configuration_refused")
    await until(lambda: count(node, "configuration_refused") == 4)
    refused = "\n".join(Crew(node).events("configuration_refused")[2:])
    assert "listen.admin: a new address needs a restart" in refused
    assert "listen.handover: a new path needs a restart" in refused

    (tmp_path / "no.pem").write_text("no certificate")
    tls = {"cert": str(tmp_path / "no.pem"), "key": str(tmp_path / "no.pem")}
    await reload(node, {"listen": {"admin": admin, "handover": None, "tls": tls}}, ends_with="reload_given_up")
    assert "listen.tls" in await Crew(node).first("successor_not_ready")
    assert await status(node, "/public") == 200
    await reload(node, {"listen": {"tls": None}, "routes": ROUTES})
    assert await status(node, "/news") == 200


@pytest.mark.parametrize("workers", [1, 2])
async def test_who_is_not_ready_serves_nobody(gateway: StartGateway, postgres_dsn: str, workers: int) -> None:
    """With stores that are away the new one would answer 503: it accepts no connection, and delays no end."""
    node = await gateway(workers=workers)
    away = postgres_dsn.rpartition("@")[0] + f"@{HOST}:1/nothing"
    await reload(node, {"postgres": {"dsn": away}}, ends_with="database_away_at_start")
    caller = await plant(postgres_dsn)
    for _ in range(50):
        assert await status(node, "/orders", Authorization=f"Bearer {caller.secret}") == 200
        await asyncio.sleep(0.02)
    assert (await Crew(node).health())["status"] == "ready"
    assert (await Crew(node).scrape()).sum("ostiary_dependency_up", dependency="postgres") == 1
    node.signal(signal.SIGTERM)
    assert await node.wait_for_end() == 0


async def test_who_does_not_become_ready_is_given_up(gateway: StartGateway, postgres_dsn: str) -> None:
    """After half a minute, and it is said why."""
    node = await gateway()
    away = postgres_dsn.rpartition("@")[0] + f"@{HOST}:1/nothing"
    await reload(node, {"postgres": {"dsn": away}}, ends_with="reload_given_up")
    assert "it was not ready within 30 s" in await Crew(node).first("successor_not_ready")
    assert await status(node, "/public") == 200
    await reload(node, {"postgres": {"dsn": postgres_dsn}})


async def test_many_reloads_leave_nothing_behind(gateway: StartGateway) -> None:
    """After fifty of them there are as many descriptors, threads, nodes and connections to stores as before. R346."""
    node = await gateway()
    process = psutil.Process(node.pid)

    async def holdings() -> tuple[int, int, int]:
        assert await status(node, "/public") == 200
        ends = process.net_connections("all")
        return process.num_fds(), len(ends), process.num_threads()

    for _ in range(5):
        await reload(node, {})
    await until(lambda: len(Crew(node).events("reloaded")) == 5)
    await asyncio.sleep(3)  # what the old ones wait for: a last request of those who are connected
    before, memory = await holdings(), process.memory_info().rss
    for _ in range(50):
        await reload(node, {})

    async def is_as_before() -> bool:
        now = await holdings()
        # A pool has some connections more or less from moment to moment; what each reload left would be fifty.
        return all(one <= other + 10 for one, other in zip(now, before, strict=True))

    await until(is_as_before, seconds=30, what=f"descriptors, connections and threads as before: {before}")
    grown = process.memory_info().rss - memory
    assert grown < 50 * 500_000, f"{grown / 50:.0f} bytes for each reload"


async def test_sockets_of_long_ago_are_told_to_go(gateway: StartGateway, slow: str) -> None:
    """So many that finish at once: the oldest is hurried when one more comes, and its sockets get close code 1001."""
    node = await gateway({"upstreams": {"orders": {"targets": [slow]}}})
    async with aiohttp.ClientSession() as session:
        sockets = []
        for _ in range(4):
            sockets.append(await session.ws_connect(f"ws://{HOST}:{node.proxy_port}/public/ws"))
            await reload(node, {})
        message: Any = await asyncio.wait_for(sockets[0].receive(), 5)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == 1001
        for socket in sockets[1:]:
            await socket.send_str("still there")
            assert await socket.receive_str() == "still there"
        node.signal(signal.SIGTERM)
        for socket in sockets[1:]:
            message = await asyncio.wait_for(socket.receive(), 5)
            assert message.data == 1001
        for socket in sockets:
            await socket.close()
    assert await node.wait_for_end() == 0


# -- by the file


Replace = Callable[[GatewayProcess, str], Awaitable[None]]


async def written_anew(node: GatewayProcess, text: str) -> None:
    node.config_path.write_text(text)


async def renamed(node: GatewayProcess, text: str) -> None:
    other = node.config_path.with_suffix(".new")
    other.write_text(text)
    other.rename(node.config_path)


async def linked(node: GatewayProcess, text: str) -> None:
    """As Kubernetes does: the file is a link into a folder that is itself a link, and that one is swapped."""
    folder = node.config_path.parent
    number = sum(1 for _ in folder.glob("..version-*"))
    version = folder / f"..version-{number}"
    version.mkdir()
    (version / "gateway.yaml").write_text(text)
    (folder / "..next").symlink_to(version.name)
    (folder / "..next").rename(folder / "..data")
    if not node.config_path.is_symlink():
        (folder / "link").symlink_to("..data/gateway.yaml")
        (folder / "link").rename(node.config_path)


@pytest.mark.parametrize(
    ("replace", "workers"),
    [
        pytest.param(written_anew, 1, id="written"),
        pytest.param(renamed, 2, id="renamed-workers"),
        pytest.param(linked, 1, id="linked"),
    ],
)
async def test_a_changed_file_is_read(gateway: StartGateway, replace: Replace, workers: int) -> None:
    """However it is changed; once for each change."""
    node = await gateway(options=["--watch"], workers=workers)
    for number, name in enumerate(("one", "two")):
        route = {"name": name, "paths": [f"/{name}"], "upstream": "orders", "auth": "none"}
        await replace(node, yaml.safe_dump({**node.config, "routes": [route]}))
        await until(lambda done=number + 1: count(node, "reloaded") == done, seconds=20)
        assert await status(node, f"/{name}") == 200
    assert count(node, "configuration_changed") == 2


async def test_a_file_that_is_away_or_wrong_changes_nothing(gateway: StartGateway) -> None:
    """Half a file is refused, as is none at all; and the whole one, when it is there, counts."""
    node = await gateway(options=["--watch"])
    text = node.config_path.read_text()
    node.config_path.write_text(text[: text.index("environment") + 5])
    await until(lambda: count(node, "configuration_refused") > 0)
    node.config_path.unlink()
    assert await status(node, "/public") == 200
    node.configure({"routes": ROUTES})
    await until(lambda: count(node, "reloaded") == 1)
    assert await status(node, "/news") == 200
    await reload(node, {"routes": [*ROUTES, {**ALIKE, "name": "more", "paths": ["/more"]}]})
    assert await status(node, "/more") == 200
    assert count(node, "configuration_changed") == 2, "what was read by signal is no change"


async def test_what_still_changes_is_not_read(tmp_path: Path) -> None:
    """A file that is being written counts once it has been the same for two looks."""
    path = tmp_path / "gateway.yaml"
    whole = yaml.safe_dump({"environment": "test", "postgres": {"dsn": "postgresql://x/y"}})
    path.write_text(whole)
    file = ConfigurationFile(path)
    assert isinstance(file.read(), Settings)
    changed: list[str] = []
    watching = asyncio.create_task(file.watch(lambda: changed.append(path.read_text())))
    try:
        for number in range(20):
            path.write_text(f"{whole}# {number}\n")
            os.utime(path, (0, 0))  # its time does not matter
            await asyncio.sleep(0.1)
        assert changed == []
        await until(lambda: len(changed) > 0)
        assert changed[0].endswith("# 19\n")
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    gc.collect()
