"""Points in time, in and out of JSON. In: ISO 8601, or seconds since the epoch. Out: ISO 8601 in UTC, with `Z`."""

import math
import re
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

_ISO = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?"
)
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")

# Seconds since the epoch, as nodes keep moments, are rounded there to some 30 microseconds: what is behind it may come
# back as a moment of the year 10000, which cannot be written.
LATEST: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def parse(value: object) -> datetime:
    """The moment that a JSON value names (R125). Raises ValueError.

    Text is ISO 8601 with date and time; `Z` or an offset is honoured, and a time without either is UTC. A number, whole
    or not, is seconds since the epoch.
    """
    try:
        if isinstance(value, str) and _ISO.fullmatch(value.upper()):
            moment = datetime.fromisoformat(value.upper())
            return _within(moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC))
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return _within(datetime.fromtimestamp(value, UTC))
    except (OverflowError, OSError) as error:
        raise ValueError("out of range") from error
    raise ValueError("not a moment")


def _within(moment: datetime) -> datetime:
    """The moment, unless it is later than LATEST, or the first of all: asyncpg takes that for an infinite one."""
    if moment.replace(tzinfo=None) == datetime.min or moment > LATEST:
        raise ValueError("out of range")
    return moment


def text(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC, such as `2026-01-31T12:00:00.250000Z`; None stays None."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def of_epoch(seconds: float | None) -> datetime | None:
    """The moment that many seconds after the epoch; None stays None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _validate(value: object) -> datetime:
    try:
        return parse(value)
    except ValueError:
        raise PydanticCustomError(
            "moment",
            "Write an ISO 8601 date and time such as 2026-01-31T12:00:00Z, or a number of seconds since the epoch",
        ) from None


def _validate_text(value: object) -> datetime:
    """As `_validate`, where a number is text, too."""
    return _validate(float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value)


Moment = Annotated[
    datetime,
    PlainValidator(_validate),
    WithJsonSchema(
        {
            "description": "ISO 8601 with date and time (without an offset: UTC), or seconds since the epoch.",
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}],
        }
    ),
]
QueryMoment = Annotated[
    datetime,
    PlainValidator(_validate_text),
    WithJsonSchema(
        {
            "description": "ISO 8601 with date and time (without an offset: UTC), or seconds since the epoch.",
            "type": "string",
            "anyOf": [{"format": "date-time"}, {"pattern": f"^{_NUMBER.pattern}$"}],
        }
    ),
]
