"""`ostiary users` and `ostiary tenants`, through both doors."""

import json
from pathlib import Path

from tests.integration.commands.shell import Shell, written_config
from tests.integration.management.world import Management, give_tenant_token


async def test_a_tenant_from_creation_to_deletion(shell: Shell) -> None:
    """Made, listed, suspended, activated, deleted with all that it owns; an id that is taken is told. R103, R104."""
    made = await shell.done("tenants", "create", "new", "--name", "New Inc.")
    assert (made["id"], made["name"], made["status"]) == ("new", "New Inc.", "active")
    assert "duplicate_tenant" in await shell.failed(1, "tenants", "create", "new", "--name", "x")
    await shell.done("users", "put", "nina", "--tenant", "new")
    assert [one["id"] for one in (await shell.done("tenants", "list"))["items"]] == ["acme", "new", "other"]
    suspended = await shell.done("tenants", "suspend", "new")
    assert (suspended["status"], suspended["propagation"]["state"]) == ("suspended", "confirmed")
    assert (await shell.done("tenants", "activate", "new"))["status"] == "active"
    for word, issuance in (("closed", "closed"), ("open", "open"), ("configured", None)):
        assert (await shell.done("tenants", "issuance", "new", word))["issuance"] == issuance
    shown = await shell.done("tenants", "show", "new")
    assert shown == {name: made[name] for name in shown}
    assert "say --yes" in await shell.failed(2, "tenants", "delete", "new")
    assert await shell.done("tenants", "delete", "new", "--yes") == {"deleted": {"kind": "tenant", "id": "new"}}
    assert "not_found" in await shell.failed(1, "tenants", "show", "new")
    assert "not_found" in await shell.failed(1, "users", "show", "nina")


async def test_a_tenant_that_gets_no_keys(shell: Shell) -> None:
    """No command makes one, and the next step is told; the file's own word counts for commands on the stores. R225."""
    await shell.done("tenants", "issuance", "acme", "closed")
    said = await shell.failed(1, "keys", "create", "--user", "ada", "--name", "a")
    assert "issuance_closed" in said
    assert "ostiary tenants issuance <tenant> open" in said
    assert "issuance" in await shell.failed(2, "tenants", "issuance", "acme", "ajar")
    if shell.door[0] == "-c":
        shell.config.write_text(shell.config.read_text().replace("keys:", "keys:\n  issuance: closed"))
        assert "issuance_closed" in await shell.failed(1, "keys", "create", "--user", "olga", "--name", "a")
    assert await shell.world.execute("SELECT count(*) FROM api_keys") == 0
    await shell.done("tenants", "issuance", "acme", "open")
    assert (await shell.done("keys", "create", "--user", "ada", "--name", "a"))["name"] == "a"


async def test_a_user_from_creation_to_deletion(shell: Shell) -> None:
    """Made with a tenant; a change leaves what it does not name; suspended; deleted. R104."""
    assert "--tenant" in await shell.failed(2, "users", "put", "eve")
    made = await shell.done(
        "users", "put", "eve", "--tenant", "acme", "--name", "Eve", "--role", "dev", "--role", "ops", "--group", "g"
    )
    assert (made["display_name"], made["roles"], made["groups"]) == ("Eve", ["dev", "ops"], ["g"])
    changed = await shell.done("users", "put", "eve", "--status", "suspended", "--group", "")
    assert (changed["status"], changed["display_name"], changed["roles"]) == ("suspended", "Eve", ["dev", "ops"])
    assert changed["groups"] == []
    assert "tenant_fixed" in await shell.failed(1, "users", "put", "eve", "--tenant", "other")
    assert "unknown_tenant" in await shell.failed(2, "users", "put", "zoe", "--tenant", "nowhere")
    listed = (await shell.done("users", "list", "--tenant", "acme"))["items"]
    assert [user["id"] for user in listed] == ["ada", "alan", "eve"]
    assert await shell.done("users", "delete", "eve", "-y") == {"deleted": {"kind": "user", "id": "eve"}}
    assert "not_found" in await shell.failed(1, "users", "delete", "eve", "-y")


async def test_an_entitlement(shell: Shell) -> None:
    """Set as a whole, shown with its user; what is no plan and no pair is a mistake."""
    given = await shell.done(
        "users", "entitle", "ada", "--plan", "starter", "--feature", "export=true", "--feature", "seats=3",
        "--feature", "note=a=b", "--limit", "per_minute=90", "--valid-until", "4000000000",
    )  # fmt: skip
    assert given["features"] == {"export": True, "seats": 3, "note": "a=b"}
    assert (given["limits"], given["valid_until"]) == ({"per_minute": 90}, "2096-10-02T07:06:40Z")
    shown = await shell.done("users", "show", "ada")
    assert shown["entitlement"]["features"] == given["features"]
    again = await shell.done("users", "entitle", "ada", "--plan", "starter")
    assert (again["features"], again["limits"], again["valid_until"]) == ({}, {}, None)
    table = await shell.run("users", "show", "ada")
    assert "entitlement.plan" in table.stdout
    assert "unknown_plan" in await shell.failed(2, "users", "entitle", "ada", "--plan", "nothing")
    assert "--limit" in await shell.failed(2, "users", "entitle", "ada", "--plan", "starter", "--limit", "x")
    assert "limits" in await shell.failed(2, "users", "entitle", "ada", "--plan", "starter", "--limit", "x=1")
    await shell.world.expect(204, "DELETE", "/v1/users/ada/entitlement")
    assert (await shell.done("users", "show", "ada"))["entitlement"] is None


async def test_what_commands_do_is_on_record(world: Management, redis_url: str, tmp_path: Path) -> None:
    """By whoever runs it, whence from nowhere; the trail is read through the same door. R314."""
    shell = Shell(world, written_config(world, redis_url, tmp_path), (), world.operator)
    direct = ("-c", str(shell.config))
    await shell.run("users", "put", "eve", "--tenant", "acme", door=direct)
    told = await shell.run("audit", "list", "--target", "user:eve", "-o", "json", door=direct)
    (event,) = json.loads(told.stdout)["items"]
    assert (event["action"], event["actor"]["kind"], event["actor"]["id"]) == ("user.create", "command", "cli")
    assert event["address"] is None
    verified = await shell.run("audit", "verify", "-o", "json", door=direct)
    assert json.loads(verified.stdout)["intact"] is True


async def test_a_role_that_may_not(world: Management, redis_url: str, tmp_path: Path) -> None:
    """The API decides, and the next step is told; a token may stand in a file, which must be readable."""
    await give_tenant_token(world, "acme")
    shell = Shell(world, written_config(world, redis_url, tmp_path), ("--api", str(world.client.make_url("/"))), "")
    file = tmp_path / "token"
    file.write_text(world.tenant_admin + "\n")
    assert "forbidden" in await shell.failed(1, "tenants", "create", "x", "--name", "x", "--token-file", str(file))
    seen = await shell.run("users", "list", "-o", "json", "--token-file", str(file))
    assert [user["id"] for user in json.loads(seen.stdout)["items"]] == ["ada", "alan"]
    assert "--token-file" in await shell.failed(2, "users", "list", "--token-file", str(tmp_path / "nowhere"))
    wrong_door = await shell.run("users", "list", "--token-file", str(file), door=("-c", str(shell.config)))
    assert (wrong_door.returncode, wrong_door.stdout) == (2, "")


async def test_names_cannot_reach_the_terminal(shell: Shell) -> None:
    """Text of others is neither markup nor control characters."""
    await shell.done("tenants", "create", "new", "--name", "[bold]x[/bold]")
    assert "[bold]x[/bold]" in (await shell.run("tenants", "list")).stdout
    await shell.world.execute("UPDATE tenants SET name = E'\\x1b]0;pwned\\x07' WHERE id = 'new'")
    shown = (await shell.run("tenants", "list")).stdout
    assert "\x1b" not in shown
    assert "\\x1b]0;pwned" in shown
