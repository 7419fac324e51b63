"""The seal on what nodes leave for each other in Redis: whoever can write to Redis cannot make an identity.

HMAC-SHA256 under the deployment's key, over the name and the body, so that what was sealed for one name is worth
nothing under another.
"""

import asyncio
import hmac

VERSION = b"o1"
MAC_BYTES = 32
_CONTEXT = b"ostiary redis seal 1\0"


class Seal:
    """Seals and opens. Until `unlock` it does neither."""

    def __init__(self) -> None:
        self._key: bytes | None = None
        self.known = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Seal {'known' if self._key else 'unknown'}>"

    @property
    def is_known(self) -> bool:
        """Whether the key has arrived."""
        return self._key is not None

    def unlock(self, key: bytes) -> None:
        """Take the deployment's key (from Postgres)."""
        self._key = key
        self.known.set()

    def close(self, name: str, body: bytes) -> bytes:
        """`body` sealed for `name`. The key must be known."""
        return VERSION + self._mac(name, body) + body

    def open(self, name: str, value: bytes) -> bytes | None:
        """The body that was sealed for `name`; None for anything else, and while the key is not known."""
        start = len(VERSION) + MAC_BYTES
        if self._key is None or not value.startswith(VERSION) or len(value) < start:
            return None
        body = value[start:]
        return body if hmac.compare_digest(value[len(VERSION) : start], self._mac(name, body)) else None

    def _mac(self, name: str, body: bytes) -> bytes:
        assert self._key is not None, "the seal key has not arrived"
        encoded = name.encode()
        framed = _CONTEXT + len(encoded).to_bytes(4, "big") + encoded + body
        return hmac.digest(self._key, framed, "sha256")
