"""Every problem has its place in the documentation."""

import importlib
import pkgutil
import re
from pathlib import Path

import gateway
from gateway.auth.refusal import Reason
from gateway.control.bodies import CODES
from gateway.errors import GatewayError

# These are told by commands, and are in no reply.
OF_COMMANDS = {"api_unreachable", "configuration_invalid", "import_cut_off", "no_access_tokens"}
DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"


def subclasses(kind: type[GatewayError]) -> set[type[GatewayError]]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


def test_every_code_has_an_entry() -> None:
    """A code that a caller may see has a heading in docs/errors.md, once, with a first thing to check."""
    for module in pkgutil.walk_packages(gateway.__path__, "gateway."):
        if "__main__" not in module.name:
            importlib.import_module(module.name)
    codes = {kind.code for kind in subclasses(GatewayError)} | set(CODES.values()) | set(Reason)
    text = DOCUMENT.read_text()
    entries = re.findall(r"^### `([a-z_]+)`(.*)$", text, re.MULTILINE)
    documented = [code for code, _ in entries]
    assert sorted(set(documented)) == sorted(documented)
    assert codes - set(documented) - OF_COMMANDS == set()
    bodies = re.split(r"^### .*$", text, flags=re.MULTILINE)[1:]
    for (code, _), body in zip(entries, bodies, strict=True):
        assert "First check:" in body, code


def test_public_texts_tell_no_insides() -> None:
    """No public text names a store, a host or a table. R239."""
    for kind in subclasses(GatewayError):
        assert not re.search(r"postgres|redis|sql|table|127\.", kind.public, re.IGNORECASE), kind
