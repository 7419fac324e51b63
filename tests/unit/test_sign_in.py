"""The judge of a provider's access tokens: what it has signed for us, and that nothing else is."""

import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.refusal import Reason
from gateway.auth.sign_in import KEY_KINDS, LONGEST_TOKEN, Judge, Names, Statement, claim, public_keys
from tests.fixtures.provider import Private, ProviderKey
from tests.fixtures.signed import base64url

ISSUER, AUDIENCE = "https://login.example.com", "api"
ALGORITHMS = tuple(KEY_KINDS)
RSA = rsa.generate_private_key(65537, 2048)
EC, STRANGER = ProviderKey("ec"), ProviderKey("ec")
GOOD: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "ada",
    "iat": 100,
    "nbf": 120,
    "exp": 1000,
    "roles": ["dev", "lead"],
    "groups": ["/staff"],
}


def judge(*, algorithms: tuple[str, ...] = ALGORITHMS, tenant_id: str | None = None, **names: str) -> Judge:
    every = Names(**{"user_id": "sub", "roles": "roles", "groups": "groups", **names}, tenant_id=tenant_id)
    return Judge(issuer=ISSUER, audience=AUDIENCE, algorithms=algorithms, names=every, leeway_seconds=10)


def read(token: str, *jwks: dict[str, Any], by: Judge | None = None) -> Statement | None:
    """What is made of a token while the provider publishes these keys."""
    by = by or judge()
    head = by.head_of(token)
    keys = public_keys({"keys": list(jwks or [EC.jwk])}, ALGORITHMS)
    assert keys is not None
    key = None if head is None else keys.get((head.algorithm, head.key_id))
    return None if head is None or key is None else by.read(token, head, key)


def said(**claims: Any) -> Statement | None:
    """What is made of these claims, laid over good ones; None removes a name."""
    merged = {name: value for name, value in {**GOOD, **claims}.items() if value is not None}
    return read(EC.sign(merged))


PRIVATES: dict[str, Private] = {
    **{f"{family}{bits}": RSA for family in ("RS", "PS") for bits in (256, 384, 512)},
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_every_asymmetric_algorithm(algorithm: str) -> None:
    """What the provider has signed for us is read, and the leeway lies around its time."""
    key = ProviderKey("k", PRIVATES[algorithm], algorithm)
    expected = Statement("ada", None, frozenset({"dev", "lead"}), frozenset({"/staff"}), 110, 1010)
    assert read(key.sign(GOOD), key.jwk) == expected
    others = tuple(other for other in ALGORITHMS if other != algorithm)
    assert read(key.sign(GOOD), key.jwk, by=judge(algorithms=others)) is None


def by_hand(head: dict[str, Any], signature: bytes = b"") -> str:
    body = f"{base64url(json.dumps(head).encode())}.{base64url(json.dumps(GOOD).encode())}"
    return f"{body}.{base64url(signature)}"


def hmac_signed(secret: bytes) -> str:
    body = by_hand({"alg": "HS256", "kid": "ec"}).removesuffix(".")
    return f"{body}.{base64url(hmac.digest(secret, body.encode(), 'sha256'))}"


PUBLIC = EC.private.public_key()
PEM = PUBLIC.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
DER = PUBLIC.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
TOKEN = EC.sign(GOOD)
BODY, _, SIGNATURE = TOKEN.rpartition(".")


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(by_hand({"alg": "none", "kid": "ec"}), id="alg none"),
        pytest.param(by_hand({"alg": "None", "kid": "ec"}), id="alg None"),
        pytest.param(by_hand({"alg": ["ES256"], "kid": "ec"}), id="alg a list"),
        pytest.param(by_hand({"kid": "ec"}), id="no alg"),
        pytest.param(hmac_signed(PEM), id="HS256 with the public key as PEM"),
        pytest.param(hmac_signed(DER), id="HS256 with the public key as DER"),
        pytest.param(hmac_signed(json.dumps(EC.jwk).encode()), id="HS256 with the public key as JWK"),
        pytest.param(hmac_signed(b""), id="HS256 with an empty key"),
        pytest.param(STRANGER.sign(GOOD), id="another's signature under a known kid"),
        pytest.param(STRANGER.sign(GOOD, {"jwk": STRANGER.jwk}), id="a key of its own in the head"),
        pytest.param(STRANGER.sign(GOOD, {"jku": "https://evil.example/keys"}), id="a place to fetch a key"),
        pytest.param(EC.sign(GOOD, {"kid": None}), id="no kid"),
        pytest.param(EC.sign(GOOD, {"kid": 1}), id="kid a number"),
        pytest.param(EC.sign(GOOD, {"kid": "other"}), id="kid unknown"),
        pytest.param(EC.sign(GOOD, {"alg": "ES384"}), id="another algorithm in the head"),
        pytest.param(EC.sign(GOOD, {"crit": ["exp"]}), id="crit"),
        pytest.param(EC.sign(GOOD, {"b64": False}), id="b64"),
        pytest.param(EC.sign(GOOD, {"typ": "logout+jwt"}), id="a logout token"),
        pytest.param(EC.sign(GOOD, {"typ": "dpop+jwt"}), id="a DPoP proof"),
        pytest.param(EC.sign(GOOD, {"typ": 1}), id="typ a number"),
        pytest.param(f"{BODY}.", id="no signature"),
        pytest.param(f"{BODY}.{'A' * len(SIGNATURE)}", id="a signature of zeros"),
        pytest.param(f"{BODY}.{SIGNATURE[:-4]}", id="a short signature"),
        pytest.param(EC.sign(["ada"]), id="claims that are no object"),  # type: ignore[arg-type]
        pytest.param(EC.sign(GOOD | {"x": "x" * LONGEST_TOKEN}), id="longer than a header"),
        pytest.param("a.b.c", id="noise"),
        pytest.param("..", id="nothing"),
    ],
)
async def test_what_is_no_token_of_the_provider(token: str) -> None:
    """None of them is one. RFC 8725."""
    assert read(token) is None


@pytest.mark.parametrize("kind", ["at+jwt", "AT+JWT", "application/at+jwt", "JWT", None])
async def test_kinds_of_tokens(kind: str | None) -> None:
    """Access tokens by RFC 9068, and those of providers that write JWT or nothing."""
    assert read(EC.sign(GOOD, {"typ": kind})) is not None


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"iss": "https://evil.example"}, id="iss"),
        pytest.param({"iss": ISSUER + "/"}, id="iss with a slash"),
        pytest.param({"iss": [ISSUER]}, id="iss a list"),
        pytest.param({"iss": None}, id="no iss"),
        pytest.param({"aud": "another"}, id="aud"),
        pytest.param({"aud": AUDIENCE + "2"}, id="aud that begins alike"),
        pytest.param({"aud": []}, id="aud empty"),
        pytest.param({"aud": {AUDIENCE: 1}}, id="aud an object"),
        pytest.param({"aud": None}, id="no aud"),
        pytest.param({"exp": None}, id="no exp"),
        pytest.param({"exp": "1000"}, id="exp a text"),
        pytest.param({"exp": True}, id="exp true"),
        pytest.param({"exp": float("nan")}, id="exp not a number"),
        pytest.param({"exp": float("inf")}, id="exp infinite"),
        pytest.param({"exp": 10**400}, id="exp beyond all numbers"),
        pytest.param({"nbf": "0"}, id="nbf a text"),
        pytest.param({"iat": [1]}, id="iat a list"),
        pytest.param({"sub": None}, id="no sub"),
        pytest.param({"sub": 7}, id="sub a number"),
        pytest.param({"sub": ["ada"]}, id="sub a list"),
    ],
)
async def test_claims_that_say_too_little(claims: dict[str, Any]) -> None:
    """Another issuer or audience, no end, no user: nothing is said. RFC 9068 4."""
    assert said(**claims) is None


async def test_one_of_several_audiences() -> None:
    """It is enough to be among them."""
    assert said(aud=["other", AUDIENCE]) is not None


@pytest.mark.parametrize(
    ("now", "refusal"),
    [
        (109.9, Reason.INVALID_TOKEN),
        (110, None),
        (1009.9, None),
        (1010, Reason.TOKEN_EXPIRED),
    ],
)
async def test_its_time(now: float, refusal: Reason | None) -> None:
    """Not before the later of `nbf` and `iat`, and strictly before `exp`, by ten seconds of leeway either way."""
    statement = said()
    assert statement is not None
    assert statement.refusal(now) == refusal


async def test_issued_in_the_future() -> None:
    """Also without `nbf`."""
    statement = said(nbf=None, iat=5000, exp=9000)
    assert statement is not None
    assert statement.refusal(4000) == Reason.INVALID_TOKEN


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (["a", "b"], {"a", "b"}),
        ("admin", {"admin"}),
        (None, set()),
        (["a", 1], set()),
        ({"admin": True}, set()),
        (True, set()),
        ([], set()),
    ],
)
async def test_roles_and_groups(value: Any, texts: set[str]) -> None:
    """A list of texts, or one text; anything else gives nothing, and is no reason to refuse."""
    statement = said(roles=value, groups=value)
    assert statement is not None
    assert statement.roles == statement.groups == texts


async def test_a_tenant_is_named_where_it_has_to_be() -> None:
    """A token without the tenant's claim, or with a strange one, says nothing. R271."""
    by = judge(tenant_id="org.id")
    named = read(EC.sign(GOOD | {"org": {"id": "acme"}}), by=by)
    assert named is not None
    assert named.tenant_id == "acme"
    for org in ({}, {"id": None}, {"id": ["acme"]}, "acme", None):
        assert read(EC.sign(GOOD | {"org": org}), by=by) is None


async def test_claims_in_objects() -> None:
    """Dots lead into objects; a claim whose own name has dots is found first."""
    claims = {"realm": {"access": {"roles": 1}}, "https://x.example/roles": 2, "realm.other": 3, "list": [1]}
    assert claim(claims, "realm.access.roles") == 1
    assert claim(claims, "https://x.example/roles") == 2
    assert claim(claims, "realm.other") == 3
    assert [claim(claims, name) for name in ("realm.none", "realm.access.roles.deep", "list.0", ".", "x")] == [None] * 5


def changed(key: ProviderKey, **members: Any) -> dict[str, Any]:
    """The public key with members laid over it; None removes one."""
    return {name: value for name, value in {**key.jwk, **members}.items() if value is not None}


@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param(changed(EC, use="enc"), id="for encryption"),
        pytest.param(changed(EC, key_ops=["sign"]), id="not to verify"),
        pytest.param(changed(EC, key_ops="verify"), id="key_ops a text"),
        pytest.param(changed(EC, alg="ES384"), id="for another algorithm"),
        pytest.param(changed(EC, kid=None), id="without an id"),
        pytest.param(changed(EC, kid=["ec"]), id="id a list"),
        pytest.param(changed(EC, crv="P-384"), id="of another curve"),
        pytest.param(changed(EC, crv=None), id="without a curve"),
        pytest.param(changed(EC, x="AAAA"), id="no point"),
        pytest.param(changed(EC, x=None), id="half a point"),
        pytest.param({**EC.jwk, **jwt.get_algorithm_by_name("ES256").to_jwk(EC.private, as_dict=True)}, id="private"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0", "kid": "ec", "alg": "ES256"}, id="symmetric"),
        pytest.param(ProviderKey("ec", rsa.generate_private_key(65537, 1024), "RS256").jwk, id="1024 bits of RSA"),
        pytest.param({"kty": "RSA", "kid": "ec", "n": "", "e": "AQAB"}, id="RSA without a modulus"),
        pytest.param("key", id="a text"),
        pytest.param([], id="a list"),
    ],
)
async def test_what_is_no_key_is_passed_over(jwk: Any) -> None:
    """It neither counts nor hinders those beside it. RFC 7517 5."""
    good = ProviderKey("good")
    keys = public_keys({"keys": [jwk, good.jwk]}, ALGORITHMS)
    assert keys is not None
    assert set(keys) == {("ES256", "good")}


async def test_a_key_without_an_algorithm_serves_all_of_its_kind() -> None:
    """`alg` is optional in a JWKS; a curve fixes it, RSA does not."""
    keys = public_keys({"keys": [changed(ProviderKey("r", RSA, "RS256"), alg=None), changed(EC, alg=None)]}, ALGORITHMS)
    assert keys is not None
    assert {algorithm for algorithm, key_id in keys if key_id == "r"} == {
        name for name in ALGORITHMS if name[1] == "S" and name[0] in "RP"
    }
    assert {algorithm for algorithm, key_id in keys if key_id == "ec"} == {"ES256"}


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, {"keys": None}, "keys"])
async def test_what_is_no_jwks(document: object) -> None:
    """Then nothing is known, which is not the same as: there are no keys."""
    assert public_keys(document, ALGORITHMS) is None


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=80))
def test_noise_is_no_token(head: bytes, claims: bytes, signature: bytes) -> None:
    """No bytes make the judge raise. R075."""
    assert read(f"{base64url(head)}.{base64url(claims)}.{base64url(signature)}") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "kid", "alg"]), JSON))
def test_strange_claims_and_keys_never_break_the_judge(strange: dict[str, Any]) -> None:
    """Whatever the provider writes, it is a statement or none, and a key or none."""
    statement = read(EC.sign(GOOD | strange))
    assert statement is None or isinstance(statement.refusal(0), Reason | None)
    assert public_keys({"keys": [EC.jwk | strange]}, ALGORITHMS) is not None
