"""The locks: what pyproject.toml asks for is in them, pinned by hash, and all of them agree."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]
LOCKS: Final = sorted((ROOT / "locks").iterdir())
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
# What each lock is for: extras and groups of pyproject.toml, and whether the package itself is to run.
COVERED: Final[dict[str, tuple[bool, list[str], list[str]]]] = {
    "dev": (True, ["embedded", "otel", "dev"], ["compile"]),
    "up": (True, ["embedded"], ["build"]),
    "serve": (True, ["otel"], []),
    "compile": (False, [], ["compile"]),
    "fuzz": (False, [], ["fuzz"]),
    "httpbin": (False, [], ["httpbin"]),
}
SURROUNDINGS: Final = [
    {"python_version": python, "python_full_version": f"{python}.9", "platform_machine": machine}
    | {"sys_platform": "linux", "platform_system": "Linux", "implementation_name": "cpython", "extra": ""}
    for python in ("3.11", "3.12", "3.13", "3.14")
    for machine in ("x86_64", "aarch64")
]
SHA256: Final = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Pin:
    """A line of a lock, with what follows it."""

    name: str
    version: str
    marker: Marker | None
    hashes: int


def pins(lock: Path) -> list[Pin]:
    """What a lock pins."""
    found = []
    lines = "\n".join(line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        what, *options = re.split(r"\s+(?=--)", line.strip())
        requirement = Requirement(what)
        assert all(SHA256.fullmatch(option) for option in options), line
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        found.append(Pin(canonicalize_name(requirement.name), specifier.version, requirement.marker, len(options)))
    return found


PINS: Final = {lock.stem: pins(lock) for lock in LOCKS}


def wanted(name: str) -> Iterator[Requirement]:
    """What has to be in a lock."""
    is_itself, extras, groups = COVERED[name]
    if is_itself:
        yield from map(Requirement, PROJECT["project"]["dependencies"])
    for extra in extras:
        yield from map(Requirement, PROJECT["project"]["optional-dependencies"][extra])
    for group in groups:
        yield from of_group(PROJECT["dependency-groups"][group])


def of_group(items: Iterable[str | dict[str, str]]) -> Iterator[Requirement]:
    """A group's requirements, those of the groups in it included."""
    for item in items:
        if isinstance(item, str):
            yield Requirement(item)
        else:
            yield from of_group(PROJECT["dependency-groups"][item["include-group"]])


def missing(name: str, surroundings: dict[str, str]) -> list[str]:
    """What pyproject.toml asks for there and the lock does not give."""
    given = {pin.name: pin.version for pin in PINS[name] if pin.marker is None or pin.marker.evaluate(surroundings)}
    return [
        str(requirement)
        for requirement in wanted(name)
        if requirement.marker is None or requirement.marker.evaluate(surroundings)
        if not requirement.specifier.contains(given.get(canonicalize_name(requirement.name), "0a0"))
    ]


@pytest.mark.parametrize("name", COVERED)
def test_a_lock_gives_all_that_is_asked_for(name: str) -> None:
    """On every Python and machine that we name, in the range that pyproject.toml allows. If not: `make lock`."""
    assert [missing(name, surroundings) for surroundings in SURROUNDINGS] == [[]] * len(SURROUNDINGS)


def test_every_lock_is_accounted_for() -> None:
    """No lock is stale, and no extra or group is in none."""
    assert set(PINS) == set(COVERED)
    assert {extra for _, extras, _ in COVERED.values() for extra in extras} == set(
        PROJECT["project"]["optional-dependencies"]
    )
    assert {group for _, _, groups in COVERED.values() for group in groups} == set(PROJECT["dependency-groups"])


def test_what_builds_is_in_the_locks() -> None:
    """Nothing is fetched for the build that is not pinned."""
    assert PROJECT["build-system"]["requires"] == PROJECT["dependency-groups"]["build"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_pin_has_a_hash(lock: Path) -> None:
    """An index cannot slip in another file."""
    assert PINS[lock.stem]
    assert [pin.name for pin in PINS[lock.stem] if pin.hashes == 0] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_no_lock_names_an_index(lock: Path) -> None:
    """Packages come from wherever pip is told to fetch them."""
    assert re.search(r"://|--(?:extra-)?index-url|--find-links", lock.read_text()) is None


@pytest.mark.parametrize("name", [name for name in COVERED if name not in ("dev", "httpbin", "fuzz")])
def test_what_runs_is_what_is_tested(name: str) -> None:
    """The same versions in every lock."""
    tested = {(pin.name, pin.version) for pin in PINS["dev"]}
    assert {(pin.name, pin.version) for pin in PINS[name]} <= tested


def installs(text: str) -> list[str]:
    """The commands in a Makefile or a Dockerfile that install or build packages of Python."""
    commands = re.split(r"\n|&&|\|\|", text.replace("\\\n", " "))
    return [command for command in commands if re.search(r"\$\(INSTALL\) |pip.* (?:install|wheel) .*[-/.]", command)]


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile"])
def test_nothing_else_is_installed(file: str) -> None:
    """Everything is installed by a lock, or is the package itself, by what a lock has given."""
    found = [command for command in installs((ROOT / file).read_text()) if not command.startswith("INSTALL :=")]
    assert found
    by_lock = re.compile(r" --require-hashes .*-r locks/[a-z]+\.txt")
    itself = re.compile(
        r"\$\(INSTALL\) \$\(ITSELF\)|--no-build-isolation --no-deps .*\.$|--no-deps --no-index /wheels/"
    )
    assert [command for command in found if not by_lock.search(command) and not itself.search(command)] == []
