"""ID tokens: what ends a sign-in, and that nothing else does."""

from typing import Any

import pytest

from gateway.auth.sign_in import ID_TOKEN_TYPES, Judge, Names, Statement, half_hash, public_keys
from tests.fixtures.provider import ProviderKey

ISSUER, CLIENT, NONCE, ACCESS = "https://login.example.com", "portal", "n0nce", "an access token"
KEY = ProviderKey("one")
GOOD: dict[str, Any] = {"iss": ISSUER, "aud": CLIENT, "sub": "ada", "iat": 100, "exp": 1000, "nonce": NONCE}
JUDGE = Judge(
    issuer=ISSUER,
    audience=CLIENT,
    algorithms=["ES256"],
    names=Names("sub", None, "roles", "groups"),
    leeway_seconds=0,
    types=ID_TOKEN_TYPES,
)


def said(head: dict[str, Any] | None = None, *, access_token: str | None = ACCESS, **claims: Any) -> Statement | None:
    """What is made of these claims, laid over good ones; None removes a name."""
    merged = {name: value for name, value in {**GOOD, **claims}.items() if value is not None}
    token = KEY.sign(merged, {"typ": "JWT", **(head or {})})
    found = JUDGE.head_of(token)
    keys = public_keys({"keys": [KEY.jwk]}, ["ES256"])
    if found is None or keys is None:
        return None
    key = keys[found.algorithm, found.key_id]
    return JUDGE.read_id_token(token, found, key, nonce=NONCE, access_token=access_token)


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({}, id="as most providers write it"),
        pytest.param({"aud": [CLIENT]}, id="a list of one audience"),
        pytest.param({"aud": [CLIENT, "api"], "azp": CLIENT}, id="two audiences, given to us"),
        pytest.param({"azp": CLIENT}, id="given to us"),
        pytest.param({"at_hash": half_hash(ACCESS, "ES256")}, id="with the access token beside it"),
        pytest.param({"at_hash": "x", "access_token": None}, id="without an access token there is nothing to compare"),
    ],
)
def test_what_ends_a_sign_in(claims: dict[str, Any]) -> None:
    """OpenID Connect Core 3.1.3.7."""
    statement = said(**claims)
    assert statement is not None
    assert (statement.user_id, statement.refusal(500)) == ("ada", None)
    assert statement.refusal(1000) is not None


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"nonce": None}, id="no nonce"),
        pytest.param({"nonce": "another"}, id="of another sign-in"),
        pytest.param({"nonce": [NONCE]}, id="a nonce that is no text"),
        pytest.param({"iss": "https://evil.example"}, id="of another issuer"),
        pytest.param({"aud": "api"}, id="for an API"),
        pytest.param({"aud": [CLIENT, "api"]}, id="two audiences, and nobody says to whom it was given"),
        pytest.param({"aud": [CLIENT, "api"], "azp": "api"}, id="two audiences, given to the other"),
        pytest.param({"azp": "another"}, id="given to another client"),
        pytest.param({"at_hash": "x"}, id="with another access token"),
        pytest.param({"at_hash": 1}, id="a hash that is no text"),
        pytest.param({"exp": None}, id="without an end"),
        pytest.param({"sub": None}, id="about nobody"),
        pytest.param({"head": {"typ": "at+jwt"}}, id="an access token"),
        pytest.param({"head": {"alg": "none"}}, id="unsigned"),
    ],
)
def test_what_does_not(claims: dict[str, Any]) -> None:
    """Not for this sign-in, not for this client, not of this provider. R365."""
    assert said(**claims) is None


def test_the_half_hash_is_that_of_the_specification() -> None:
    """The example of OpenID Connect Core A.3."""
    assert half_hash("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y", "RS256") == "77QmUPtjPfzWtF2AnpK9RQ"
