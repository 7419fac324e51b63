"""What stands in Redis: names, the seal, and findings as bytes."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.stores.records import Finding, KeyRecord, SecretState
from gateway.stores.redis.entry_format import LARGEST_BYTES, pack, unpack
from gateway.stores.redis.names import changes_channel, entry_name, redis_name, replies_channel
from gateway.stores.redis.seal import Seal

DIGEST = bytes(range(32))
RECORD = KeyRecord(
    digest=DIGEST,
    secret_id="sec_1",
    secret_state=SecretState.RETIRED,
    secret_expires_at=1_700_000_000.25,
    key_id="key_1",
    key_kind="user",
    key_name="name",
    environment="test",
    scopes=("a:read", "b"),
    key_expires_at=None,
    is_revoked=False,
    user_id="u1",
    is_user_active=True,
    tenant_id="t1",
    is_tenant_active=True,
    plan="starter",
    tier=2,
    features={"api_access": True, "seats": 5, "color": "blue"},
    limits={"per_minute": 60},
    entitlement_valid_until=None,
)
FOUND = Finding(42, (DIGEST, bytes(32)), RECORD)
ABSENT = Finding(7, (DIGEST,), None)


@pytest.mark.parametrize("finding", [FOUND, ABSENT, replace(FOUND, record=replace(RECORD, plan=None))])
def test_a_finding_comes_back_as_it_was(finding: Finding) -> None:
    """A record or an absence, with every field. R055."""
    assert unpack(pack(finding)) == finding


def changed(**fields: Any) -> bytes:
    whole = json.loads(pack(FOUND))
    whole["record"] |= fields
    return json.dumps(whole).encode()


def shaped(**parts: Any) -> bytes:
    return json.dumps(json.loads(pack(FOUND)) | parts).encode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="broken JSON"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param(b"{}", id="an empty object"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"17", id="a number"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b" " * LARGEST_BYTES + pack(FOUND), id="huge"),
        pytest.param(shaped(version=0), id="an old version"),
        pytest.param(shaped(version=True), id="a version that is true"),
        pytest.param(shaped(revision="1"), id="a revision that is text"),
        pytest.param(shaped(revision=-1), id="a negative revision"),
        pytest.param(shaped(revision=1.0), id="a revision that is a float"),
        pytest.param(shaped(digests=[]), id="no digest"),
        pytest.param(shaped(digests=["00"]), id="a short digest"),
        pytest.param(shaped(digests=["z" * 64]), id="a digest that is not hex"),
        pytest.param(shaped(digests=["00" * 32]), id="another secret's record"),
        pytest.param(shaped(record={}), id="an empty record"),
        pytest.param(shaped(record=[]), id="a record that is a list"),
        pytest.param(shaped(more=1), id="a part too many"),
        pytest.param(changed(more=1), id="a field too many"),
        pytest.param(changed(user_id=""), id="an empty owner"),
        pytest.param(changed(user_id=None), id="no owner"),
        pytest.param(changed(is_revoked="false"), id="a flag that is text"),
        pytest.param(changed(is_revoked=0), id="a flag that is a number"),
        pytest.param(changed(scopes="a:read"), id="scopes that are text"),
        pytest.param(changed(scopes=[1]), id="a scope that is a number"),
        pytest.param(changed(features=[]), id="features that are a list"),
        pytest.param(changed(tier=True), id="a tier that is true"),
        pytest.param(changed(secret_state="new"), id="an unknown state"),
        pytest.param(changed(key_expires_at="tomorrow"), id="a moment that is text"),
        pytest.param(changed(key_expires_at=float("nan")), id="a moment that is NaN"),
        pytest.param(changed(key_expires_at=float("inf")), id="a moment that is infinite"),
        pytest.param(changed(key_expires_at=1).replace(b'_at": 1,', b'_at": 1e999,'), id="a moment that overflows"),
        pytest.param(changed(key_expires_at=10**400), id="a moment too large for a float"),
    ],
)
def test_anything_odd_is_no_finding(body: bytes) -> None:
    """Never an identity, and never an error. R055."""
    assert unpack(body) is None


@pytest.mark.threat("poisoned cache entry")
@given(st.binary(max_size=200))
def test_any_bytes_are_no_finding(body: bytes) -> None:
    """Whatever stands in Redis, reading it does not raise. R055."""
    assert unpack(body) is None


@pytest.mark.threat("poisoned cache entry")
def test_what_is_sealed_opens_under_its_name_only() -> None:
    """One key's record is worth nothing under another name, nor with one bit changed."""
    seal = Seal()
    assert seal.open("name", b"anything") is None
    seal.unlock(b"k" * 32)
    sealed = seal.close("name", b"body")
    assert seal.open("name", sealed) == b"body"
    assert seal.open("other", sealed) is None
    assert seal.open("name", sealed[:-1]) is None
    for place in range(len(sealed)):
        forged = bytearray(sealed)
        forged[place] ^= 1
        assert seal.open("name", bytes(forged)) is None
    other = Seal()
    other.unlock(b"l" * 32)
    assert other.open("name", sealed) is None


def test_names_of_two_environments_never_meet() -> None:
    """One function makes every name, and each begins with its environment. R053, R054."""
    for make in (
        lambda environment: entry_name(environment, DIGEST),
        changes_channel,
        lambda environment: replies_channel(environment, "writer"),
    ):
        assert make("prod").startswith("ostiary:prod:")
        assert make("prod") != make("test")
    with pytest.raises(ValueError, match="not an environment"):
        redis_name("prod:entry", "x")
    with pytest.raises(ValueError, match="not an environment"):
        redis_name("", "x")
