"""What is wrong with a configuration, said to an operator: place, line, what, cure.

No sentence quotes a value, because any value may hold a secret; it names the place and the line instead.
"""

import json
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from gateway.errors import GatewayError
from gateway.setting_rules import Place, nearest

# What pydantic's types of error mean: what is wrong, and the cure, a format for the bounds that pydantic gives.
_SENTENCES = {
    "missing": ("is missing", "Add it."),
    "string_type": ("is not a text", "Write a text; one that looks like a number needs quotes."),
    "string_unicode": ("is not UTF-8", "Use characters that UTF-8 can hold."),
    "int_type": ("is not a whole number", "Write a whole number."),
    "int_parsing": ("is not a whole number", "Write a whole number."),
    "int_parsing_size": ("is too large", "Write a smaller number."),
    "finite_number": ("is not a whole number", "Write a whole number."),
    "int_from_float": ("is not a whole number", "Write a whole number."),
    "float_type": ("is not a number", "Write a number."),
    "float_parsing": ("is not a number", "Write a number."),
    "bool_type": ("is neither true nor false", "Write true or false."),
    "bool_parsing": ("is neither true nor false", "Write true or false."),
    "tuple_type": ("is not a list", "Write a list, such as [first, second]."),
    "dict_type": ("is not a mapping", "Write a mapping, such as {{name: value}}."),
    "model_type": ("is not a mapping", "Write a mapping, such as {{name: value}}."),
    "too_short": ("is empty", "Give at least one."),
    "greater_than_equal": ("is too small", "Write a number from {ge} up."),
    "less_than_equal": ("is too large", "Write a number up to {le}."),
    "literal_error": ("is none of the known values", "Write {expected}."),
}
_KEY_LENGTH_LIMIT = 64


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake: its place (`routes[2].upstream`, or "" for the file), its line, a verb phrase, a sentence."""

    place: str
    line: int | None
    what: str
    cure: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}. {self.cure}" if self.place else f"{self.what}. {self.cure}"


class ConfigurationError(GatewayError):
    """The configuration cannot be used. Holds every mistake; its text has a line for each, and no secret."""

    code = "configuration_invalid"
    public = "The configuration of the gateway has mistakes."

    def __init__(self, file: str, mistakes: Iterable[Mistake]) -> None:
        self.file = file
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Return `FILE:LINE: place: what. cure` for each mistake."""
        return [
            f"{self.file}:{mistake.line}: {mistake}" if mistake.line else f"{self.file}: {mistake}"
            for mistake in self.mistakes
        ]


def shown(place: Place) -> str:
    """Return a place as an operator writes it: `routes[2].upstream`; unusual keys are quoted."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z0-9_-]{1,64}", part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part[:_KEY_LENGTH_LIMIT])}]"
    return text


def sentence(detail: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    """Return what is wrong and the cure, for an error that pydantic found while validating `model`."""
    context: Mapping[str, Any] = detail.get("ctx", {})
    if detail["type"] == "mistake":
        return str(context["what"]), str(context["cure"])
    if detail["type"] == "extra_forbidden":
        *holder, name = detail["loc"]
        return "is not a known setting", nearest(str(name), _names(model, holder))
    what, cure = _SENTENCES.get(detail["type"], ("is not acceptable", "See docs/configuration.md."))
    return what, cure.format(**context)


def _names(model: type[BaseModel], place: Iterable[str | int]) -> list[str]:
    """Return the names of the settings that may stand at `place` of a `model`."""
    here: Any = model
    for part in place:
        here = _inner(here, part)
    return list(here.model_fields)


def _inner(annotation: Any, part: str | int) -> Any:
    """Return the model that stands at `part` of a model, a tuple of models or a mapping to models."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        annotation = annotation.model_fields[str(part)].annotation
        if get_origin(annotation) in {Union, types.UnionType}:
            return next(one for one in get_args(annotation) if one is not type(None))
        return annotation
    arguments = get_args(annotation)
    return arguments[1] if get_origin(annotation) is dict else arguments[0]
