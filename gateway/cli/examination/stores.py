"""PostgreSQL and Redis, looked at as a node would use them. Nothing is written, and no address is shown."""

import time
from typing import Any, Final

import asyncpg

from gateway.auth.signing import SealBroken, Sealer
from gateway.cli.examination.finding import Finding
from gateway.errors import GatewayError, StoreUnavailable
from gateway.settings import Settings
from gateway.stores.postgres import signing_keys as signing
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.migrate import check_schema
from gateway.stores.postgres.revisions import RevisionLog
from gateway.stores.redis.connection import DEADLINE_SECONDS, Client, Redis, UrlUnreadable
from gateway.telemetry.metrics import Metrics

LOOK_SECONDS: Final = 5.0
OLDEST_POSTGRES: Final = 140_000
OLDEST_REDIS: Final = (6, 2)
OLDEST_CLUSTER: Final = (7, 0)  # sharded channels
CLOCK_SECONDS: Final = 2.0
SILENT_SECONDS: Final = 5.0
SILENT_CURE: Final = "Look at the server and its log, at firewalls between, and at `postgres.dsn`."
START_UP: Final = "Start `ostiary up`: these servers are its own."

# What an error of a first connection means for who reads the configuration.
CURES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (asyncpg.InvalidPasswordError, "Correct user and password in `postgres.dsn`."),
    (
        asyncpg.InvalidAuthorizationSpecificationError,
        "Let this user in: pg_hba.conf, or another user in `postgres.dsn`.",
    ),
    (asyncpg.InvalidCatalogNameError, "Create the database (`createdb`), or correct its name in `postgres.dsn`."),
    (asyncpg.TooManyConnectionsError, "Raise max_connections, or close some: each gateway process takes 12."),
    (ConnectionRefusedError, "Start PostgreSQL, or correct host and port in `postgres.dsn`."),
    (asyncpg.TargetServerAttributeNotMatched, "Name the primary in `postgres.dsn`, standbys in `postgres.replicas`."),
    (OSError, "Correct the host in `postgres.dsn`, or its name service."),
)


async def postgres_findings(settings: Settings, *, is_embedded: bool) -> list[Finding]:
    """The primary, its replicas, and what a node needs to find there."""
    found: list[Finding] = []
    for number, dsn in enumerate((settings.postgres.dsn, *settings.postgres.replicas), start=-1):
        replica = None if number < 0 else number
        postgres = Postgres(dsn.get_secret_value(), pool_size=1, metrics=Metrics(), replica=replica)
        await postgres.open()
        try:
            found += await _postgres(postgres, settings, replica=replica, is_embedded=is_embedded)
        finally:
            await postgres.close()
    return found


async def _postgres(postgres: Postgres, settings: Settings, *, replica: int | None, is_embedded: bool) -> list[Finding]:
    name = "postgres" if replica is None else f"postgres.replica.{replica}"
    began = time.monotonic()
    took = 0.0

    async def first(connection: Connection) -> list[Finding]:
        nonlocal took
        took = time.monotonic() - began
        version = _version(name, connection)
        return [version] if replica is not None else [version, await _writable(connection), await _clock(connection)]

    try:
        found = await postgres.run(first, seconds=LOOK_SECONDS, is_read=True)
    except StoreUnavailable as error:
        return [_unreachable(name, error, is_embedded=is_embedded)]
    found.insert(0, Finding.ok(name, f"answers, after {took * 1000:.0f} ms"))
    return found if replica is not None else found + await _contents(settings, postgres)


def _unreachable(name: str, error: StoreUnavailable, *, is_embedded: bool) -> Finding:
    cause = error.__cause__
    cure = next((cure for kind, cure in CURES if isinstance(cause, kind)), SILENT_CURE)
    return Finding.failed(name, str(error).removeprefix("Postgres: "), START_UP if is_embedded else cure)


def _version(name: str, connection: Connection) -> Finding:
    version = connection.get_server_version()
    number = version.major * 10_000 + version.minor
    check, text = f"{name}.version", f"PostgreSQL {version.major}.{version.minor}"
    if number < OLDEST_POSTGRES:
        return Finding.failed(check, text, f"Use PostgreSQL {OLDEST_POSTGRES // 10_000} or newer.")
    return Finding.ok(check, text)


async def _writable(connection: Connection) -> Finding:
    check = "postgres.writable"
    row = await connection.fetchrow(
        "SELECT current_setting('transaction_read_only') = 'on' AS is_read_only,"
        " has_schema_privilege(current_schema(), 'CREATE') AS may_create, current_user AS name"
    )
    assert row is not None
    if row["is_read_only"]:
        cure = "Lift default_transaction_read_only of the server, the database or the user."
        return Finding.failed(check, "it takes no writes", cure)
    if not row["may_create"]:
        cure = f'GRANT CREATE ON SCHEMA public TO "{row["name"]}": usage is kept in partitions of a month.'
        return Finding.warning(check, "it takes writes, but this user may make no tables", cure)
    return Finding.ok(check, "it takes writes")


async def _clock(connection: Connection) -> Finding:
    check = "postgres.clock"
    before = time.time()
    theirs = float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))
    after = time.time()
    off = theirs - (before + after) / 2
    text = f"{abs(off) * 1000:.0f} ms {'ahead of' if off > 0 else 'behind'} this machine"
    if abs(off) > CLOCK_SECONDS + (after - before) / 2:
        cure = "Set both clocks by NTP. Keys end by the database's clock; certificates are judged by this one."
        return Finding.warning(check, text, cure)
    return Finding.ok(check, text)


async def _contents(settings: Settings, postgres: Postgres) -> list[Finding]:
    try:
        await check_schema(postgres)
    except StoreUnavailable as error:
        return [Finding.failed("postgres.schema", str(error), "Let this user read the tables of the schema.")]
    except GatewayError as error:
        cure = "Run `ostiary migrate -c FILE`, or the version of ostiary that the database belongs to."
        return [Finding.failed("postgres.schema", str(error), cure)]
    found = [Finding.ok("postgres.schema", "as this version of ostiary has it")]
    try:
        found.append(await _nodes(settings, RevisionLog(postgres)))
        found += await _signing_keys(settings, postgres)
    except StoreUnavailable as error:
        found.append(Finding.failed("postgres", f"stopped answering: {error}", SILENT_CURE))
    return found


async def _nodes(settings: Settings, revisions: RevisionLog) -> Finding:
    rows = await revisions.nodes(settings.environment)
    silent = [row.id for row in rows if row.seen_seconds_ago > SILENT_SECONDS]
    text = f"{len(rows)} in environment {settings.environment}"
    if silent:
        cure = "Look at these processes; one that was killed is forgotten with the next change."
        return Finding.warning("nodes", f"{text}, silent: {', '.join(silent)}", cure)
    return Finding.ok("nodes", text)


async def _signing_keys(settings: Settings, postgres: Postgres) -> list[Finding]:
    if settings.tokens is None:
        return []
    rows = await postgres.run(
        lambda connection: signing.listed(connection, settings.environment), seconds=LOOK_SECONDS, is_read=True
    )
    current = next((row for row in rows if row.state == "current"), None)
    if current is None or current.sealed_key is None:
        return [Finding.ok("signing_keys", "none yet: the first node to start makes them")]
    try:
        Sealer(settings.tokens.sealing_key.get_secret_value()).open(current.id, current.sealed_key)
    except SealBroken:
        cure = (
            f"Configure the `tokens.sealing_key` of before, or: `ostiary signing-keys withdraw {current.id} -c FILE`."
        )
        return [Finding.failed("signing_keys", f"{current.id} cannot be opened with this sealing key", cure)]
    days = current.age_seconds / 86_400
    return [Finding.ok("signing_keys", f"{current.id} signs, for {days:.1f} days now")]


# -- Redis


async def redis_findings(settings: Settings, *, is_embedded: bool) -> list[Finding]:
    """The shared cache, if there is one. Whether it keeps anything on disk does not matter."""
    if settings.redis is None:
        return [Finding.ok("redis", "none is configured: correct, and slower; limits are counted by each node alone")]
    redis = Redis(settings.redis.url.get_secret_value(), environment=settings.environment, metrics=Metrics())
    try:
        await redis.open()
    except UrlUnreadable as error:
        return [
            Finding.failed("redis", str(error), "Write redis://host:6379, or redis+sentinel:// or redis+cluster://.")
        ]
    try:
        began = time.monotonic()
        await redis.run(_pinged, seconds=LOOK_SECONDS, is_insistent=True)
        took = time.monotonic() - began
        info = await redis.run(_info, seconds=LOOK_SECONDS, is_insistent=True)
    except StoreUnavailable as error:
        cure = START_UP if is_embedded else "Start Redis, or correct `redis.url`. Meanwhile nodes ask PostgreSQL alone."
        return [Finding.failed("redis", f"cannot be reached ({error})", cure)]
    finally:
        await redis.close()
    return [_speed(took), _redis_version(info, is_cluster=redis.is_cluster), _eviction(settings, info)]


async def _pinged(client: Client) -> None:
    await client.execute_command("PING")
    await client.execute_command("PING")  # the first one may have had to connect


async def _info(client: Client) -> dict[str, Any]:
    info: dict[str, Any] = await client.info()
    inner = next(iter(info.values()), None)
    return inner if isinstance(inner, dict) and "redis_version" in inner else info  # a cluster answers by node


def _speed(seconds: float) -> Finding:
    text = f"answers, after {seconds * 1000:.1f} ms"
    if seconds > DEADLINE_SECONDS:
        cure = f"Nodes leave a Redis alone that takes more than {DEADLINE_SECONDS * 1000:.0f} ms: bring it nearer."
        return Finding.warning("redis", text, cure)
    return Finding.ok("redis", text)


def _redis_version(info: dict[str, Any], *, is_cluster: bool) -> Finding:
    told = str(info.get("redis_version", "unknown"))
    text = f"{info.get('server_name', 'redis')} {told}{', a cluster' if is_cluster else ''}"
    numbers = tuple(int(part) for part in told.split(".")[:2] if part.isdigit())
    oldest = OLDEST_CLUSTER if is_cluster else OLDEST_REDIS
    if numbers < oldest:
        return Finding.failed("redis.version", text, f"Use {oldest[0]}.{oldest[1]} or newer.")
    return Finding.ok("redis.version", text)


def _eviction(settings: Settings, info: dict[str, Any]) -> Finding:
    policy, most = str(info.get("maxmemory_policy", "unknown")), int(info.get("maxmemory", 0))
    text = f"{policy}, {'no bound on memory' if most == 0 else f'{most / 2**20:.0f} MiB at most'}; it need not persist"
    if most == 0:
        return Finding.ok("redis.eviction", text)
    if policy == "noeviction":
        cure = "Once it is full nothing more is cached, and nodes count alone: set maxmemory-policy volatile-lru."
        return Finding.warning("redis.eviction", text, cure)
    if policy.startswith("allkeys") and settings.limits.mode != "local":
        cure = "Budgets that are evicted begin anew: see that it is large enough, and watch evicted_keys."
        return Finding.warning("redis.eviction", text, cure)
    return Finding.ok("redis.eviction", text)
