"""Brings a database to the schema of this code, and tells when it is not there. Must not know: what the tables mean."""

import contextlib
import hashlib
from dataclasses import dataclass
from importlib import resources

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from gateway.errors import GatewayError, StoreUnavailable
from gateway.stores.postgres.connection import Connection, Postgres

CONNECT_SECONDS = 10.0
CHECK_SECONDS = 5.0
CLOSE_SECONDS = 1.0
# Any number that nothing else in the database locks.
LOCK = 0x6F7374696172

_TABLE = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        number     integer PRIMARY KEY,
        name       text NOT NULL,
        sha256     text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )"""


class SchemaOutdated(GatewayError):  # the error says what the schema is
    """The database lacks migrations that this code relies on."""


class SchemaUnknown(GatewayError):
    """The database has been through migrations that this code does not know, or knows with another text."""


class MigrationFailed(GatewayError):
    """Postgres refused a migration; it and those after it were not applied."""


@dataclass(frozen=True, slots=True)
class _Migration:
    number: int
    name: str
    text: str
    sha256: str


async def migrate(dsn: str) -> list[str]:
    """Apply, in order and each in its own transaction, the migrations that the database lacks; return their names.

    Any number of callers at once is safe: one works, the others wait for it and find nothing to do.
    Raises StoreUnavailable, MigrationFailed, and SchemaUnknown for a database that is not this code's to change.
    """
    try:
        connection = await asyncpg.connect(
            dsn, timeout=CONNECT_SECONDS, target_session_attrs=SessionAttribute.read_write
        )
    except ValueError:
        raise StoreUnavailable("Postgres: the DSN is malformed") from None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise StoreUnavailable(f"Postgres: {type(error).__name__}: {error}") from error
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)  # goes with the connection
        await connection.execute(_TABLE)
        missing = _missing(await _applied(connection))
        for migration in missing:
            await _apply(connection, migration)
        return [migration.name for migration in missing]
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise StoreUnavailable(f"Postgres: {type(error).__name__}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            await connection.close(timeout=CLOSE_SECONDS)


async def check_schema(pg: Postgres) -> None:
    """Return when the database has exactly the schema of this code.

    Raises SchemaOutdated (which names the command to run), SchemaUnknown, StoreUnavailable.
    """
    missing = _missing(await pg.run(_applied, seconds=CHECK_SECONDS, is_read=True))
    if missing:
        names = ", ".join(migration.name for migration in missing)
        raise SchemaOutdated(f"the database lacks {names}: run `ostiary migrate -c FILE`")


async def _apply(connection: Connection, migration: _Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.text)
            await connection.execute(
                "INSERT INTO schema_migrations (number, name, sha256) VALUES ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.sha256,
            )
    except asyncpg.PostgresError as error:
        raise MigrationFailed(f"migration {migration.name}: {type(error).__name__}: {error}") from error


async def _applied(connection: Connection) -> dict[int, tuple[str, str]]:
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return {}
    rows = await connection.fetch("SELECT number, name, sha256 FROM schema_migrations")
    return {row["number"]: (row["name"], row["sha256"]) for row in rows}


def _missing(applied: dict[int, tuple[str, str]]) -> list[_Migration]:
    known = _known()
    if unknown := sorted(applied.keys() - {migration.number for migration in known}):
        names = ", ".join(applied[number][0] for number in unknown)
        raise SchemaUnknown(f"the database is newer than this version of ostiary: it has {names}. Upgrade ostiary")
    for migration in known:
        _, sha256 = applied.get(migration.number, ("", migration.sha256))
        if sha256 != migration.sha256:
            raise SchemaUnknown(
                f"migration {migration.name} was applied with another text than this version of ostiary has: "
                "the database belongs to another build"
            )
    return [migration for migration in known if migration.number not in applied]


def _known() -> list[_Migration]:
    folder = resources.files(__package__).joinpath("migrations")
    found = []
    for file in folder.iterdir():
        name, _, suffix = file.name.partition(".")
        if suffix == "sql":
            text = file.read_text(encoding="utf-8")
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            found.append(_Migration(int(name.partition("_")[0]), name, text, sha256))
    return sorted(found, key=lambda migration: migration.number)
