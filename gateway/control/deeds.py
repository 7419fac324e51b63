"""What a mutation did: for the record, and for whoever asked. Must not know: HTTP, and what is propagated.

The audit trail is written here and nowhere else, in the transaction of what it tells (R110, R314): what cannot be put
on record does not happen.
"""

import getpass
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.stores.postgres.audit import NewEvent, append, append_all
from gateway.stores.postgres.connection import Connection

Shown = Mapping[str, Any]
BY_TOKEN: Final = "admin_token"  # noqa: S105  # the kind of who calls with one


@dataclass(frozen=True, slots=True)
class Origin:
    """Who does something, whence, in which request. `kind` is `admin_token`, `user`, `command` or `node`."""

    kind: str
    id: str
    name: str
    address: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Deed:
    """What one transaction did. `before` and `after` are objects of the API, without secrets: they go on record.

    `status` and `body` are the reply, but for its `propagation`; the body may show a secret, this once. None: no body.
    """

    action: str
    target: str
    tenant_id: str | None
    before: Shown | None
    after: Shown | None
    body: Shown | None = field(default=None, repr=False)
    status: int = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to a mutation that was done, and whether it is that of an earlier request (R301)."""

    status: int
    body: dict[str, Any] | None = field(repr=False)
    is_replayed: bool = False

    @property
    def shown(self) -> dict[str, Any]:
        """The body of a reply that has one."""
        assert self.body is not None
        return self.body


def of_command() -> Origin:
    """The origin of what a command does straight in the database: the operating system's user."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user without an entry, as in many containers
        name = f"uid {os.getuid()}"
    return Origin("command", "cli", name)


async def record(connection: Connection, deed: Deed, origin: Origin) -> None:
    """Put the deed on record, as the last thing that its transaction does."""
    await append(connection, _event(deed, origin))


async def record_all(connection: Connection, deeds: Sequence[Deed], origin: Origin) -> None:
    """Put the deeds of bulk work on record, each as an event of its own."""
    await append_all(connection, [_event(deed, origin) for deed in deeds])


def _event(deed: Deed, origin: Origin) -> NewEvent:
    return NewEvent(
        actor_kind=origin.kind,
        actor_id=origin.id,
        actor_name=origin.name,
        address=origin.address,
        action=deed.action,
        target=deed.target,
        tenant_id=deed.tenant_id,
        before=deed.before,
        after=deed.after,
        request_id=origin.request_id,
    )
