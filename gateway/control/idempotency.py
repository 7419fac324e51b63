"""Idempotency-Key: a repeat gets the reply of the first request, its secret included (R301).

The reply is kept by the mutation's own transaction: either both are committed or neither, so no crash loses a secret
that is shown once. Kept is only what was done; a call that was refused has changed nothing, and is tried anew.

The database holds a hash of the key and what only the key unseals: whoever reads the database alone must guess it. So
the secrecy of a kept secret is that of its Idempotency-Key, for a day: make keys at random.
"""

import hashlib
import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.control.deeds import Shown
from gateway.errors import Fault, GatewayError, StoreUnavailable
from gateway.stores.postgres import idempotency as sql
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.idempotency import SealedReply

LOOKUP_SECONDS = 3.0

_KEY_SHAPE = re.compile(r"[\x20-\x7e]{1,255}")
_KEY_BYTES = 32
_SALT_BYTES = 16
_NONCE = bytes(12)  # each encryption key seals one reply alone: its salt is new
_PURPOSE = b"ostiary idempotent reply"


class InvalidIdempotencyKey(GatewayError):
    """The header is there, and is not what it must be."""

    code = "invalid_idempotency_key"
    status = 400
    fault = Fault.CLIENT
    public = "Send one Idempotency-Key of 1 to 255 ASCII characters, none of them a control character."


class IdempotencyKeyReused(GatewayError):
    """The key came before, with another body."""

    code = "idempotency_key_reused"
    status = 422
    fault = Fault.CLIENT
    public = "This Idempotency-Key came with another body before. Use a new one for a new request."


@dataclass(frozen=True, slots=True)
class KeptReply:
    """A reply as it is kept: without its `propagation`, which is a new one each time.

    `target` is what the mutation was about; `must_confirm`: what its target has in the outbox has to be confirmed
    before it may be answered.
    """

    status: int
    body: Shown | None = field(repr=False)
    target: str
    is_narrowing: bool
    must_confirm: bool


class AlreadyAnswered(GatewayError):
    """A signal out of the transaction: the reply is there. Of this family, so that the connection stays in the pool."""

    def __init__(self, reply: KeptReply) -> None:
        super().__init__()
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Once:
    """One Idempotency-Key of one administrator at one address, and the request that came with it."""

    key: bytes = field(repr=False)
    lookup: bytes = field(repr=False)
    fingerprint: str

    @classmethod
    def of(cls, key: str, *, actor: str, method: str, path: str, body: bytes) -> "Once":
        """`key` as it was sent. Raises InvalidIdempotencyKey."""
        if _KEY_SHAPE.fullmatch(key) is None:
            raise InvalidIdempotencyKey
        scope = json.dumps([_PURPOSE.decode(), actor, method, path, key]).encode()
        return cls(key.encode(), hashlib.sha256(scope).digest(), hashlib.sha256(body).hexdigest())

    async def answered(self, postgres: Postgres) -> KeptReply | None:
        """The reply that was given before. Raises IdempotencyKeyReused, StoreUnavailable."""
        found = await postgres.run(lambda c: sql.find(c, self.lookup), seconds=LOOKUP_SECONDS, is_read=True)
        return None if found is None else self._unsealed(found)

    async def claim(self, connection: Connection) -> None:
        """Make sure, until the end of the transaction, that no other request is answered under the key.

        Raises AlreadyAnswered, IdempotencyKeyReused, RequestInFlight.
        """
        found = await sql.claim(connection, self.lookup)
        if found is not None:
            raise AlreadyAnswered(self._unsealed(found))

    async def keep(self, connection: Connection, reply: KeptReply) -> None:
        """Keep the reply of the transaction."""
        salt = secrets.token_bytes(_SALT_BYTES)
        text = {
            "fingerprint": self.fingerprint,
            "status": reply.status,
            "body": reply.body,
            "target": reply.target,
            "is_narrowing": reply.is_narrowing,
            "must_confirm": reply.must_confirm,
        }
        sealed = self._cipher(salt).encrypt(_NONCE, json.dumps(text).encode(), self.lookup)
        await sql.keep(connection, self.lookup, SealedReply(salt, sealed))

    def _unsealed(self, found: SealedReply) -> KeptReply:
        try:
            text: dict[str, Any] = json.loads(self._cipher(found.salt).decrypt(_NONCE, found.sealed, self.lookup))
        except InvalidTag as error:
            raise StoreUnavailable("Postgres: a kept reply was altered") from error
        if text["fingerprint"] != self.fingerprint:
            raise IdempotencyKeyReused
        return KeptReply(text["status"], text["body"], text["target"], text["is_narrowing"], text["must_confirm"])

    def _cipher(self, salt: bytes) -> AESGCM:
        return AESGCM(HKDF(SHA256(), _KEY_BYTES, salt, _PURPOSE).derive(self.key))
