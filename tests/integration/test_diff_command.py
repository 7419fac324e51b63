"""`ostiary diff` as a process: order and shape of what it tells, exit codes, and secrets that it never shows."""

import json
from pathlib import Path

from tests.fixtures.launching import command
from tests.fixtures.terminal import at_terminal

OLD = """
environment: prod
postgres: {dsn: "postgresql://u:hidden-word@db/x"}
upstreams: {api: {targets: ["http://127.0.0.1:9"]}}
routes: [{name: orders, paths: [/orders], upstream: api}]
plans: {free: {limits: {per_minute: 60}}}
tokens: {issuer: me, audience: me, sealing_key: "${SEALING_KEY:-hidden-word-hidden-word-hidden-word-1}"}
"""
NEW = OLD.replace("upstream: api}]", "upstream: api, auth: none}]").replace("60", "10").replace("word-1", "word-2")


def written(folder: Path, *texts: str) -> list[str]:
    paths = [folder / f"{number}.yaml" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return [str(path) for path in paths]


async def test_changes_are_told(tmp_path: Path) -> None:
    """What opens first; exit 0, or 3 where that is asked for; the JSON has the same; no secret is in either."""
    files = written(tmp_path, OLD, NEW)
    table, asked = await command("diff", *files), await command("diff", *files, "--exit-code")
    assert (table.returncode, asked.returncode) == (0, 3)
    assert table.stdout == asked.stdout
    lines = table.stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["opens", "closes", "closes"]
    assert "route orders becomes public" in lines[0]
    assert "plan free drops from 60 to 10 per minute" in table.stdout
    told = await command("diff", *files, "-o", "json")
    document = json.loads(told.stdout)
    assert document["summary"] == {"opens": 1, "closes": 2, "other": 0}
    assert [change["place"] for change in document["changes"]] == [
        "routes.orders.auth",
        "plans.free.limits.per_minute",
        "tokens.sealing_key",
    ]
    assert (document["changes"][2]["old"], document["changes"][2]["new"]) == ("***", "***")
    assert "hidden-word" not in table.stdout + told.stdout


async def test_no_change(tmp_path: Path) -> None:
    """Exit 0 in either case, and a sentence; the values of variables count, not how they are written."""
    spelled = OLD.replace("per_minute: 60", "per_minute: 60, per_day: -1")
    files = written(tmp_path, OLD, spelled)
    same = await command("diff", *files, "--exit-code")
    assert (same.returncode, same.stdout) == (0, "nothing changes in effect\n")
    empty = json.loads((await command("diff", *files, "-o", "json")).stdout)
    assert empty == {"changes": [], "summary": {"opens": 0, "closes": 0, "other": 0}}


async def test_bad_files(tmp_path: Path) -> None:
    """Exit 2, with the mistakes of both at once."""
    files = written(tmp_path, OLD + "nonsense: 1\n", OLD + "rubbish: 1\n")
    told = await command("diff", *files)
    assert (told.returncode, told.stdout) == (2, "")
    assert "nonsense" in told.stderr
    assert "rubbish" in told.stderr
    missing = await command("diff", str(tmp_path / "nowhere.yaml"), files[0])
    assert missing.returncode == 2
    assert "nowhere.yaml" in missing.stderr


async def test_danger_has_a_colour(tmp_path: Path) -> None:
    """At a terminal: what opens is red."""
    code, shown = await at_terminal("diff", *written(tmp_path, OLD, NEW))
    assert code == 0
    assert "\x1b[31mopens" in shown


async def test_check_tells_mistakes_to_programs(tmp_path: Path) -> None:
    """`ostiary check -o json`: the same mistakes on stdout, each with its place, line and cure; exit 2 all the same."""
    good, bad = written(tmp_path, OLD, OLD + "nonsense: 1\n")
    told = await command("check", bad, "-o", "json")
    assert (told.returncode, told.stderr) == (2, "")
    (mistake,) = json.loads(told.stdout)["mistakes"]
    assert (mistake["place"], mistake["line"], mistake["what"]) == ("nonsense", 8, "is not a known setting")
    fine = await command("check", good, "-o", "json")
    assert json.loads(fine.stdout) == {"file": good, "ok": True, "mistakes": []}
