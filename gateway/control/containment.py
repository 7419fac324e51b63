"""Containing a leak: a key is ended, and whoever answers for it is told what it was lately used and changed for."""

from typing import Any, Final

from aiohttp import web

from gateway.control import answers, moments
from gateway.control.admin_tokens import Administrator
from gateway.control.authorization import administrator_of
from gateway.control.bodies import RevokeBody
from gateway.control.calls import ADMINISTRATORS, Call, body_of
from gateway.control.deeds import Answer, Deed
from gateway.control.key_operations import Operation, counted
from gateway.control.key_parts import KeyParts, shown_key, shown_retired
from gateway.control.nodes import shown_node
from gateway.control.paths import id_in_path
from gateway.control.problems import NotFound, answered
from gateway.stores.postgres import audit, keys, retired_secrets
from gateway.stores.postgres.connection import Connection
from gateway.stores.postgres.keys import KeyRow
from gateway.stores.postgres.revisions import RevisionLog

MOST_TOLD: Final = 50  # events, and retired secrets; there is a listing of either for all of them
DEFAULT_REASON: Final = "contained"


class Containment:
    """Ends keys that have leaked."""

    def __init__(self, parts: KeyParts) -> None:
        self._parts = parts
        self._revisions = RevisionLog(parts.postgres)

    async def contain(self, caller: Administrator, key_id: str, reason: str | None = None) -> Answer:
        """Revoke the key, unless it is revoked already, and tell what it touched. May be repeated (R221, R222).

        Once this returns no node admits any of its secrets, nor a token that was minted from it (R179), and nodes end
        the streams that it has open (R197). Raises NotFound, StoreUnavailable, RevocationPending.
        """
        target = f"key:{key_id}"
        with counted(self._parts.metrics, Operation.CONTAIN):
            nodes = None if caller.tenant_id is not None else await self._nodes()

            async def work(connection: Connection) -> Deed:
                before = await keys.lock(connection, key_id, caller.tenant_id)
                if before is None:
                    raise NotFound(f"no key {key_id!r} in sight")
                was_revoked = before.status == "revoked"
                said = reason or DEFAULT_REASON
                key = before if was_revoked else await keys.revoke(connection, key_id, said)
                after = shown_key(key) if was_revoked else {**shown_key(key), "revoked_reason": said}
                touched = {**await _touched(connection, key), "nodes": nodes}
                body = {"key": shown_key(key), "was_revoked": was_revoked, "touched": touched}
                return Deed("key.contain", target, key.tenant_id, shown_key(before), after, body)

            return await self._parts.mutations.apply(work, caller=caller, target=target, is_narrowing=True)

    async def _nodes(self) -> list[dict[str, Any]]:
        environment = self._parts.secret_format.environment
        return [shown_node(node) for node in await self._revisions.nodes(environment)]


async def _touched(connection: Connection, key: KeyRow) -> dict[str, Any]:
    """What is known of the key's use. Tokens are not on record: whatever there are, they end with the key."""
    retired = await retired_secrets.page(connection, key.id, after="", limit=MOST_TOLD)
    events = await audit.latest(connection, f"key:{key.id}", limit=MOST_TOLD)
    return {
        "last_used_at": moments.text(key.last_used_at),
        "retired_secrets": [shown_retired(secret) for secret in retired],
        "tokens": None,
        "audit": [event.shown() for event in events],
    }


class ContainmentCalls:
    """The handler of `/v1/keys/{id}/contain`."""

    def __init__(self, containment: Containment) -> None:
        self._containment = containment

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        return (
            Call(
                method="POST",
                path="/v1/keys/{id}/contain",
                handler=self.contain,
                roles=ADMINISTRATORS,
                about="End a leaked key with all that rests on it, and tell what it touched lately",
                body=RevokeBody,
                is_body_optional=True,
                answer=answers.Contained,
            ),
        )

    async def contain(self, request: web.Request) -> web.Response:
        """`POST /v1/keys/{id}/contain`: no node admits the key when this has answered."""
        body = await body_of(request, RevokeBody)
        return answered(await self._containment.contain(administrator_of(request), id_in_path(request), body.reason))
