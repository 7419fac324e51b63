"""The rule about skipped tests holds in CI, and only there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SKIPS = "import pytest\n\ndef test_one():\n    pytest.skip('no Redis')\n"
SKIPS_ITSELF = "import pytest\npytest.importorskip('no_such_module')\n\ndef test_one():\n    pass\n"
PASSES = "def test_one():\n    pass\n"
HAS_NONE = ""


@pytest.mark.parametrize(
    ("text", "ci", "code"),
    [
        pytest.param(SKIPS, "true", 1, id="a skipped test in CI"),
        pytest.param(SKIPS_ITSELF, "true", 1, id="a skipped module in CI"),
        pytest.param(HAS_NONE, "true", 5, id="no test in CI"),
        pytest.param(PASSES, "true", 0, id="a passing test in CI"),
        pytest.param(SKIPS, "", 0, id="a skipped test at a desk"),
    ],
)
async def test_a_run_in_ci_fails_on_what_it_did_not_run(tmp_path: Path, text: str, ci: str, code: int) -> None:
    """CI fails if a suite ran no test or skipped any. R381."""
    (tmp_path / "test_it.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.fixtures.nothing_skipped"),
            *("-c", str(tmp_path / "pytest.ini"), "--rootdir", str(tmp_path), str(tmp_path / "test_it.py")),
        ],
        env={**os.environ, "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # the others take a second to load
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stdout + run.stderr
