"""`ostiary audit`, and what commands that work straight on the stores leave on record."""

import json
from pathlib import Path

import pytest

from tests.integration.commands.shell import Shell, written_config
from tests.integration.management.world import Management


@pytest.fixture
def shell(world: Management, redis_url: str, tmp_path: Path) -> Shell:
    url = str(world.client.make_url("/")).rstrip("/")
    return Shell(world, written_config(world, redis_url, tmp_path), ("--api", url), world.auditor)


async def test_list_export_verify(shell: Shell) -> None:
    """The same events in a table, as JSON and as lines; a broken chain is exit code 1. R314."""
    await shell.world.key(user="olga")
    listed = (await shell.done("audit", "list"))["items"]
    assert [event["id"] for event in listed] == list(range(1, 13))
    mine = (await shell.done("audit", "list", "--tenant", "other", "--action", "key.create", "--since", "0"))["items"]
    assert mine == listed[-1:]
    table = await shell.run("audit", "list", "--target", "tenant:acme")
    assert (table.returncode, table.stderr) == (0, "")
    assert "tenant.create" in table.stdout
    assert " op " in table.stdout
    exported = await shell.run("audit", "export")
    assert (exported.returncode, exported.stderr) == (0, "")
    assert [json.loads(line) for line in exported.stdout.splitlines()] == listed
    assert await shell.done("audit", "verify") == {"events": 12, "intact": True, "first_broken": None}
    await shell.world.execute("ALTER TABLE audit_events DISABLE TRIGGER ALL")
    await shell.world.execute("UPDATE audit_events SET address = '10.0.0.1' WHERE id = 5")
    broken = await shell.run("audit", "verify", "-o", "json")
    assert (broken.returncode, broken.stderr) == (1, "")
    assert json.loads(broken.stdout)["first_broken"] == 5


async def test_a_refusal_is_told(shell: Shell) -> None:
    """A mistaken filter is exit code 2, a token that may not is 1; no traceback, no output. R314."""
    assert "since" in await shell.failed(2, "audit", "list", "--since", "yesterday")
    assert "since" in await shell.failed(2, "audit", "export", "--since", "yesterday")
    refused = await shell.run("audit", "export", token="osta_nobody")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "invalid_admin_token" in refused.stderr


async def test_commands_on_the_stores_are_on_record(shell: Shell) -> None:
    """A key made, rotated and revoked by command alone: the operating system's user did it, from no address. R314."""
    direct = ("-c", str(shell.config))
    made = json.loads(
        (await shell.run("keys", "create", "--user", "ada", "--name", "k", "-o", "json", door=direct)).stdout
    )
    for act in ("rotate", "revoke"):
        assert (await shell.run("keys", act, made["id"], door=direct)).returncode == 0
    events = (await shell.done("audit", "list", "--target", f"key:{made['id']}"))["items"]
    assert [event["action"] for event in events] == ["key.create", "key.rotate", "key.revoke"]
    for event in events:
        assert (event["actor"]["kind"], event["actor"]["id"], event["address"]) == ("command", "cli", None)
        assert event["actor"]["name"]
    assert (await shell.done("audit", "verify"))["intact"] is True
