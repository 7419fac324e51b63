"""How a key comes into being: who may own one, how many, and whose secret it is. Must not know: HTTP."""

import contextlib
import re
from dataclasses import dataclass, field
from datetime import datetime

from gateway.auth.secrets import sha256_digest
from gateway.control.admin_tokens import Administrator, Role
from gateway.control.answers import KeyLimitProblem
from gateway.control.bodies import NewKeyBody
from gateway.control.deeds import Answer, Deed
from gateway.control.ids import new_id
from gateway.control.key_operations import Operation, counted
from gateway.control.key_parts import KeyParts, shown_key
from gateway.control.mutations import NothingToDo
from gateway.control.problems import Forbidden, InvalidBody, NotFound, Problem
from gateway.settings import KeySettings
from gateway.stores.postgres import keys as sql
from gateway.stores.postgres.connection import Connection
from gateway.stores.postgres.keys import DuplicateKey, KeyRow, NewKey, Owner

OVER_LIMIT_REASON = "more active keys than the user may have"


class IssuanceClosed(Problem):
    """No new key is made for the tenant's users, by whomever (R225). Those that there are can be rotated."""

    code = "issuance_closed"
    status = 403
    public = "No new API keys are made for this organisation at present. One that exists can still be rotated."


class ApiAccessRequired(Problem):
    """The user has no entitlement with `api_access`, or it has lapsed (R211)."""

    code = "api_access_required"
    status = 403
    public = "The user's entitlement does not include API access, or it has ended."


class KeyLimitReached(Problem):
    """The user has as many active keys as allowed (R214); `revoked` names those that were too many (R216)."""

    code = "key_limit_reached"
    status = 409
    public = "The user has as many active keys as allowed. Revoke one first."
    answer = KeyLimitProblem


class OverLimit(Problem):
    """More keys are active than allowed; `surplus` are the oldest ones. Never leaves the services."""

    def __init__(self, surplus: list[str]) -> None:
        super().__init__()
        self.surplus = surplus


@dataclass(frozen=True, slots=True)
class _Material:
    """Where a new key's secret comes from. `digests` are its possible stored forms; `secret` None is the client's."""

    secret: str | None = field(repr=False)
    digest: bytes = field(repr=False)
    digests: tuple[bytes, ...] = field(repr=False)
    prefix: str


def check_future(expires_at: datetime | None, now: datetime) -> None:
    """Raise InvalidBody unless a key's end lies ahead in database time (R223)."""
    if expires_at is not None and expires_at <= now:
        raise InvalidBody(
            [{"place": "expires_at", "message": "Name a moment in the future"}], code="invalid_expires_at"
        )


def is_issuance_open(settings: KeySettings, owner: Owner) -> bool:
    """Whether the owner may get a new key at all: what is set for the tenant counts, else what is configured (R225)."""
    return (owner.issuance or settings.issuance) == "open"


def revoke_deed(before: KeyRow, after: KeyRow, reason: str | None) -> Deed:
    """What a revocation did; its reason goes on record."""
    body = shown_key(after)
    return Deed(
        "key.revoke", f"key:{after.id}", after.tenant_id, shown_key(before), {**body, "revoked_reason": reason}, body
    )


async def check_limit(connection: Connection, user_id: str, limit: int) -> None:
    """Raise if the user, whose row the caller has locked, has no room for one more active key."""
    active = await sql.active_of_user(connection, user_id)
    if len(active) > limit:
        raise OverLimit(active[: len(active) - limit])
    if len(active) == limit:
        raise KeyLimitReached(f"{user_id!r} has {limit}", limit=limit, revoked=[])


class Issuance:
    """Makes keys."""

    def __init__(self, parts: KeyParts) -> None:
        self._parts = parts

    async def create(self, caller: Administrator, wanted: NewKeyBody) -> Answer:
        """Insert one key, or nothing (R211 to R217, R225).

        It works at once on every node, also if it was probed before (R101). The answer is the only one that shows the
        secret (R218).

        Raises InvalidBody, Forbidden, NotFound, IssuanceClosed, ApiAccessRequired, KeyLimitReached, DuplicateKey,
        DuplicateName, StoreUnavailable; RevocationPending where surplus keys had to go and some node has not
        confirmed it.
        """
        with counted(self._parts.metrics, Operation.CREATE):
            if wanted.kind == "operator" and caller.role is not Role.OPERATOR:
                raise Forbidden("operator keys are made by operators")
            environment = wanted.environment or self._parts.secret_format.environment
            material = self._material(wanted, environment)

            async def work(connection: Connection) -> Deed:
                key = await self._insert(connection, caller, wanted, environment, material)
                after = shown_key(key)
                body = after if material.secret is None else {**after, "secret": material.secret}
                return Deed("key.create", f"key:{key.id}", key.tenant_id, None, after, body, status=201)

            try:
                return await self._parts.mutations.apply(
                    work, caller=caller, target=f"user:{wanted.user_id}", is_narrowing=False
                )
            except OverLimit as over:
                raise await self.converge(caller, wanted.user_id, over.surplus) from over

    async def _insert(
        self,
        connection: Connection,
        caller: Administrator,
        wanted: NewKeyBody,
        environment: str,
        material: _Material,
    ) -> KeyRow:
        owner = await sql.lock_owner(connection, wanted.user_id, caller.tenant_id)
        if owner is None or caller.user_id not in (None, wanted.user_id):
            raise NotFound(f"no user {wanted.user_id!r} in sight")
        if not is_issuance_open(self._parts.settings, owner):
            raise IssuanceClosed(f"tenant {owner.tenant_id!r}")
        if wanted.kind == "user":
            if not owner.has_api_access:
                raise ApiAccessRequired(f"user {wanted.user_id!r}")
            await check_limit(connection, wanted.user_id, self._parts.settings.max_per_user)
        check_future(wanted.expires_at, owner.now)
        key = NewKey(
            id=new_id("key"),
            secret_id=new_id("sec"),
            digest=material.digest,
            prefix=material.prefix,
            tenant_id=owner.tenant_id,
            user_id=wanted.user_id,
            kind=wanted.kind,
            name=wanted.name,
            environment=environment,
            scopes=wanted.scopes,
            expires_at=wanted.expires_at,
        )
        row = await sql.insert(connection, key)
        if material.secret is None and await sql.is_known_secret(connection, material.digests, other_than=[key.id]):
            raise DuplicateKey("the digest is known")
        return row

    def _material(self, wanted: NewKeyBody, environment: str) -> _Material:
        secret_format, peppers = self._parts.format_of(environment), self._parts.peppers
        if wanted.secret_sha256 is None and wanted.prefix is None:
            secret = secret_format.generate()
            stored = peppers.stored_form(sha256_digest(secret.encode()))
            return _Material(secret, stored, (stored,), secret_format.display_prefix(secret))
        if wanted.secret_sha256 is None:
            raise InvalidBody([{"place": "secret_sha256", "message": "It goes with prefix"}], code="invalid_digest")
        shape = f"{secret_format.prefix}_{environment}_"
        if re.fullmatch(re.escape(shape) + "[0-9A-Za-z]{4,8}", wanted.prefix or "") is None:
            message = f"Write the beginning of the secret: {shape} and 4 to 8 letters or digits"
            raise InvalidBody([{"place": "prefix", "message": message}], code="invalid_prefix")
        sha256 = bytes.fromhex(wanted.secret_sha256)
        return _Material(None, peppers.stored_form(sha256), peppers.candidates(sha256), wanted.prefix or "")

    async def converge(self, caller: Administrator, user_id: str, surplus: list[str]) -> KeyLimitReached:
        """Revoke the user's oldest active keys until as many are left as allowed (R216), and say so.

        Each one is a transaction of its own, so that what is not confirmed stays on record under its key.
        Raises StoreUnavailable, RevocationPending.
        """
        limit = self._parts.settings.max_per_user
        revoked: list[str] = []
        last: Answer | None = None
        for key_id in surplus:

            async def work(connection: Connection, key_id: str = key_id) -> Deed:
                await sql.lock_owner(connection, user_id, None)
                active = await sql.active_of_user(connection, user_id)
                if key_id not in active[: max(0, len(active) - limit)]:
                    raise NothingToDo
                before = await sql.lock(connection, key_id, None)
                assert before is not None, "the owner's row is locked"
                after = await sql.revoke(connection, key_id, OVER_LIMIT_REASON)
                return revoke_deed(before, after, OVER_LIMIT_REASON)

            with contextlib.suppress(NothingToDo):
                target = f"key:{key_id}"
                last = await self._parts.mutations.apply(
                    work, caller=caller, target=target, is_narrowing=True, is_answer=False
                )
                revoked.append(key_id)
        return KeyLimitReached(
            f"{user_id!r} had {len(surplus)} too many",
            limit=limit,
            revoked=revoked,
            **({} if last is None else {"propagation": last.shown["propagation"]}),
        )
