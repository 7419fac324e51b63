"""GitHub's public keys: fetched when needed, kept, and never believed for longer than they may be."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.control.github_keys import AGAIN_SECONDS, KEPT_SECONDS, GithubKeys, KeySourceUnavailable, is_signed
from tests.fixtures.admission_world import MovedClock
from tests.fixtures.github import KEY_ID, SIGNATURE_HEADER, Github, github_running, pem, signed


@pytest.fixture
async def github() -> AsyncIterator[Github]:
    async with github_running() as github:
        yield github


async def test_keys_are_fetched_once_and_kept_for_an_hour(github: Github) -> None:
    """However many ask at once; then they are fetched again, and a withdrawn one is gone."""
    clock = MovedClock()
    keys = GithubKeys(github.url, clock.monotonic)
    assert None not in await asyncio.gather(*(keys.find(KEY_ID) for _ in range(20)))
    assert github.asked == 1
    clock.now += KEPT_SECONDS - 1
    assert await keys.find(KEY_ID) is not None
    assert github.asked == 1
    github.published["public_keys"][0]["key_identifier"] = "another"
    clock.now += 1
    assert await keys.find(KEY_ID) is None
    assert await keys.find("another") is not None
    assert github.asked == 2


async def test_an_unknown_key_makes_us_ask_now_and_then(github: Github) -> None:
    """A new key is found at once, but nobody can make us ask as often as he likes."""
    clock = MovedClock()
    keys = GithubKeys(github.url, clock.monotonic)
    for _ in range(5):
        assert await keys.find("new") is None
    assert github.asked == 1
    github.published["public_keys"].append({"key_identifier": "new", "key": pem(github.key)})
    clock.now += AGAIN_SECONDS
    assert await keys.find("new") is not None
    assert github.asked == 2


async def test_a_source_that_is_away_is_no_verdict(github: Github) -> None:
    """Known keys are believed for their hour; nothing can be said of others, or later. R070."""
    clock = MovedClock()
    keys = GithubKeys(github.url, clock.monotonic)
    assert await keys.find(KEY_ID) is not None
    github.status = 500
    clock.now += AGAIN_SECONDS
    with pytest.raises(KeySourceUnavailable):
        await keys.find("unknown")
    assert await keys.find(KEY_ID) is not None
    clock.now += KEPT_SECONDS
    for _ in range(3):
        with pytest.raises(KeySourceUnavailable):
            await keys.find(KEY_ID)
    assert github.asked == 3
    github.status = 200
    clock.now += AGAIN_SECONDS
    assert await keys.find(KEY_ID) is not None


P384 = generate_private_key(SECP384R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
ED25519 = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "published",
    [
        pytest.param([], id="list"),
        pytest.param({}, id="empty"),
        pytest.param({"public_keys": []}, id="none"),
        pytest.param({"public_keys": "x"}, id="text"),
        pytest.param({"public_keys": [5, {"key_identifier": KEY_ID}]}, id="no key"),
        pytest.param({"public_keys": [{"key_identifier": KEY_ID, "key": "-----BEGIN"}]}, id="no PEM"),
        pytest.param({"public_keys": [{"key_identifier": KEY_ID, "key": P384.decode()}]}, id="another curve"),
        pytest.param({"public_keys": [{"key_identifier": KEY_ID, "key": ED25519.decode()}]}, id="another algorithm"),
        pytest.param({"public_keys": [], "padding": "x" * 300_000}, id="large"),
    ],
)
async def test_an_answer_without_a_key_is_none(github: Github, published: Any) -> None:
    """Whatever it is, it is an outage, and not a key."""
    github.published = published
    with pytest.raises(KeySourceUnavailable):
        await GithubKeys(github.url, MovedClock().monotonic).find(KEY_ID)


async def test_a_bad_key_spoils_no_good_one(github: Github) -> None:
    """One that is not understood is passed over."""
    github.published["public_keys"].insert(0, {"key_identifier": "bad", "key": "nonsense"})
    keys = GithubKeys(github.url, MovedClock().monotonic)
    assert await keys.find(KEY_ID) is not None
    assert await keys.find("bad") is None


async def test_a_redirect_is_not_followed(github: Github) -> None:
    """Keys come from where the operator said."""
    github.status = 302
    with pytest.raises(KeySourceUnavailable):
        await GithubKeys(github.url, MovedClock().monotonic).find(KEY_ID)


async def test_nobody_listens() -> None:
    """An address where nothing is: an outage as well."""
    with pytest.raises(KeySourceUnavailable):
        await GithubKeys("http://127.0.0.1:1/keys", MovedClock().monotonic).find(KEY_ID)


async def test_a_signature_is_over_every_byte() -> None:
    """Of the very body, by the very key, in base64 of DER."""
    github, other, raw = Github(), Github(), b'[{"token": "x"}]'
    good = signed(github.key, raw)[SIGNATURE_HEADER]
    public = github.key.public_key()
    assert is_signed(raw, good, public)
    assert not is_signed(raw + b" ", good, public)
    assert not is_signed(raw, good, other.key.public_key())
    for bad in (
        "",
        "x",
        good[:-4],
        good[4:],
        good + "!",
        "\u00e9",
        good.replace(good[10], "A" if good[10] != "A" else "B"),
    ):
        assert not is_signed(raw, bad, public)
