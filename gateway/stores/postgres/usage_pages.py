"""The SQL of reading usage: added up over steps of time, by any of its dimensions, a page at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from gateway.stores.postgres.connection import Connection

# As they are named in the API, and as the columns are.
DIMENSIONS: Final = {
    "key": "key_id",
    "user": "user_id",
    "tenant": "tenant_id",
    "route": "route",
    "outcome": "outcome",
    "code": "code",
}
STEPS: Final = ("minute", "hour", "day", "month")


@dataclass(frozen=True, slots=True)
class UsageFilters:
    """Which usage is meant: from `since` to before `until`, and of each one that is not None."""

    since: datetime
    until: datetime
    key_id: str | None = None
    user_id: str | None = None
    tenant_id: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A row of the result: its step of time, and its dimensions in the order that was asked for."""

    at: datetime
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used in one step of time."""

    place: Place
    requests: int
    received_bytes: int
    sent_bytes: int


async def page(
    connection: Connection, filters: UsageFilters, *, step: str, by: Sequence[str], after: Place | None, limit: int
) -> list[Usage]:
    """Up to `limit` rows behind `after`, by time (steps are those of UTC) and then by the dimensions `by`."""
    statement, arguments = page_query(filters, step=step, by=by, after=after, limit=limit)
    rows = await connection.fetch(statement, *arguments)
    return [
        Usage(Place(row[0], tuple(row[1 : 1 + len(by)])), row["requests"], row["received_bytes"], row["sent_bytes"])
        for row in rows
    ]


def page_query(
    filters: UsageFilters, *, step: str, by: Sequence[str], after: Place | None, limit: int
) -> tuple[str, list[Any]]:
    """The statement of a page and its arguments. Only the filters that are there stand in it, as for keys."""
    assert step in STEPS, step
    columns = [DIMENSIONS[name] for name in by]
    since = filters.since if after is None else max(filters.since, after.at)  # what is before has been told
    arguments: list[Any] = [since, filters.until, limit]
    clauses = ["minute >= $1", "minute < $2"]
    for column, value in (("key_id", filters.key_id), ("user_id", filters.user_id), ("tenant_id", filters.tenant_id)):
        if value is not None:
            arguments.append(value)
            clauses.append(f"{column} = ${len(arguments)}")
    group = ", ".join(["at", *columns])
    having = ""
    if after is not None:
        arguments += [after.at, *after.values]
        places = ", ".join(f"${number}" for number in range(len(arguments) - len(columns), len(arguments) + 1))
        having = f" WHERE ROW({group}) > ROW({places})"
    statement = (
        f"SELECT * FROM (SELECT date_trunc('{step}', minute, 'UTC') AS {group}, sum(requests)::bigint AS requests,"  # noqa: S608  # our own texts
        " sum(received_bytes)::bigint AS received_bytes, sum(sent_bytes)::bigint AS sent_bytes"
        f" FROM usage WHERE {' AND '.join(clauses)} GROUP BY {group}) AS told{having} ORDER BY {group} LIMIT $3"
    )
    return statement, arguments
