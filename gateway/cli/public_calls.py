"""Calls of a gateway's public endpoints, and what a token says by itself."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.auth.signing import verified
from gateway.cli.failures import ApiUnreachable, CallRefused
from gateway.control.public import JWKS, TOKENS
from gateway.errors import Fault, GatewayError

CALL_SECONDS: Final = 10.0


class NoTokens(GatewayError):
    """A gateway without access tokens."""

    code = "no_access_tokens"
    status = 404
    fault = Fault.CLIENT

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.public = f"The gateway at {url} has no access tokens."


@dataclass(frozen=True, slots=True)
class Said:
    """A token, read and not yet believed."""

    raw: bytes
    signer_id: str | None
    claims: dict[str, Any]


async def mint_at(url: str, header: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
    """A new token. Raises ApiUnreachable, CallRefused."""
    value = f"Bearer {key}" if header.lower() == "authorization" else key
    return await _called("POST", url, TOKENS, headers={header: value}, json=body)


async def jwks_at(url: str) -> dict[str, Any]:
    """The public keys of a gateway. Raises ApiUnreachable, CallRefused."""
    return await _called("GET", url, JWKS)


def read(token: str) -> Said | None:
    """What a token says; None for what is none."""
    try:
        whole = jwt.decode_complete(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return None
    signer_id = whole["header"].get("kid")
    return Said(token.encode(), signer_id if isinstance(signer_id, str) else None, dict(whole["payload"]))


def verified_by(jwks: dict[str, Any], said: Said) -> bool:
    """Whether one of these keys has signed it."""
    for one in jwks.get("keys", []):
        if one.get("kid") == said.signer_id:
            try:
                raw = base64.urlsafe_b64decode(str(one["x"]) + "==")
                return verified(said.raw, Ed25519PublicKey.from_public_bytes(raw)) is not None
            except (KeyError, ValueError, binascii.Error):
                return False
    return False


async def _called(method: str, url: str, path: str, **how: Any) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url + path, **how) as response,
        ):
            answer = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ApiUnreachable(url, type(error).__name__, "gateway") from error
    if not isinstance(answer, dict):
        raise ApiUnreachable(url, f"{response.status} without an object", "gateway")
    if response.status == 404:
        raise NoTokens(url)
    if response.status >= 400:
        raise CallRefused(response.status, answer)
    return answer
