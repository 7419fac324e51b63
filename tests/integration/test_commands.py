"""The command line as a whole: help, version, failures."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gateway import __version__


def ostiary(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


async def test_the_version_is_printed() -> None:
    """`--version` prints what is installed."""
    done = ostiary("--version")
    assert (done.returncode, done.stdout) == (0, f"ostiary {__version__}\n")


async def test_help_names_every_command() -> None:
    """Somebody who knows the name of the program alone finds the rest."""
    done = ostiary("--help")
    assert done.returncode == 0
    for command in ("up", "serve", "migrate", "check", "keys", "admin-token"):
        assert f" {command} " in done.stdout


@pytest.mark.parametrize("command", ["up", "serve", "migrate", "check", "keys", "admin-token"])
async def test_every_command_has_help(command: str) -> None:
    """`--help` of a command needs no configuration and no server."""
    done = ostiary(command, "--help")
    assert done.returncode == 0
    assert "Usage: " in done.stdout


async def test_a_mistaken_configuration_is_told_without_a_traceback(tmp_path: Path) -> None:
    """Exit 2, the file and the setting on stderr. R077."""
    path = tmp_path / "gateway.yaml"
    path.write_text("environment: test\nnonsense: 1\n")
    done = ostiary("migrate", "-c", str(path))
    assert done.returncode == 2
    assert f"{path}:2: nonsense: is not a known setting" in done.stderr
    assert "Traceback" not in done.stderr


async def test_an_outage_is_told_without_a_traceback(tmp_path: Path) -> None:
    """Exit 1 and the reason on stderr."""
    path = tmp_path / "gateway.yaml"
    path.write_text("environment: test\npostgres: {dsn: 'postgresql://nobody@127.0.0.1:1/nothing'}\n")
    done = ostiary("migrate", "-c", str(path))
    assert done.returncode == 1
    assert done.stderr.startswith("ostiary: Postgres: ")
    assert "Traceback" not in done.stderr


async def test_migrate_brings_an_empty_database_up_to_date(tmp_path: Path, empty_postgres_dsn: str) -> None:
    """The first run names what it applied, a second has nothing to do."""
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump({"environment": "test", "postgres": {"dsn": empty_postgres_dsn}}))
    first = ostiary("migrate", "-c", str(path))
    assert (first.returncode, first.stdout.splitlines()[0]) == (0, "applied 0001_initial")
    second = ostiary("migrate", "-c", str(path))
    assert (second.returncode, second.stdout) == (0, "nothing to do: the schema is current\n")
