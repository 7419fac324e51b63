"""The documentation holds together: every link leads somewhere, and every page is found from the README."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
PAGES: Final = (
    README,
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "bench" / "README.md",
    ROOT / "tests" / "fuzz" / "README.md",
)
_FENCED: Final = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_QUOTED: Final = re.compile(r"`[^`\n]*`")
_LINK: Final = re.compile(r"\]\(([^()\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def links(text: str) -> Iterator[str]:
    """Targets of links, but for those to other sites. What is code is none."""
    for target in _LINK.findall(_QUOTED.sub("`", _FENCED.sub("", text))):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(text: str) -> set[str]:
    """The names that headings have, as GitHub gives them: the second of a name is `name-1`."""
    seen: dict[str, int] = {}
    found = set()
    for heading in _HEADING.findall(_FENCED.sub("", text)):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if name in seen else name)
        seen[name] = seen.get(name, 0) + 1
    return found


def dead_links(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere."""
    dead = []
    for link in links(text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        is_found = target.exists() and (
            not anchor or (target.suffix == ".md" and anchor in anchors(text if target == page else target.read_text()))
        )
        if not is_found:
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of this repository, and to a heading in it."""
    assert dead_links(page, page.read_text()) == []


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        pytest.param("[a](docs/errors.md#bad_request-400) [b](#here)\n## Here", [], id="good ones"),
        pytest.param("## Ä `code`, [link](docs/cli.md) & more\n[a](#ä-code-link--more)", [], id="as GitHub names it"),
        pytest.param("## Twice\n## Twice\n[a](#twice-1)", [], id="the second of two"),
        pytest.param("[a](https://example.com/x) `[b](nowhere)`\n```\n[c](nowhere)\n```", [], id="none of ours"),
        pytest.param("[a](docs/nowhere.md)", ["docs/nowhere.md"], id="no such file"),
        pytest.param("[a](docs/errors.md#nothing)", ["docs/errors.md#nothing"], id="no such heading"),
        pytest.param("```\n## Here\n```\n[b](#here)", ["#here"], id="a heading in code"),
        pytest.param("![a](docs/pictures/none.png)", ["docs/pictures/none.png"], id="no such picture"),
    ],
)
def test_a_dead_link_is_seen(text: str, dead: list[str]) -> None:
    """The judge itself."""
    assert dead_links(README, text) == dead


def test_every_page_is_in_the_readme() -> None:
    """Who begins at the README finds every page of `docs/`."""
    linked = {link.partition("#")[0] for link in links(README.read_text())}
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - linked == set()


def test_alerts_lead_to_their_runbooks() -> None:
    """Each alert names a heading that is there, and the page of incidents tells of each."""
    (group,) = yaml.safe_load((ROOT / "config" / "prometheus" / "alerts.yaml").read_text())["groups"]
    books = [rule["annotations"]["runbook_url"] for rule in group["rules"]]
    assert dead_links(README, " ".join(f"[a]({book})" for book in books)) == []
    told = {link.partition("#")[2] for link in links((ROOT / "docs" / "operating.md").read_text())}
    assert {rule["alert"].lower() for rule in group["rules"]} - told == set()
