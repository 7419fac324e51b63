"""Who has signed in, and until when. The database holds a hash: who reads it cannot take a session over.

A session ends by its own age, or when nobody was seen in it for a while; it is rotated at each sign-in. Whether who has
signed in still may is asked anew for every page.
"""

import contextlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from gateway.auth.secrets import sha256_digest
from gateway.control.portal.attempt import base64url
from gateway.errors import StoreUnavailable
from gateway.settings import PortalSettings
from gateway.stores.postgres import portal_sessions as sql
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.portal_sessions import SessionRow

USER: Final = "user"
ADMIN_TOKEN: Final = "admin_token"  # noqa: S105  # the kind of a session
SECONDS: Final = 3.0  # for one look
SEEN_EVERY_SECONDS: Final = 60.0  # between two notes that a session is in use
_TOKEN_BYTES: Final = 32
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Session:
    """One session: who has signed in (`kind` and `subject`), and what the sign-in said beside that (`facts`)."""

    token: str = field(repr=False)
    kind: str
    subject: str
    facts: Mapping[str, Any]
    created_at: datetime

    @property
    def csrf(self) -> str:
        """What a form of this session carries, and no form of another site can."""
        return base64url(hmac.digest(self.token.encode(), b"ostiary csrf", "sha256"))

    def is_meant_by(self, csrf: str) -> bool:
        """Whether that is what a form of this session carries."""
        return hmac.compare_digest(self.csrf.encode(), csrf.encode())


class Sessions:
    """Begins, finds and ends sessions. Every method raises StoreUnavailable."""

    def __init__(self, postgres: Postgres, settings: PortalSettings) -> None:
        self._postgres = postgres
        self._idle_seconds = settings.idle_seconds
        self._session_seconds = settings.session_seconds

    async def begin(self, kind: str, subject: str, facts: Mapping[str, Any], *, instead_of: str = "") -> str:
        """What a browser is to hold of a new session; the one that it held before ends."""
        token = base64url(secrets.token_bytes(_TOKEN_BYTES))

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                await sql.purge(connection, idle_seconds=self._idle_seconds)
                await sql.delete(connection, sha256_digest(instead_of.encode()))
                await sql.insert(
                    connection,
                    sha256_digest(token.encode()),
                    kind=kind,
                    subject=subject,
                    facts=facts,
                    seconds=self._session_seconds,
                )

        await self._postgres.run(work, seconds=SECONDS)
        return token

    async def find(self, token: str) -> Session | None:
        """The session that a browser holds; None where that is none, or has ended."""
        if _SHAPE.fullmatch(token) is None:
            return None
        digest = sha256_digest(token.encode())
        row = await self._postgres.run(
            lambda c: sql.find(c, digest, idle_seconds=self._idle_seconds, due_seconds=SEEN_EVERY_SECONDS),
            seconds=SECONDS,
            is_read=True,
        )
        if row is None:
            return None
        if row.is_due:
            with contextlib.suppress(StoreUnavailable):  # a database that takes no writes now still shows pages
                await self._postgres.run(lambda c: sql.touch(c, digest), seconds=SECONDS)
        return Session(token, row.kind, row.subject, row.facts, row.created_at)

    async def of(self, session: Session) -> Sequence[SessionRow]:
        """All sessions of the same person, the latest first."""
        return await self._postgres.run(
            lambda c: sql.of_subject(c, session.kind, session.subject, idle_seconds=self._idle_seconds),
            seconds=SECONDS,
            is_read=True,
        )

    async def end(self, session: Session) -> None:
        """End it: what the browser holds is worth nothing from now on."""
        digest = sha256_digest(session.token.encode())
        await self._postgres.run(lambda c: sql.delete(c, digest), seconds=SECONDS)

    async def end_all(self, session: Session) -> None:
        """End all sessions of the same person, this one as well."""
        await self._postgres.run(lambda c: sql.delete_all(c, session.kind, session.subject), seconds=SECONDS)
