"""The modules that can be built as C: what the compiler reads otherwise than Python does."""

import ast
import runpy
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WARM: list[str] = runpy.run_path(str(ROOT / "setup.py"))["WARM"]


@pytest.mark.parametrize("name", WARM)
def test_a_caught_error_has_a_name_of_its_own(name: str) -> None:
    """The compiler gives a name one type per function: a second `except ... as error` of another type would fail."""
    for function in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            caught = [node.name for node in ast.walk(function) if isinstance(node, ast.ExceptHandler) and node.name]
            assert not [name for name, count in Counter(caught).items() if count > 1], function.name


@pytest.mark.parametrize("name", WARM)
def test_nobody_holds_weak_references_to_compiled_objects(name: str) -> None:
    """They are not cleared when such an object goes: whoever follows one afterwards follows it into freed memory."""
    assert "__weakref__" not in (ROOT / name).read_text()
