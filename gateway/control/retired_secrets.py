"""Retired secrets: listed, and their windows ended, extended or reopened. Must not know: HTTP."""

from datetime import datetime

from gateway.control import moments
from gateway.control.admin_tokens import Administrator
from gateway.control.deeds import Answer, Deed
from gateway.control.key_operations import Operation, counted
from gateway.control.key_parts import READ_SECONDS, KeyParts, check_kind, own, shown_retired
from gateway.control.keys import KeyRevoked
from gateway.control.mutations import Judge
from gateway.control.problems import NotFound
from gateway.stores.postgres import keys
from gateway.stores.postgres import retired_secrets as sql
from gateway.stores.postgres.connection import Connection
from gateway.stores.postgres.retired_secrets import RetiredSecretRow
from gateway.stores.postgres.time import has_passed


class RetiredSecrets:
    """What may be done to retired secrets. Every method raises NotFound and StoreUnavailable."""

    def __init__(self, parts: KeyParts) -> None:
        self._parts = parts

    async def page(self, caller: Administrator, key_id: str, *, after: str = "", limit: int) -> list[RetiredSecretRow]:
        """Up to `limit` retired secrets of the key after the id `after`, oldest first."""

        async def work(connection: Connection) -> list[RetiredSecretRow]:
            own(await keys.find(connection, key_id, caller.tenant_id), caller, key_id)
            return await sql.page(connection, key_id, after=after, limit=limit)

        return await self._parts.postgres.run(work, seconds=READ_SECONDS, is_read=True)

    async def open_of(self, user_id: str) -> list[RetiredSecretRow]:
        """The retired secrets of all keys of a user that still work."""
        return await self._parts.postgres.run(
            lambda c: sql.open_of_user(c, user_id), seconds=READ_SECONDS, is_read=True
        )

    async def set_window(self, caller: Administrator, secret_id: str, expires_at: datetime) -> Answer:
        """Move the end of the window (R120): the past or the present ends it, the future extends or reopens it.

        Other windows of the key stay as they are (R096).
        Raises KeyRevoked; RevocationPending where the end comes nearer.
        """
        target = f"secret:{secret_id}"

        async def work(connection: Connection, judge: Judge) -> Deed:
            seen = await sql.find(connection, secret_id, caller.tenant_id)
            if seen is None:
                raise NotFound(f"no retired secret {secret_id!r} in sight")
            key = own(await keys.lock(connection, seen.key_id, caller.tenant_id), caller, seen.key_id)
            secret = await sql.lock(connection, secret_id)
            if secret is None:
                raise NotFound(f"{secret_id!r} was deleted meanwhile")
            check_kind(key, caller)
            if key.status == "revoked":
                raise KeyRevoked(key.id)
            # An end in the past narrows even where it moves forward: the earlier call may not have been confirmed.
            is_over = await has_passed(connection, expires_at)
            judge.declare(is_narrowing=is_over or expires_at < secret.expires_at)
            row = await sql.set_window(connection, secret_id, expires_at)
            body = {"id": row.id, "key_id": row.key_id, "expires_at": moments.text(row.expires_at)}
            before, after = shown_retired(secret), shown_retired(row)
            return Deed("retired_secret.set_window", target, key.tenant_id, before, after, body)

        with counted(self._parts.metrics, Operation.SET_WINDOW):
            return await self._parts.mutations.apply_judged(work, caller=caller, target=target)
