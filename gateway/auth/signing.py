"""The keys that sign tokens: how they are made, kept, published and used. Ed25519; the rest is PyJWT's.

Must not know: where they are kept, and what a token says.
"""

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import jwt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.errors import GatewayError

ALGORITHM: Final = "EdDSA"
# RFC 9068 2.1. Nothing else that is signed by these keys, for another reader, may pass for a token.
TYPE: Final = "at+jwt"
NONCE_BYTES: Final = 12


class SealBroken(GatewayError):
    """A private part is sealed by another `tokens.sealing_key` than the configured one, or was changed."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs, opened."""

    id: str
    private: Ed25519PrivateKey = field(repr=False)


class Sealer:
    """Seals private parts for their rest in the database: AES-GCM, bound to the key's own id."""

    def __init__(self, sealing_key: str) -> None:
        derived = HKDF(hashes.SHA256(), 32, salt=None, info=b"ostiary signing keys").derive(sealing_key.encode())
        self._cipher = AESGCM(derived)

    def new_key(self, key_id: str) -> tuple[bytes, bytes]:
        """A new key: its public part (32 bytes), and the private one, sealed."""
        private = Ed25519PrivateKey.generate()
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, private.private_bytes_raw(), key_id.encode())
        return private.public_key().public_bytes_raw(), sealed

    def open(self, key_id: str, sealed: bytes) -> Ed25519PrivateKey:
        """The private part again. Raises SealBroken."""
        try:
            raw = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], key_id.encode())
        except (InvalidTag, ValueError) as error:
            raise SealBroken(
                f"tokens.sealing_key does not open the signing key {key_id}: configure the one it was sealed by,"
                f" or withdraw the key: ostiary signing-keys withdraw {key_id} -c FILE"
            ) from error
        return Ed25519PrivateKey.from_private_bytes(raw)


def signed(claims: Mapping[str, Any], key_id: str, private: Ed25519PrivateKey, *, typ: str = TYPE) -> str:
    """A JWS in compact form; an access token, unless `typ` says what else."""
    return jwt.encode(dict(claims), private, algorithm=ALGORITHM, headers={"kid": key_id, "typ": typ})


def published(key_id: str, public: Ed25519PublicKey) -> dict[str, str]:
    """A public key as a member of a JWKS (RFC 7517, RFC 8037)."""
    shown = base64.urlsafe_b64encode(public.public_bytes_raw()).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": ALGORITHM, "kid": key_id, "x": shown}


_HEADER: Final = {"alg": ALGORITHM, "typ": TYPE}


def signer_of(token: bytes) -> str | None:
    """The id of the key by which the token says it is signed.

    None where its head is not exactly one that this gateway writes: another algorithm, `none`, a key of its own or a
    place to fetch one, an extension, all are no token (R168). Nothing in the head is believed but which key to try.
    """
    if not all(map(_is_canonical, token.split(b"."))):
        return None
    try:
        head = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None
    key_id = head.pop("kid", None)
    return key_id if isinstance(key_id, str) and head == _HEADER else None


@cache
def _jws(algorithm: str) -> jwt.PyJWS:
    return jwt.PyJWS(algorithms=[algorithm])


def verified(token: bytes | str, public: Any, algorithm: str = ALGORITHM) -> dict[str, Any] | None:
    """The claims, if that key has signed them, by that algorithm and no other."""
    try:
        claims = json.loads(_jws(algorithm).decode(token, public, algorithms=[algorithm]))
        json.dumps(claims, ensure_ascii=False).encode()  # JSON can spell halves of characters: nobody's name
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def is_meant_for(claims: Mapping[str, Any], audience: str) -> bool:
    """Whether `audience` is the one, or among those, that the claims are for (RFC 7519 4.1.3)."""
    audiences = claims.get("aud")
    return audience in ([audiences] if isinstance(audiences, str) else audiences if isinstance(audiences, list) else ())


def _is_canonical(part: bytes) -> bool:
    """Whether the part is the one way to write what it means: no spare bits are set, so that no two texts are alike."""
    try:
        meant = base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return False
    return base64.urlsafe_b64encode(meant).rstrip(b"=") == part
