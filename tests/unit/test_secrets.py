import hashlib
import hmac
import math
import re
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.auth.secrets import ALPHABET, RANDOM_CHARACTERS, Peppers, SecretFormat, checksum, sha256_digest

FORMAT = SecretFormat("ost", "test")
GOOD = FORMAT.generate()
SAMPLES = 10_000


def sealed(body: str) -> bytes:
    """A secret with a right checksum, whatever its body."""
    return (body + checksum(body)).encode()


def test_ten_thousand_secrets_are_all_different_and_of_the_published_shape() -> None:
    """Ten thousand secrets fit the published shape, and no two are alike. R012."""
    published = re.compile(r"ost_test_[0-9A-Za-z]{38}")
    samples = [FORMAT.generate() for _ in range(SAMPLES)]
    assert len(set(samples)) == SAMPLES
    assert all(published.fullmatch(sample) for sample in samples)
    assert all(FORMAT.is_well_formed(sample.encode()) for sample in samples)


def test_the_random_part_holds_enough_and_even_randomness() -> None:
    """At least 140 bits, and what may be shown leaves as many; no character is likelier than another. R012."""
    assert RANDOM_CHARACTERS * math.log2(len(ALPHABET)) >= 140
    samples = [FORMAT.generate() for _ in range(SAMPLES)]
    hidden = len(samples[0]) - len(FORMAT.display_prefix(samples[0])) - 6
    assert hidden * math.log2(len(ALPHABET)) >= 140
    counts = Counter("".join(sample.removeprefix("ost_test_")[:RANDOM_CHARACTERS] for sample in samples))
    expected = SAMPLES * RANDOM_CHARACTERS / len(ALPHABET)
    assert counts.keys() == set(ALPHABET)
    assert all(abs(count - expected) < 7 * math.sqrt(expected) for count in counts.values()), counts


def test_the_checksum_never_changes() -> None:
    """Secrets that are out in the world stay good: the checksum is CRC-32 in base62, digits first. R006."""
    assert FORMAT.is_well_formed(b"ost_test_0123456789abcdefghijABCDEFGHIJ012ZW6fE")


@given(position=st.integers(0, len(GOOD) - 1), replacement=st.integers(0, 255))
def test_any_single_character_change_is_refused(position: int, replacement: int) -> None:
    """A secret with one wrong byte, wherever and whichever, is refused without asking anybody. R006."""
    changed = bytearray(GOOD.encode())
    assume(changed[position] != replacement)
    changed[position] = replacement
    assert not FORMAT.is_well_formed(bytes(changed))


@given(position=st.integers(0, len(GOOD) - 2))
def test_swapped_neighbours_are_refused(position: int) -> None:
    """Two characters in the wrong order are noticed. R006."""
    left, right = GOOD[position], GOOD[position + 1]
    assume(left != right)
    assert not FORMAT.is_well_formed((GOOD[:position] + right + left + GOOD[position + 2 :]).encode())


@given(position=st.integers(0, len(GOOD) - 1))
def test_a_lost_character_is_refused(position: int) -> None:
    """A secret that was not copied whole is refused. R006."""
    assert not FORMAT.is_well_formed((GOOD[:position] + GOOD[position + 1 :]).encode())


@given(noise=st.binary(max_size=400))
def test_noise_is_refused_and_never_raises(noise: bytes) -> None:
    """Whatever bytes are sent, the answer is a plain no. R006 R007."""
    assert not FORMAT.is_well_formed(noise)


R32 = "a" * 32


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(b"", id="empty"),
        pytest.param(GOOD.encode() + b"\n", id="trailing newline"),
        pytest.param(b" " + GOOD.encode(), id="leading space"),
        pytest.param(GOOD.encode() + b"\0", id="trailing NUL"),
        pytest.param(GOOD.upper().encode(), id="upper case"),
        pytest.param(sealed(f"OST_test_{R32}"), id="prefix in another case"),
        pytest.param(sealed(f"sk_test_{R32}"), id="another prefix"),
        pytest.param(sealed(f"ost_{R32}"), id="no environment"),
        pytest.param(sealed(f"ost_prod_{R32}"), id="another environment"),
        pytest.param(sealed(f"ost_tes_{R32}"), id="a shorter environment"),
        pytest.param(sealed(f"ost_test2_{R32}"), id="a longer environment"),
        pytest.param(sealed(f"ost_prod_ost_test_{R32}"), id="two environments"),
        pytest.param(sealed(f"ost_test_{R32[1:]}"), id="one character too few"),
        pytest.param(sealed(f"ost_test_{'a' * 129}"), id="one character too many"),
        pytest.param(sealed(f"ost_test_{R32[1:]}-"), id="a character outside of base62"),
        pytest.param(sealed(f"ost_test_{R32[1:]}é"), id="a letter outside of ASCII"),
        pytest.param(sealed(f"ost_test_{R32[1:]}٣"), id="a digit outside of ASCII"),
        pytest.param(f"ost_test_{R32}000000".encode(), id="no checksum"),
    ],
)
def test_what_has_not_the_shape_is_refused(secret: bytes) -> None:
    """Prefix, environment, alphabet, length and checksum all have to fit, to the byte. R006 R011."""
    assert not FORMAT.is_well_formed(secret)


@pytest.mark.parametrize("length", [32, 33, 64, 128])
def test_longer_secrets_are_accepted(length: int) -> None:
    """32 characters is the least, not the only length: the shape can grow without a flag day. R012."""
    assert FORMAT.is_well_formed(sealed(f"ost_test_{'Z' * length}"))


@pytest.mark.parametrize(("prefix", "environment"), [("a.c", "test"), ("ost", "t.st"), ("o+", "x*")])
def test_settings_are_not_patterns(prefix: str, environment: str) -> None:
    """A prefix or environment with a character that means something to a regex means itself. R011."""
    strange = SecretFormat(prefix, environment)
    assert strange.is_well_formed(strange.generate().encode())
    assert not strange.is_well_formed(sealed(f"{prefix.replace('.', 'b').replace('+', 'o')}_test_{R32}"))
    assert not strange.is_well_formed(GOOD.encode())


def test_what_is_shown_does_not_give_the_secret_away() -> None:
    """Six characters of the random part are shown, behind prefix and environment. R218."""
    shown = FORMAT.display_prefix(GOOD)
    assert GOOD.startswith(shown)
    assert re.fullmatch(r"ost_test_[0-9A-Za-z]{6}", shown)


def test_without_peppers_the_digest_is_sha256() -> None:
    """Keys are stored as SHA-256 of the whole secret. R040."""
    digest = sha256_digest(GOOD.encode())
    assert digest == hashlib.sha256(GOOD.encode()).digest()
    assert Peppers().stored_form(digest) == digest
    assert Peppers().candidates(digest) == (digest,)


def test_a_pepper_is_an_hmac_over_the_digest() -> None:
    """Who has the database alone cannot tell whether a guessed secret is in it. R040."""
    digest = sha256_digest(GOOD.encode())
    pepper = b"p" * 32
    expected = hmac.new(pepper, digest, hashlib.sha256).digest()
    assert Peppers([pepper]).stored_form(digest) == expected
    assert Peppers([b"q" * 32]).stored_form(digest) != expected


def test_peppers_can_be_introduced_and_replaced_under_live_keys() -> None:
    """What was stored bare, or under an older pepper, is still looked for; the pepper in use comes first. R040."""
    digest = sha256_digest(GOOD.encode())
    old, new = b"o" * 32, b"n" * 32
    bare, under_old = Peppers().stored_form(digest), Peppers([old]).stored_form(digest)
    renewed = Peppers([new, old])
    assert renewed.candidates(digest) == (renewed.stored_form(digest), under_old, bare)
    assert renewed.stored_form(digest) == Peppers([new]).stored_form(digest)


@pytest.mark.parametrize(
    ("secret", "is_one"),
    [
        pytest.param(b"x" * 16, True, id="shortest"),
        pytest.param(b"x" * 40, True, id="longest"),
        pytest.param(b"x" * 15, False, id="too short"),
        pytest.param(b"x" * 41, False, id="too long"),
        pytest.param(b"!~" * 10, True, id="all visible ASCII"),
        pytest.param(b"ost_" + b"x" * 20, False, id="ours, mistyped"),
        pytest.param(b"ostrich" + b"x" * 20, True, id="begins alike"),
        pytest.param(b"x" * 10 + b" " + b"x" * 10, False, id="blank"),
        pytest.param(b"x" * 20 + b"\n", False, id="newline"),
        pytest.param(b"x" * 20 + b"\xe9", False, id="not ASCII"),
        pytest.param(b"x" * 20 + b"\x7f", False, id="control"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_imported_secrets_have_lengths(secret: bytes, is_one: bool) -> None:
    """Visible ASCII of the configured lengths that does not begin as our own; none where there are none. R006 R011."""
    assert SecretFormat("ost", "test", imported=(16, 40)).is_imported_shape(secret) is is_one
    assert not FORMAT.is_imported_shape(secret)
