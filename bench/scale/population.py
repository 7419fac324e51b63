"""Millions of keys in PostgreSQL, as an installation has them whose keys were made long ago."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from bench.gateway_peer import KEYS_PER_USER
from gateway.auth.secrets import SecretFormat, sha256_digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TENANTS = 1_000
_STEP = 500_000  # keys of one statement
_SECONDS = 600
_TABLES = ("api_keys", "users", "entitlements")
# The tenants take turns, so that none of them is younger than another, and each has as many keys.
_GROW = (
    """INSERT INTO users (id, tenant_id, display_name)
        SELECT 'user_' || n, 'tenant_' || n % {tenants}, 'User ' || n
        FROM generate_series({users}, {last_user}) AS n""",
    """INSERT INTO entitlements (user_id, plan)
        SELECT 'user_' || n, 'bench' FROM generate_series({users}, {last_user}) AS n""",
    """INSERT INTO api_keys (id, tenant_id, user_id, name, prefix, environment, scopes, secret_id, digest)
        SELECT 'key_' || n, 'tenant_' || n / {each} % {tenants}, 'user_' || n / {each}, 'key ' || n,
            'ost_bench_Ab3dE6', 'bench', '{{orders:read}}', 'sec_' || n, sha256(n::text::bytea)
        FROM generate_series({keys}, {last_key}) AS n""",
)


def digest_of(number: int) -> bytes:
    """The stored digest of the key of that number."""
    return sha256(str(number).encode()).digest()


@dataclass(frozen=True)
class Sizes:
    """Bytes on disk of the tables that a lookup reads."""

    tables: int
    indexes: int


class Population:
    """The rows of so many keys, five to a user, users evenly among a thousand tenants. `folder` is the server's own."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.keys = 0
        self._folder = folder
        self._taken = 0

    async def begin(self) -> None:
        """The plan and the tenants."""
        async with connected(self.dsn) as connection:
            await connection.execute(
                "INSERT INTO plans (name, tier, features) VALUES ('bench', 1, '{\"api_access\": true}')"
            )
            await connection.execute(
                "INSERT INTO tenants (id, name)"
                " SELECT 'tenant_' || n, 'Tenant ' || n FROM generate_series(0, $1::int) AS n",
                TENANTS - 1,
            )

    async def grow(self, keys: int) -> float:
        """Add rows until there are so many keys; the seconds that it took, without looking after them."""
        began = time.monotonic()
        async with connected(self.dsn) as connection:
            await connection.execute("SET session_replication_role = replica")  # no triggers: nobody is told
            for start, end in self._steps(keys):
                values = {
                    "tenants": TENANTS,
                    "each": KEYS_PER_USER,
                    "users": start // KEYS_PER_USER,
                    "last_user": end // KEYS_PER_USER - 1,
                    "keys": start,
                    "last_key": end - 1,
                }
                for statement in _GROW:
                    await connection.execute(statement.format(**values), timeout=_SECONDS)
                self.keys = end
                print(f"{end:,} keys inserted", file=sys.stderr, flush=True)
            grown = time.monotonic() - began
            await connection.execute("VACUUM ANALYZE", timeout=_SECONDS)
            await connection.execute("CHECKPOINT", timeout=_SECONDS)
        return grown

    def _steps(self, keys: int) -> Iterator[tuple[int, int]]:
        for start in range(self.keys, keys, _STEP):
            yield start, min(start + _STEP, keys)

    async def sizes(self) -> Sizes:
        """What it takes on disk."""
        async with connected(self.dsn) as connection:
            row = await connection.fetchrow(
                "SELECT sum(pg_table_size(name::regclass))::bigint, sum(pg_indexes_size(name::regclass))::bigint"
                " FROM unnest($1::text[]) AS name",
                list(_TABLES),
            )
        assert row is not None
        return Sizes(row[0], row[1])

    def take(self, count: int) -> range:
        """The numbers of so many keys that nobody has taken before."""
        taken = range(self._taken, self._taken + count)
        self._taken = taken.stop
        return taken

    async def adopt(self, numbers: range) -> list[str]:
        """Give these keys secrets that a caller can send; return them."""
        secrets = [SecretFormat("ost", "bench").generate() for _ in numbers]
        async with connected(self.dsn) as connection:
            await connection.execute("SET session_replication_role = replica")
            await connection.execute(
                "UPDATE api_keys SET digest = given.digest FROM unnest($1::text[], $2::bytea[]) AS given (id, digest)"
                " WHERE api_keys.id = given.id",
                [f"key_{number}" for number in numbers],
                [sha256_digest(secret.encode()) for secret in secrets],
            )
        return secrets

    def forget_pages(self) -> None:
        """Have the kernel forget what it holds of the server's files; the server's own buffers stay."""
        os.sync()
        for path in self._folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@asynccontextmanager
async def connected(dsn: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A connection for what the gateway does not do."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


def steps_to(most: int, first: int) -> Sequence[int]:
    """Ten times as many each time, from `first` up to `most`."""
    steps = [most]
    while steps[0] // 10 >= first:
        steps.insert(0, steps[0] // 10)
    return steps
