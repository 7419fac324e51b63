"""Access tokens: what they say, and whether to believe it. Asks no store: what it needs is in memory (R162).

Whether the key behind a token still stands is another question, for admission.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.auth.refusal import Reason, Refusal
from gateway.auth.signing import SigningKey, is_meant_for, published, signer_of, verified
from gateway.errors import Outage

LONGEST_TOKEN: Final = 4096  # some twice of what 64 scopes take
SETTLE_SECONDS: Final = 1.0  # for the signing keys to be read, once they are known to have changed
SIGNER: Final = "signer:"
SHAPE: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")

INVALID_TOKEN: Final = Refusal(Reason.INVALID_TOKEN)
TOKEN_EXPIRED: Final = Refusal(Reason.TOKEN_EXPIRED)
TOKEN_USED: Final = Refusal(Reason.TOKEN_USED)
TOKEN_NOT_ALLOWED: Final = Refusal(Reason.TOKEN_NOT_ALLOWED)


def is_token(credential: bytes) -> bool:
    """Whether it has the shape of a token, good or bad. No key has: there is no dot in one."""
    return SHAPE.fullmatch(credential) is not None


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says that is signed by this gateway, for it. `ends_at` is in database time, leeway included.

    `is_once`: it is for one request (R149).
    """

    signer_id: str
    key_id: str
    secret_id: str
    user_id: str
    tenant_id: str
    scopes: frozenset[str]
    ends_at: float
    token_id: str
    is_once: bool = False

    @property
    def subjects(self) -> tuple[str, ...]:
        """What it depends on, even where nothing stands behind it."""
        return (f"key:{self.key_id}", SIGNER + self.signer_id)


@dataclass(frozen=True, slots=True)
class Disproved:
    """A token that is none, and what would have to change for it to be one."""

    refusal: Refusal
    subjects: tuple[str, ...] = ()


class Signers:
    """The public keys that are believed now, and those of the next rotation. They are read again when told of changes.

    A withdrawn key is dropped at once; until the keys have been read again, a token of one that is not known here
    waits, since it may be a new one.

    `current` is the key by which this node signs what it tells upstreams; None while it is not known which.
    """

    def __init__(self) -> None:
        self.current: SigningKey | None = None
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._told = 1
        self._taken = 0
        self._settled = asyncio.Event()
        self.news = asyncio.Event()

    @property
    def is_loaded(self) -> bool:
        """Whether the keys have been read since the start."""
        return self._taken > 0

    def heard(self, subjects: Iterable[str]) -> None:
        """Take note that these subjects are void: a signing key has been made, or is withdrawn."""
        for subject in subjects:
            if subject.startswith(SIGNER):
                key_id = subject.removeprefix(SIGNER)
                self._keys.pop(key_id, None)
                if self.current is not None and self.current.id == key_id:
                    self.current = None
                self._read_again()

    def doubt(self) -> None:
        """Anything may have changed: nothing is signed until the keys have been read again."""
        self.current = None
        self._read_again()

    def _read_again(self) -> None:
        self._told += 1
        self._settled.clear()
        self.news.set()

    def begin(self) -> int:
        """To be called before the keys are read; `take` wants to know."""
        self.news.clear()
        return self._told

    def take(self, keys: Mapping[str, bytes], begun: int, current: SigningKey | None = None) -> None:
        """What has been read: the keys (32 bytes each) by id, and the one that signs, where it can be used."""
        if begun < self._told and self._taken:
            return  # one of them may have been withdrawn meanwhile
        self.current = current
        self._keys = {key_id: Ed25519PublicKey.from_public_bytes(raw) for key_id, raw in keys.items()}
        self._taken = begun
        if begun == self._told:
            self._settled.set()

    async def find(self, signer_id: str) -> Ed25519PublicKey | None:
        """The key of this id. Raises Outage where it cannot be told."""
        key = self._keys.get(signer_id)
        if key is None and not self._settled.is_set():
            await self.settled()
            key = self._keys.get(signer_id)
        return key

    async def settled(self) -> None:
        """Return once the keys have been read that were told of. Raises Outage where they cannot be."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._settled.wait()
        except TimeoutError:
            raise Outage("the signing keys have changed and cannot be read") from None

    def shown(self) -> dict[str, Any]:
        """The JWKS. Raises Outage where it is not known."""
        if not self.is_loaded:
            raise Outage("the signing keys have not been read yet")
        return {"keys": [published(key_id, key) for key_id, key in self._keys.items()]}


class TokenVerifier:
    """The one judge of tokens, whatever they are for."""

    def __init__(
        self, signers: Signers, *, issuer: str, audience: str, environment: str, leeway_seconds: float
    ) -> None:
        self._signers = signers
        self._issuer = issuer
        self._audience = audience
        self._environment = environment
        self._leeway_seconds = leeway_seconds

    async def verify(self, token: bytes) -> Claims | Disproved:
        """What the token says, if this gateway has signed it, for itself. Whether it has expired is not asked here.

        Raises Outage where the signing keys are not known.
        """
        if len(token) > LONGEST_TOKEN:
            return Disproved(INVALID_TOKEN)
        signer_id = signer_of(token)
        if signer_id is None:
            return Disproved(INVALID_TOKEN)
        subjects = (SIGNER + signer_id,)
        public = await self._signers.find(signer_id)
        said = None if public is None else verified(token, public)
        claims = None if said is None else self._read(said, signer_id)
        return claims or Disproved(INVALID_TOKEN, subjects)

    def _read(self, said: Mapping[str, Any], signer_id: str) -> Claims | None:
        """The claims, if they are all there, of their types, and about this gateway (R167, R170)."""
        is_ours = (
            said.get("iss") == self._issuer
            and is_meant_for(said, self._audience)
            and said.get("env") == self._environment
        )
        texts = [said.get(name) for name in ("key", "secret", "sub", "tenant", "jti")]
        moments = [said.get(name) for name in ("iat", "exp")]
        if not is_ours or not all(isinstance(text, str) and text for text in texts):
            return None
        if not all(type(moment) is int and abs(moment) < 2**53 for moment in moments):
            return None
        scopes = said.get("scopes")
        is_list = isinstance(scopes, list) and all(isinstance(scope, str) for scope in scopes)
        return Claims(
            signer_id=signer_id,
            key_id=said["key"],
            secret_id=said["secret"],
            user_id=said["sub"],
            tenant_id=said["tenant"],
            scopes=frozenset(said["scopes"]) if is_list else frozenset(),  # R172: what is no list allows nothing
            ends_at=said["exp"] + self._leeway_seconds,
            token_id=said["jti"],
            is_once=said.get("once", False) is not False,  # what is no boolean allows no more
        )
