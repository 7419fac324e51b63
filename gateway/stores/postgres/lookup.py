"""From a digest to the facts behind it, in one snapshot: the only query between a request and the truth."""

import contextlib
import functools
import json
import math
from typing import Any

import asyncpg

from gateway.errors import MalformedRow, UnreadableEntitlement
from gateway.stores.postgres import used_tokens
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.records import Finding, KeyRecord, SecretState

# Together under the three seconds that a caller may be kept waiting by lookups that hang (R051).
LOOKUP_SECONDS = 2.0
REPLICA_SECONDS = 0.5

# `revision` stands in the same statement as the facts, hence in the same snapshot. One row always comes back: with
# nulls when no secret has the digest. Under several peppers the first of the asked forms wins.
_STATEMENT = """
    SELECT r.value AS revision, f.*
    FROM revision AS r
    LEFT JOIN LATERAL (
        SELECT
            {secret},
            k.id AS key_id, k.kind AS key_kind, k.name AS key_name, k.environment, k.scopes,
            extract(epoch FROM k.expires_at)::float8 AS key_expires_at,
            k.revoked_at IS NOT NULL AS is_revoked,
            u.id AS user_id, u.status = 'active' AS is_user_active,
            t.id AS tenant_id, t.status = 'active' AS is_tenant_active,
            p.name AS plan, coalesce(p.tier, 0) AS tier,
            coalesce(p.features || e.features, '{{}}')::text AS features,
            coalesce(p.limits || e.limits, '{{}}')::text AS limits,
            coalesce(p.limits, '{{}}')::text AS plan_limits,
            extract(epoch FROM e.valid_until)::float8 AS entitlement_valid_until
        FROM {source}
        JOIN users AS u ON u.id = k.user_id
        JOIN tenants AS t ON t.id = k.tenant_id
        LEFT JOIN entitlements AS e ON e.user_id = u.id
        LEFT JOIN plans AS p ON p.name = e.plan
        WHERE {which}
        LIMIT 1
    ) AS f ON true"""

_CURRENT_SECRET = {
    "secret": "k.digest, k.secret_id, NULL::float8 AS secret_expires_at",
    "source": "api_keys AS k",
}
_RETIRED_SECRET = {
    "secret": "s.digest, s.id AS secret_id, extract(epoch FROM s.expires_at)::float8 AS secret_expires_at",
    "source": "retired_secrets AS s JOIN api_keys AS k ON k.id = s.key_id",
}
# A withdrawn signing key admits nobody, as of the very snapshot that shows the key.
_BY_IDS = """
    k.id = $1 AND {secret_id} = $2 AND EXISTS (
        SELECT FROM signing_keys AS g WHERE g.id = $3 AND g.environment = k.environment AND g.state <> 'retired'
    )"""

_OF_KEY = _STATEMENT.format(**_CURRENT_SECRET, which="k.id = $1")
_BOUND_CURRENT = _STATEMENT.format(**_CURRENT_SECRET, which=_BY_IDS.format(secret_id="k.secret_id"))  # noqa: S106
_BOUND_RETIRED = _STATEMENT.format(**_RETIRED_SECRET, which=_BY_IDS.format(secret_id="s.id"))  # noqa: S106


@functools.cache
def _by_digests(count: int) -> tuple[str, str]:
    """The statements for so many stored forms of one secret: of the current secrets, and of the retired ones.

    Each form is a parameter of its own. Postgres does not know how long an array will be, takes a plan for any for too
    dear, and plans every lookup anew, which costs it many times the lookup itself.
    """
    forms = f"ARRAY[{', '.join(f'${number}' for number in range(1, count + 1))}]::bytea[]"
    which = f"{{0}} = ANY({forms}) ORDER BY array_position({forms}, {{0}})"
    return (
        _STATEMENT.format(**_CURRENT_SECRET, which=which.format("k.digest")),
        _STATEMENT.format(**_RETIRED_SECRET, which=which.format("s.digest")),
    )


_RENEW = {
    SecretState.CURRENT: "UPDATE api_keys SET digest = $2 WHERE digest = $1",
    SecretState.RETIRED: "UPDATE retired_secrets SET digest = $2 WHERE digest = $1",
}


class KeyLookup:
    """Finds the key behind a secret's digest. `is_replica`: nothing can be written there, and others can be asked."""

    def __init__(self, pg: Postgres, *, is_replica: bool = False) -> None:
        self._pg = pg
        self._is_replica = is_replica
        self._seconds = REPLICA_SECONDS if is_replica else LOOKUP_SECONDS

    async def find(self, digests: tuple[bytes, ...]) -> Finding:
        """What stands behind the secret whose stored forms may be `digests` (32 bytes each; the current form first).

        A row found under an older form gets the current one, so that an old pepper can be given up once all keys that
        are still in use have been used.

        Current secrets first; the retired ones are asked only when there was none (R041).
        Raises StoreUnavailable, also for a row that is not of the expected shape (R047).
        """
        of_current, of_retired = _by_digests(len(digests))

        async def work(connection: Connection) -> Finding:
            current = await connection.fetchrow(of_current, *digests)
            finding = finding_of(current, SecretState.CURRENT, digests)
            if finding.record is not None:
                await self._renew_form(connection, finding.record, digests[0])
                return finding
            retired = await connection.fetchrow(of_retired, *digests)
            second = finding_of(retired, SecretState.RETIRED, digests)
            if second.record is not None:
                await self._renew_form(connection, second.record, digests[0])
                return second
            # A secret that appeared between the two snapshots must not be denied as of the later one.
            return finding

        return await self._pg.run(work, seconds=self._seconds, is_read=True)

    async def find_bound(self, key_id: str, secret_id: str, signer_id: str) -> Finding:
        """What stands behind a token: its key, as of the secret that it is bound to.

        None where the key, that secret or the trust in the signing key is gone. Retired secrets are asked only when
        the bound one is not current (R160, R162). Raises StoreUnavailable.
        """

        async def work(connection: Connection) -> Finding:
            bound = key_id, secret_id, signer_id
            finding = finding_of(await connection.fetchrow(_BOUND_CURRENT, *bound), SecretState.CURRENT)
            if finding.record is not None:
                return finding
            second = finding_of(await connection.fetchrow(_BOUND_RETIRED, *bound), SecretState.RETIRED)
            return finding if second.record is None else second

        return await self._pg.run(work, seconds=self._seconds, is_read=True)

    async def find_key(self, key_id: str) -> Finding:
        """What stands behind the current secret of this key, without knowing it. Raises StoreUnavailable."""

        async def work(connection: Connection) -> Finding:
            return finding_of(await connection.fetchrow(_OF_KEY, key_id), SecretState.CURRENT)

        return await self._pg.run(work, seconds=self._seconds, is_read=True)

    async def use(self, token_id: str, ends_at: float) -> bool:
        """Use up a token that is for one request; False where it has been used before (R149).

        Raises StoreUnavailable; it may have been used up all the same.
        """
        return await self._pg.run(lambda c: used_tokens.use(c, token_id, ends_at), seconds=self._seconds)

    async def is_used(self, token_id: str) -> bool:
        """Whether a token that is for one request has met it. Raises StoreUnavailable."""
        return await self._pg.run(lambda c: used_tokens.is_used(c, token_id), seconds=self._seconds, is_read=True)

    async def _renew_form(self, connection: Connection, record: KeyRecord, form: bytes) -> None:
        if record.digest != form and not self._is_replica:
            # The lookup has its answer already: a database that takes no writes now is told again at the next use.
            with contextlib.suppress(asyncpg.PostgresError):
                await connection.execute(_RENEW[record.secret_state], record.digest, form)


class _Malformed(Exception):
    """A value is not of the type that the schema promises."""


def finding_of(row: Any, state: SecretState, digests: tuple[bytes, ...] = ()) -> Finding:
    """The answer; `digests` are those that were asked for, if any were."""
    try:
        if row is None:
            raise _Malformed("revision")
        revision = _typed(row, "revision", int)
        record = None if row["key_id"] is None else _record(row, state, digests)
    except (_Malformed, ValueError) as error:
        raise MalformedRow(f"Postgres: malformed row of a key: {error}") from error
    return Finding(revision=revision, digests=digests, record=record)


def _record(row: Any, state: SecretState, digests: tuple[bytes, ...]) -> KeyRecord:
    digest = _typed(row, "digest", bytes)
    if digests and digest not in digests:
        raise _Malformed("digest")
    scopes = tuple(_typed(row, "scopes", list))
    if not all(isinstance(scope, str) for scope in scopes):
        raise _Malformed("scopes")
    try:
        plan = None if row["plan"] is None else _typed(row, "plan", str)
        tier, features, limits = _typed(row, "tier", int), _object(row, "features"), _object(row, "limits")
        plan_limits = _object(row, "plan_limits")
        valid_until = _moment(row, "entitlement_valid_until")
    except (_Malformed, ValueError) as error:
        raise UnreadableEntitlement(f"Postgres: malformed entitlement: {error}") from error
    return KeyRecord(
        digest=digest,
        secret_id=_typed(row, "secret_id", str),
        secret_state=state,
        secret_expires_at=_moment(row, "secret_expires_at"),
        key_id=_typed(row, "key_id", str),
        key_kind=_typed(row, "key_kind", str),
        key_name=_typed(row, "key_name", str),
        environment=_typed(row, "environment", str),
        scopes=scopes,
        key_expires_at=_moment(row, "key_expires_at"),
        is_revoked=_typed(row, "is_revoked", bool),
        user_id=_typed(row, "user_id", str),
        is_user_active=_typed(row, "is_user_active", bool),
        tenant_id=_typed(row, "tenant_id", str),
        is_tenant_active=_typed(row, "is_tenant_active", bool),
        plan=plan,
        tier=tier,
        features=features,
        limits=limits,
        entitlement_valid_until=valid_until,
        plan_limits=plan_limits,
    )


def _typed(row: Any, name: str, kind: type[Any]) -> Any:
    value = row[name]
    if type(value) is not kind:
        raise _Malformed(name)
    return value


def _object(row: Any, name: str) -> dict[str, Any]:
    value = json.loads(_typed(row, name, str))
    if not isinstance(value, dict):
        raise _Malformed(name)
    return value


def _moment(row: Any, name: str) -> float | None:
    """Seconds since the epoch; Postgres' `infinity` is no end, and its `-infinity` has always been over."""
    if row[name] is None:
        return None
    value: float = _typed(row, name, float)
    if math.isnan(value):
        raise _Malformed(name)
    if math.isinf(value):
        return None if value > 0 else 0.0
    return value
