"""What the benchmark of refusals makes of its samples."""

import random

from bench.timing import TOLD_APART, YARDSTICK, mistyped, near, rows, welch_t
from gateway.auth.secrets import SecretFormat

FORMAT = SecretFormat("ost", "bench")


def samples(mean: float, seed: int, count: int = 5000) -> list[float]:
    """Times around a mean, with hiccups."""
    chance = random.Random(seed)
    return [chance.gauss(mean, 0.05 * mean) + (mean * 20 if chance.random() < 0.02 else 0.0) for _ in range(count)]


def test_a_hundredth_is_told_apart_and_nothing_is_not() -> None:
    """The yardstick is neither blind nor jumpy, whatever hiccups there are. R382."""
    assert abs(welch_t(samples(100.0, 1), samples(100.0, 2))) < TOLD_APART
    assert welch_t(samples(101.0, 1), samples(100.0, 2)) > TOLD_APART
    assert welch_t(samples(99.0, 1), samples(100.0, 2)) < -TOLD_APART


def test_every_kind_is_a_row() -> None:
    """With what an attacker would need."""
    yardstick, slower = rows({YARDSTICK: samples(100e-6, 1), "slower": samples(102e-6, 2)})
    assert yardstick.cells()[3:] == ["+0.0", "-"]
    assert slower.cells()[0] == "slower"
    assert slower.cells()[4] == "told apart"
    assert slower.needed < slower.count
    assert 95 < yardstick.median_us < 105


def test_near_misses_are_well_formed_and_slips_are_not() -> None:
    """The kinds are what they are called."""
    good = [FORMAT.generate() for _ in range(3)]
    for secret in near(good, 100):
        assert FORMAT.is_well_formed(secret.encode())
        assert any(sum(a != b for a, b in zip(secret[:-6], one[:-6], strict=True)) == 1 for one in good)
    for place in (0, 31):
        for secret in mistyped(good, 100, place):
            assert not FORMAT.is_well_formed(secret.encode())
            assert any(sum(a != b for a, b in zip(secret, one, strict=True)) == 1 for one in good)
