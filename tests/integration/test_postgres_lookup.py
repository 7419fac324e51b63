import asyncio

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.lookup import KeyLookup
from gateway.stores.records import Finding, KeyRecord, SecretState
from gateway.telemetry.metrics import Metrics
from tests.fixtures.rows import CURRENT, RETIRED, UNKNOWN, plant
from tests.fixtures.waiting import until

PLANTED = KeyRecord(
    digest=CURRENT,
    secret_id="s1",
    secret_state=SecretState.CURRENT,
    secret_expires_at=None,
    key_id="k1",
    key_kind="user",
    key_name="first",
    environment="test",
    scopes=("a:read", "b:write"),
    key_expires_at=None,
    is_revoked=False,
    user_id="u1",
    is_user_active=True,
    tenant_id="t1",
    is_tenant_active=True,
    plan="basic",
    tier=2,
    features={"api_access": True, "export": True},
    limits={"per_minute": 60, "per_day": 5},
    entitlement_valid_until=4000000000.0,
    plan_limits={"per_minute": 60, "per_day": 1000},
)


async def execute(pg: Postgres, statement: str) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute(statement)

    await pg.run(work, seconds=5)


async def found(pg: Postgres, *digests: bytes) -> KeyRecord:
    finding = await KeyLookup(pg).find(digests)
    assert finding.digests == digests
    assert finding.record is not None
    return finding.record


async def test_current_secret(pg: Postgres) -> None:
    """A current secret leads to all facts at once, the entitlement's values laid over the plan's. R040 R250."""
    finding = await KeyLookup(pg).find((CURRENT,))
    assert finding.record == PLANTED
    assert finding.revision == 7


async def test_retired_secret(pg: Postgres) -> None:
    """A retired secret leads to the same key, with its own id and end. R028 R093."""
    record = await found(pg, RETIRED)
    assert (record.digest, record.secret_id, record.secret_state) == (RETIRED, "r1", SecretState.RETIRED)
    assert record.secret_expires_at == 3000000000.5
    assert (record.key_id, record.user_id, record.tenant_id) == ("k1", "u1", "t1")


async def test_unknown_secret(pg: Postgres) -> None:
    """An unknown secret is an absence, with the revision under which it was one. R046."""
    finding = await KeyLookup(pg).find((UNKNOWN,))
    assert finding.record is None
    assert finding.revision == 7


MANY = """
    INSERT INTO users (id, tenant_id) SELECT 'user-' || n, 't1' FROM generate_series(1, 2000) AS n;
    INSERT INTO api_keys (id, tenant_id, user_id, name, prefix, environment, secret_id, digest)
    SELECT 'key-' || n, 't1', 'user-' || n, 'key ' || n, 'ost_', 'test', 'secret-' || n, sha256(n::text::bytea)
    FROM generate_series(1, 2000) AS n;
    ANALYZE"""


@pytest.mark.parametrize("forms", [1, 3], ids=["no pepper", "two peppers"])
async def test_a_lookup_is_not_planned_anew(postgres_dsn: str, forms: int) -> None:
    """Postgres plans the first lookups of a connection, and then uses what it has: planning is most of its work."""
    await plant(postgres_dsn)
    one = Postgres(postgres_dsn, pool_size=1, metrics=Metrics())
    await one.open()
    await execute(one, MANY)
    for number in range(20):
        await KeyLookup(one).find(tuple(bytes([number, form]) * 16 for form in range(forms)))

    async def plans(connection: Connection) -> list[tuple[int, int]]:
        rows = await connection.fetch(
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE '%FROM revision AS r%'"
            " AND NOT statement LIKE '%pg_prepared_statements%'"
        )
        return [tuple(row) for row in rows]

    assert await one.run(plans, seconds=5) == [(15, 5), (15, 5)]
    await one.close()


async def test_order_of_questions(pg: Postgres) -> None:
    """The retired secrets are asked only when no current one was found. R041."""
    await execute(pg, "DROP TABLE retired_secrets")
    assert await found(pg, CURRENT) == PLANTED
    with pytest.raises(StoreUnavailable):
        await KeyLookup(pg).find((UNKNOWN,))


SIGNER = (
    "INSERT INTO signing_keys (id, environment, state, public_key) VALUES ('g1', 'test', 'previous', $$%s$$::bytea)"
)


async def test_bound_secrets(pg: Postgres) -> None:
    """A token leads to its key by the ids that it names, as of the secret that it is bound to. R160 R161."""
    await execute(pg, SIGNER % ("x" * 32))
    lookup = KeyLookup(pg)
    current = await lookup.find_bound("k1", "s1", "g1")
    assert (current.record, current.revision) == (PLANTED, 8)
    retired = await lookup.find_bound("k1", "r1", "g1")
    assert retired.record is not None
    assert (retired.record.secret_state, retired.record.secret_expires_at) == (SecretState.RETIRED, 3000000000.5)
    for ids in (("k1", "s2", "g1"), ("k2", "s1", "g1"), ("k2", "r1", "g1"), ("k1", "s1", "g2"), ("k1", "r1", "g2")):
        assert (await lookup.find_bound(*ids)).record is None


async def test_bound_secrets_and_withdrawn_signers(pg: Postgres) -> None:
    """What a withdrawn signing key, or one of another environment, has signed leads nowhere. R170 R179."""
    for change in ("state = 'retired'", "state = 'previous', environment = 'prod'"):
        await execute(pg, "TRUNCATE signing_keys")
        await execute(pg, SIGNER % ("x" * 32))
        await execute(pg, f"UPDATE signing_keys SET {change}")
        for secret_id in ("s1", "r1"):
            assert (await KeyLookup(pg).find_bound("k1", secret_id, "g1")).record is None


async def test_order_of_questions_about_bound_secrets(pg: Postgres) -> None:
    """The retired secrets are asked only when the bound one is not the current one. R160 R162."""
    await execute(pg, SIGNER % ("x" * 32))
    await execute(pg, "DROP TABLE retired_secrets")
    assert (await KeyLookup(pg).find_bound("k1", "s1", "g1")).record == PLANTED
    with pytest.raises(StoreUnavailable):
        await KeyLookup(pg).find_bound("k1", "r1", "g1")


async def test_several_stored_forms(pg: Postgres) -> None:
    """Under several peppers any stored form is found, and the first asked for wins. R040."""
    await execute(
        pg,
        "INSERT INTO api_keys (id, tenant_id, user_id, name, prefix, environment, secret_id, digest)"
        f" VALUES ('k2', 't1', 'u1', 'second', 'p', 'test', 's2', '\\x{UNKNOWN.hex()}')",
    )
    assert (await found(pg, UNKNOWN, CURRENT)).key_id == "k2"
    assert (await found(pg, CURRENT, UNKNOWN)).key_id == "k1"
    assert (await found(pg, bytes(32), RETIRED)).secret_id == "r1"


async def find_overtaken(pg: Postgres, digest: bytes, statement: str) -> Finding:
    """The finding of a lookup that was overtaken by `statement` between its two questions."""

    async def overtake(connection: Connection) -> None:
        async with connection.transaction():
            await connection.execute("LOCK TABLE retired_secrets IN ACCESS EXCLUSIVE MODE")
            locked.set()
            await until(is_waiting, what="the lookup's second question")
            await connection.execute(statement)

    async def is_waiting() -> bool:
        async def work(connection: Connection) -> bool:
            return bool(await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

        return await pg.run(work, seconds=5)

    locked = asyncio.Event()
    overtaking = asyncio.ensure_future(pg.run(overtake, seconds=10))
    await locked.wait()
    finding = await KeyLookup(pg).find((digest,))
    await overtaking
    return finding


async def test_absence_overtaken(pg: Postgres) -> None:
    """An absence is stamped with the older of its two snapshots: a secret that appeared between them voids it. R061."""
    finding = await find_overtaken(
        pg,
        UNKNOWN,
        "INSERT INTO api_keys (id, tenant_id, user_id, name, prefix, environment, secret_id, digest)"
        f" VALUES ('k2', 't1', 'u1', 'second', 'p', 'test', 's2', '\\x{UNKNOWN.hex()}')",
    )
    assert (finding.record, finding.revision) == (None, 7)
    assert (await found(pg, UNKNOWN)).key_id == "k2"


async def test_retired_secret_overtaken(pg: Postgres) -> None:
    """A retired secret is stamped with the snapshot that showed it. R231."""
    finding = await find_overtaken(pg, RETIRED, "UPDATE retired_secrets SET expires_at = to_timestamp(5)")
    assert finding.record is not None
    assert (finding.record.secret_expires_at, finding.revision) == (5, 8)


FACTS: list[tuple[str, str, dict[str, object]]] = [
    ("revoked", "UPDATE api_keys SET revoked_at = now()", {"is_revoked": True}),
    ("expiring", "UPDATE api_keys SET expires_at = to_timestamp(12.25)", {"key_expires_at": 12.25}),
    ("never", "UPDATE api_keys SET expires_at = 'infinity'", {"key_expires_at": None}),
    ("always-over", "UPDATE api_keys SET expires_at = '-infinity'", {"key_expires_at": 0.0}),
    ("user", "UPDATE users SET status = 'suspended'", {"is_user_active": False}),
    ("tenant", "UPDATE tenants SET status = 'suspended'", {"is_tenant_active": False}),
    ("operator", "UPDATE api_keys SET kind = 'operator', scopes = '{}'", {"key_kind": "operator", "scopes": ()}),
    ("no-end", "UPDATE entitlements SET valid_until = NULL", {"entitlement_valid_until": None}),
    (
        "no-entitlement",
        "DELETE FROM entitlements",
        {"plan": None, "tier": 0, "features": {}, "limits": {}, "entitlement_valid_until": None},
    ),
    (
        "false-override",
        'UPDATE entitlements SET features = \'{"api_access": "true"}\'',
        {"features": {"api_access": "true", "export": False}},
    ),
]


@pytest.mark.parametrize(("statement", "facts"), [c[1:] for c in FACTS], ids=[c[0] for c in FACTS])
async def test_facts(pg: Postgres, statement: str, facts: dict[str, object]) -> None:
    """Each fact that decides admission is read as it is. R104 R251 R253."""
    await execute(pg, statement)
    record = await found(pg, CURRENT)
    assert {name: getattr(record, name) for name in facts} == facts


MALFORMED = [
    ("features", "ALTER TABLE plans DROP CONSTRAINT plans_features_check; UPDATE plans SET features = '[1]'"),
    (
        "limits",
        "ALTER TABLE entitlements DROP CONSTRAINT entitlements_limits_check; UPDATE entitlements SET limits = '3'",
    ),
    ("scope", "UPDATE api_keys SET scopes = '{a,NULL}'"),
    ("scopes", "ALTER TABLE api_keys ALTER scopes DROP NOT NULL; UPDATE api_keys SET scopes = NULL"),
    ("status", "ALTER TABLE users ALTER status DROP NOT NULL; UPDATE users SET status = NULL"),
    ("tier", "ALTER TABLE plans DROP CONSTRAINT plans_tier_check, ALTER tier DROP DEFAULT, ALTER tier TYPE text"),
    ("secret", "ALTER TABLE api_keys ALTER secret_id DROP NOT NULL; UPDATE api_keys SET secret_id = NULL"),
    ("expiry", "ALTER TABLE api_keys ALTER expires_at TYPE text"),
    ("no-revision", "DELETE FROM revision"),
    ("no-table", "DROP TABLE api_keys CASCADE"),
]


@pytest.mark.parametrize("statement", [c[1] for c in MALFORMED], ids=[c[0] for c in MALFORMED])
async def test_malformed(pg: Postgres, statement: str) -> None:
    """What is not of the expected shape is an outage: never a record, never an absence. R047 R073 R328."""
    await execute(pg, statement)
    with pytest.raises(StoreUnavailable) as caught:
        await KeyLookup(pg).find((CURRENT,))
    is_entitlement = any(word in statement for word in ("features", "limits"))
    assert caught.value.code == ("entitlement_unavailable" if is_entitlement else "auth_unavailable")


async def test_unknown_status_refuses(pg: Postgres) -> None:
    """A status that this version does not know is not an active one."""
    await execute(pg, "ALTER TABLE tenants DROP CONSTRAINT tenants_status_check; UPDATE tenants SET status = 'odd'")
    assert not (await found(pg, CURRENT)).is_tenant_active


@pytest.mark.threat("SQL in the key")
async def test_injection(pg: Postgres) -> None:
    """What is asked for is a parameter, never a part of the statement."""
    finding = await KeyLookup(pg).find((b"' OR true --", b""))
    assert finding.record is None


@pytest.mark.parametrize(
    ("old", "table"),
    [pytest.param(CURRENT, "api_keys", id="current"), pytest.param(RETIRED, "retired_secrets", id="retired")],
)
async def test_older_form_is_renewed_on_use(pg: Postgres, old: bytes, table: str) -> None:
    """A row found under the form of an older pepper gets the current form, and is known by that alone from then on."""
    newest = bytes(32)
    assert (await found(pg, newest, old)).digest == old
    assert (await found(pg, newest)).key_id == "k1"
    assert (await KeyLookup(pg).find((old,))).record is None


async def test_renewal_of_a_form_is_no_condition_of_the_answer(pg: Postgres) -> None:
    """A database that refuses the renewal still answers the lookup."""
    await execute(pg, "CREATE RULE no_renewal AS ON UPDATE TO api_keys DO INSTEAD SELECT 1 / 0")
    assert (await found(pg, bytes(32), CURRENT)).key_id == "k1"
