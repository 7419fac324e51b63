"""`POST /.ostiary/tokens` and `GET /.ostiary/jwks.json`: access tokens are minted, and can be verified by anybody.

The proxy has admitted the caller by a key or a retired secret (no token is accepted on that path), and tells which key
it is; everything that the token says is read from the database, in one snapshot (R143).
"""

import math
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.auth.scopes import lacking
from gateway.auth.signing import SealBroken, Sealer, signed
from gateway.auth.tokens import LONGEST_TOKEN, Signers
from gateway.control import moments
from gateway.control.bodies import TokenBody, read_body
from gateway.control.ids import new_id
from gateway.control.problems import InvalidBody, Problem, reply
from gateway.errors import Outage
from gateway.settings import TokenSettings
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.signing_keys import MintingRow, for_minting
from gateway.telemetry.metrics import Metrics

MINT_SECONDS: Final = 2.0
JWKS_CACHE: Final = (
    "public, max-age=60"  # a new key is published long before it signs; a withdrawn one must be gone soon
)


class KeyGone(Problem):
    """The key has ended since it was admitted."""

    code = "invalid_api_key"
    status = 401
    public = "The API key is not known here."

    def __init__(self, reason: str) -> None:
        super().__init__(reason, headers={"WWW-Authenticate": 'Bearer realm="api"'})


class ScopesDenied(Problem):
    """The caller asks for scopes that the key does not have (R147)."""

    code = "insufficient_scope"
    status = 403
    public = "This API key does not have all of the scopes that the token is to have. See `denied`."


class Mint:
    """Makes tokens."""

    def __init__(
        self,
        postgres: Postgres,
        sealer: Sealer,
        signers: Signers,
        settings: TokenSettings,
        *,
        environment: str,
        key_id_header: str,
        metrics: Metrics,
    ) -> None:
        self._postgres = postgres
        self._sealer = sealer
        self._signers = signers
        self._settings = settings
        self._environment = environment
        self._key_id_header = key_id_header
        self._operations = metrics.key_operations
        self._opened: tuple[str, Ed25519PrivateKey] | None = None

    async def mint(self, request: web.Request) -> web.Response:
        """A token for the caller's key, bound to the secret that is current now (R140 to R149)."""
        body = await read_body(request, TokenBody)
        key_id = request.headers[self._key_id_header]
        row = await self._postgres.run(
            lambda connection: for_minting(connection, self._environment, key_id), seconds=MINT_SECONDS, is_read=True
        )
        if row is None:
            if not self._signers.is_loaded:
                raise Outage("there is no signing key yet")
            raise KeyGone(f"{key_id} is gone since it was admitted")
        claims = self._claims(key_id, row, body)
        token = signed(claims, row.signer_id, self._private(row))
        if len(token) > LONGEST_TOKEN:
            raise InvalidBody([{"place": "scopes", "message": "Name fewer: the token would be too long"}])
        self._operations.labels("mint_token", "done").inc()
        ends_at = datetime.fromtimestamp(claims["exp"], UTC)
        return reply({"token": token, "expires_at": moments.text(ends_at)}, status=201)

    def _claims(self, key_id: str, row: MintingRow, body: TokenBody) -> dict[str, Any]:
        now = math.floor(row.now)
        ends_at = now + (body.expires_in or self._settings.default_seconds)
        if row.key_expires_at is not None and row.key_expires_at < ends_at:
            ends_at = math.floor(row.key_expires_at)  # R145: a token does not outlive its key
        if ends_at <= now:
            raise KeyGone(f"{key_id} ends within a second")
        return {
            "iss": self._settings.issuer,
            "aud": body.audience or self._settings.audience,
            "sub": row.user_id,
            "tenant": row.tenant_id,
            "key": key_id,
            "secret": row.secret_id,
            "env": self._environment,
            "scopes": _granted(row, body),
            "iat": now,
            "exp": ends_at,
            "jti": new_id("tok"),
            **({"once": True} if body.once else {}),
        }

    def _private(self, row: MintingRow) -> Ed25519PrivateKey:
        """The key that signs; the last one is kept open."""
        if self._opened is None or self._opened[0] != row.signer_id:
            try:
                self._opened = row.signer_id, self._sealer.open(row.signer_id, row.sealed_key)
            except SealBroken as error:
                raise Outage(str(error)) from error
        return self._opened[1]

    async def jwks(self, request: web.Request) -> web.Response:
        """The public keys, the next one included. Open to all."""
        response = reply(self._signers.shown())
        response.headers["Cache-Control"] = JWKS_CACHE
        response.headers["Access-Control-Allow-Origin"] = "*"
        return response


def _granted(row: MintingRow, body: TokenBody) -> list[str]:
    """The scopes that are asked for, if the key has them; all that it has where none are named. Raises a Problem."""
    if body.scopes is None:
        return list(row.scopes)
    if not body.scopes and row.scopes:
        raise InvalidBody([{"place": "scopes", "message": "Name at least one"}], code="invalid_scopes")
    denied = lacking(row.scopes, body.scopes)
    if denied:
        raise ScopesDenied(f"{denied} of {row.scopes}", denied=denied)
    return list(body.scopes)
