"""`ostiary tokens` and `ostiary nodes`, against gateways that run."""

import json
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.launching import command
from tests.fixtures.planted import Caller, plant
from tests.fixtures.signed import AUDIENCE, ISSUER, SEALING_KEY, Signer
from tests.fixtures.waiting import until

TOKENS = {"tokens": {"issuer": ISSUER, "audience": AUDIENCE, "sealing_key": SEALING_KEY}}


@pytest.fixture
async def node(gateway: StartGateway) -> GatewayProcess:
    """One that mints tokens."""
    return await gateway(TOKENS)


async def test_a_token_is_minted_and_shown(node: GatewayProcess, postgres_dsn: str) -> None:
    """From a key on stdin, alone on the last line; what it says is shown without it, and its signature checked."""
    ada = await plant(postgres_dsn, Caller(scopes=("a", "b")))
    place = ("-c", str(node.config_path))
    made = await command(
        "tokens", "mint", "--scope", "a", "--expires-in", "60", *place, "-o", "json", stdin=ada.secret + "\n"
    )
    assert (made.returncode, made.stderr) == (0, "")
    token = json.loads(made.stdout)["token"]
    table = await command("tokens", "mint", "--url", node.proxy_url, stdin=ada.secret)
    assert table.stdout.splitlines()[-1].count(".") == 2
    assert ada.secret not in made.stdout + table.stdout
    shown = await command("tokens", "show", "--url", node.proxy_url, "-o", "json", stdin=token)
    assert (shown.returncode, shown.stderr) == (0, "")
    told = json.loads(shown.stdout)
    assert (told["is_signed"], told["is_expired"]) == (True, False)
    assert (told["claims"]["sub"], told["claims"]["scopes"]) == (ada.user_id, ["a"])
    assert token not in shown.stdout
    claims = (await command("tokens", "show", "--url", node.proxy_url, stdin=token)).stdout
    assert f"secret_id    {told['claims']['secret']}" in claims
    assert "nothing can show it again" not in claims
    unasked = json.loads((await command("tokens", "show", "-o", "json", stdin=token)).stdout)
    assert unasked["is_signed"] is None


async def test_tokens_that_are_none(node: GatewayProcess) -> None:
    """Somebody else's, and one that has ended: exit 1. What is no token: exit 2. Nothing of it is printed."""
    forged = Signer("sig_nobody").sign({"sub": "ada", "exp": 4_000_000_000})
    told = await command("tokens", "show", "--url", node.proxy_url, "-o", "json", stdin=forged)
    assert (told.returncode, json.loads(told.stdout)["is_signed"]) == (1, False)
    old = await command("tokens", "show", "-o", "json", stdin=Signer("sig_x").sign({"exp": 1}))
    assert json.loads(old.stdout)["is_expired"] is True
    assert json.loads(old.stdout)["claims"]["exp"] == "1970-01-01T00:00:01Z"
    nonsense = await command("tokens", "show", stdin="ost_test_nonsense")
    assert (nonsense.returncode, nonsense.stdout) == (2, "")
    assert "ost_test_nonsense" not in nonsense.stderr


async def test_keys_that_mint_nothing(node: GatewayProcess, postgres_dsn: str) -> None:
    """The gateway's refusal, its next step, and the exit code; a listener that is none is told, too."""
    ada = await plant(postgres_dsn, Caller(scopes=("a",)))
    for arguments, stdin, code, said in (
        (("--url", node.proxy_url), "ost_test_wrong", 1, "invalid_api_key"),
        (("--url", node.proxy_url, "--scope", "z"), ada.secret, 1, "insufficient_scope"),
        (("--url", node.proxy_url), "", 2, "stdin"),
        (("--url", "http://127.0.0.1:1"), ada.secret, 1, "http://127.0.0.1:1"),
        ((), ada.secret, 2, "--url"),
    ):
        refused = await command("tokens", "mint", *arguments, stdin=stdin)
        assert (refused.returncode, refused.stdout) == (code, ""), refused.stderr
        assert said in refused.stderr
        assert ada.secret not in refused.stderr


async def fleet(node: GatewayProcess, *arguments: str) -> dict[str, Any]:
    done = await command("nodes", "-c", str(node.config_path), "-o", "json", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


async def test_the_fleet(gateway: StartGateway, operator_token: str) -> None:
    """Each node, how far it is and whether it may trust what it knows; one that died is silent. Dependencies, asked."""
    first, second = await gateway(), await gateway()
    nodes = (await fleet(first))["items"]
    assert [node["state"] for node in nodes] == ["fresh", "fresh"]
    assert {node["behind"] for node in nodes} == {0}
    second.kill()
    told = await fleet(first, "--status", first.status_url, "--status", second.status_url)
    well, dead = told["status"]
    assert (well["state"], well["checks"]["view"]) == ("ready", True)
    assert well["dependencies"]["postgres"] is True
    assert well["dependencies"]["redis"] is True
    assert well["view_age_seconds"] < 2
    assert (dead["state"], dead["dependencies"]) == ("unreachable", {})

    async def is_silent() -> bool:
        return sorted(node["state"] for node in (await fleet(first))["items"]) == ["fresh", "silent"]

    await until(is_silent, seconds=20, what="the dead node to be silent")
    table = await command(
        "nodes",
        "--api",
        first.admin_url,
        "--status",
        first.status_url,
        environment={"OSTIARY_ADMIN_TOKEN": operator_token},
    )
    assert "silent" in table.stdout
    assert f"{first.status_url}  ready" in table.stdout
