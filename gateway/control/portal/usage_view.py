"""Usage as the pages show it: by day, by key, by outcome. Read by the service that the API reads by."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from gateway.control.admin_tokens import Administrator
from gateway.control.portal.charts import FAILED, KIND_OF, Day
from gateway.control.usage import AllUsagePageQuery, UsageReader, wish_of

MOST_ROWS: Final = 20_000
SPARK_DAYS: Final = 14


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many requests ended so."""

    kind: str
    outcome: str
    code: str
    requests: int


@dataclass(frozen=True, slots=True)
class UsageView:
    """What was used in a number of days."""

    days: Sequence[Day]
    outcomes: Sequence[Outcome]
    received_bytes: int
    sent_bytes: int

    def total(self, kind: str) -> int:
        """The requests of one kind."""
        return sum(getattr(day, kind) for day in self.days)

    @property
    def requests(self) -> int:
        """All requests."""
        return sum(day.total for day in self.days)


class UsageViews:
    """Reads usage for pages. Every method raises StoreUnavailable."""

    def __init__(self, reader: UsageReader) -> None:
        self._reader = reader

    async def of(
        self,
        caller: Administrator,
        days: int,
        key_id: str | None = None,
        *,
        user_id: str | None = None,
        tenant_id: str | None = None,
    ) -> UsageView:
        """All that the caller may see of the last `days`, or of it what one key, user or tenant has used."""
        asked = {"key_id": key_id, "user_id": user_id, "tenant_id": tenant_id}
        rows = await self._rows(caller, days, ("outcome", "code"), asked)
        by_end: dict[tuple[str, str], int] = defaultdict(int)
        for row in rows:
            by_end[row["outcome"], row["code"]] += row["requests"]
        outcomes = [Outcome(_kind(end[0]), *end, number) for end, number in by_end.items()]
        return UsageView(
            _days(rows, days),
            sorted(outcomes, key=lambda outcome: -outcome.requests),
            sum(row["received_bytes"] for row in rows),
            sum(row["sent_bytes"] for row in rows),
        )

    async def by_key(self, caller: Administrator) -> Mapping[str, Sequence[Day]]:
        """The last days of each key of the caller that was used."""
        rows = await self._rows(caller, SPARK_DAYS, ("key",), {})
        of_keys: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            of_keys[row["key_id"]].append(row)
        return {key_id: _days(of_key, SPARK_DAYS) for key_id, of_key in of_keys.items()}

    async def _rows(
        self, caller: Administrator, days: int, by: tuple[str, ...], of: Mapping[str, str | None]
    ) -> list[dict[str, Any]]:
        since = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)
        asked = AllUsagePageQuery.model_construct(since=since, until=None, step="day", by=by).model_copy(update=of)
        page = await self._reader.page(wish_of(asked, caller), after=None, limit=MOST_ROWS)
        rows: list[dict[str, Any]] = page["items"]
        return rows


def unused(days: int = SPARK_DAYS) -> Sequence[Day]:
    """Days without a request."""
    return _days((), days)


def _kind(outcome: str) -> str:
    return KIND_OF.get(outcome, FAILED)


def _days(rows: Sequence[Mapping[str, Any]], days: int) -> Sequence[Day]:
    """Each of the last days, used or not. What has no outcome counts as served."""
    numbers: dict[date, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        numbers[datetime.fromisoformat(row["at"]).date()][_kind(row.get("outcome", "forwarded"))] += row["requests"]
    today = datetime.now(UTC).date()
    span = (today - timedelta(days=back) for back in reversed(range(days)))
    return tuple(Day(day, **numbers.get(day, {})) for day in span)
