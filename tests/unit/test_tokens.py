"""The judge of tokens: what is one of ours, and that nothing else is. R160 to R172."""

import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.credentials import AMBIGUOUS, INVALID, Credential, CredentialReader, Token
from gateway.auth.refusal import Reason
from gateway.auth.secrets import SecretFormat, sha256_digest
from gateway.auth.signing import SealBroken, Sealer, signed
from gateway.auth.tokens import LONGEST_TOKEN, Claims, Disproved, Signers, TokenVerifier, is_token
from gateway.errors import Outage
from tests.fixtures.signed import AUDIENCE, ISSUER, Signer, base64url, compact

SIGNER, STRANGER = Signer(), Signer()
GOOD: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "u",
    "tenant": "t",
    "key": "k",
    "secret": "s",
    "env": "test",
    "scopes": ["orders:read"],
    "iat": 1,
    "exp": 2_000_000_000,
    "jti": "tok_1",
}
HEAD = SIGNER.head


def verifier(*signers: Signer, leeway_seconds: float = 0) -> TokenVerifier:
    known = Signers()
    known.take({signer.key_id: signer.public for signer in signers or (SIGNER,)}, known.begin())
    return TokenVerifier(known, issuer=ISSUER, audience=AUDIENCE, environment="test", leeway_seconds=leeway_seconds)


async def verdict(token: str | bytes) -> Claims | Disproved:
    return await verifier().verify(token.encode() if isinstance(token, str) else token)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


async def test_a_token_of_ours_is_read() -> None:
    """What the gateway signs, it believes, and it adds the leeway to the end. R160 R181."""
    claims = await verifier(leeway_seconds=5).verify(SIGNER.sign(GOOD).encode())
    assert claims == Claims("sig_one", "k", "s", "u", "t", frozenset({"orders:read"}), 2_000_000_005, "tok_1")


async def test_what_the_gateway_signs_it_believes() -> None:
    """The signature of the library and the one made by hand are the same thing."""
    assert isinstance(await verdict(signed(GOOD, SIGNER.key_id, SIGNER.private)), Claims)
    assert isinstance(await verdict(SIGNER.sign(GOOD | {"aud": ["other", AUDIENCE]})), Claims)


def hmac_signed(head: dict[str, Any], secret: bytes, digest: str) -> str:
    body = f"{base64url(json.dumps(head).encode())}.{base64url(json.dumps(GOOD).encode())}"
    return f"{body}.{base64url(hmac.digest(secret, body.encode(), digest))}"


def rsa_signed() -> str:
    private = rsa.generate_private_key(65537, 2048)
    body = f"{base64url(json.dumps(HEAD | {'alg': 'RS256'}).encode())}.{base64url(json.dumps(GOOD).encode())}"
    return f"{body}.{base64url(private.sign(body.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


PEM = SIGNER.private.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
TOKEN = SIGNER.sign(GOOD)
BODY, SIGNATURE = TOKEN.rsplit(".", 1)
LAST = SIGNATURE[-1]
# The signature's last character has four spare bits: another one that means the same bytes.
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
SPARE = LETTERS[LETTERS.index(LAST) ^ 1]


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(STRANGER.sign(GOOD), id="R165 another's signature under our kid"),
        pytest.param(f"{BODY}.{'A' * 86}", id="R165 a signature of zeros"),
        pytest.param(f"{BODY}.", id="R165 no signature"),
        pytest.param(f"{BODY}.{SIGNATURE[:-2]}", id="R165 a short signature"),
        pytest.param(f"{BODY}.{SIGNATURE[:-1]}{SPARE}", id="R165 spare bits"),
        pytest.param(f"{BODY}.{SIGNATURE}==", id="R169 padding"),
        pytest.param(SIGNER.sign(GOOD | {"iss": "https://evil"}), id="R167 iss"),
        pytest.param(SIGNER.sign(without("iss")), id="R167 no iss"),
        pytest.param(SIGNER.sign(GOOD | {"iss": [ISSUER]}), id="R167 iss a list"),
        pytest.param(SIGNER.sign(GOOD | {"aud": "other"}), id="R167 aud"),
        pytest.param(SIGNER.sign(GOOD | {"aud": []}), id="R167 aud empty"),
        pytest.param(SIGNER.sign(GOOD | {"aud": {AUDIENCE: 1}}), id="R167 aud an object"),
        pytest.param(SIGNER.sign(without("aud")), id="R167 no aud"),
        pytest.param(SIGNER.sign(without("sub")), id="R167 no sub"),
        pytest.param(SIGNER.sign(GOOD | {"sub": 1}), id="R167 sub a number"),
        pytest.param(SIGNER.sign(GOOD | {"sub": ""}), id="R167 sub empty"),
        pytest.param(SIGNER.sign(without("exp")), id="R167 no exp"),
        pytest.param(SIGNER.sign(GOOD | {"exp": "2000000000"}), id="R167 exp text"),
        pytest.param(SIGNER.sign(GOOD | {"exp": 2e9}), id="R167 exp a fraction"),
        pytest.param(SIGNER.sign(GOOD | {"exp": True}), id="R167 exp a flag"),
        pytest.param(SIGNER.sign(GOOD | {"exp": 10**400}), id="R167 exp beyond numbers"),
        pytest.param(SIGNER.sign(GOOD | {"exp": None}), id="R167 exp null"),
        pytest.param(SIGNER.sign(without("iat")), id="R167 no iat"),
        pytest.param(SIGNER.sign(without("jti")), id="R167 no jti"),
        pytest.param(SIGNER.sign(without("key")), id="R167 no key"),
        pytest.param(SIGNER.sign(without("secret")), id="R167 no secret"),
        pytest.param(SIGNER.sign(without("tenant")), id="R170 no tenant"),
        pytest.param(SIGNER.sign(GOOD | {"env": "prod"}), id="R170 another environment"),
        pytest.param(SIGNER.sign(without("env")), id="R170 no environment"),
        pytest.param(f"{base64url(json.dumps(HEAD | {'alg': 'none'}).encode())}.{base64url(b'{}')}.", id="R168 none"),
        pytest.param(SIGNER.sign(GOOD, {"alg": "none"}), id="R168 none with a signature"),
        pytest.param(SIGNER.sign(GOOD, {"alg": "eddsa"}), id="R168 alg in another case"),
        pytest.param(SIGNER.sign(GOOD, {"alg": "Ed25519"}), id="R168 another name"),
        pytest.param(SIGNER.sign(GOOD, {"alg": None}), id="R168 no alg"),
        pytest.param(SIGNER.sign(GOOD, {"alg": ["EdDSA"]}), id="R168 alg a list"),
        pytest.param(hmac_signed(HEAD | {"alg": "HS256"}, SIGNER.public, "sha256"), id="R168 HS256 by the public key"),
        pytest.param(hmac_signed(HEAD | {"alg": "HS384"}, PEM, "sha384"), id="R168 HS384 by the PEM"),
        pytest.param(hmac_signed(HEAD | {"alg": "HS512"}, b"", "sha512"), id="R168 HS512 by nothing"),
        pytest.param(hmac_signed(HEAD, SIGNER.public, "sha256"), id="R168 a HMAC that says EdDSA"),
        pytest.param(rsa_signed(), id="R168 RS256"),
        pytest.param(SIGNER.sign(GOOD, {"kid": None}), id="R168 no kid"),
        pytest.param(SIGNER.sign(GOOD, {"kid": "sig_two"}), id="R168 an unknown kid"),
        pytest.param(SIGNER.sign(GOOD, {"kid": "../../dev/null"}), id="R168 kid a path"),
        pytest.param(SIGNER.sign(GOOD, {"kid": "' OR 1=1 --"}), id="R168 kid SQL"),
        pytest.param(SIGNER.sign(GOOD, {"kid": ["sig_one"]}), id="R168 kid a list"),
        pytest.param(SIGNER.sign(GOOD, {"kid": 1}), id="R168 kid a number"),
        pytest.param(STRANGER.sign(GOOD, {"jku": "http://evil/jwks"}), id="R168 jku"),
        pytest.param(
            STRANGER.sign(GOOD, {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": base64url(STRANGER.public)}}),
            id="R168 jwk",
        ),
        pytest.param(SIGNER.sign(GOOD, {"crit": ["x"], "x": 1}), id="R168 crit"),
        pytest.param(SIGNER.sign(GOOD, {"b64": False}), id="R168 b64"),
        pytest.param(SIGNER.sign(GOOD, {"typ": "JWT"}), id="R168 something else that we have signed"),
        pytest.param(SIGNER.sign(GOOD, {"typ": None}), id="R168 no typ"),
        pytest.param(SIGNER.sign(GOOD, {"cty": "JWT"}), id="R168 a head that says more"),
        pytest.param(compact(["EdDSA"], GOOD, SIGNER.private), id="R169 head a list"),
        pytest.param(compact(b"{", GOOD, SIGNER.private), id="R169 head no JSON"),
        pytest.param(compact(b"\xff\xfe", GOOD, SIGNER.private), id="R169 head no text"),
        pytest.param(compact(b"[" * 2000, GOOD, SIGNER.private), id="R169 a deep head"),
        pytest.param(compact(HEAD, b"\xff", SIGNER.private), id="R169 claims no text"),
        pytest.param(compact(HEAD, b"[" * 2000, SIGNER.private), id="R169 deep claims"),
        pytest.param(compact(HEAD, [GOOD], SIGNER.private), id="R169 claims a list"),
        pytest.param(compact(HEAD, "claims", SIGNER.private), id="R169 claims a text"),
        pytest.param(SIGNER.sign(GOOD | {"pad": "x" * LONGEST_TOKEN}), id="R169 too long"),
        pytest.param("a.b.c", id="R169 short parts"),
        pytest.param("A.A.A", id="R169 base64 of no length"),
    ],
)
async def test_no_token(token: str) -> None:
    """Whatever is not exactly what this gateway signs is refused, and breaks nothing. R165 R167 R168 R169 R170."""
    assert is_token(token.encode()) or "=" in token
    found = await verdict(token)
    assert isinstance(found, Disproved), found
    assert found.refusal.reason is Reason.INVALID_TOKEN


@given(st.binary(max_size=300))
async def test_garbage_is_no_token(text: bytes) -> None:
    """Any bytes at all are refused without an error. R169."""
    assert isinstance(await verdict(text), Disproved)
    assert isinstance(await verdict(b".".join(base64url(text).encode() for _ in range(3))), Disproved)


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("AZaz09-_."))
async def test_no_letter_of_a_token_can_be_changed(at: int, letter: str) -> None:
    """One other letter anywhere, and it is refused. R165 R169."""
    changed = TOKEN[:at] + letter + TOKEN[at + 1 :]
    assert isinstance(await verdict(changed), Claims) == (changed == TOKEN)


TEXTS = st.text("aé:\0 ", max_size=20)


@given(st.dictionaries(st.sampled_from([*GOOD, "nbf"]), st.none() | st.integers() | TEXTS | st.lists(TEXTS)))
async def test_claims_of_any_type_are_read_or_refused(changes: dict[str, Any]) -> None:
    """Claims that are signed, and of any type, break nothing. R167 R172."""
    assert isinstance(await verdict(SIGNER.sign(GOOD | changes)), Claims | Disproved)


@pytest.mark.parametrize("scopes", [[], None, "orders:read", {"orders:read": True}, ["orders:read", 1], 7])
async def test_scopes_that_are_none(scopes: object) -> None:
    """Scopes that are missing or no list of texts allow nothing; the token is one all the same. R172."""
    for claims in (GOOD | {"scopes": scopes}, without("scopes")):
        found = await verdict(SIGNER.sign(claims))
        assert isinstance(found, Claims)
        assert found.scopes == frozenset()


# -- signing keys that come and go


async def test_a_withdrawn_key_is_dropped_at_once() -> None:
    """A node that hears of a withdrawal believes no signature of that key, read again or not. R179."""
    signers = Signers()
    signers.take({"sig_one": SIGNER.public}, signers.begin())
    judge = TokenVerifier(signers, issuer=ISSUER, audience=AUDIENCE, environment="test", leeway_seconds=0)
    assert isinstance(await judge.verify(TOKEN.encode()), Claims)
    begun = signers.begin()
    signers.heard(["signer:sig_one"])
    signers.take({"sig_one": SIGNER.public}, begun)  # read before it was withdrawn
    with pytest.raises(Outage):
        await judge.verify(TOKEN.encode())
    signers.take({}, signers.begin())
    assert isinstance(await judge.verify(TOKEN.encode()), Disproved)


async def test_a_node_without_signing_keys_cannot_tell() -> None:
    """Before the keys have been read nobody is refused for having signed with one: that is an outage. R072."""
    judge = TokenVerifier(Signers(), issuer=ISSUER, audience=AUDIENCE, environment="test", leeway_seconds=0)
    with pytest.raises(Outage):
        await judge.verify(TOKEN.encode())
    assert isinstance(await judge.verify(b"a.b.c"), Disproved)


def test_private_parts_rest_sealed() -> None:
    """A private part opens under the key that sealed it and under its own id alone, unchanged. R077."""
    sealer = Sealer("a" * 32)
    public, sealed = sealer.new_key("sig_one")
    assert sealer.open("sig_one", sealed).public_key().public_bytes_raw() == public
    assert sealer.open("sig_one", sealed).private_bytes_raw() not in sealed
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for other, key_id, text in (
        (Sealer("b" * 32), "sig_one", sealed),
        (sealer, "sig_two", sealed),
        (sealer, "sig_one", changed),
    ):
        with pytest.raises(SealBroken, match="sealing_key"):
            other.open(key_id, text)


# -- the credential of a request

FORMAT = SecretFormat("ost", "test")
SECRET = FORMAT.generate().encode()
READER = CredentialReader(FORMAT, accepts_tokens=True)


@pytest.mark.parametrize(
    ("presented", "expected"),
    [
        pytest.param([(b"Authorization", b"Bearer a.b.c")], Token(sha256_digest(b"a.b.c"), b"a.b.c"), id="bearer"),
        pytest.param([(b"X-Api-Key", b"a.b.")], Token(sha256_digest(b"a.b."), b"a.b."), id="R168 unsigned"),
        pytest.param([(b"X-Api-Key", SECRET)], Credential(sha256_digest(SECRET)), id="a key is a key"),
        pytest.param([(b"X-Api-Key", b"a.b")], INVALID, id="R169 two parts"),
        pytest.param([(b"X-Api-Key", b"a.b.c.d")], INVALID, id="R169 four parts"),
        pytest.param([(b"X-Api-Key", b"a.b.c=")], INVALID, id="R169 not base64url"),
        pytest.param([(b"X-Api-Key", b"a.\xff.c")], INVALID, id="R169 not ASCII"),
        pytest.param([(b"Authorization", b"Bearer a.b.c"), (b"X-Api-Key", SECRET)], AMBIGUOUS, id="R009 and a key"),
        pytest.param([(b"Authorization", b"Bearer a.b.c"), (b"X-Api-Key", b"a.b.d")], AMBIGUOUS, id="R009 and another"),
    ],
)
def test_reading_of_tokens(presented: list[tuple[bytes, bytes]], expected: object) -> None:
    """A token is told by its shape, and the rule of two credentials counts it in. R009 R169."""
    assert READER.read(presented) == expected


def test_without_tokens_there_are_none() -> None:
    """Where no tokens are configured, one is a malformed key, as it always was."""
    assert CredentialReader(FORMAT).read([(b"X-Api-Key", b"a.b.c")]) == INVALID


def test_what_looks_like_a_token_is_none_of_the_imported_secrets() -> None:
    """Where there are both, three parts with dots are a token; without tokens they are a secret. R170."""
    shapes, text = SecretFormat("ost", "test", imported=(16, 40)), b"part.another.third"
    presented = [(b"X-Api-Key", text)]
    assert CredentialReader(shapes, accepts_tokens=True).read(presented) == Token(sha256_digest(text), text)
    assert CredentialReader(shapes).read(presented) == Credential(sha256_digest(text))
    assert CredentialReader(shapes, accepts_tokens=True).read([(b"X-Api-Key", SECRET)]) == Credential(
        sha256_digest(SECRET)
    )


def test_a_token_is_not_shown() -> None:
    """A token's text is in no representation. R150 R324."""
    token = Token(hashlib.sha256(b"x").digest(), TOKEN.encode())
    assert TOKEN not in repr(token)
