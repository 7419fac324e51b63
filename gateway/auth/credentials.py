"""From header values to one credential. Must not know: what the credential is worth.

Every value found in a configured place counts as a credential, also one that cannot be a key: an explicit but useless
credential is never ignored in favour of another one or of none (R007, R010).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from gateway.auth.refusal import Reason, Refusal
from gateway.auth.secrets import SecretFormat, sha256_digest
from gateway.auth.tokens import is_token

AMBIGUOUS: Final = Refusal(Reason.AMBIGUOUS_CREDENTIALS)
INVALID: Final = Refusal(Reason.INVALID_API_KEY)


@dataclass(slots=True)
class Credential:
    """A well-formed secret, as its SHA-256 (32 bytes). The secret itself goes no further than the reader.

    `entry` and `epoch` are for admission: what it found under the digest, and as of when.
    """

    kind: ClassVar[str] = "key"
    digest: bytes = field(repr=False)
    entry: Any = field(default=None, init=False, repr=False, compare=False)
    epoch: object = field(default=None, init=False, repr=False, compare=False)


@dataclass(slots=True)
class Token(Credential):
    """What has the shape of an access token: its SHA-256, and itself, since it has to be verified."""

    kind: ClassVar[str] = "token"
    text: bytes = field(repr=False)


class CredentialReader:
    """Reads the credential of a request from the values found in the configured places.

    `accepts_tokens`: what looks like an access token is one; where there are no tokens it is a malformed key.
    """

    def __init__(self, secret_format: SecretFormat, *, accepts_tokens: bool = False) -> None:
        self._format = secret_format
        self._accepts_tokens = accepts_tokens

    def read(self, presented: Sequence[tuple[bytes, bytes]]) -> Credential | Refusal | None:
        """The one credential among `(header name, value)` pairs.

        None where there is none; a refusal for two different ones (R008, R009) and for one that has not the shape and
        checksum of a secret, nor that of an imported one, which is told without hashing it (R006).
        """
        if not presented:
            return None
        name, value = presented[0]
        secret = _secret_of(name, value)
        if len(presented) > 1 and len({_secret_of(name, value) for name, value in presented}) != 1:
            return AMBIGUOUS
        return self._read_one(secret)

    def read_more(self, known: Credential | Refusal | None, secrets: Sequence[bytes]) -> Credential | Refusal | None:
        """As `read`, of bare secrets from other places than headers, beside what the headers were worth."""
        for secret in secrets:
            found = self._read_one(secret)
            if known is not None and found != known:
                return AMBIGUOUS
            known = found
        return known

    def _read_one(self, secret: bytes) -> Credential | Refusal:
        if self._format.is_well_formed(secret):
            return Credential(sha256_digest(secret))
        if self._accepts_tokens and is_token(secret):
            return Token(sha256_digest(secret), secret)
        if self._format.is_imported_shape(secret):
            return Credential(sha256_digest(secret))
        return INVALID


def _secret_of(name: bytes, value: bytes) -> bytes:
    """The secret in a value: all of it, or the token of a Bearer `Authorization` (RFC 6750 2.1; any case, R002).

    Another scheme reads as an empty secret, which has no shape: it is refused, not ignored.
    """
    if name.lower() != b"authorization":
        return value
    scheme, _, token = value.partition(b" ")
    return token.strip(b" \t") if scheme.lower() == b"bearer" else b""
