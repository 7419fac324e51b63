"""A YAML file as plain values, each with its line, and with the variables of the environment filled in.

Variables are expanded after the YAML is parsed and inside texts alone, so that no value of a variable can add
structure. Must not know: which settings there are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gateway.configuration.mistakes import Mistake, shown
from gateway.setting_rules import Place

# Aliases let a short file stand for a tree that no memory holds.
NODE_LIMIT = 100_000

_YAML = "tag:yaml.org,2002:"
_TEXT_TAGS = {_YAML + name for name in ("str", "timestamp", "value", "merge")}
_VARIABLE = re.compile(r"\$\{(?P<body>[^}]*)(?P<end>\}?)")
_VARIABLE_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-(?:(?!\$\{).)*)?", re.DOTALL)

NOT_UTF8 = ("is not UTF-8", "Use characters that UTF-8 can hold.")

# Stands in the tree where a value could not be had; what is wrong has been told already.
UNREADABLE = object()


@dataclass
class Document:
    """The values of a file, the lines they stand on, and what was wrong already."""

    tree: Any = UNREADABLE
    mistakes: list[Mistake] = field(default_factory=list)
    lines: dict[Place, int] = field(default_factory=dict)
    unreadable: set[Place] = field(default_factory=set)

    def line(self, place: Place) -> int | None:
        """Return the line of `place`, or of the nearest thing around it that stands in the file."""
        for length in range(len(place), -1, -1):
            if place[:length] in self.lines:
                return self.lines[place[:length]]
        return None

    def is_unreadable(self, place: Place) -> bool:
        """Whether the value at `place` was given up on, and told, before it could be validated."""
        return any(place[:length] in self.unreadable for length in range(len(place) + 1))


def read(content: bytes, environ: Mapping[str, str]) -> Document:
    """Return the document in `content` (UTF-8). Never raises: what is wrong is in its `mistakes`."""
    document = Document()
    try:
        node = yaml.compose(content.decode("utf-8-sig"), Loader=yaml.SafeLoader)
        document.tree = {} if node is None else _Walk(document, environ).value(node, ())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        document.mistakes.append(Mistake("", line, "is not UTF-8", "Save the file as UTF-8."))
    except yaml.reader.ReaderError as error:
        line = content.decode("utf-8-sig").count("\n", 0, error.position) + 1
        document.mistakes.append(Mistake("", line, "holds a control character", "Take it out."))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = f"is not well-formed YAML ({_unquoted(error.problem or 'no reason known')})"
        cure = "Correct the YAML; a text with special characters needs quotes."
        document.mistakes.append(Mistake("", mark.line + 1 if mark else None, what, cure))
    except (RecursionError, _TooLargeError):
        document.mistakes.append(Mistake("", None, "is nested too deeply, or too large", "Make it simpler."))
    document.lines.setdefault((), 1)
    return document


class _TooLargeError(Exception):
    """The tree has more than NODE_LIMIT nodes."""


class _Walk:
    """One walk over the nodes of a document: fills in its lines and mistakes."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._constructor = yaml.constructor.SafeConstructor()
        self._open: set[int] = set()
        self._count = 0

    def value(self, node: Node, place: Place) -> Any:
        """Return the plain value of `node`, or UNREADABLE."""
        self._count += 1
        if self._count > NODE_LIMIT:
            raise _TooLargeError
        line = node.start_mark.line + 1
        self._document.lines.setdefault(place, line)
        if id(node) in self._open:
            return self._give_up(place, line, "contains itself", "Write the value out instead of the alias.")
        self._open.add(id(node))
        try:
            match node:
                case MappingNode(tag=tag) if tag == _YAML + "map":
                    return self._mapping(node, place)
                case SequenceNode(tag=tag) if tag == _YAML + "seq":
                    return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
                case ScalarNode():
                    return self._scalar(node, place)
                case _:
                    return self._give_up(place, line, "has a tag that means nothing here", "Leave the tag out.")
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                self._tell(place, line, "has a key that is not a text", "Use texts as keys.")
                continue
            # A key is what is written: `on:` and `1:` are names, whatever YAML takes them for.
            name = str(key.value)
            inner = (*place, name)
            if not _is_utf8(name):
                self._tell(inner, line, *NOT_UTF8)
            elif key.tag == _YAML + "merge":
                self._tell(inner, line, "merges another mapping, which is not supported", "Write the settings out.")
            elif name in found:
                first = self._document.lines[inner]
                self._tell(inner, line, f"stands in line {first} already", "Keep one of the two.")
            else:
                self._document.lines.setdefault(inner, line)
                found[name] = self.value(value, inner)
        return found

    def _scalar(self, node: ScalarNode, place: Place) -> Any:
        line = node.start_mark.line + 1
        if node.tag in _TEXT_TAGS:
            return self._expanded(str(node.value), place, line)
        construct: dict[str, Any] = {
            "null": self._constructor.construct_yaml_null,
            "bool": self._constructor.construct_yaml_bool,
            "int": self._constructor.construct_yaml_int,
            "float": self._constructor.construct_yaml_float,
        }
        known = construct.get(node.tag.removeprefix(_YAML))
        if known is None:
            return self._give_up(place, line, "has a tag that means nothing here", "Leave the tag out.")
        try:
            return known(node)
        except (ValueError, KeyError, IndexError, OverflowError):
            return self._give_up(place, line, "is not the number that it looks like", "Put a text in quotes.")

    def _expanded(self, text: str, place: Place, line: int) -> Any:
        """Return `text` with its variables replaced, or UNREADABLE if one of them has no value."""
        pieces, end, is_whole = [], 0, True
        for match in _VARIABLE.finditer(text):
            body = _VARIABLE_BODY.fullmatch(match["body"]) if match["end"] else None
            value = None
            if body is None:
                self._give_up(
                    place, line, "holds a variable that is not well-formed", "Write ${NAME} or ${NAME:-default}."
                )
            elif body["default"] is not None:
                value = self._environ.get(body["name"]) or body["default"].removeprefix(":-")
            elif (value := self._environ.get(body["name"])) is None:
                what = f"needs the environment variable {body['name']}, which is not set"
                self._give_up(place, line, what, f"Set it, or write ${{{body['name']}:-default}}.")
            is_whole = is_whole and value is not None
            pieces += [text[end : match.start()], value or ""]
            end = match.end()
        if not is_whole:
            return UNREADABLE
        whole = "".join([*pieces, text[end:]])
        return whole if _is_utf8(whole) else self._give_up(place, line, *NOT_UTF8)

    def _give_up(self, place: Place, line: int, what: str, cure: str) -> object:
        self._tell(place, line, what, cure)
        self._document.unreadable.add(place)
        return UNREADABLE

    def _tell(self, place: Place, line: int, what: str, cure: str) -> None:
        self._document.mistakes.append(Mistake(shown(place), line, what, cure))


def _is_utf8(text: str) -> bool:
    """Whether it can be written: escapes in the file, and bytes in the environment, can make halves of characters."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _unquoted(problem: str) -> str:
    """Return a problem as the YAML library tells it, without the words of the file in it: they may be a secret."""
    return re.sub(r"(undefined alias|duplicate anchor|undefined tag handle) .*", r"\1", problem, flags=re.DOTALL)
