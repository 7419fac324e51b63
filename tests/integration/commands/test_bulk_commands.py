"""`ostiary keys import` and `ostiary keys export`, through both doors."""

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from gateway.cli.bulk import EXPORTED
from tests.integration.commands.shell import Shell


def row(name: str, user: str) -> dict[str, Any]:
    return {"secret_sha256": hashlib.sha256(name.encode()).hexdigest(), "user_id": user, "name": name}


async def test_a_file_goes_in_and_comes_out(shell: Shell, tmp_path: Path) -> None:
    """Tried, imported, repeated and exported; results by row; no digest comes out. R213, R219, R280."""
    file = tmp_path / "keys.jsonl"
    rows = [row("a", "ada"), row("b", "olga"), row("c", "nobody")]
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    for options, created, unchanged in ((["--dry-run"], 2, 0), ([], 2, 0), ([], 0, 2)):
        result = await shell.run("keys", "import", str(file), *options, "-o", "json")
        assert (result.returncode, result.stderr) == (1, "")  # a row was refused
        told = json.loads(result.stdout)
        summary = told["summary"]
        assert (summary["created"], summary["unchanged"], summary["refused"]) == (created, unchanged, 1)
        assert told["rows"][2]["code"] == "unknown_user"
    table = await shell.run("keys", "import", str(file))
    assert "unknown_user" in table.stdout
    assert "unchanged" in table.stdout

    exported = await shell.run("keys", "export")
    assert (exported.returncode, exported.stderr) == (0, "")
    keys = sorted(map(json.loads, exported.stdout.splitlines()), key=lambda key: str(key["name"]))
    assert [(key["name"], key["user_id"], tuple(key)) for key in keys] == [
        ("a", "ada", EXPORTED),
        ("b", "olga", EXPORTED),
    ]
    assert not any(one["secret_sha256"] in exported.stdout for one in rows)
    as_csv = await shell.run("keys", "export", "--format", "csv", "--tenant", "acme", "--status", "active")
    (cells,) = csv.DictReader(io.StringIO(as_csv.stdout))
    assert cells == {name: "" if value is None else value for name, value in {**keys[0], "scopes": ""}.items()}


async def test_a_csv_file_is_told_by_its_suffix(shell: Shell, tmp_path: Path) -> None:
    """Or by --format; exit 0 when every row is there."""
    text = f"name,user_id,secret_sha256\na,ada,{'ab' * 32}\n"
    (tmp_path / "keys.csv").write_text(text)
    (tmp_path / "keys.txt").write_text(text)
    assert (await shell.done("keys", "import", str(tmp_path / "keys.csv")))["summary"]["created"] == 1
    assert "--format" in await shell.failed(2, "keys", "import", str(tmp_path / "keys.txt"))
    again = await shell.done("keys", "import", str(tmp_path / "keys.txt"), "--format", "csv")
    assert again["summary"]["unchanged"] == 1


async def test_a_bad_file_is_a_mistake(shell: Shell, tmp_path: Path) -> None:
    """One without a header, or that is not there: exit 2, and nothing is done."""
    (tmp_path / "keys.csv").write_text("a,b\n1,2\n")
    assert "header: " in await shell.failed(2, "keys", "import", str(tmp_path / "keys.csv"))
    assert "not exist" in await shell.failed(2, "keys", "import", str(tmp_path / "nowhere.csv"))
    assert await shell.world.execute("SELECT count(*) FROM api_keys") == 0


async def test_an_export_has_all_pages(shell: Shell) -> None:
    """More than a page of the listing, each key once, oldest first."""
    await shell.world.execute(
        "INSERT INTO api_keys (id, tenant_id, user_id, name, prefix, environment, secret_id, digest)"
        " SELECT 'key_' || to_char(n, 'FM0000'), 'acme', 'ada', 'k' || n, 'p', 'test', 's' || n, sha256(n::text::bytea)"
        " FROM generate_series(1, 401) AS n"
    )
    exported = await shell.run("keys", "export", "--user", "ada")
    assert [json.loads(line)["id"] for line in exported.stdout.splitlines()] == [f"key_{n:04}" for n in range(1, 402)]
