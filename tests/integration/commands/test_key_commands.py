"""`ostiary keys` and `ostiary admin-token`, through both doors."""

import asyncio
import json
from pathlib import Path

import yaml

from gateway.stores.postgres.usage import UsageStore
from tests.integration.commands.shell import Shell
from tests.integration.management.world import Management


async def test_a_key_from_creation_to_revocation(shell: Shell) -> None:
    """Made, listed, shown, rotated and revoked; both doors answer with the API's objects, secrets once. R218, R280."""
    made = await shell.done("keys", "create", "--user", "ada", "--name", "cli", "--scope", "a", "--scope", "b")
    assert made["scopes"] == ["a", "b"]
    assert await shell.world.record(made["secret"]) is not None
    (listed,) = (await shell.done("keys", "list", "--user", "ada", "--tenant", "acme", "--status", "active"))["items"]
    shown = await shell.done("keys", "show", made["id"])
    assert listed == shown == {name: value for name, value in made.items() if name not in ("secret", "propagation")}
    rotated = await shell.done("keys", "rotate", made["id"], "--grace-seconds", "60")
    assert rotated["secret"] != made["secret"]
    assert set(rotated["retired_secret"]) == {"id", "expires_at"}
    revoked = await shell.done("keys", "revoke", made["id"], "--reason", "tried it")
    assert (revoked["status"], revoked["propagation"]["state"]) == ("revoked", "confirmed")
    assert "secret" not in revoked
    assert "already_revoked" in await shell.failed(1, "keys", "revoke", made["id"])


async def test_a_secret_is_verified(shell: Shell) -> None:
    """Exit 0 and its key, or exit 1 and the reason; the secret comes from stdin and is never printed. R277."""
    made = await shell.done("keys", "create", "--user", "ada", "--name", "cli")
    good = await shell.run("keys", "verify", "-o", "json", stdin=made["secret"] + "\n")
    assert (good.returncode, good.stderr) == (0, "")
    assert (json.loads(good.stdout)["valid"], json.loads(good.stdout)["key_id"]) == (True, made["id"])
    bad = await shell.run("keys", "verify", stdin=made["secret"][:-1] + "\n")
    assert (bad.returncode, bad.stderr) == (1, "")
    assert "invalid_api_key" in bad.stdout
    assert made["secret"][:-1] not in bad.stdout + good.stdout


async def test_what_a_key_has_used(shell: Shell) -> None:
    """By step, told apart by what is named; an unknown key and a step that is none are told."""
    made = await shell.done("keys", "create", "--user", "ada", "--name", "cli")
    assert await shell.done("keys", "usage", made["id"]) == {"items": []}
    await UsageStore(shell.world.postgres, node_id="node", retention_months=1).keep_partitions()
    for minutes, requests in ((0, 3), (1, 4)):
        await shell.world.execute(
            "INSERT INTO usage SELECT date_trunc('day', now(), 'UTC') - make_interval(mins => $2), $1, 'acme', 'ada',"
            " 'orders', 'forwarded', '2xx', $3, 10, 20",
            made["id"],
            minutes,
            requests,
        )
    (before, today) = (await shell.done("keys", "usage", made["id"], "--by", "route,code"))["items"]
    assert (before["requests"], today["requests"]) == (4, 3)
    assert {name: today[name] for name in ("route", "code", "sent_bytes")} == {
        "route": "orders",
        "code": "2xx",
        "sent_bytes": 20,
    }
    table = await shell.run("keys", "usage", made["id"], "--step", "month", "--by", "route")
    assert table.stdout.split("\n")[0].split() == ["at", "route", "requests", "received_bytes", "sent_bytes"]
    assert "not_found" in await shell.failed(1, "keys", "usage", "key_nobodys")
    assert "step" in await shell.failed(2, "keys", "usage", made["id"], "--step", "week")


async def test_a_leak_is_contained(shell: Shell) -> None:
    """The key, what was done to it and its retired secrets, as JSON or for people; a repeat is no failure. R221."""
    made = await shell.done("keys", "create", "--user", "ada", "--name", "cli")
    await shell.done("keys", "rotate", made["id"])
    told = await shell.done("keys", "contain", made["id"], "--reason", "leaked")
    assert (told["key"]["status"], told["was_revoked"], told["propagation"]["state"]) == ("revoked", False, "confirmed")
    table = await shell.run("keys", "contain", made["id"])
    assert (table.returncode, table.stderr) == (0, "")
    for said in ("revoked", "key.contain", "key.rotate", "Retired secrets", "Nodes: none"):
        assert said in table.stdout
    assert made["secret"][16:] not in table.stdout


async def test_a_table_for_people(shell: Shell) -> None:
    """The secret stands alone on the last line; names are not read as markup."""
    result = await shell.run("keys", "create", "--user", "ada", "--name", "[red]x[/red]", "--expires-at", "4000000000")
    assert result.returncode == 0, result.stderr
    secret = result.stdout.splitlines()[-1]
    assert await shell.world.record(secret) is not None
    assert "[red]x[/red]" in result.stdout
    assert "2096-10-02T07:06:40Z" in result.stdout
    listing = await shell.run("keys", "list")
    assert "[red]x[/red]" in listing.stdout
    assert secret not in listing.stdout


async def test_a_refusal_names_the_next_step(shell: Shell) -> None:
    """Exit 1, the code, the reason and what to do, on stderr alone."""
    await shell.world.expect(204, "DELETE", "/v1/users/ada/entitlement")
    said = await shell.failed(1, "keys", "create", "--user", "ada", "--name", "x")
    assert "api_access_required" in said
    assert "PUT /v1/users/" in said
    assert "not_found" in await shell.failed(1, "keys", "show", "key_x")
    assert "not_found" in await shell.failed(1, "keys", "rotate", "no/such%id")


MISTAKES = [
    (("keys", "create", "--user", "ada", "--name", " "), "name: "),
    (("keys", "create", "--user", "ada", "--name", "x", "--scope", "a b"), "scopes[0]: "),
    (("keys", "create", "--user", "ada", "--name", "x", "--expires-at", "soon"), "expires_at: "),
    (("keys", "create", "--user", "ada", "--name", "x", "--expires-at", "1"), "expires_at: "),
    (("keys", "create", "--user", "ada", "--name", "x", "--expires-at", "nan"), "expires_at: "),
    (("keys", "list", "--status", "dead"), "--status"),
    (("keys", "create", "--name", "x"), "--user"),
    (("keys", "nonsense"), "nonsense"),
]


async def test_a_mistake_on_the_command_line_is_exit_2(shell: Shell) -> None:
    """And says what was wrong."""
    told = await asyncio.gather(*(shell.failed(2, *arguments) for arguments, _ in MISTAKES))
    for (arguments, said), stderr in zip(MISTAKES, told, strict=True):
        assert said in stderr, arguments


async def test_one_door_has_to_be_named(world: Management, config: Path) -> None:
    """Neither or both: exit 2."""
    shell = Shell(world, config, (), world.operator)
    assert "-c" in await shell.failed(2, "keys", "list")
    both = await shell.run("keys", "list", door=("-c", str(config), "--api", "http://127.0.0.1:1"))
    assert both.returncode == 2


async def test_the_token_comes_from_the_environment_or_stdin(world: Management, config: Path) -> None:
    """Never from the command line; a missing one is exit 2, a bad one exit 1 with the next step."""
    shell = Shell(world, config, ("--api", str(world.client.make_url("/"))), world.operator)
    assert (await shell.run("keys", "list", token="", stdin=f"{world.auditor}\n")).returncode == 0
    assert (await shell.run("keys", "list", token="", stdin="")).returncode == 2
    refused = await shell.run("keys", "list", token="osta_nonsense")
    assert refused.returncode == 1
    assert "ostiary admin-token create" in refused.stderr
    assert (await shell.run("keys", "revoke", "key_x", token=world.auditor)).returncode == 1


async def test_an_api_that_does_not_answer(world: Management, config: Path) -> None:
    """Exit 1, and the address that was tried."""
    shell = Shell(world, config, ("--api", "http://127.0.0.1:1"), world.operator)
    assert "http://127.0.0.1:1" in await shell.failed(1, "keys", "list")


async def test_a_database_that_is_away_or_old(world: Management, config: Path, empty_postgres_dsn: str) -> None:
    """Exit 1 with the next step; the password of the DSN is not told. R324."""
    for dsn, said in (
        ("postgresql://someone:hidden-word@127.0.0.1:1/nothing", "postgres.dsn"),
        (empty_postgres_dsn, "ostiary migrate"),
    ):
        config.write_text(yaml.safe_dump({"environment": "test", "postgres": {"dsn": dsn}}))
        for words in (("keys", "list"), ("admin-token", "list")):
            stderr = await Shell(world, config, ("-c", str(config)), "").failed(1, *words)
            assert said in stderr
            assert "hidden-word" not in stderr


async def test_an_admin_token_from_creation_to_revocation(world: Management, config: Path) -> None:
    """It opens the API until it is revoked; the text is shown once. R129."""
    shell = Shell(world, config, ("-c", str(config)), "")
    made = await shell.done("admin-token", "create", "--name", "ci", "--role", "tenant-admin", "--tenant", "acme")
    assert (await world.call("GET", "/v1/keys", token=made["token"])).status == 200
    listed = (await shell.done("admin-token", "list"))["items"]
    assert [token["name"] for token in listed] == ["op", "au", "ci"]
    assert listed[-1]["last_used_at"] is not None
    assert not any("token" in token for token in listed)
    revoked = await shell.done("admin-token", "revoke", made["id"])
    assert revoked["status"] == "revoked"
    assert (await world.call("GET", "/v1/keys", token=made["token"])).status == 401
    assert "not_found" in await shell.failed(1, "admin-token", "revoke", "adm_x")


MISTAKEN_TOKENS = [
    ("--name", "x", "--role", "king"),
    ("--name", "x", "--role", "tenant-admin"),
    ("--name", "x", "--role", "operator", "--tenant", "acme"),
    ("--name", "x", "--role", "tenant-admin", "--tenant", "nowhere"),
    ("--name", " ", "--role", "operator"),
    ("--name", "x", "--role", "operator", "--expires-at", "5"),
    ("--name", "x", "--role", "operator", "--expires-at", "soon"),
    ("--name", "x"),
]


async def test_a_mistaken_admin_token_is_not_made(world: Management, config: Path) -> None:
    """Exit 2, and no token."""
    shell = Shell(world, config, ("-c", str(config)), "")
    await asyncio.gather(*(shell.failed(2, "admin-token", "create", *arguments) for arguments in MISTAKEN_TOKENS))
    assert await world.execute("SELECT count(*) FROM admin_tokens") == 2
