"""Reading usage: added up by time and by what was asked for, to whom it belongs and to nobody else."""

import csv
import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import asyncpg
import pytest

from gateway.stores.postgres.usage import UsageStore
from tests.integration.management.world import Management

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
FIRST = TODAY - 2 * DAY
COLUMNS = "minute, key_id, tenant_id, user_id, route, outcome, code, requests, received_bytes, sent_bytes"


@dataclass(frozen=True)
class Scene:
    """Two keys of ada, one of olga (who is of the tenant `other`), and what they have used since `FIRST`."""

    management: Management
    ada: str
    adas_second: str
    olga: str

    async def read(self, path: str, *, token: str = "operator", **query: Any) -> list[dict[str, Any]]:
        """The items of a page, of which there is one."""
        reply = await self.management.call("GET", f"{path}?{urlencode(query)}", token=token)
        assert reply.status == 200, reply.text
        assert reply.body["next_cursor"] is None
        items: list[dict[str, Any]] = reply.body["items"]
        return items


def told(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


@pytest.fixture
async def scene(management: Management) -> Scene:
    await UsageStore(management.postgres, node_id="node", retention_months=1).keep_partitions()
    keys = [
        await management.key("first", user="ada"),
        await management.key("second", user="ada"),
        await management.key("third", user="olga"),
    ]
    ada, second, olga = (key["id"] for key in keys)
    rows = [
        (FIRST + 10 * HOUR, ada, "acme", "ada", "orders", "forwarded", "2xx", 10, 100, 1000),
        (FIRST + 10 * HOUR, ada, "acme", "ada", "orders", "refused", "insufficient_scope", 1, 0, 0),
        (FIRST + 10 * HOUR + timedelta(minutes=1), ada, "acme", "ada", "orders", "forwarded", "2xx", 5, 50, 500),
        (FIRST + 11 * HOUR, ada, "acme", "ada", "payments", "forwarded", "5xx", 2, 20, 200),
        (FIRST + DAY, ada, "acme", "ada", "orders", "forwarded", "2xx", 7, 70, 700),
        (FIRST + DAY, second, "acme", "ada", "orders", "forwarded", "2xx", 3, 30, 300),
        (FIRST + DAY, olga, "other", "olga", "orders", "forwarded", "2xx", 100, 0, 0),
        (FIRST + DAY, "", "", "", "orders", "refused", "invalid_api_key", 50, 0, 0),
    ]
    connection = await asyncpg.connect(management.dsn)
    try:
        values = ", ".join(f"${number}" for number in range(1, 11))
        await connection.executemany(f"INSERT INTO usage ({COLUMNS}) VALUES ({values})", rows)
    finally:
        await connection.close()
    return Scene(management, ada, second, olga)


async def test_a_key_by_day(scene: Scene) -> None:
    """A row a day of UTC, added up over routes and outcomes; days without use have none."""
    path = f"/v1/keys/{scene.ada}/usage"
    assert await scene.read(path) == [
        {"at": told(FIRST), "requests": 18, "received_bytes": 170, "sent_bytes": 1700},
        {"at": told(FIRST + DAY), "requests": 7, "received_bytes": 70, "sent_bytes": 700},
    ]
    assert await scene.read(path, since=told(FIRST + 11 * HOUR), until=told(FIRST + DAY)) == [
        {"at": told(FIRST), "requests": 2, "received_bytes": 20, "sent_bytes": 200}
    ]


@pytest.mark.parametrize(
    ("step", "requests"),
    [
        ("minute", [11, 5, 2, 7]),
        ("hour", [16, 2, 7]),
        ("day", [18, 7]),
    ],
)
async def test_steps(scene: Scene, step: str, requests: list[int]) -> None:
    """What is added up is the same, however finely it is told."""
    rows = await scene.read(f"/v1/keys/{scene.ada}/usage", step=step, since=told(FIRST))
    assert [row["requests"] for row in rows] == requests
    months = await scene.read(f"/v1/keys/{scene.ada}/usage", step="month")
    assert sum(row["requests"] for row in months) == 25
    assert {row["at"][8:] for row in months} == {"01T00:00:00Z"}


async def test_apart_by_what_is_named(scene: Scene) -> None:
    """By route, outcome and code, in the order that was asked for."""
    rows = await scene.read(f"/v1/keys/{scene.ada}/usage", by="outcome,route", until=told(FIRST + DAY))
    assert [(row["outcome"], row["route"], row["requests"]) for row in rows] == [
        ("forwarded", "orders", 15),
        ("forwarded", "payments", 2),
        ("refused", "orders", 1),
    ]
    rows = await scene.read("/v1/usage", by="tenant,code", since=told(FIRST + DAY))
    assert {(row["tenant_id"], row["code"], row["requests"]) for row in rows} == {
        ("", "invalid_api_key", 50),
        ("acme", "2xx", 10),
        ("other", "2xx", 100),
    }


async def test_pages(scene: Scene) -> None:
    """Page by page it is the same as at once, whatever is told apart."""
    for query in (
        {"by": "key,route,outcome,code", "step": "minute", "since": told(FIRST)},
        {"step": "hour", "since": told(FIRST)},
    ):
        whole = await scene.read("/v1/usage", **query)
        assert len(whole) > 2
        for limit in (1, 2):
            found: list[dict[str, Any]] = []
            place: dict[str, str] | None = {}
            while place is not None:
                asked = urlencode({**query, **place, "limit": limit})
                page = await scene.management.expect(200, "GET", f"/v1/usage?{asked}")
                assert len(page["items"]) <= limit
                found += page["items"]
                place = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
            assert found == whole


async def test_who_sees_what(scene: Scene) -> None:
    """Another tenant's key does not exist for a tenant's administrator, nor do its uses; auditors see all. R272."""
    management = scene.management
    reply = await management.call("GET", f"/v1/keys/{scene.olga}/usage", token="tenant_admin")
    assert (reply.status, reply.code) == (404, "not_found")
    assert (await management.call("GET", "/v1/keys/key_nobodys/usage")).status == 404
    for query in ({"tenant_id": "other"}, {"key_id": scene.olga}, {"user_id": "olga"}):
        assert await scene.read("/v1/usage", token="tenant_admin", **query) == []
        assert await scene.read("/v1/usage", token="auditor", **query) != []
    mine = await scene.read("/v1/usage", token="tenant_admin", by="tenant")
    assert {row["tenant_id"] for row in mine} == {"acme"}
    assert sum(row["requests"] for row in mine) == 28
    assert sum(row["requests"] for row in await scene.read("/v1/usage")) == 178
    assert [row["requests"] for row in await scene.read("/v1/usage", user_id="ada", since=told(FIRST + DAY))] == [10]


async def test_what_was_used_outlives_its_key(scene: Scene) -> None:
    """A user who is deleted, keys and all, has still used what was used."""
    await scene.management.expect(204, "DELETE", "/v1/users/olga")
    rows = await scene.read("/v1/usage", tenant_id="other", by="key,user")
    assert [(row["key_id"], row["user_id"], row["requests"]) for row in rows] == [(scene.olga, "olga", 100)]


async def test_csv(scene: Scene) -> None:
    """The same rows as the listing's, as a file; for a tenant's administrator those of the tenant."""
    for token in ("operator", "tenant_admin"):
        for step in ("minute", "day", "month"):
            query = {"by": "key,route,outcome,code", "step": step, "since": told(FIRST)}
            listed = await scene.read("/v1/usage", token=token, **query)
            text = await scene.management.call_text(f"/v1/usage/export?{urlencode(query)}", token=token)
            rows = list(csv.DictReader(io.StringIO(text)))
            assert rows == [{name: str(value) for name, value in row.items()} for row in listed]
            assert len(rows) >= 4
    text = await scene.management.call_text("/v1/usage/export?tenant_id=other", token="tenant_admin")
    assert text == "at,requests,received_bytes,sent_bytes\n"


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ({"step": "week"}, "step"),
        ({"by": "path"}, "by"),
        ({"by": ""}, "by"),
        ({"by": "route,route"}, "by"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "until"),
        ({"step": "minute", "since": told(TODAY - 9 * DAY)}, "since"),
        ({"step": "hour", "since": told(TODAY - 99 * DAY)}, "since"),
        ({"since": "2001-01-01T00:00:00Z"}, "since"),
        ({"cursor": "bm9uc2Vuc2U="}, "cursor"),
        ({"cursor": "WyIyMDI2LTAxLTAxVDAwOjAwOjAwWiIsICJhIl0="}, "cursor"),  # of a query with one dimension
        ({"cursor": ""}, "cursor"),
        ({"limit": "0"}, "limit"),
        ({"format": "csv"}, "(name)"),
    ],
)
async def test_what_makes_no_sense_is_told(scene: Scene, query: dict[str, str], place: str) -> None:
    """400 `invalid_query`, with the name that is wrong."""
    reply = await scene.management.call("GET", f"/v1/keys/{scene.ada}/usage?{urlencode(query)}")
    assert (reply.status, reply.code) == (400, "invalid_query"), reply.text
    assert [issue["place"] for issue in reply.body["issues"]] == [place]


@pytest.mark.parametrize(
    "query",
    [
        {"until": "0001-01-01T00:00:01Z"},
        {"since": "9999-12-31T23:59:00Z"},
        {"since": "0001-01-01T00:00:01Z", "until": "1999-01-01T00:00:00Z"},
        {"since": "9999-12-30T23:59:00Z", "until": "9999-12-31T23:59:00Z"},
    ],
)
async def test_moments_at_the_ends_of_time(scene: Scene, query: dict[str, str]) -> None:
    """Nothing was used then, and nothing breaks."""
    assert await scene.read("/v1/usage", **query) == []
    text = await scene.management.call_text(f"/v1/usage/export?{urlencode(query)}", token="operator")
    assert text.count("\n") == 1
