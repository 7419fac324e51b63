"""Admin tokens: who may call the management API. `osta_<base62, 40 characters><crc32 as 6 base62>`, hashed at rest.

The prefix holds no environment, so that a token can never have the shape of a key. A token is looked up for every call,
without any cache: what was revoked is refused at once (R129, R274).
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import structlog

from gateway.auth.secrets import (
    CHECKSUM_CHARACTERS,
    SHOWN_CHARACTERS,
    SecretFormat,
    checksum,
    random_base62,
    sha256_digest,
)
from gateway.control import moments
from gateway.control.deeds import BY_TOKEN, Deed, Origin, of_command, record
from gateway.control.idempotency import Once
from gateway.control.ids import new_id
from gateway.control.problems import InvalidBody, NotFound, TenantSuspended
from gateway.errors import Outage
from gateway.stores.postgres import admin_tokens as sql
from gateway.stores.postgres.admin_tokens import AdminTokenRow
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.time import has_passed

PREFIX = "osta"
RANDOM_CHARACTERS = 40  # 238 bits
SECONDS = 3.0  # for one lookup or change; an operator waits for it

_SHAPE = re.compile(rf"{PREFIX}_[0-9A-Za-z]{{{32 + CHECKSUM_CHARACTERS},{128 + CHECKSUM_CHARACTERS}}}")

log = structlog.get_logger(__name__)


class Role(StrEnum):
    """What the bearer of an admin token may do."""

    OPERATOR = "operator"  # everything
    TENANT_ADMIN = "tenant-admin"  # users, keys and retired secrets of one tenant
    AUDITOR = "auditor"  # reads everything


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who is calling. `tenant_id` is the only tenant that exists for them, or None for all.

    `origin` goes on record. `once` is there where the request has an Idempotency-Key. Users who look after their own
    keys have no role, and `user_id` is then the only user whose keys exist for them. `token_id` tells callers apart.
    """

    token_id: str
    role: Role | None
    tenant_id: str | None
    origin: Origin
    once: Once | None = None
    user_id: str | None = None


async def still_stands(connection: Connection, caller: Administrator) -> bool:
    """Whether the token that was recognised a moment ago still says the same; it does until the transaction ends."""
    assert caller.role is not None, "whoever calls with a token has its role"
    return await sql.hold(connection, caller.token_id, caller.role, caller.tenant_id)


def generate() -> str:
    """A new admin token."""
    body = f"{PREFIX}_{random_base62(RANDOM_CHARACTERS)}"
    return body + checksum(body)


def is_well_formed(token: str) -> bool:
    """Whether shape and checksum fit. No I/O."""
    return _SHAPE.fullmatch(token) is not None and SecretFormat.has_checksum(token.encode())


def shown(token: AdminTokenRow) -> dict[str, Any]:
    """The token as it may be shown: never its digest."""
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role,
        "tenant_id": token.tenant_id,
        "prefix": token.prefix,
        "status": token.status,
        "created_at": moments.text(token.created_at),
        "expires_at": moments.text(token.expires_at),
        "revoked_at": moments.text(token.revoked_at),
        "last_used_at": moments.text(token.last_used_at),
    }


def _deed(act: str, before: AdminTokenRow | None, after: AdminTokenRow) -> Deed:
    return Deed(
        f"admin_token.{act}",
        f"admin_token:{after.id}",
        after.tenant_id,
        None if before is None else shown(before),
        shown(after),
    )


class AdminTokens:
    """Makes, lists, revokes and recognises admin tokens. Every method raises StoreUnavailable.

    No call of the API makes or revokes one: what is put on record is the command's doing.
    """

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def create(
        self, *, name: str, role: Role, tenant_id: str | None, expires_at: datetime | None
    ) -> tuple[AdminTokenRow, str]:
        """A new token and its text, which nothing can show again. Raises InvalidBody, UnknownTenant."""
        if (role is Role.TENANT_ADMIN) != (tenant_id is not None):
            raise InvalidBody(
                [{"place": "tenant_id", "message": "Name a tenant for the role tenant-admin, and for no other"}],
                code="invalid_tenant_id",
            )
        token = generate()

        async def work(connection: Connection) -> AdminTokenRow:
            if await has_passed(connection, expires_at):
                raise InvalidBody(
                    [{"place": "expires_at", "message": "Name a moment in the future"}], code="invalid_expires_at"
                )
            row = await sql.insert(
                connection,
                token_id=new_id("adm"),
                name=name,
                role=role,
                tenant_id=tenant_id,
                prefix=token[: len(PREFIX) + 1 + SHOWN_CHARACTERS],
                digest=sha256_digest(token.encode()),
                expires_at=expires_at,
            )
            await record(connection, _deed("create", None, row), of_command())
            return row

        return await self._in_transaction(work), token

    async def list(self) -> list[AdminTokenRow]:
        """All tokens, oldest first."""
        return await self._postgres.run(sql.page, seconds=SECONDS, is_read=True)

    async def revoke(self, token_id: str) -> AdminTokenRow:
        """Revoke for good; repeating it changes nothing. Raises NotFound."""

        async def work(connection: Connection) -> AdminTokenRow:
            before = await sql.lock(connection, token_id)
            if before is None:
                raise NotFound(f"no admin token {token_id!r}")
            row = await sql.revoke(connection, token_id)
            await record(connection, _deed("revoke", before, row), of_command())
            return row

        return await self._in_transaction(work)

    async def _in_transaction(self, work: Callable[[Connection], Awaitable[AdminTokenRow]]) -> AdminTokenRow:
        async def transaction(connection: Connection) -> AdminTokenRow:
            async with connection.transaction():
                return await work(connection)

        return await self._postgres.run(transaction, seconds=SECONDS)

    async def recognise(self, token: str) -> Administrator | None:
        """Who bears this token; None for one that is malformed (without I/O), unknown, revoked or expired.

        Raises TenantSuspended (R279).
        """
        if not is_well_formed(token):
            return None
        digest = sha256_digest(token.encode())
        return await self._standing(lambda c: sql.find_by_digest(c, digest))

    async def find(self, token_id: str) -> Administrator | None:
        """Whose this token is, which was recognised before; None where it has been revoked or has expired since.

        Raises TenantSuspended (R279).
        """
        return await self._standing(lambda c: sql.find(c, token_id))

    async def _standing(self, find: Callable[[Connection], Awaitable[sql.Found | None]]) -> Administrator | None:
        found = await self._postgres.run(find, seconds=SECONDS, is_read=True)
        if found is None or found.token.status != "active":
            return None
        row = found.token
        if not found.is_tenant_active:
            raise TenantSuspended(f"tenant {row.tenant_id!r} of {row.id}")
        if found.is_due:
            await self._record_use(row.id)
        return Administrator(row.id, Role(row.role), row.tenant_id, Origin(BY_TOKEN, row.id, row.name))

    async def _record_use(self, token_id: str) -> None:
        try:
            await self._postgres.run(lambda c: sql.record_use(c, token_id), seconds=SECONDS)
        except Outage as error:
            # Bookkeeping decides nothing (R076).
            log.warning("use of an admin token not recorded", token_id=token_id, reason=str(error))
