"""What the gateway has to do, line by line, and which tests show it.

A test proves a line by naming it (`R102`) in its docstring; `R160 to R168` names all of them. Docstrings are read from
the source, so that what is proven does not depend on which part of the suite is run.
`python -m tests.requirements` writes docs/requirements.md.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parent
LINES: Final = TESTS / "requirements.txt"
DOCUMENT: Final = TESTS.parent / "docs" / "requirements.md"
KINDS: Final = {"M": "must", "S": "should", "O": "may"}
_SECTION = re.compile(r"## (\S.*)")
_LINE = re.compile(r"(R\d{3}) ([MSO]) (\S.*)")
_NAMES = re.compile(r"R(\d{3})(?:(?: to |-)R(\d{3}))?")


@dataclass(frozen=True)
class Requirement:
    """A line of the list. `kind` is a key of `KINDS`."""

    number: str
    kind: str
    statement: str
    section: str


def requirements() -> list[Requirement]:
    """All lines of the list. Raises ValueError for what is none."""
    found: list[Requirement] = []
    section = ""
    for text in LINES.read_text().splitlines():
        if heading := _SECTION.fullmatch(text):
            section = heading[1]
        elif line := _LINE.fullmatch(text):
            found.append(Requirement(line[1], line[2], line[3], section))
        elif text:
            raise ValueError(f"neither a section nor a requirement: {text!r}")
    return found


def named(text: str) -> Iterator[str]:
    """The requirements that a docstring names."""
    for first, last in _NAMES.findall(text):
        for number in range(int(first), int(last or first) + 1):
            yield f"R{number:03}"


def proofs(tests: Path) -> dict[str, list[str]]:
    """Requirement -> the tests below the folder that name it, in the order of their files."""
    found: dict[str, list[str]] = {}
    for path in sorted(tests.rglob("test_*.py")):
        file = path.relative_to(tests.parent).as_posix()
        for function in ast.parse(path.read_bytes()).body:
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name.startswith("test_"):
                for number in dict.fromkeys(named(ast.get_docstring(function) or "")):
                    found.setdefault(number, []).append(f"{file}::{function.name}")
    return found


def unproven(tests: Path) -> list[str]:
    """The lines that the gateway must keep and no test names."""
    proven = proofs(tests)
    return [line.number for line in requirements() if line.kind == "M" and line.number not in proven]


def document(tests: Path) -> str:
    """The page: a table of all lines, section by section."""
    lines = [
        "# Requirements, and where each is proven",
        "",
        "This page is written from the docstrings of the tests (`python -m tests.requirements`); the suite fails where",
        "it is not up to date, and where a line that must hold has no test.",
    ]
    proven = proofs(tests)
    section = ""
    for line in requirements():
        if line.section != section:
            section = line.section
            lines += ["", f"## {section}", "", "| | | what | proven by |", "|---|---|---|---|"]
        by = "<br>".join(f"`{test}`" for test in proven.get(line.number, ())) or "-"
        lines.append(f"| {line.number} | {KINDS[line.kind]} | {line.statement} | {by} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document(TESTS))
