"""What a browser holds between the beginning of a sign-in and its end. Pure.

One random secret is kept in a cookie, and all that is said to the provider is derived from it: so the sign-in can end
at any node, nothing is stored, and whoever has not begun it cannot end it. What the provider, or a log of URLs, learns
(`state`, `nonce`, the challenge) leads to neither the secret nor the PKCE verifier.
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from gateway.setting_values import PORTAL_PATH

SECONDS: Final = 600  # for signing in
_SECRET_BYTES: Final = 32
_COOKIE: Final = re.compile(r"(?P<secret>[A-Za-z0-9_-]{43})(?::(?P<onward>[A-Za-z0-9_/.-]{1,200}))?")
_ONWARD: Final = re.compile(rf"{PORTAL_PATH}/[a-z]+(?:/[A-Za-z0-9_-]+)*")


def base64url(raw: bytes) -> str:
    """Bytes as base64url without padding (RFC 7515 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def onward(path: str) -> str:
    """The page that somebody was after, if it is one of ours; else the first one."""
    return path if _ONWARD.fullmatch(path) and len(path) <= 200 else f"{PORTAL_PATH}/keys"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sign-in that somebody has begun, to go `onward` afterwards."""

    secret: str = field(repr=False)
    onward: str

    @classmethod
    def new(cls, path: str) -> "Attempt":
        """One that begins now."""
        return cls(base64url(secrets.token_bytes(_SECRET_BYTES)), onward(path))

    @classmethod
    def of_cookie(cls, value: str) -> "Attempt | None":
        """The one that a browser holds; None where that is none."""
        found = _COOKIE.fullmatch(value)
        return None if found is None else cls(found["secret"], onward(found["onward"] or ""))

    @property
    def cookie(self) -> str:
        """What the browser is to hold."""
        return f"{self.secret}:{self.onward}"

    @property
    def state(self) -> str:
        """What comes back with the answer, so that nobody ends a sign-in in another's browser (RFC 6749 10.12)."""
        return self._derived("state")

    @property
    def nonce(self) -> str:
        """What the ID token must say, so that none of another sign-in does (OpenID Connect Core 15.5.2)."""
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        """What the provider is told with the code, by whoever has begun (RFC 7636)."""
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        """What the provider is told at the beginning: S256 of the verifier."""
        return base64url(hashlib.sha256(self.verifier.encode()).digest())

    def is_answered_by(self, state: str) -> bool:
        """Whether this is the state of this sign-in."""
        return hmac.compare_digest(self.state.encode(), state.encode())

    def _derived(self, purpose: str) -> str:
        return base64url(hmac.digest(self.secret.encode(), f"ostiary sign-in {purpose}".encode(), "sha256"))
