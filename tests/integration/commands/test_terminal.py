"""Commands at a terminal: colour there and nowhere else, prompts that show nothing, completion, help with examples."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.fixtures.launching import command
from tests.fixtures.terminal import at_terminal
from tests.integration.management.world import Management

COLOUR = "\x1b["


@pytest.fixture
def config(world: Management, tmp_path: Path) -> str:
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump({"environment": "test", "postgres": {"dsn": world.dsn}}))
    return str(path)


async def test_colour_at_a_terminal_alone(config: str) -> None:
    """A table and a failure are coloured there; not in a pipe, not with NO_COLOR, not on a dumb terminal."""
    code, shown = await at_terminal("tenants", "list", "-c", config)
    assert code == 0
    assert f"{COLOUR}32mactive" in shown
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert COLOUR not in (await at_terminal("tenants", "list", "-c", config, environment=environment))[1]
    piped = await command("tenants", "list", "-c", config, environment={"TERM": "xterm-256color"})
    assert COLOUR not in piped.stdout
    as_json = (await at_terminal("tenants", "list", "-c", config, "-o", "json"))[1]
    assert COLOUR not in as_json
    code, shown = await at_terminal("tenants", "show", "nobody", "-c", config)
    assert (code, f"{COLOUR}31mostiary: not_found" in shown) == (1, True)


async def test_secrets_are_asked_for_and_not_shown(world: Management, config: str) -> None:
    """The admin token and the secret are typed unseen; with one in the environment only the secret is asked for."""
    made = await world.key()
    url = str(world.client.make_url("/"))
    code, shown = await at_terminal(
        "keys",
        "verify",
        "--api",
        url,
        typed=[("Admin token:", world.operator), ("Secret:", made["secret"])],
        environment={"OSTIARY_ADMIN_TOKEN": None},
    )
    assert code == 0, shown
    assert "true" in shown
    assert world.operator not in shown
    assert made["secret"] not in shown


async def test_deleting_is_asked_about(world: Management, config: str) -> None:
    """No means no, and exit 1; yes does it."""
    code, shown = await at_terminal("users", "delete", "olga", "-c", config, typed=[("[y/N]", "n")])
    assert code == 1, shown
    await world.expect(200, "GET", "/v1/users/olga")
    code, shown = await at_terminal("users", "delete", "olga", "-c", config, typed=[("[y/N]", "y")])
    assert (code, "deleted user olga" in shown) == (0, True)
    await world.expect(404, "GET", "/v1/users/olga")


async def test_progress_of_long_work(world: Management, config: str, tmp_path: Path) -> None:
    """How many there are so far, on stderr; a pipe gets the result alone."""
    await world.execute(
        "INSERT INTO api_keys (id, tenant_id, user_id, kind, name, prefix, environment, scopes, secret_id, digest)"
        " SELECT 'key_' || n, 'acme', 'ada', 'user', 'k' || n, 'ost_test_', 'test', '{}', 's' || n,"
        " sha256(n::text::bytea) FROM generate_series(1, 900) AS n"
    )
    code, shown = await at_terminal("keys", "list", "-c", config, environment={"NO_COLOR": None})
    assert code == 0
    assert "reading: " in shown
    piped = await command("keys", "list", "-c", config)
    assert (piped.returncode, piped.stderr) == (0, "")
    assert "reading" not in piped.stdout
    assert len(piped.stdout.splitlines()) == 901
    rows = tmp_path / "keys.csv"
    rows.write_text("name,user_id,secret_sha256\n" + "".join(f"x{n},ada,{n:064x}\n" for n in range(30)))
    code, shown = await at_terminal("keys", "import", str(rows), "--dry-run", "-c", config)
    assert (code, "31/31" in shown) == (1, True), "the user has too many keys already"


def completed(*words: str) -> set[str]:
    """What a shell is offered for the last of these words, in a folder where no configuration and no server is."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from gateway.cli import main; sys.argv = ['ostiary']; main()"],
        env={
            **os.environ,
            "_OSTIARY_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(("ostiary", *words)),
            "COMP_CWORD": str(len(words)),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


async def test_completion() -> None:
    """Commands, options and their values, from nothing but the program; scripts for the shells are printed."""
    assert {"up", "serve", "keys", "users", "tenants", "doctor", "diff"} <= completed("")
    assert completed("ten") == {"tenants"}
    assert {"list", "show", "put", "delete", "entitle"} <= completed("users", "")
    assert {"--config", "--api", "--output", "--tenant"} <= completed("users", "list", "--")
    assert completed("keys", "list", "--status", "") == {"active", "revoked", "expired"}
    assert completed("keys", "list", "-o", "") == {"table", "json"}
    assert completed("keys", "list", "-c", "") == set(), "nothing: then the shell offers files"
    for shell in ("bash", "zsh", "fish"):
        named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # whatever shell the tests run in
        script = await command("--show-completion", shell, environment=named)
        assert (script.returncode, script.stderr) == (0, ""), script.stderr
        assert "_OSTIARY_COMPLETE" in script.stdout


async def test_every_command_has_help_with_an_example() -> None:
    """Each command is described; groups and most commands show a line to try."""
    for arguments in (
        (), ("keys",), ("keys", "create"), ("users",), ("users", "entitle"), ("tenants",), ("tokens",), ("audit",),
        ("nodes",), ("explain",), ("doctor",), ("diff",), ("check",), ("admin-token",), ("signing-keys",),
    ):  # fmt: skip
        told = await command(*arguments, "--help", environment={"COLUMNS": "200"})
        assert told.returncode == 0
        assert "Example: " in told.stdout or not arguments, arguments
        assert "Usage: " in told.stdout


async def test_a_command_that_does_not_exist() -> None:
    """Exit 2, and what is near."""
    told = await command("keyz", "list")
    assert (told.returncode, told.stdout) == (2, "")
    assert "keys" in told.stderr
