"""Replays what fuzzing has kept: no input breaks a promise, and none hangs. Needs no fuzzer."""

import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.fuzz.targets import FOLDER, SECONDS_PER_INPUT, TARGETS, Target, file_name

LARGEST_CORPUS_BYTES = 1_500_000


class Hang(BaseException):
    """An input takes too long. No `except Exception` stops it."""


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Lets `bounded` interrupt."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def bounded(target: Target, data: bytes) -> None:
    """Check `data`, for a limited time; past that the alarm rings again and again, since a loop may outlive one."""
    signal.setitimer(signal.ITIMER_REAL, 5 * SECONDS_PER_INPUT, 0.1)  # other tests run on the same cores
    try:
        target.check(data)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def kept(folder: Path) -> list[Path]:
    """The inputs in a folder."""
    return sorted(folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_no_kept_input_breaks_a_promise(target: Target) -> None:
    """Everything that fuzzing has reached is reached again, and each check still holds. R075, R341."""
    inputs = {f"seed {number}": seed for number, seed in enumerate(target.seeds)}
    inputs |= {
        str(path.relative_to(FOLDER)): path.read_bytes() for path in (*kept(target.corpus), *kept(target.crashes))
    }
    for name, data in inputs.items():
        try:
            bounded(target, data)
        except (Exception, Hang) as error:
            raise AssertionError(f"{name}: {data!r}") from error


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_each_target_has_a_corpus(target: Target) -> None:
    """A renamed target does not leave its corpus behind, nor run without one."""
    assert kept(target.corpus)
    assert all(path.name == file_name(path.read_bytes()) for path in kept(target.corpus))


def test_the_corpus_stays_small() -> None:
    """It is checked out by everybody."""
    folders = {FOLDER / "corpus", FOLDER / "crashes"}
    files = [path for folder in folders if folder.exists() for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST_CORPUS_BYTES
    assert {path.parent.name for path in files} <= set(TARGETS)
