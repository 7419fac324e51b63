"""Tokens of an OpenID provider: whether it has signed one, for us, and what it says.

Access tokens (RFC 9068 and its kin), and the ID tokens that somebody's sign-in ends with (OpenID Connect Core).

Must not know: how the provider's keys are fetched, and what becomes of whoever signs in. The signature is PyJWT's work;
what it is asked, and what it is asked about, is decided here.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.auth.refusal import Reason
from gateway.auth.signing import is_meant_for, verified

LONGEST_TOKEN: Final = 8192  # what fits into a header
RSA_BITS_MINIMUM: Final = 2048  # RFC 7518 3.3
# What may stand in `typ`, in lower case: access tokens by RFC 9068, and those of providers that are older than it.
TYPES: Final = frozenset({"at+jwt", "application/at+jwt", "jwt"})
# And of ID tokens, which name no type of their own: an access token is never taken for one.
ID_TOKEN_TYPES: Final = frozenset({"jwt"})
# What `at_hash` is hashed by (OpenID Connect Core 3.1.3.6); EdDSA with Ed25519 hashes by SHA-512 itself.
HASHES: Final = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512, "DSA": hashlib.sha512}
# Which kind of key an algorithm wants (RFC 7518 3.1, RFC 8037): `kty` and `crv`.
KEY_KINDS: Final[Mapping[str, tuple[str, str | None]]] = {
    **{f"{family}{bits}": ("RSA", None) for family in ("RS", "PS") for bits in (256, 384, 512)},
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
PublicKeys = Mapping[tuple[str, str], PublicKey]  # by algorithm and key id


@dataclass(frozen=True, slots=True)
class Head:
    """Which of the provider's keys the token says it is signed by, and how. Nothing else in the head is believed."""

    algorithm: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Names:
    """The claims that say who, of which tenant (None: the token does not say), with which roles and groups."""

    user_id: str
    tenant_id: str | None
    roles: str
    groups: str


@dataclass(frozen=True, slots=True)
class Statement:
    """What a token says that the provider has signed, for us. Whether it is in time is asked of it."""

    user_id: str
    tenant_id: str | None
    roles: frozenset[str]
    groups: frozenset[str]
    begins_at: float
    ends_at: float

    def refusal(self, now: float) -> Reason | None:
        """Why it does not count at `now` (seconds since the epoch), or None where it does."""
        if now < self.begins_at:
            return Reason.INVALID_TOKEN
        return Reason.TOKEN_EXPIRED if now >= self.ends_at else None


def public_keys(jwks: object, algorithms: Iterable[str]) -> dict[tuple[str, str], PublicKey] | None:
    """The keys of a JWKS (RFC 7517) by which `algorithms` are verified; None where it is no JWKS at all.

    What is no public key for signatures is passed over (RFC 7517 5): symmetric and private ones, weak ones, keys
    without an id, keys for encryption.
    """
    listed = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(listed, list):
        return None
    found: dict[tuple[str, str], PublicKey] = {}
    for jwk in listed:
        for algorithm in algorithms:
            key = _public_key(jwk, algorithm) if isinstance(jwk, dict) else None
            if key is not None:
                found[algorithm, jwk["kid"]] = key
    return found


def _public_key(jwk: dict[str, Any], algorithm: str) -> PublicKey | None:
    kty, crv = KEY_KINDS[algorithm]
    key_id, operations = jwk.get("kid"), jwk.get("key_ops", ["verify"])
    is_fit = (
        (jwk.get("kty"), jwk.get("crv")) == (kty, crv)
        and jwk.get("alg", algorithm) == algorithm
        and jwk.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and isinstance(key_id, str)
    )
    if not is_fit:
        return None
    try:
        key = jwt.get_algorithm_by_name(algorithm).from_jwk(jwk)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key, RSAPublicKey):
        return key if key.key_size >= RSA_BITS_MINIMUM else None
    return key if isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey) else None


class Judge:
    """Reads tokens of one provider. `algorithms` are names of KEY_KINDS; seconds of `leeway` are for its clock.

    `types` is what may stand in `typ`, and `audience` whom they are for: an API, or a client that signs somebody in.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        algorithms: Iterable[str],
        names: Names,
        leeway_seconds: float,
        types: frozenset[str] = TYPES,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._algorithms = frozenset(algorithms)
        self._names = names
        self._leeway_seconds = leeway_seconds
        self._types = types

    def head_of(self, token: str) -> Head | None:
        """The head, if it is one of a token that we take; None otherwise.

        Neither `none` nor an algorithm that is not listed is ever tried (RFC 8725 3.1), and a key or a place to fetch
        one, in the head itself, is not looked at.
        """
        if len(token) > LONGEST_TOKEN:
            return None
        try:
            head = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            return None
        algorithm, key_id, kind = head.get("alg"), head.get("kid"), head.get("typ", "JWT")
        is_known = isinstance(algorithm, str) and algorithm in self._algorithms
        is_typed = isinstance(kind, str) and kind.lower() in self._types
        if not is_known or not is_typed or "crit" in head or not isinstance(key_id, str):
            return None
        return Head(str(algorithm), key_id)

    def read(self, token: str, head: Head, key: PublicKey) -> Statement | None:
        """What the token says, if `key` has signed it, by that provider's word for us."""
        claims = verified(token, key, head.algorithm)
        return None if claims is None else self._statement(claims)

    def read_id_token(
        self, token: str, head: Head, key: PublicKey, *, nonce: str, access_token: str | None
    ) -> Statement | None:
        """As `read`, of an ID token that ends the sign-in which `nonce` began (OpenID Connect Core 3.1.3.7).

        It is for this client and was given to it, and `access_token`, where it speaks of one, is the one beside it.
        """
        claims = verified(token, key, head.algorithm)
        if claims is None:
            return None
        said, audiences, party = claims.get("nonce"), claims.get("aud"), claims.get("azp")
        is_ours = isinstance(said, str) and hmac.compare_digest(said.encode(), nonce.encode())
        has_others = isinstance(audiences, list) and len(audiences) > 1
        is_ours = is_ours and (party == self._audience if has_others else party in (None, self._audience))
        at_hash = claims.get("at_hash")
        if at_hash is not None and access_token is not None:
            expected = half_hash(access_token, head.algorithm)
            is_ours = is_ours and isinstance(at_hash, str) and hmac.compare_digest(at_hash.encode(), expected.encode())
        return self._statement(claims) if is_ours else None

    def _statement(self, claims: Mapping[str, Any]) -> Statement | None:
        if claims.get("iss") != self._issuer or not is_meant_for(claims, self._audience):
            return None
        times = [claims.get(name, 0) for name in ("nbf", "iat")]
        if not all(map(_is_moment, (claims.get("exp"), *times))):
            return None  # a token without an end is none
        names = self._names
        user_id = claim(claims, names.user_id)
        tenant_id = None if names.tenant_id is None else claim(claims, names.tenant_id)
        if not isinstance(user_id, str) or (names.tenant_id is not None and not isinstance(tenant_id, str)):
            return None
        return Statement(
            user_id=user_id,
            tenant_id=tenant_id if isinstance(tenant_id, str) else None,
            roles=_texts(claim(claims, names.roles)),
            groups=_texts(claim(claims, names.groups)),
            begins_at=max(times) - self._leeway_seconds,
            ends_at=claims["exp"] + self._leeway_seconds,
        )


def half_hash(access_token: str, algorithm: str) -> str:
    """What an ID token that is signed by `algorithm` says as `at_hash` of the access token beside it."""
    digest = HASHES[algorithm[-3:]](access_token.encode(errors="surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


def claim(claims: Mapping[str, Any], name: str) -> object:
    """The claim of that name, or else the one that its dots lead to; None where there is none."""
    if name in claims:
        return claims[name]
    here: object = claims
    for part in name.split("."):
        here = here.get(part) if isinstance(here, Mapping) else None
    return here


def _texts(value: object) -> frozenset[str]:
    """A list of texts; a text stands for itself, and anything else gives nothing."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        return frozenset()
    return frozenset(listed)


def _is_moment(value: object) -> bool:
    """Whether it is a number of seconds since the epoch (RFC 7519 2); not a number at all is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
