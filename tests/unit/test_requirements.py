"""Every line that must hold has a test that names it, and the page that says so is true."""

from pathlib import Path

import pytest

from tests.requirements import DOCUMENT, KINDS, TESTS, document, named, proofs, requirements, unproven


def test_every_line_that_must_hold_has_a_test() -> None:
    """What is promised is shown."""
    assert unproven(TESTS) == []


def test_the_page_is_up_to_date() -> None:
    """docs/requirements.md says what the docstrings say. If not: `python -m tests.requirements`."""
    assert DOCUMENT.read_text() == document(TESTS)


def test_lines_have_numbers_of_their_own() -> None:
    """No number stands for two lines, each has its section, and none breaks the table."""
    lines = requirements()
    assert len({line.number for line in lines}) == len(lines)
    assert all(line.section and line.kind in KINDS and "|" not in line.statement for line in lines)


def test_a_docstring_names_what_is_listed() -> None:
    """A number that no line has is a slip of the pen. Limits and pages are promised once they are there."""
    listed = {line.number for line in requirements()}
    not_yet = {f"R{number}" for number in (*range(290, 302), *range(360, 367))}
    assert set(proofs(TESTS)) - listed <= not_yet


@pytest.mark.parametrize(
    ("docstring", "numbers"),
    [
        pytest.param("Refused. R104 R242.", ["R104", "R242"], id="some"),
        pytest.param("As promised (R220 to R222).", ["R220", "R221", "R222"], id="a range in words"),
        pytest.param("R160-R162", ["R160", "R161", "R162"], id="a range"),
        pytest.param("Nothing: R1, R12, 104.", [], id="none"),
    ],
)
def test_what_a_docstring_names(docstring: str, numbers: list[str]) -> None:
    """Numbers of three digits, and ranges of them."""
    assert list(named(docstring)) == numbers


@pytest.mark.parametrize(
    ("source", "is_proof"),
    [
        pytest.param('def test_a():\n    """So. R001."""', True, id="a test"),
        pytest.param('async def test_a():\n    """So. R001."""', True, id="an async test"),
        pytest.param('def check_a():\n    """So. R001."""', False, id="not a test"),
        pytest.param('"""R001."""\ndef test_a(): ...', False, id="of the file"),
        pytest.param("def test_a():\n    pass  # R001", False, id="a comment"),
        pytest.param('def check():\n    def test_a():\n        """R001."""', False, id="never collected"),
    ],
)
def test_a_docstring_counts_only_where_it_can_be_relied_on(tmp_path: Path, source: str, is_proof: bool) -> None:
    """Only a test that pytest collects proves anything."""
    (tmp_path / "test_some.py").write_text(source)
    (tmp_path / "some.py").write_text('def test_a():\n    """R001."""')
    assert proofs(tmp_path) == ({"R001": [f"{tmp_path.name}/test_some.py::test_a"]} if is_proof else {})
