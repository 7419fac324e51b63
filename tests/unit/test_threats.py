"""Every known way of breaking in has a test that names it, and the page that says so is true."""

from pathlib import Path

import pytest

from tests.threats import DOCUMENT, NAMES, ROWS, TESTS, document, mistakes, proofs

ROW = ROWS[0].name


def test_every_row_has_a_test() -> None:
    """No attack is in the list without a test that shows that it fails."""
    assert [row for row, tests in proofs(TESTS).items() if not tests] == []


def test_every_mark_names_rows() -> None:
    """The rows are a closed list, and what is marked is a test."""
    assert mistakes(TESTS) == []


def test_the_page_is_up_to_date() -> None:
    """docs/threats.md says what the marks say. If not: `python -m tests.threats`."""
    assert DOCUMENT.read_text() == document(TESTS)


def test_rows_have_names_of_their_own() -> None:
    """No two rows share a name, each tells all four things, and none breaks the table."""
    assert len(NAMES) == len(ROWS)
    texts = [text for row in ROWS for text in (row.name, row.attacker, row.way, row.defence)]
    assert all(texts)
    assert not any("|" in text or "\n" in text for text in texts)


@pytest.mark.parametrize(
    ("source", "is_proof"),
    [
        pytest.param(f"@pytest.mark.threat({ROW!r})\ndef test_a(): ...", True, id="a test"),
        pytest.param(f"@pytest.mark.threat({ROW!r})\nasync def test_a(): ...", True, id="an async test"),
        pytest.param(f"@mark.x\n@pytest.mark.threat({ROW!r})\ndef test_a(): ...", True, id="among others"),
        pytest.param("@pytest.mark.threat('nothing')\ndef test_a(): ...", False, id="no such row"),
        pytest.param("@pytest.mark.threat(ROW)\ndef test_a(): ...", False, id="not written out"),
        pytest.param("@pytest.mark.threat()\ndef test_a(): ...", False, id="no row"),
        pytest.param("@pytest.mark.threat\ndef test_a(): ...", False, id="not called"),
        pytest.param(f"@pytest.mark.threat({ROW!r})\ndef a_test(): ...", False, id="not a test"),
        pytest.param(f"def test_a():\n @pytest.mark.threat({ROW!r})\n def test_b(): ...", False, id="never collected"),
        pytest.param(f"pytestmark = pytest.mark.threat({ROW!r})", False, id="a whole file"),
        pytest.param(f"@pytest.mark.threat(row={ROW!r})\ndef test_a(): ...", False, id="by keyword"),
    ],
)
def test_a_mark_counts_only_where_it_can_be_relied_on(tmp_path: Path, source: str, is_proof: bool) -> None:
    """A mark is a proof, or a mistake; never neither."""
    (tmp_path / "test_some.py").write_text(source)
    assert (mistakes(tmp_path) == []) is is_proof
    assert proofs(tmp_path)[ROW] == ([f"{tmp_path.name}/test_some.py::test_a"] if is_proof else [])


def test_a_file_that_is_not_collected_proves_nothing(tmp_path: Path) -> None:
    """Pytest looks for tests in files called `test_...` alone."""
    (tmp_path / "some.py").write_text(f"@pytest.mark.threat({ROW!r})\ndef test_a(): ...")
    assert mistakes(tmp_path)
    assert proofs(tmp_path)[ROW] == []
