"""GitHub's public keys for its secret scanning, and whether a message is signed by one of them."""

import asyncio
import base64
import binascii
from collections.abc import Callable
from math import inf
from typing import Any, Final

import aiohttp
import structlog
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gateway.control.fetching import NotFetched, fetched_json
from gateway.errors import Outage

FETCH_SECONDS: Final = 5.0
KEPT_SECONDS: Final = 3600.0  # a key that GitHub has withdrawn is believed for no longer
AGAIN_SECONDS: Final = 30.0  # anybody may send an unknown key's name: it is not a way to make us ask GitHub at will
LARGEST_ANSWER_BYTES: Final = 256 * 1024

log = structlog.get_logger(__name__)


class KeySourceUnavailable(Outage):
    """The public keys cannot be had now: nobody can tell who has signed."""

    code = "key_source_unavailable"
    public = "The sender's public keys cannot be fetched right now. Send this again later."
    retry_after_seconds = 30


class GithubKeys:
    """The keys behind `url`, fetched when they are needed and kept for an hour."""

    def __init__(self, url: str, monotonic: Callable[[], float]) -> None:
        self._url = url
        self._monotonic = monotonic
        self._keys: dict[str, EllipticCurvePublicKey] = {}
        self._fetched_at = -inf
        self._tried_at = -inf
        self._is_failing = False
        self._fetching = asyncio.Lock()

    async def find(self, key_id: str) -> EllipticCurvePublicKey | None:
        """The key of this name; None where there is none. Raises KeySourceUnavailable."""
        async with self._fetching:
            now = self._monotonic()
            is_due = now >= self._fetched_at + KEPT_SECONDS or key_id not in self._keys
            if is_due and now >= self._tried_at + AGAIN_SECONDS:
                self._tried_at = now
                self._is_failing = not await self._fetch()
            is_old = self._monotonic() >= self._fetched_at + KEPT_SECONDS
            key = None if is_old else self._keys.get(key_id)
            if is_old or (key is None and self._is_failing):
                raise KeySourceUnavailable("the public keys could not be fetched; not asked for again for a while")
            return key

    async def _fetch(self) -> bool:
        """Whether the keys are those of now."""
        try:
            timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
            async with aiohttp.ClientSession(timeout=timeout) as session:
                answer = await fetched_json(session, self._url, limit_bytes=LARGEST_ANSWER_BYTES)
            keys = keys_of(answer)
        except (NotFetched, aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.warning("public_keys_not_fetched", reason=f"{type(error).__name__}: {error}")
            return False
        self._keys, self._fetched_at = keys, self._monotonic()
        return True


def is_signed(raw: bytes, signature: str, key: EllipticCurvePublicKey) -> bool:
    """Whether the signature (base64 of DER) is that key's, over exactly these bytes: ECDSA with SHA-256."""
    try:
        key.verify(base64.b64decode(signature, validate=True), raw, ECDSA(SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def keys_of(answer: Any) -> dict[str, EllipticCurvePublicKey]:
    """The P-256 keys of GitHub's answer, by name. Raises ValueError where there is none."""
    items = answer.get("public_keys") if isinstance(answer, dict) else None
    keys: dict[str, EllipticCurvePublicKey] = {}
    for item in items if isinstance(items, list) else ():
        name, text = (item.get(field) if isinstance(item, dict) else None for field in ("key_identifier", "key"))
        if isinstance(name, str) and isinstance(text, str):
            try:
                key = load_pem_public_key(text.encode())
            except (ValueError, UnsupportedAlgorithm):
                continue  # of a kind that is not known here; the others are
            if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
                keys[name] = key
    if not keys:
        raise ValueError("no key in the answer")
    return keys
