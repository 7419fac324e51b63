"""A start loads what it needs: help, completion and `check` neither servers nor stores."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import application

HEAVY = ("aiohttp", "asyncpg", "redis", "uvloop", "cryptography", "prometheus_client", "structlog", "jwt")
CONFIGURATION = ("gateway.settings", "yaml")
EXAMPLE = Path(__file__).parents[2] / "config" / "gateway.yaml"
# Whatever shell the tests run in, completion is for the one that is named.
NAMED_SHELL = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
SCRIPT = """
import sys
from gateway.cli import main
sys.argv = ["ostiary", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", *(name for name in {names!r} if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("arguments", "unloaded"),
    [
        pytest.param(("--help",), (*HEAVY, *CONFIGURATION), id="help"),
        pytest.param(("keys", "create", "--help"), (*HEAVY, *CONFIGURATION), id="help of a command"),
        pytest.param(("--version",), (*HEAVY, *CONFIGURATION), id="version"),
        pytest.param(("--show-completion", "bash"), (*HEAVY, *CONFIGURATION), id="completion"),
        pytest.param(("check", str(EXAMPLE)), HEAVY, id="check"),
    ],
)
def test_what_is_not_loaded(arguments: tuple[str, ...], unloaded: tuple[str, ...]) -> None:
    """So they answer in a fraction of what a node takes to start."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(arguments=list(arguments), names=list(unloaded))],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **NAMED_SHELL},
    )
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_every_command_is_there() -> None:
    """The names are a contract."""
    app = application()
    commands = {command.callback.__name__ for command in app.registered_commands if command.callback is not None}
    groups = {group.name for group in app.registered_groups}
    assert commands == {"up", "serve", "migrate", "check", "diff", "doctor", "explain", "nodes"}
    assert groups == {"keys", "users", "tenants", "tokens", "audit", "admin-token", "signing-keys"}
