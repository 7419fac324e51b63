"""Every reader of what comes from outside is fuzzed, and no reader is forgotten."""

import ast
import importlib
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import gateway
from tests.fuzz.parsers import OWN, READERS
from tests.fuzz.targets import TARGETS

ROOT = Path(gateway.__file__).parent
# Calls by which something is read that was written elsewhere.
SIGNS = {
    *("loads", "model_validate", "model_validate_json", "validate_json", "compose", "reader"),
    *("unpack", "from_bytes", "fromhex", "b64decode", "recv", "readline", "fromisoformat"),
    *("ip_address", "ip_network", "unquote", "unquote_to_bytes", "urlsplit", "urlparse", "parse_qs", "parse_qsl"),
    *("get_unverified_header", "from_jwk", "load_pem_public_key", "text_string_to_metric_families", "SimpleCookie"),
}


def code_of(place: str) -> CodeType | None:
    """The code of a function that is named by module and qualified name; None where it is compiled: it runs unseen."""
    module, _, name = place.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)
    code = getattr(getattr(found, "__func__", found), "__code__", None)
    return code if isinstance(code, CodeType) else None


def called_by(target: str) -> set[CodeType]:
    """The code of all functions that a target's seeds and corpus reach."""
    seen: set[CodeType] = set()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    inputs = [*TARGETS[target].seeds, *(path.read_bytes() for path in sorted(TARGETS[target].corpus.iterdir())[:40])]
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        for data in inputs:
            TARGETS[target].check(data)
    finally:
        sys.setprofile(before)
    return seen


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_calls_the_readers_that_it_is_there_for(target: str) -> None:
    """Each reader is really given what the fuzzer makes, and each target has one. R341."""
    readers = {reader.what: code_of(reader.place) for reader in READERS if reader.target == target}
    assert readers
    called = called_by(target)
    assert [what for what, code in readers.items() if code is not None and code not in called] == []


def test_readers_have_targets() -> None:
    """No target is misspelled, and no reader stands there twice."""
    assert {reader.target for reader in READERS} <= set(TARGETS)
    assert len({reader.place for reader in READERS}) == len({reader.what for reader in READERS}) == len(READERS)


def reads(source: str) -> bool:
    """Whether a module has a call that reads."""
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    names = (call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls)
    return not SIGNS.isdisjoint(names)


def test_no_reader_is_forgotten() -> None:
    """A module that reads is fuzzed, or is told of with the reason why it need not be; and no reason is stale."""
    modules = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
    reading = {name.removesuffix(".__init__") for name, path in modules.items() if reads(path.read_text())}
    fuzzed = {reader.place.partition(":")[0] for reader in READERS}
    assert reading - fuzzed - OWN.keys() == set()
    assert OWN.keys() - reading == set()
    assert OWN.keys() & fuzzed == set()


def test_the_guard_sees_a_reader() -> None:
    """It could fail. R381."""
    assert reads("import json\nx = json.loads(body)")
    assert not reads("x = dumps(body)")
