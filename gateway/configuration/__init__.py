"""From a file to `Settings`, or to every mistake in it at once, each with its place, line and cure.

document.py      YAML with line numbers; variables of the environment
mistakes.py      what is wrong, said to an operator
schema.py        the JSON Schema of the file
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.configuration.document import Document, read
from gateway.configuration.mistakes import ConfigurationError, Mistake, sentence, shown
from gateway.configuration.schema import json_schema
from gateway.setting_rules import broken_rules
from gateway.settings import Settings

__all__ = ["ConfigurationError", "Mistake", "json_schema", "load", "parse"]


def load(path: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration in `path`; `environ` (default: the process's) gives the values of `${VAR}`.

    Raises ConfigurationError, which holds every mistake of the file. R077.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        mistake = Mistake("", None, f"cannot be read ({reason})", "Name a file that can be read.")
        raise ConfigurationError(str(path), [mistake]) from error
    return parse(content, str(path), os.environ if environ is None else environ)


def parse(content: bytes, file: str, environ: Mapping[str, str]) -> Settings:
    """Do what `load` does with the `content` of a file; `file` is its name in mistakes. Raises ConfigurationError."""
    document = read(content, environ)
    mistakes = list(document.mistakes)
    if isinstance(document.tree, dict):
        settings = _validate(document, mistakes)
        if settings is not None and not mistakes:
            return settings
    elif not mistakes:
        mistakes.append(Mistake("", 1, "is not a mapping of settings", "Begin with the line `environment: prod`."))
    raise ConfigurationError(file, sorted(mistakes, key=lambda mistake: mistake.line or 0))


def _validate(document: Document, mistakes: list[Mistake]) -> Settings | None:
    """Return the settings of `document`, or add what is wrong with them to `mistakes` and return None."""
    try:
        return Settings.model_validate(document.tree)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    # At the root stands the first broken rule, once every single setting is good; all of them are told below, each at
    # its own place. They are looked for in what was read: in the tree a number or a flag from a variable is a text.
    rooted = next((detail["ctx"]["settings"] for detail in details if not detail["loc"]), None)
    broken = list(broken_rules(rooted or _with_defaults(document.tree), document.lines.__contains__))
    for detail in details:
        if document.is_unreadable(detail["loc"]) or not detail["loc"] or _is_emptied(detail, details):
            continue
        place = tuple(part for part in detail["loc"] if part != "[key]")
        mistakes.append(Mistake(shown(place), document.line(place), *sentence(detail, Settings)))
    mistakes.extend(Mistake(shown(one.place), document.line(one.place), one.what, one.cure) for one in broken)
    return None


def _is_emptied(detail: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    """Whether a list is called empty because nothing in it is good, which is told of each item."""
    place = detail["loc"]
    return detail["type"] == "too_short" and any(one["loc"][:-1] == place for one in details)


def _with_defaults(tree: Any) -> dict[str, Any]:
    """Return the tree with the defaults that rules compare with: the names of headers, the listeners."""
    filled = dict(tree)
    for name in ("listen", "credentials", "identity_headers"):
        default, given = Settings.model_fields[name].default, filled.setdefault(name, None)
        if given is None:
            filled[name] = default
        elif isinstance(given, dict) and isinstance(default, BaseModel):
            filled[name] = {**default.model_dump(mode="json"), **given}
    return filled
