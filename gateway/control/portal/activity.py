"""What was done by a user and to what is theirs: read from the audit trail, told in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from gateway.control.people import Person
from gateway.control.portal.words import ACTIONS
from gateway.stores.postgres import audit as sql
from gateway.stores.postgres.audit import AuditRow
from gateway.stores.postgres.connection import Postgres

READ_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Told:
    """One event in words. `address` is told of what the user has done; of others it is none of theirs."""

    id: int
    at: datetime
    action: str
    subject: str
    actor: str
    address: str | None
    detail: str | None


class Activity:
    """Reads it. Every method raises StoreUnavailable."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def of(self, person: Person, *, before: int | None, limit: int) -> Sequence[Told]:
        """Up to `limit` events about this person, the latest first."""
        user = person.user
        rows = await self._postgres.run(
            lambda c: sql.of_user(c, user.id, user.tenant_id, before=before or sql.LATEST, limit=limit),
            seconds=READ_SECONDS,
            is_read=True,
        )
        return [_told(row, user.id) for row in rows]

    async def of_key(self, person: Person, key_id: str, *, limit: int) -> Sequence[Told]:
        """Up to `limit` events about a key of this person, the latest first."""
        rows = await self._postgres.run(
            lambda c: sql.latest(c, f"key:{key_id}", limit=limit), seconds=READ_SECONDS, is_read=True
        )
        return [_told(row, person.user.id) for row in rows]


def _told(row: AuditRow, user_id: str) -> Told:
    event = row.members
    actor: Mapping[str, Any] = event["actor"]
    is_own = (actor["kind"], actor["id"]) == ("user", user_id)
    about: Mapping[str, Any] = event["after"] or event["before"] or {}
    return Told(
        row.id,
        datetime.fromisoformat(event["at"]),
        ACTIONS.get(event["action"], str(event["action"])),
        str(about.get("name") or about.get("plan") or about.get("prefix") or about.get("id") or ""),
        "You" if is_own else "Ostiary" if actor["kind"] == "node" else "An administrator",
        event["address"] if is_own else None,
        about.get("revoked_reason"),
    )
