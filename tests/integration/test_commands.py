"""The command line as a whole: help, version, failures."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import yaml

from gateway import __version__
from tests.fixtures.waiting import until


def ostiary(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def shell(script: str, *arguments: str, zero: str = "sh") -> subprocess.CompletedProcess[str]:
    """Run a script whose arguments are the command."""
    return subprocess.run(
        ["/bin/sh", "-c", script, zero, sys.executable, "-m", "gateway", *arguments],
        capture_output=True,
        text=True,
        check=False,
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


@pytest.mark.parametrize("arguments", [("check", "--schema"), ("--version",)])
async def test_output_that_cannot_be_written_is_told(arguments: tuple[str, ...]) -> None:
    """A full disk is a failure like any other: exit 1 and the reason, for long output and for short."""
    done = shell('exec "$@" > /dev/full', *arguments)
    assert (done.returncode, done.stderr) == (1, "ostiary: [Errno 28] No space left on device\n")


async def test_a_reader_that_leaves_is_no_news() -> None:
    """`| head` ends a command with exit 1 and without a word, however little it had to say."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "--version"],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


async def test_without_stdout_nothing_is_done(tmp_path: Path) -> None:
    """What would be shown once, and be lost, is not made: not even the configuration is looked at."""
    done = shell('exec "$@" >&-', "keys", "create", "--user", "a", "--name", "b", "-c", str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (1, "ostiary: stdout is closed. Open it, or send it to /dev/null.\n")


@pytest.mark.parametrize("line", ["<&-", "< /dev/null", "< nonsense"])
async def test_a_secret_that_is_not_there_is_told(tmp_path: Path, line: str) -> None:
    """A closed stdin, an empty one and one with bytes that are no text are mistakes of the command line: exit 2."""
    (tmp_path / "nonsense").write_bytes(b"\xff\n")
    for locale in ("C.UTF-8", "C"):
        done = shell(f'cd "$0"; export LC_ALL={locale}; exec "$@" {line}', "tokens", "show", zero=str(tmp_path))
        assert done.returncode == 2
        assert "stdin" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("keys", "verify"), ("explain", "/", "--secret")])
async def test_ctrl_c_does_not_wait_for_a_secret(arguments: tuple[str, ...]) -> None:
    """Whoever is asked and would rather not answer is let go at once."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "gateway", *arguments, "--api", "http://127.0.0.1:1"]
    process = subprocess.Popen(
        command,
        stdin=reading,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OSTIARY_ADMIN_TOKEN": "osta_x"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whoever runs the tests may ignore it
    )
    try:
        os.write(writing, b"x")  # of a line that does not end

        def is_asking() -> bool:
            return fcntl.ioctl(reading, termios.FIONREAD, bytes(4)) == bytes(4)

        await until(is_asking)
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 5) == 130
    finally:
        process.kill()
        process.wait()
        os.close(writing)
        os.close(reading)


async def test_arguments_that_are_no_texts_are_refused() -> None:
    """Bytes that are not UTF-8 are a mistake of the command line, in whatever argument."""
    done = shell('exec "$@" "$(printf "a\\377")"', "users", "show")
    assert (done.returncode, done.stderr) == (2, "ostiary: an argument is not UTF-8\n")


async def test_a_folder_is_no_file_of_keys(tmp_path: Path) -> None:
    """Exit 2, before anything is asked of anybody."""
    done = ostiary("keys", "import", str(tmp_path), "--format", "csv", "--api", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert "Invalid value for 'file'" in done.stderr
