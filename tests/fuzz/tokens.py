"""Access tokens: any bytes are the claims of one of ours, or no token; also where the signature is good."""

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.auth.credentials import AMBIGUOUS, INVALID, Credential, CredentialReader, Token
from gateway.auth.tokens import Claims, Signers, TokenVerifier, is_token
from tests.fuzz import parts

KEY_ID, ISSUER, AUDIENCE = "signer_1", "https://gw.test", "api"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RAW = b"!"  # in front of what is taken for a token as it is
HEAD = {"alg": "EdDSA", "typ": "at+jwt", "kid": KEY_ID}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "env": "test",
    "key": "k",
    "secret": "s",
    "sub": "u",
    "tenant": "t",
    "jti": "j",
    "iat": 1,
    "exp": 2,
    "scopes": ["a:read"],
}


def encoded(part: bytes) -> bytes:
    """As in a token."""
    return base64.urlsafe_b64encode(part).rstrip(b"=")


def signed(head: bytes, claims: bytes) -> bytes:
    """A token that says this, signed by a key that is believed."""
    text = encoded(head) + b"." + encoded(claims)
    return text + b"." + encoded(PRIVATE.sign(text))


def verifier() -> TokenVerifier:
    """The judge, who believes one key."""
    signers = Signers()
    signers.take({KEY_ID: PRIVATE.public_key().public_bytes_raw()}, signers.begin())
    return TokenVerifier(signers, issuer=ISSUER, audience=AUDIENCE, environment="test", leeway_seconds=5.0)


def verified(token: bytes) -> Claims | None:
    """The claims, or None for what is no token."""
    try:
        verifier().verify(token).__await__().send(None)  # it waits for nothing: the keys are known
    except StopIteration as done:
        return done.value if isinstance(done.value, Claims) else None
    raise AssertionError("it waits")


def check(data: bytes) -> None:
    """`data` is a token behind `RAW`, or the JSON of a head, a line's end, and the JSON of claims."""
    head, _, claims = data.partition(b"\n")
    token = data[1:] if data.startswith(RAW) else signed(head, claims)
    found = CredentialReader(parts.FORMAT, accepts_tokens=True).read([(b"X-Api-Key", token)])
    assert found not in (None, AMBIGUOUS)
    assert isinstance(found, Token) == is_token(token)
    assert isinstance(found, Credential) or found == INVALID
    if not is_token(token):
        return
    read = verified(token)
    if read is None:
        return
    said, names = json.loads(claims), ("key", "secret", "sub", "tenant")
    assert not data.startswith(RAW), "a signature that nobody has made"
    assert json.loads(head) == HEAD
    assert said["iss"] == ISSUER
    assert said["aud"] == AUDIENCE or AUDIENCE in said["aud"]
    assert (read.key_id, read.secret_id, read.user_id, read.tenant_id) == tuple(said[name] for name in names)
    assert all(said[name] and isinstance(said[name], str) for name in names)
    assert read.ends_at == said["exp"] + 5.0
    assert read.scopes <= set(said.get("scopes") or ())


def _claims(**changes: Any) -> bytes:
    return json.dumps(HEAD).encode() + b"\n" + json.dumps({**CLAIMS, **changes}).encode()


SEEDS = [
    _claims(),
    _claims(aud=["x", AUDIENCE], scopes=[]),
    _claims(scopes="a:read"),
    _claims(scopes=[1]),
    _claims(exp=True),
    _claims(exp=2**60),
    _claims(sub=""),
    _claims(env="prod"),
    json.dumps({**HEAD, "alg": "none"}).encode() + b"\n" + json.dumps(CLAIMS).encode(),
    json.dumps({**HEAD, "crit": ["b64"], "b64": False}).encode() + b"\n" + json.dumps(CLAIMS).encode(),
    json.dumps({**HEAD, "kid": 1}).encode() + b"\n{}",
    json.dumps({**HEAD, "kid": "other"}).encode() + b"\n{}",
    json.dumps(HEAD).encode() + b"\n[]",
    b"[]\n1",
    b"\xff\n\xff",
    b"[" * 300 + b"\n" + b"[" * 300,
    RAW + b"a.b.c",
    RAW + b"..",
    RAW + b"eyJhbGciOiJub25lIn0.e30.",
]
TOKENS = [
    *(b'{"', b'"}', b'","', b'":"', b'":', b"[]", b"null", b"NaN", b"1e999", b"\\ud800", b"\n{", b"\n[", b"."),
    *(json.dumps(name).encode() for name in (*HEAD, *HEAD.values(), *CLAIMS, "crit", "b64", "jwk", "none")),
]
