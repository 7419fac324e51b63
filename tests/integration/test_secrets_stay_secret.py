"""A sweep: secrets with known values go through everything that can happen to them, and are found nowhere. R324.

Also what the gateway's own errors show: `tests/unit/test_secret_comparisons.py` keeps the source honest.
"""

import asyncio
import base64
import contextlib
import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import asyncpg
import pytest
import redis.asyncio

from gateway.auth.secrets import SecretFormat
from tests.fixtures import psql
from tests.fixtures.edge import Edge
from tests.fixtures.gateway import GatewayProcess, operator_token
from tests.fixtures.planted import ENVIRONMENT, Caller
from tests.fixtures.processes import family
from tests.fixtures.raw_upstream import RawUpstream
from tests.fixtures.stores import OwnPostgres, OwnRedis
from tests.fixtures.waiting import until

PEPPER = "pepper-0123456789-abcdefghijklmnopqrstuvwxyz"
KEYS = SecretFormat("ost", ENVIRONMENT)
KEY_SHAPE = re.compile(rb"ost_test_[0-9A-Za-z]{38}")
SHOWN = len("ost_test_") + 6  # of a secret: its display prefix, which is kept on purpose


def forms(secret: str) -> Iterable[bytes]:
    """How a secret may have been written down. Its display prefix is left out: that one may be seen."""
    core = secret[SHOWN:] if secret.startswith("ost_") else secret
    raw = core.encode()
    yield raw
    yield raw.hex().encode()
    yield quote(core).encode()
    for offset in range(3):  # base64 of a longer text has the secret in one of three alignments
        encoded = base64.b64encode(b"\0" * offset + raw)
        yield encoded[4 if offset else 0 : -4]


def found(secrets: dict[str, str], places: dict[str, bytes]) -> list[str]:
    """Which secret stands in which place, with the line that shows it."""
    lines = [(place, line) for place, text in places.items() for line in text.splitlines()]
    return [
        f"{name} in {place}: {line!r}"
        for place, line in lines
        for name, secret in secrets.items()
        if any(form.lower() in line.lower() for form in forms(secret))
    ] + [
        f"a key that nobody has seen in {place}: {line!r}"
        for place, line in lines
        for match in KEY_SHAPE.finditer(line)
        if KEYS.is_well_formed(match[0])
    ]


@pytest.mark.parametrize("name", ["ost_test_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789012345", PEPPER])
@pytest.mark.parametrize("offset", range(3))
def test_the_sweep_finds_what_is_there(name: str, offset: int) -> None:
    """Plain, hexadecimal, percent-encoded or in base64 at any alignment. R324."""
    padded = "=" * offset + name + "="
    for text in (
        padded.encode(),
        padded.encode().hex().encode(),
        quote(padded).encode(),
        base64.b64encode(padded.encode()),
    ):
        assert len(found({"it": name}, {"there": b"before " + text + b" behind"})) == 1
    assert found({"it": name}, {"there": b"nothing", "prefix": name[:SHOWN].encode()}) == []
    assert found({}, {"there": b"an unknown one: " + KEYS.generate().encode()})


class Sweep:
    """Everything that the world has been shown."""

    def __init__(self) -> None:
        self.places: dict[str, bytes] = {}

    def add(self, place: str, text: bytes) -> None:
        """Something more was seen at `place`."""
        self.places[place] = self.places.get(place, b"") + text + b"\n"


@contextlib.asynccontextmanager
async def monitored(url: str, sweep: Sweep) -> AsyncIterator[None]:
    """Everything that is said to Redis meanwhile: commands, names, values, messages."""
    client = redis.asyncio.Redis.from_url(url)
    is_on = asyncio.Event()

    async def listen() -> None:
        async with client.monitor() as monitor:
            is_on.set()
            async for command in monitor.listen():
                sweep.add("what Redis is told", repr(command).encode())

    task = asyncio.create_task(listen())
    await is_on.wait()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()


async def dump_redis(url: str, sweep: Sweep) -> None:
    async with redis.asyncio.Redis.from_url(url) as client:
        names = [name async for name in client.scan_iter()]
        assert names, "nothing was cached: the sweep would prove nothing"
        for name in names:
            sweep.add("Redis", name + b" " + (await client.dump(name) or b""))


async def dump_postgres(dsn: str, sweep: Sweep) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert len(tables) > 10
        for (table,) in tables:
            for (row,) in await connection.fetch(f'SELECT t::text FROM "{table}" t'):
                sweep.add(f"Postgres, {table}", row.encode())
    finally:
        await connection.close()


class Admin:
    """The management API, every reply of which is swept unless it is the one place where a secret is shown."""

    def __init__(self, gateway: GatewayProcess, token: str, sweep: Sweep, session: aiohttp.ClientSession) -> None:
        self._url = gateway.admin_url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._sweep = sweep
        self._session = session

    async def call(self, method: str, path: str, body: Any = None, *, shows: bool = False, **headers: str) -> Any:
        """The status and document of the reply."""
        async with self._session.request(
            method, self._url + path, json=body, headers={**self._headers, **headers}
        ) as answer:
            text = await answer.read()
            if not shows:
                self._sweep.add("replies of the management API", repr(answer.headers).encode() + text)
            assert not shows or answer.status in (200, 201), text
            is_object = text.startswith(b"{") and answer.content_type != "application/x-ndjson"
            return answer.status, await answer.json() if is_object else text


async def metrics(gateway: GatewayProcess, sweep: Sweep, session: aiohttp.ClientSession) -> None:
    for path in ("/metrics", "/health/ready", "/health/live"):
        async with session.get(gateway.status_url + path) as answer:
            sweep.add("the status listener", repr(answer.headers).encode() + await answer.read())


def command_lines(gateway: GatewayProcess, sweep: Sweep) -> None:
    for process in family(gateway.pid):
        sweep.add("command lines", Path(f"/proc/{process.pid}/cmdline").read_bytes())


def misuses(key: str) -> list[bytes]:
    """Ways in which a client may spill a key where it does not belong."""
    raw, host = key.encode(), b" HTTP/1.1\r\nHost: gw.test\r\n"
    last = b"Connection: close\r\n\r\n"
    return [
        b"GET /keyed?api_key=" + raw + host + last,
        b"GET /keyed/" + raw + host + last,
        b"GET /" + raw + host + last,
        b"GET /" + raw + b"%2f" + host + last,
        b"GET /" + raw * 300 + host + last,
        b"GET /keyed HTTP/1.1\r\nHost: " + raw + b"\r\n" + last,
        b"GET /keyed HTTP/1.1\r\nHost: " + raw + b"/@\r\n" + last,
        b"GET /keyed" + host + b"X-Request-Id: " + raw + b"\x00\r\n" + last,
        b"GET /keyed" + host + raw + b": a\r\n" + last,
        b"GET /keyed" + host + raw + b"\r\n" + last,
        b"GET /keyed" + host + b"X-Api-Key: " + raw + b"\r\n folded\r\n" + last,
        b"GET /keyed" + host + b"X-Api-Key: " + raw + b"x\r\n" + last,
        b"GET /keyed" + host + b"X-Api-Key: " + raw[:-1] + b"\r\n" + last,
        b"GET /keyed" + host + b"X-Api-Key: " + raw + b"\r\nX-Api-Key: other\r\n" + last,
        b"GET /keyed" + host + b"Authorization: Basic " + base64.b64encode(raw + b":") + b"\r\n" + last,
        b"GET /keyed" + host + b"Authorization: " + raw + b"\r\n" + last,
        b"GET /keyed" + host + b"Cookie: key=" + raw + b"\r\n" + last,
        b"GET /keyed" + host + b"Expect: " + raw + b"\r\n" + last,
        b"GET /keyed" + host + b"Content-Length: " + raw + b"\r\n" + last,
        b"GET /keyed" + host + b"Transfer-Encoding: " + raw + b"\r\n" + last,
        b"POST /keyed" + host + b"X-Api-Key: " + raw + b"\r\nTransfer-Encoding: chunked\r\n" + last + raw + b"\r\n",
        raw + b" / HTTP/1.1\r\nHost: gw.test\r\n" + last,
        raw + b"\r\n\r\n",
    ]


@pytest.mark.threat("secrets in logs")
async def test_no_secret_is_found_anywhere(own_postgres: OwnPostgres, own_redis: OwnRedis, tmp_path: Path) -> None:
    """Success, refusal, misuse, outage, breakage and shutdown leave no secret behind. R040, R127, R218, R324."""
    sweep = Sweep()
    dsn, url = own_postgres.dsn, own_redis.url
    token = await operator_token(dsn)
    secrets = {
        "admin token": token,
        "pepper": PEPPER,
        "Postgres password": urlsplit(dsn).password or "",
        "Redis password": urlsplit(url).password or "",
    }
    assert all(secrets.values())
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(RawUpstream())
        session = await stack.enter_async_context(aiohttp.ClientSession())
        config = {
            "environment": ENVIRONMENT,
            "postgres": {"dsn": dsn},
            "redis": {"url": url},
            "keys": {"peppers": [{"id": "first", "secret": PEPPER}]},
            "upstreams": {"raw": {"targets": [upstream.url]}},
            "routes": [{"name": "keyed", "paths": ["/keyed"], "upstream": "raw"}],
            "plans": {"starter": {"features": {"api_access": True}}},
        }
        gateway = GatewayProcess(tmp_path / "node", config)
        stack.push_async_callback(gateway.stop)
        await gateway.start()
        edge = Edge(gateway, upstream, Caller())
        admin = Admin(gateway, token, sweep, session)

        async def ask(key: str) -> int:
            """A request with `key`; its status."""
            said = await edge.converse(
                b"GET /keyed HTTP/1.1\r\nHost: gw.test\r\nX-Api-Key: " + key.encode() + b"\r\nConnection: close\r\n\r\n"
            )
            sweep.add("replies", said)
            return int(said.split(b" ")[1])

        async with monitored(url, sweep):
            keys = await make_keys(admin, secrets)
            for key in keys:
                assert await ask(key) == 200
                for sent in misuses(key):
                    sweep.add("replies", await edge.converse(sent))
            unknown = secrets["an unknown key"] = KEYS.generate()
            assert await ask(unknown) == 401
            await misuse_the_api(admin, secrets)
            await dump_redis(url, sweep)
        await metrics(gateway, sweep, session)
        command_lines(gateway, sweep)
        sweep.add("the upstream", b"".join(upstream.received))

        # Outages: first of Redis, then of Postgres too, with keys known and unknown to the node.
        await own_redis.stop()
        assert await ask(keys[0]) == 200
        await own_postgres.stop()
        for key in (*keys, KEYS.generate()):
            await ask(key)
        assert await ask(unknown) in (401, 503)
        status, _ = await admin.call("GET", "/v1/keys")
        assert status == 503
        await metrics(gateway, sweep, session)
        await own_redis.start()
        await own_postgres.start()

        async def is_back() -> bool:
            return await ask(keys[0]) == 200

        await until(is_back, what="the key to be admitted again")

        # Breakage: a schema that nobody foresaw makes every management call an unforeseen error, with a traceback.
        await psql.run(dsn, "ALTER TABLE api_keys RENAME COLUMN last_used_at TO gone")
        for name in ("third", keys[0]):
            status, _ = await admin.call("POST", "/v1/keys", {"user_id": "ada", "name": name})
            assert status == 500
        await admin.call("GET", "/v1/keys")
        await ask(keys[1])
        await until(lambda: "Traceback" in gateway.log, what="something to break: this part would prove nothing")

        await dump_postgres(dsn, sweep)
        assert await gateway.stop() == 0
        sweep.add("the log", gateway.log_path.read_bytes())
    assert len(secrets) >= 8
    findings = found(secrets, sweep.places)
    assert not findings, "\n".join(findings)


async def make_keys(admin: Admin, secrets: dict[str, str]) -> list[str]:
    """Two keys, one of them rotated: the secrets that admit, the retired one among them."""
    await admin.call("POST", "/v1/tenants", {"id": "acme", "name": "Acme"})
    await admin.call("PUT", "/v1/users/ada", {"tenant_id": "acme", "display_name": "Ada"})
    await admin.call("PUT", "/v1/users/ada/entitlement", {"plan": "starter"})
    _, rotated = await admin.call("POST", "/v1/keys", {"user_id": "ada", "name": "first"}, shows=True)
    _, answer = await admin.call("POST", f"/v1/keys/{rotated['id']}/rotate", {}, shows=True)
    _, revoked = await admin.call("POST", "/v1/keys", {"user_id": "ada", "name": "second"}, shows=True)
    secrets["retired key"] = rotated["secret"]
    secrets["current key"] = answer["secret"]
    secrets["revoked key"] = revoked["secret"]
    assert (await admin.call("POST", f"/v1/keys/{revoked['id']}/revoke", {"reason": "leaked"}))[0] == 200
    for path in ("/v1/keys", f"/v1/keys/{rotated['id']}", f"/v1/keys/{rotated['id']}/retired-secrets", "/v1/nodes"):
        assert (await admin.call("GET", path))[0] == 200
    return [secrets["current key"], secrets["retired key"]]


async def misuse_the_api(admin: Admin, secrets: dict[str, str]) -> None:
    """Secrets where they do not belong: other tokens, paths, bodies."""
    key = secrets["current key"]
    for authorization in (f"Bearer {key}", "Bearer nonsense", f"Bearer {secrets['admin token']}x", f"Basic {key}"):
        status, _ = await admin.call("GET", "/v1/keys", Authorization=authorization)
        assert status == 401
    for method, path, body in (
        ("GET", f"/v1/keys/{key}", None),
        ("POST", f"/v1/keys/{key}/revoke", {}),
        ("GET", f"/v1/keys?user_id={key}", None),
        ("POST", "/v1/keys", {"user_id": key, "name": "x"}),
        ("POST", "/v1/keys", {"user_id": "ada", "name": "x", "scopes": [f"{key}!"]}),
        ("POST", "/v1/keys", {"user_id": "ada", "name": "x", "expires_at": key}),
        ("POST", "/v1/cache/invalidate", {"secret_sha256": key}),
        ("POST", "/v1/keys/verify", {"secret": key}),
        ("POST", "/v1/keys/verify", {"secret": f"{key}\n"}),
        ("POST", "/v1/keys/verify", {"secret": [key]}),
        ("POST", "/v1/imports", {"secret_sha256": key, "user_id": "ada", "name": "x"}),
        ("POST", "/v1/imports", {"secret_sha256": "ab" * 32, "user_id": "ada", "name": "x", "prefix": key}),
        ("POST", "/v1/imports", {"secret_sha256": "ab" * 32, "user_id": key, "name": "x"}),
        ("POST", f"/v1/keys/{key}/contain", {}),
    ):
        status, _ = await admin.call(method, path, body)
        assert status < 500, (method, path)
