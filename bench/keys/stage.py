"""Nodes with routes, tenants or tokens in number, in front of stores of their own."""

import asyncio
import json
import re
import secrets
import time
from collections.abc import Sequence
from urllib.request import urlopen

import asyncpg

from bench.gateway_peer import Node, seed, start_node, start_stores
from bench.generator import Order
from bench.measure import ask, start_upstream
from bench.peers import CONFIGURATIONS
from bench.processes import BenchError, Cores, Workshop
from bench.workload import Request
from gateway.auth.secrets import SecretFormat, sha256_digest

FORMAT = SecretFormat("ost", "bench")
# No key may be due again while it is measured: the rows take turns, and between two turns lies a minute.
LONG_TTL_SECONDS = 3600
_DECIDED = re.compile(r'^ostiary_auth_total\{[^}]*tier="(\w+)"[^}]*\} (\S+)$', re.MULTILINE)
_MINT_SECONDS = 10.0
_CONNECTIONS = 32


class Stage:
    """A Postgres with so many keys, a Redis and an upstream; all end with the workshop."""

    def __init__(self, workshop: Workshop, cores: Cores, keys: int) -> None:
        self.cores = cores
        self.upstream_port = start_upstream(workshop, cores.load)
        self.addresses = start_stores(workshop)
        assert self.addresses.postgres_dsn is not None
        self.dsn = self.addresses.postgres_dsn
        self.secrets = seed(self.dsn, keys)
        self._workshop = workshop
        self._count = 0

    def node(
        self, *, routes: int = 1, has_tokens: bool = False, ttl_seconds: int | None = None, upstream_port: int = 0
    ) -> Node:
        """Start a node. The route that is asked for stands in the middle of so many."""
        others = [(f"route-{number}", f"/service-{number}") for number in range(routes - 1)]
        others.insert(routes // 2, ("orders", "/orders"))
        more = {"tokens": True} if has_tokens else {}
        text = (CONFIGURATIONS / "keys" / "gateway.yaml").read_text() + "routes:\n"
        for name, path in others:
            route = {"name": name, "paths": [path], "upstream": "origin", "auth": "required", **more}
            text += f"  - {json.dumps(route)}\n"
        if has_tokens:
            sealing_key = secrets.token_urlsafe(32)
            text += f"tokens: {json.dumps({'issuer': 'bench', 'audience': 'bench', 'sealing_key': sealing_key})}\n"
        self._count += 1
        folder = self._workshop.directory / f"node-{self._count}"
        folder.mkdir(mode=0o700)
        (folder / "gateway.yaml").write_text(text)
        options = {} if ttl_seconds is None else {"ttl_seconds": ttl_seconds}
        port = upstream_port or self.upstream_port
        return start_node(self._workshop, self.addresses, port, self.cores.proxy, folder=folder, **options)

    def with_tenants(self, count: int) -> list[str]:
        """Add so many tenants, each with a user who has a key; return the secrets."""
        return asyncio.run(_with_tenants(self.dsn, count))


async def _with_tenants(dsn: str, count: int) -> list[str]:
    made = [FORMAT.generate() for _ in range(count)]
    names = [f"tenant_{number}" for number in range(count)]
    given = "FROM unnest($1::text[]) AS name"
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"INSERT INTO tenants (id, name) SELECT name, name {given}", names)
        await connection.execute(f"INSERT INTO users (id, tenant_id) SELECT 'of_' || name, name {given}", names)
        await connection.execute(
            f"INSERT INTO entitlements (user_id, plan) SELECT 'of_' || name, 'bench' {given}", names
        )
        await connection.execute(
            "INSERT INTO api_keys (id, tenant_id, user_id, name, prefix, environment, secret_id, digest)"
            " SELECT 'of_' || name, name, 'of_' || name, name, 'ost_bench_', 'bench', 'secret_of_' || name, digest"
            " FROM unnest($1::text[], $2::bytea[]) AS given (name, digest)",
            names,
            [sha256_digest(secret.encode()) for secret in made],
        )
    finally:
        await connection.close()
    return made


def cpu_seconds(node: Node) -> float:
    """What the gateway's processes have used so far."""
    return node.process.cpu_seconds()


def decided(node: Node, *tiers: str) -> float:
    """How many requests the node has decided by what these tiers said."""
    with urlopen(f"http://127.0.0.1:{node.status_port}/metrics") as reply:
        samples = _DECIDED.findall(reply.read().decode())
    return sum(float(value) for tier, value in samples if tier in tiers)


def token_of(node: Node, secret: str) -> str:
    """An access token for a key. Waits for a node that has just begun to sign."""
    head = (
        f"POST /.ostiary/tokens HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {secret}\r\n"
        "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    ).encode()
    deadline = time.monotonic() + _MINT_SECONDS
    while (reply := ask(node.port, head))[0] != 201:
        if time.monotonic() > deadline:
            raise BenchError(f"no token was minted: {reply}")
        time.sleep(0.1)
    return str(json.loads(reply[1])["token"])


def even(port: int, requests: Sequence[bytes], rate: float, seconds: float, *, status: int = 200) -> Order:
    """Requests at even distances, whatever becomes of those before them."""
    return Order(port, requests, _CONNECTIONS, seconds, rate=rate, is_even=True, status=status)


def requests_of(node: Node, keys: list[str]) -> list[bytes]:
    """The one request of the benchmarks with each of these keys."""
    return [Request(secret, node.port).head() for secret in keys]
