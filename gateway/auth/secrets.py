"""Secrets: how they are made, told from noise without I/O, and digested. Must not know: where digests are kept.

Format: `<prefix>_<environment>_<base62, 32 characters or more><crc32 as 6 base62>`. The checksum covers all that stands
before it, so a mistyped or invented secret is refused before anything is asked. Secrets that were imported from
elsewhere have shapes of their own: where they are expected, each text of such a length has to be looked up.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Sequence

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM_CHARACTERS = 32  # 190 bits; R012 asks for 140
CHECKSUM_CHARACTERS = 6  # 62**6 > 2**32
_PAIRS = [high + low for high in ALPHABET for low in ALPHABET]  # two digits at a time: half the divisions
LONGEST_RANDOM_CHARACTERS = 128
SHOWN_CHARACTERS = 6  # of the random part; the other 26 still hold 154 bits


def sha256_digest(secret: bytes) -> bytes:
    """SHA-256 of a presented secret (32 bytes): the only form that leaves this package (R040)."""
    return hashlib.sha256(secret).digest()


def random_base62(length: int) -> str:
    """`length` base62 characters from the operating system's CSPRNG."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def checksum(text: str) -> str:
    """CRC-32 of `text` as 6 base62 characters, most significant first."""
    number = zlib.crc32(text.encode())
    return _PAIRS[number // 62**4] + _PAIRS[number // 62**2 % 62**2] + _PAIRS[number % 62**2]


class SecretFormat:
    """The one shape of secrets that this gateway issues, and the lengths of foreign ones that it accepts beside it.

    `prefix` and `environment` are the configured ones; a secret that names another environment has not this shape
    and is refused without a lookup (R011). `imported`: the shortest and the longest imported secret, if there are any.
    """

    def __init__(self, prefix: str, environment: str, *, imported: tuple[int, int] | None = None) -> None:
        self.prefix = prefix
        self.environment = environment
        self._shape = re.compile(
            rb"%b_%b_[0-9A-Za-z]{%d,%d}"
            % (
                re.escape(prefix.encode()),
                re.escape(environment.encode()),
                RANDOM_CHARACTERS + CHECKSUM_CHARACTERS,
                LONGEST_RANDOM_CHARACTERS + CHECKSUM_CHARACTERS,
            )
        )
        # What begins as a secret of ours is one of ours, or a mistyped one.
        self._imported_shape = (
            None if imported is None else re.compile(rb"(?!%b_)[!-~]{%d,%d}" % (re.escape(prefix.encode()), *imported))
        )
        self._match = self._shape.fullmatch

    def generate(self) -> str:
        """A new secret (R012)."""
        body = f"{self.prefix}_{self.environment}_{random_base62(RANDOM_CHARACTERS)}"
        return body + checksum(body)

    def is_well_formed(self, secret: bytes) -> bool:
        """Whether shape, environment and checksum fit. Touches nothing but `secret` (R006)."""
        return self._match(secret) is not None and self.has_checksum(secret)

    def is_imported_shape(self, secret: bytes) -> bool:
        """Whether it may be a secret from elsewhere: visible ASCII of the configured length (R006)."""
        return self._imported_shape is not None and self._imported_shape.fullmatch(secret) is not None

    @staticmethod
    def has_checksum(secret: bytes) -> bool:
        """Whether the last six characters are the checksum of the rest. `secret` has the shape (so it is ASCII)."""
        text = secret.decode("ascii")
        return hmac.compare_digest(text[-CHECKSUM_CHARACTERS:], checksum(text[:-CHECKSUM_CHARACTERS]))

    def display_prefix(self, secret: str) -> str:
        """The part of a secret that may be shown and stored, for instance `ost_prod_Ab3dE6`."""
        head, _, tail = secret.rpartition("_")
        return f"{head}_{tail[:SHOWN_CHARACTERS]}"


class Peppers:
    """The stored form of a digest: `sha256`, or `hmac_sha256(pepper, sha256)` where peppers are configured.

    `peppers` are secrets of at least 32 bytes, the one in use first; the others are still accepted, and so is the
    unpeppered form, so that peppers can be introduced and rotated under live keys.
    """

    def __init__(self, peppers: Sequence[bytes] = ()) -> None:
        self._peppers = tuple(peppers)

    def stored_form(self, sha256: bytes) -> bytes:
        """What a new key's row holds (32 bytes)."""
        return self._peppered(self._peppers[0], sha256) if self._peppers else sha256

    def candidates(self, sha256: bytes) -> tuple[bytes, ...]:
        """Every stored form that this digest may have, the likeliest first."""
        return (*(self._peppered(pepper, sha256) for pepper in self._peppers), sha256)

    @staticmethod
    def _peppered(pepper: bytes, sha256: bytes) -> bytes:
        return hmac.digest(pepper, sha256, "sha256")
