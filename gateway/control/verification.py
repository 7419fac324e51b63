"""Whether a secret would be admitted now, for an administrator who holds it. Nothing is used by this, and no use noted.

It decides as admission does, by the same functions, but by what Postgres says this moment and by no cache.
"""

from typing import Any

from aiohttp import web

from gateway.auth.credentials import Credential, CredentialReader
from gateway.auth.refusal import Reason
from gateway.auth.verdict import refusal_at
from gateway.control import answers
from gateway.control.admin_tokens import Administrator
from gateway.control.authorization import administrator_of
from gateway.control.bodies import VerifyBody
from gateway.control.call_rate import CallRate, TooManyCalls
from gateway.control.calls import ADMINISTRATORS, Call, body_of
from gateway.control.key_operations import Operation, counted
from gateway.control.key_parts import READ_SECONDS, KeyParts, shown_key
from gateway.control.moments import of_epoch, text
from gateway.control.problems import reply
from gateway.stores.postgres import keys as sql
from gateway.stores.postgres.connection import Connection
from gateway.stores.postgres.keys import KeyRow
from gateway.stores.postgres.lookup import KeyLookup
from gateway.stores.postgres.time import now

UNKNOWN: dict[str, Any] = {
    "valid": False,
    "code": Reason.INVALID_API_KEY.value,
    "key_id": None,
    "secret_state": None,
    "secret_expires_at": None,
    "key": None,
}


class Verification:
    """Answers what a secret is worth."""

    def __init__(self, parts: KeyParts) -> None:
        self._parts = parts
        self._reader = CredentialReader(parts.secret_format)
        self._lookup = KeyLookup(parts.postgres)

    async def verify(self, caller: Administrator, secret: str) -> dict[str, Any]:
        """What the secret is worth: `valid`, or the `code` that a request with it would be refused by (R277).

        Whether a route asks for more (scopes, features, a tier, an address) is another question. A malformed secret
        asks no store (R006); one of another tenant than the caller's is as unknown (R272). Raises StoreUnavailable.
        """
        with counted(self._parts.metrics, Operation.VERIFY):
            credential = self._reader.read_more(None, (secret.encode(),))
            if not isinstance(credential, Credential):
                return UNKNOWN
            finding = await self._lookup.find(self._parts.peppers.candidates(credential.digest))
            record = finding.record
            if record is None or caller.tenant_id not in (None, record.tenant_id):
                return UNKNOWN

            async def work(connection: Connection) -> tuple[KeyRow | None, float]:
                return await sql.find(connection, record.key_id, record.tenant_id), await now(connection)

            key, at = await self._parts.postgres.run(work, seconds=READ_SECONDS, is_read=True)
            if key is None:  # deleted since
                return UNKNOWN
            refusal = refusal_at(record, self._parts.secret_format.environment, at)
            return {
                "valid": refusal is None,
                "code": None if refusal is None else refusal.reason.value,
                "key_id": key.id,
                "secret_state": record.secret_state.value,
                "secret_expires_at": text(of_epoch(record.secret_expires_at)),
                "key": shown_key(key),
            }


class VerifyCalls:
    """The handler of `/v1/keys/verify`."""

    def __init__(self, verification: Verification, rate: CallRate) -> None:
        self._verification = verification
        self._rate = rate

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        return (
            Call(
                method="POST",
                path="/v1/keys/verify",
                handler=self.verify,
                roles=ADMINISTRATORS,
                about="Tell what a secret is worth now, without using it",
                body=VerifyBody,
                answer=answers.Verified,
                problems=(TooManyCalls,),
            ),
        )

    async def verify(self, request: web.Request) -> web.Response:
        """`POST /v1/keys/verify`: the secret is in the body, which nothing logs, and never in the reply."""
        caller = administrator_of(request)
        self._rate.take(caller.token_id)
        body = await body_of(request, VerifyBody)
        return reply(await self._verification.verify(caller, body.secret.get_secret_value()))
