"""What others answer: an OpenID provider, and GitHub. Any bytes are keys, a statement, or none; none is invented.

`data` is behind a byte that says what it is: a JWKS, a token as it is, claims that the provider has signed, the answer
of its token endpoint, its discovery, GitHub's keys, its signature under a report, or the report.
"""

import base64
import json
import re
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.auth.sign_in import ID_TOKEN_TYPES, KEY_KINDS, RSA_BITS_MINIMUM, Head, Judge, Names, public_keys
from gateway.control.github_keys import is_signed, keys_of
from gateway.control.people import SignInRefused
from gateway.control.portal.provider import token_answer
from gateway.control.problems import InvalidBody
from gateway.control.provider import ProviderUnavailable
from gateway.control.secret_scanning import reason_of, reports_in
from gateway.setting_values import check_provider_url
from tests.fuzz.tokens import encoded

ISSUER, AUDIENCE, NONCE, KEY_ID = "https://login.test", "portal", "n-1", "k1"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
HEAD = {"alg": "EdDSA", "typ": "JWT", "kid": KEY_ID}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "ada",
    "exp": 20,
    "iat": 10,
    "nbf": 11,
    "nonce": NONCE,
    "roles": ["admin"],
    "realm": {"groups": ["/a"]},
}
JUDGE = Judge(
    issuer=ISSUER,
    audience=AUDIENCE,
    algorithms=tuple(KEY_KINDS),
    names=Names("sub", "tenant", "roles", "realm.groups"),
    leeway_seconds=2.0,
    types=ID_TOKEN_TYPES,
)
OURS = derive_private_key(7, SECP256R1())  # nobody's secret: the same in every run
PEM = OURS.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def check(data: bytes) -> None:
    """See above."""
    body = data[1:]
    match data[:1]:
        case b"j":
            check_keys(body)
        case b"t":
            head = JUDGE.head_of(body.decode("latin-1"))
            assert head is None or JUDGE.read(body.decode("latin-1"), head, PRIVATE.public_key()) is None
        case b"c":
            check_claims(body)
        case b"e":
            check_token_answer(body)
        case b"d":
            check_discovery(body)
        case b"g":
            check_github(body)
        case b"s":
            assert not is_signed(b"report", body.decode("latin-1"), OURS.public_key())
        case b"r":
            check_report(body)
        case _:
            pass


def value_of(body: bytes) -> Any:
    """The JSON; None where it is none, as whoever fetches it gives up on it."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def check_keys(body: bytes) -> None:
    """Keys for signatures alone, and none that is weak."""
    for (algorithm, key_id), key in (public_keys(value_of(body), KEY_KINDS) or {}).items():
        assert algorithm in KEY_KINDS
        assert isinstance(key_id, str)
        assert not hasattr(key, "private_bytes")
        assert not isinstance(key, RSAPublicKey) or key.key_size >= RSA_BITS_MINIMUM


def check_claims(body: bytes) -> None:
    """What has been signed is believed where it is for this sign-in, and nothing else is."""
    text = encoded(json.dumps(HEAD).encode()) + b"." + encoded(body)
    token = (text + b"." + encoded(PRIVATE.sign(text))).decode()
    head = JUDGE.head_of(token)
    assert head == Head("EdDSA", KEY_ID)
    said = JUDGE.read_id_token(token, head, PRIVATE.public_key(), nonce=NONCE, access_token="\ud800")
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    assert JUDGE.read_id_token(token, head, stranger, nonce=NONCE, access_token="a") is None
    if said is None:
        return
    claims = value_of(body)
    assert (claims["iss"], claims["nonce"], claims["sub"]) == (ISSUER, NONCE, said.user_id)
    assert f"{said.user_id} {said.tenant_id} {said.roles} {said.groups}".encode()
    assert claims["aud"] == AUDIENCE or AUDIENCE in claims["aud"]
    assert isinstance(claims["tenant"], str)
    assert said.tenant_id == claims["tenant"]
    assert said.ends_at == claims["exp"] + 2.0
    assert said.refusal(said.ends_at) is not None
    assert all(isinstance(role, str) for role in said.roles | said.groups)


def check_token_answer(body: bytes) -> None:
    """An object, or a refusal, or an outage; by the status in front."""
    status = 200 if body[:1] == b"2" else 400 if body[:1] == b"4" else 500
    try:
        given = token_answer(status, body[1:])
    except (SignInRefused, ProviderUnavailable):
        return
    assert isinstance(given, dict)
    assert status == 200


def check_discovery(body: bytes) -> None:
    """An address is one of https, or of this machine."""
    try:
        url = check_provider_url(str(value_of(body)))
    except ValueError:
        return
    assert url.startswith(("https://", "http://localhost", "http://127.", "http://[::1]"))
    assert url.isprintable()


def check_github(body: bytes) -> None:
    """Keys of P-256 by their names."""
    try:
        keys = keys_of(value_of(body))
    except ValueError:
        return
    assert keys
    assert all(isinstance(key, EllipticCurvePublicKey) and key.curve.name == "secp256r1" for key in keys.values())


def check_report(body: bytes) -> None:
    """Reports, each with a reason for the record that is one short line, and without the token in it."""
    try:
        reports = reports_in(body)
    except InvalidBody:
        return
    for report in reports:
        assert report.token.encode() is not None
        reason = reason_of(report)
        assert re.fullmatch(r"[ -~]{1,200}", reason)
        assert len(report.token) < 20 or report.token not in reason


def _json(kind: bytes, value: Any) -> bytes:
    return kind + json.dumps(value).encode()


_ED = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": KEY_ID, "x": base64.urlsafe_b64encode(bytes(32)).decode()}
_EC = {"kty": "EC", "crv": "P-256", "kid": "e", "alg": "ES256", "x": "AA", "y": "AA"}
_RSA = {"kty": "RSA", "kid": "r", "n": "AQAB" * 90, "e": "AQAB", "key_ops": ["verify"]}
SEEDS = [
    _json(b"j", {"keys": [_ED, _EC, _RSA, {"kty": "oct", "k": "AA", "kid": "s"}, 1]}),
    _json(b"j", {"keys": [{**_RSA, "d": "AQAB", "p": "AQ", "q": "AQ"}]}),
    _json(b"j", {"keys": [{**_ED, "x": 1}, {**_ED, "key_ops": 1}, {**_EC, "x": "\ud800"}]}),
    _json(b"j", {"keys": {}}),
    b"t..",
    b"teyJhbGciOiJub25lIn0.e30.",
    b"t" + b"." * 8200,
    _json(b"c", CLAIMS),
    _json(b"c", {**CLAIMS, "tenant": "t1", "azp": AUDIENCE, "at_hash": "x"}),
    _json(b"c", {**CLAIMS, "tenant": "t1", "aud": [AUDIENCE, "b"], "azp": AUDIENCE}),
    _json(b"c", {**CLAIMS, "tenant": "t1", "exp": 1e308, "roles": "admin", "realm": []}),
    _json(b"c", {**CLAIMS, "nonce": "\ud800"}),
    _json(b"c", {**CLAIMS, "tenant": "t1", "sub": "\ud800"}),
    _json(b"c", {**CLAIMS, "tenant": "t1", "exp": True}),
    _json(b"c", {**CLAIMS, "tenant": "t1"}),
    b'e2{"id_token":"a.b.c"}',
    b"e2[]",
    b'e4{"error":"invalid_grant"}',
    b'e4{"error":{"a":"\\ud800"}}',
    b"e5",
    b"e2" + b"[" * 2000,
    _json(b"d", "https://login.test/authorize"),
    _json(b"d", "http://127.0.0.1:80/a"),
    _json(b"d", "http://[::1"),
    _json(b"d", "https://a@b/\r\n"),
    _json(b"g", {"public_keys": [{"key_identifier": "a", "key": PEM, "is_current": True}]}),
    _json(b"g", {"public_keys": [{"key_identifier": 1, "key": PEM}, 1, {"key_identifier": "b", "key": "\ud800"}]}),
    _json(b"g", {"public_keys": [{"key_identifier": "c", "key": PEM[:60] + PEM[61:]}]}),
    b"sMEUCIQ==",
    _json(
        b"r", [{"token": "ost_test_" + "a" * 38, "type": "t", "url": "https://x/ost_test_" + "a" * 38, "source": "s"}]
    ),
    _json(b"r", [{"token": "", "url": "\r\n"}, {"token": "\u20ac", "more": []}]),
    _json(b"r", [{"token": 1}]),
    b'r[{"token":"\\ud800"}]',
    b"s\xff",
]
TOKENS = [
    *(json.dumps(name).encode() for name in (*CLAIMS, *HEAD, *_ED, *_EC, *_RSA, "tenant", "azp", "at_hash", "keys")),
    *(json.dumps(name).encode() for name in (*KEY_KINDS, "public_keys", "key_identifier", "key", "id_token")),
    *(b'"token"', b'"url"', b'"source"', b'"type"'),
    *(b"null", b"true", b"NaN", b"1e999", b"[]", b"{}", b"\\ud800", b"https://", b"http://localhost", b"-----BEGIN "),
]
