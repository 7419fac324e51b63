"""The file of an import: lines of JSON or CSV in, rows or their mistakes out. Pure; must not know: stores."""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from gateway.control.bodies import Body, Digest, Id, KeyName, Scopes, parse_body
from gateway.control.moments import Moment
from gateway.control.problems import InvalidBody, PayloadTooLarge
from gateway.setting_values import EnvironmentName

MOST_ROWS: Final = 100_000
LARGEST_FILE_BYTES: Final = 64 * 2**20
UNNAMED: Final = "imported"  # the prefix of a key whose row has none

_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
_SHOWN = re.compile(r"[!-~]{1,16}")


class FileFormat(StrEnum):
    """What the file is."""

    JSONL = "jsonl"
    CSV = "csv"


MEDIA_TYPES: Final = {
    "application/x-ndjson": FileFormat.JSONL,
    "application/jsonl": FileFormat.JSONL,
    "application/json": FileFormat.JSONL,  # one object is a line
    "text/csv": FileFormat.CSV,
}


def _prefix(text: str) -> str:
    """Short, so that nobody writes a whole secret here: it is shown to everybody who sees the key."""
    if _SHOWN.fullmatch(text) is None:
        raise PydanticCustomError(
            "prefix", "Write up to 16 visible ASCII characters of the secret's beginning, or nothing"
        )
    return text


class ImportRow(Body):
    """One key to be: its secret is known by its SHA-256 alone. `tenant_id`, if there, must be the user's."""

    secret_sha256: Digest
    user_id: Id
    name: KeyName
    tenant_id: Id | None = None
    prefix: Annotated[str, AfterValidator(_prefix)] = UNNAMED
    scopes: Scopes = ()
    environment: EnvironmentName | None = None
    expires_at: Moment | None = None


@dataclass(frozen=True, slots=True)
class Mistake:
    """Why a line is no row."""

    code: str
    message: str


Entry = tuple[int, ImportRow | Mistake]  # with the number of its line in the file


def read_rows(raw: bytes, file_format: FileFormat) -> Iterator[Entry]:
    """The rows, one after the other; a line that is none is a Mistake, and blank ones are passed over.

    Raises PayloadTooLarge for more than MOST_ROWS lines and InvalidBody for a CSV file without a header of known names,
    both before the first row.
    """
    if raw.count(b"\n") > MOST_ROWS + 1:
        raise PayloadTooLarge(f"more than {MOST_ROWS} lines")
    lines = _lines(raw.removeprefix(b"\xef\xbb\xbf"))
    if file_format is FileFormat.JSONL:
        return ((number, _of_json(line)) for number, line in lines)
    columns = _columns(next(lines, (1, b""))[1])
    return ((number, _of_csv(columns, line)) for number, line in lines)


def _lines(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """A line at a time, without a copy of all of them."""
    start, number = 0, 0
    while start < len(raw):
        end = raw.find(b"\n", start)
        end = len(raw) if end < 0 else end
        number += 1
        line = raw[start:end].strip(b"\r\n\t ")
        start = end + 1
        if line:
            yield number, line


def _of_json(line: bytes) -> ImportRow | Mistake:
    try:
        return parse_body(line, ImportRow)
    except InvalidBody as error:
        return Mistake(error.code, str(error))


def _columns(header: bytes) -> list[str]:
    try:
        columns = [name.strip() for name in _cells(header)]
    except ValueError as error:
        raise InvalidBody([{"place": "header", "message": str(error)}]) from None
    known = list(ImportRow.model_fields)
    required = [name for name, field in ImportRow.model_fields.items() if field.is_required()]
    is_right = set(required) <= set(columns) <= set(known) and len(set(columns)) == len(columns)
    if not is_right:
        message = f"Name in the first line, each once: {', '.join(required)}; and, if you like, the rest of: {known}"
        raise InvalidBody([{"place": "header", "message": message}])
    return columns


def _of_csv(columns: list[str], line: bytes) -> ImportRow | Mistake:
    try:
        cells = _cells(line)
        if len(cells) != len(columns):
            raise ValueError(f"The header names {len(columns)} columns, the line has {len(cells)}")
    except ValueError as error:
        return Mistake("invalid_body", str(error))
    fields: dict[str, Any] = {name: cell for name, cell in zip(columns, cells, strict=True) if cell != ""}
    if "scopes" in fields:
        fields["scopes"] = fields["scopes"].split()
    if _NUMBER.fullmatch(fields.get("expires_at", "")):
        fields["expires_at"] = float(fields["expires_at"])
    return _of_json(json.dumps(fields).encode())


def _cells(line: bytes) -> list[str]:
    """The cells of one line. Raises ValueError with a text fit to be shown."""
    try:
        return next(csv.reader([line.decode()], strict=True))
    except UnicodeDecodeError:
        raise ValueError("Write UTF-8") from None
    except (csv.Error, StopIteration):
        raise ValueError("Close every quote on the line that opens it") from None
