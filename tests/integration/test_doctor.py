"""`ostiary doctor`, with real faults: each is found, named, and has a next step; nothing else is blamed."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis.asyncio
import trustme
import yaml

from gateway.embedded.server_process import HOST
from tests.conftest import StartGateway
from tests.fixtures.gateway import merged
from tests.fixtures.launching import command
from tests.fixtures.ports import free_port
from tests.fixtures.signed import AUDIENCE, ISSUER, SEALING_KEY
from tests.fixtures.stores import OwnPostgres, OwnRedis
from tests.fixtures.upstream import RecordingUpstream
from tests.integration.threats.wrong_clock import WrongClock

PASSWORD = "hidden-word"


@dataclass
class Told:
    """What doctor said."""

    code: int
    checks: dict[str, dict[str, Any]]
    text: str

    @property
    def failed(self) -> set[str]:
        return {name for name, one in self.checks.items() if one["status"] == "failed"}

    @property
    def warned(self) -> set[str]:
        return {name for name, one in self.checks.items() if one["status"] == "warning"}


@dataclass
class Ward:
    """A configuration whose every part is well, and what doctor says of it with something changed."""

    folder: Path
    base: dict[str, Any]

    def written(self, changes: Mapping[str, Any]) -> str:
        path = self.folder / "gateway.yaml"
        path.write_text(yaml.safe_dump(merged(self.base, changes)))
        return str(path)

    async def look(self, **changes: Any) -> Told:
        """The checks by name; of several with one name, the worst."""
        done = await command("doctor", "-c", self.written(changes), "-o", "json")
        assert "Traceback" not in done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        told = json.loads(done.stdout)
        order = ("ok", "warning", "failed")
        checks: dict[str, dict[str, Any]] = {}
        for one in told["checks"]:
            assert set(one) == {"check", "status", "text", "next_step"}
            assert (one["next_step"] is None) == (one["status"] == "ok")
            if one["check"] not in checks or order.index(one["status"]) > order.index(checks[one["check"]]["status"]):
                checks[one["check"]] = one
        assert done.returncode == (1 if told["summary"]["failed"] else 0)
        assert sum(told["summary"].values()) == len(told["checks"])
        return Told(done.returncode, checks, done.stdout)


@pytest.fixture
async def ward(tmp_path: Path, postgres_dsn: str, redis_url: str, upstream: RecordingUpstream) -> Ward:
    listen = {name: f"{HOST}:{free_port()}" for name in ("proxy", "admin", "status")}
    return Ward(
        tmp_path,
        {
            "environment": "test",
            "listen": listen,
            "postgres": {"dsn": postgres_dsn},
            "redis": {"url": redis_url},
            "upstreams": {"orders": {"targets": [upstream.url]}},
            "routes": [{"name": "orders", "paths": ["/orders"], "upstream": "orders"}],
        },
    )


async def test_all_is_well(ward: Ward) -> None:
    """Exit 0, nothing failed, and every part was looked at."""
    told = await ward.look()
    assert (told.code, told.failed) == (0, set()), told.text
    assert set(told.checks) == {
        "configuration",
        "stores",
        "postgres",
        "postgres.version",
        "postgres.writable",
        "postgres.clock",
        "postgres.schema",
        "nodes",
        "redis",
        "redis.version",
        "redis.eviction",
        "listen.proxy",
        "listen.admin",
        "listen.status",
        "upstream.orders",
        "trusted_proxies",
        "open_files",
    }
    assert "is free" in told.checks["listen.proxy"]["text"]
    table = await command("doctor", "-c", ward.written({}))
    assert (table.returncode, table.stderr) == (0, "")
    assert table.stdout.splitlines()[0].startswith("ok       configuration")
    assert "\x1b" not in table.stdout


async def test_a_gateway_that_runs(gateway: StartGateway) -> None:
    """Its ports are its own, and the node is there; with another sealing key its signing keys are of no use."""
    tokens = {"issuer": ISSUER, "audience": AUDIENCE, "sealing_key": SEALING_KEY}
    node = await gateway({"tokens": tokens}, environment={"OSTIARY_TEST": "1"})
    ward = Ward(node.config_path.parent / "other", node.config)
    ward.folder.mkdir()
    told = await ward.look()
    assert told.failed == set(), told.text
    for name in ("listen.proxy", "listen.admin", "listen.status"):
        assert f"served by a gateway (pid {node.pid})" in told.checks[name]["text"]
    assert told.checks["nodes"]["text"].startswith("1 in environment test")
    assert "signs" in told.checks["signing_keys"]["text"]
    wrong = await ward.look(tokens={**tokens, "sealing_key": SEALING_KEY[::-1]})
    assert wrong.failed == {"signing_keys"}
    assert "ostiary signing-keys withdraw sig_" in wrong.checks["signing_keys"]["next_step"]


async def test_a_postgres_that_is_away_or_frozen(ward: Ward, own_postgres: OwnPostgres) -> None:
    """Stopped: start it. Frozen: told within the deadline. Nothing else is blamed, and no password is told. R324."""
    dsn = own_postgres.dsn
    assert (await ward.look(postgres={"dsn": dsn})).failed == set()
    own_postgres.pause()
    frozen = await ward.look(postgres={"dsn": dsn})
    assert frozen.failed == {"postgres"}
    assert "did not answer" in frozen.checks["postgres"]["text"]
    await own_postgres.stop()
    stopped = await ward.look(postgres={"dsn": dsn.replace("@", f":{PASSWORD}@")})
    assert stopped.failed == {"postgres"}
    assert "Start PostgreSQL" in stopped.checks["postgres"]["next_step"]
    nowhere = await ward.look(postgres={"dsn": f"postgresql://u:{PASSWORD}@nowhere.invalid/x"})
    assert "Correct the host" in nowhere.checks["postgres"]["next_step"]


async def test_a_database_that_is_not_there_or_not_migrated(
    ward: Ward, postgres_dsn: str, empty_postgres_dsn: str
) -> None:
    """The next step is the command that makes it so."""
    missing = await ward.look(postgres={"dsn": postgres_dsn + "_missing"})
    assert missing.failed == {"postgres"}
    assert "createdb" in missing.checks["postgres"]["next_step"]
    empty = await ward.look(postgres={"dsn": empty_postgres_dsn})
    assert empty.failed == {"postgres.schema"}
    assert "ostiary migrate" in empty.checks["postgres.schema"]["next_step"]


async def test_a_database_that_takes_no_writes(ward: Ward, postgres_dsn: str) -> None:
    """It answers, and is no primary to work with."""
    connection = await asyncpg.connect(postgres_dsn)
    name = postgres_dsn.rpartition("/")[2]
    await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await connection.close()
    told = await ward.look()
    assert told.failed == {"postgres.writable"}
    assert "default_transaction_read_only" in told.checks["postgres.writable"]["next_step"]


async def test_a_replica_that_is_away(ward: Ward) -> None:
    """Each replica is looked at by its number."""
    replicas = {"dsn": ward.base["postgres"]["dsn"], "replicas": [f"postgresql://u@{HOST}:1/x"]}
    assert (await ward.look(postgres=replicas)).failed == {"postgres.replica.0"}


async def test_a_redis_that_is_away_or_forgets(ward: Ward, own_redis: OwnRedis) -> None:
    """Stopped: failed. One that may run full, or forget budgets, is a warning; whether it persists does not matter."""
    changes = {"url": own_redis.url}
    assert (await ward.look(redis=changes)).warned.isdisjoint({"redis", "redis.eviction"})
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        for policy in ("noeviction", "allkeys-lru"):
            await client.config_set("maxmemory", "100mb")
            await client.config_set("maxmemory-policy", policy)
            told = await ward.look(redis=changes)
            assert told.warned & {"redis.eviction"} == {"redis.eviction"}
            assert policy in told.checks["redis.eviction"]["text"]
            assert told.failed == set()
    await own_redis.stop()
    assert (await ward.look(redis=changes)).failed == {"redis"}
    assert (await ward.look(redis=None)).failed == set(), "one that is not configured is not missing"


async def test_ports_that_others_have(ward: Ward) -> None:
    """Who has it, by name and process id; an address that this machine has not, another."""
    with socket.create_server((HOST, free_port())) as taken:
        told = await ward.look(listen={"proxy": f"{HOST}:{taken.getsockname()[1]}"})
    assert told.failed == {"listen.proxy"}
    assert f"(pid {os.getpid()})" in told.checks["listen.proxy"]["text"]
    assert (await ward.look(listen={"status": "192.0.2.1:8082"})).failed == {"listen.status"}
    assert "listen.admin.exposure" in (await ward.look(listen={"admin": f"0.0.0.0:{free_port()}"})).warned


async def test_upstreams_that_refuse(ward: Ward, upstream: RecordingUpstream) -> None:
    """Nobody listens; the name means nothing; it speaks no TLS: one line a target."""
    refused, nameless, plain = f"http://{HOST}:{free_port()}", "http://nowhere.invalid:80", upstream.url
    told = await ward.look(
        upstreams={
            "refused": {"targets": [refused]},
            "nameless": {"targets": [nameless]},
            "plain": {"targets": [plain.replace("http:", "https:")]},
        }
    )
    assert told.failed == {"upstream.refused", "upstream.nameless", "upstream.plain"}
    assert "Connection refused" in told.checks["upstream.refused"]["text"]
    assert "no address for nowhere.invalid" in told.checks["upstream.nameless"]["text"]
    assert "http://" in told.checks["upstream.plain"]["next_step"]


def pair(folder: Path, ends_at: datetime) -> dict[str, str]:
    """A certificate and its key on disk."""
    issued = trustme.CA().issue_cert("localhost", not_after=ends_at)
    cert, key = folder / f"{ends_at:%j%H%M%S%f}.pem", folder / f"{ends_at:%j%H%M%S%f}.key"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    return {"cert": str(cert), "key": str(key)}


async def test_certificates(ward: Ward, tmp_path: Path) -> None:
    """Expired is failed, nearly expired is a warning; files that are not there, or do not fit together, are failed."""
    now = datetime.now(UTC)
    expired, soon = pair(tmp_path, now - timedelta(hours=1)), pair(tmp_path, now + timedelta(days=3))
    lasting = pair(tmp_path, now + timedelta(days=100))
    for tls, failed, warned, text in (
        (expired, {"listen.tls"}, set(), "has expired"),
        (soon, set(), {"listen.tls"}, "expires in 3.0 days"),
        (lasting, set(), set(), "valid for 100 days"),
        ({**lasting, "key": soon["key"]}, {"listen.tls"}, set(), "KEY_VALUES_MISMATCH"),
        ({**lasting, "cert": "/nowhere.pem"}, {"listen.tls"}, set(), "No such file"),
    ):
        told = await ward.look(listen={"tls": tls})
        assert told.failed == failed, told.text
        assert told.warned & {"listen.tls"} == warned
        assert text in told.checks["listen.tls"]["text"]
    target = {"targets": ["https://127.0.0.1:1"], "tls": expired}
    assert "upstream.own.tls" in (await ward.look(upstreams={"own": target})).failed


async def test_clocks_that_differ(ward: Ward, tmp_path: Path) -> None:
    """An hour ahead of the database: a warning that says by how much, and which clock decides what."""
    clock = WrongClock(tmp_path)
    clock.set(3600)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "gateway", "doctor", "-c", ward.written({}), "-o", "json"],
        env={**os.environ, **clock.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    found = {one["check"]: one for one in json.loads(done.stdout)["checks"]}
    assert found["postgres.clock"]["status"] == "warning", done.stderr
    assert re.match(r"3(599|600)\d{3} ms behind", found["postgres.clock"]["text"])
    assert "NTP" in found["postgres.clock"]["next_step"]


async def test_what_is_only_doubtful(ward: Ward) -> None:
    """Trusting everybody, and fewer files than connections, are warnings: exit 0."""
    told = await ward.look(trusted_proxies=["0.0.0.0/0"], client={"connection_limit": 1_000_000_000})
    assert told.code == 0
    assert {"trusted_proxies", "open_files"} <= told.warned
    assert "ulimit -n" in told.checks["open_files"]["next_step"]


async def test_a_mistaken_configuration(ward: Ward) -> None:
    """Every mistake is a finding; there is nothing else to look at."""
    told = await ward.look(nonsense=1, environment="NOT ONE")
    assert (told.code, set(told.checks)) == (1, {"configuration"})
    done = await command("doctor", "-c", ward.written({"nonsense": 1, "environment": "NOT ONE"}))
    assert done.stdout.count("failed ") == 2


async def test_a_provider_that_is_away(ward: Ward) -> None:
    """Users cannot sign in: failed, and keys are said not to be affected."""
    told = await ward.look(oidc={"issuer": f"http://{HOST}:{free_port()}", "audience": "api"})
    assert told.failed == {"oidc"}
    assert "keys are not affected" in told.checks["oidc"]["next_step"]
