"""The modules that can be built as C: what the compiler reads otherwise than Python does.

All that it does to them is shown by the suite of the built tree, `make test-compiled`.
"""

import ast
import runpy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import errors

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


@pytest.mark.parametrize("name", WARM)
def test_no_error_that_callers_see_is_defined_in_them(name: str) -> None:
    """What an error says of itself in its class would be lost: it would tell callers what its parent says."""
    assert [kind for kind, bases in classes(ROOT / name) if any(tells_callers(base) for base in bases)] == []


def test_heirs_of_what_is_built_are_built() -> None:
    """A class that is not cannot inherit from one that is: it fails as soon as one is made."""
    built = {(path, name) for path in WARM for name, _ in classes(ROOT / path)}
    orphans = []
    for path in sorted(ROOT.glob("gateway/**/*.py")):
        if path.relative_to(ROOT).as_posix() not in WARM:
            known = {name for place, name in imported(path) if (place, name) in built}
            orphans += [f"{path.relative_to(ROOT)}: {name}" for name, bases in classes(path) if bases & known]
    assert orphans == []


def classes(path: Path) -> Iterator[tuple[str, set[str]]]:
    """The classes of a module, and what they inherit from."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ClassDef):
            yield node.name, {ast.unparse(base).rpartition(".")[2] for base in node.bases}


def tells_callers(base: str) -> bool:
    """Whether an error of this name knows its reply."""
    ours = getattr(errors, base, None)
    return base.endswith("Error") or (isinstance(ours, type) and issubclass(ours, errors.GatewayError))


def imported(path: Path) -> set[tuple[str, str]]:
    """The modules' paths and names that a module imports."""
    return {
        (f"{node.module.replace('.', '/')}.py", name.name)
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for name in node.names
    }
