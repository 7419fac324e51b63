"""Rotation, and the windows of retired secrets."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.control.purge import Purge
from gateway.stores.records import SecretState
from tests.integration.management.world import Management

FUTURE = 4_000_000_000


async def now(management: Management) -> datetime:
    moment: datetime = await management.execute("SELECT now()")
    return moment


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def rotate(management: Management, key: Any, **body: Any) -> Any:
    return await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", body)


async def window(management: Management, secret: str) -> float | None:
    """When the retired secret ends; fails if it is not a retired one."""
    record = await management.record(secret)
    assert record is not None
    assert record.secret_state is SecretState.RETIRED
    return record.secret_expires_at


async def test_the_old_secret_works_on_for_a_day(management: Management) -> None:
    """A new secret, shown once; the old one ends in 24 hours by default; same facts. R028, R090, R092, R093."""
    key = await management.key(scopes=["a"])
    rotated = await rotate(management, key)
    assert rotated["id"] == key["id"]
    assert rotated["secret"] != key["secret"]
    assert rotated["secret"].startswith(rotated["prefix"])
    assert rotated["prefix"] != key["prefix"]
    ends = moment(rotated["retired_secret"]["expires_at"])
    assert abs(ends - await now(management) - timedelta(days=1)) < timedelta(seconds=5)
    new, old = await management.record(rotated["secret"]), await management.record(key["secret"])
    assert new is not None
    assert old is not None
    assert (new.secret_state, old.secret_state) == (SecretState.CURRENT, SecretState.RETIRED)
    assert old.secret_expires_at == pytest.approx(ends.timestamp())
    assert (new.key_id, new.user_id, new.scopes) == (old.key_id, old.user_id, old.scopes)


@pytest.mark.parametrize("grace_seconds", [0, 1, 60, 30 * 86400])
async def test_the_window_can_be_chosen(management: Management, grace_seconds: int) -> None:
    """From nothing, for a leaked secret, to 30 days. R090, R092, R108."""
    key = await management.key()
    rotated = await rotate(management, key, grace_seconds=grace_seconds)
    ends = moment(rotated["retired_secret"]["expires_at"])
    assert abs(ends - await now(management) - timedelta(seconds=grace_seconds)) < timedelta(seconds=5)
    if grace_seconds == 0:
        assert ends <= await now(management)


@pytest.mark.parametrize("grace", [-1, 30 * 86400 + 1, 1.5, "60", True, [], {}])
async def test_a_bad_window_rotates_nothing(management: Management, grace: Any) -> None:
    """400, and the current secret stays. R091."""
    key = await management.key()
    reply = await management.call("POST", f"/v1/keys/{key['id']}/rotate", {"grace_seconds": grace})
    assert (reply.status, reply.code) == (400, "invalid_grace_seconds")
    record = await management.record(key["secret"])
    assert record is not None
    assert record.secret_state is SecretState.CURRENT


async def test_rotating_without_a_body(management: Management) -> None:
    """Everything about it has a default."""
    key = await management.key()
    await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate")


async def test_a_failure_half_way_leaves_all_as_it_was(management: Management) -> None:
    """Retiring and replacing happen both or not at all. R091."""
    key = await management.key()
    await management.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'no' USING ERRCODE = 'disk_full'; END $$"
    )
    await management.execute(
        "CREATE TRIGGER fail BEFORE UPDATE OF digest ON api_keys FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    reply = await management.call("POST", f"/v1/keys/{key['id']}/rotate")
    assert (reply.status, reply.code) == (503, "auth_unavailable")
    record = await management.record(key["secret"])
    assert record is not None
    assert record.secret_state is SecretState.CURRENT
    assert await management.execute("SELECT count(*) FROM retired_secrets") == 0


async def test_rotations_at_once_lose_no_secret(management: Management) -> None:
    """The original and every answered secret are accepted, exactly one as the current one. R095, R102."""
    key = await management.key()
    replies = await asyncio.gather(*(rotate(management, key) for _ in range(6)))
    records = [await management.record(secret) for secret in (key["secret"], *(reply["secret"] for reply in replies))]
    states = [record.secret_state for record in records if record is not None]
    assert len(states) == 7
    assert states.count(SecretState.CURRENT) == 1
    assert await management.execute("SELECT count(DISTINCT digest) FROM retired_secrets") == 6
    page = await management.expect(200, "GET", f"/v1/keys/{key['id']}/retired-secrets")
    assert {secret["id"] for secret in page["items"]} == {reply["retired_secret"]["id"] for reply in replies}


async def test_an_expired_key_is_not_rotated(management: Management) -> None:
    """409: a new secret would not work either."""
    key = await management.key()
    await management.execute("UPDATE api_keys SET expires_at = now()")
    reply = await management.call("POST", f"/v1/keys/{key['id']}/rotate")
    assert (reply.status, reply.code) == (409, "key_expired")


async def test_retired_secrets_are_listed(management: Management) -> None:
    """Oldest first, in pages, without secrets. R127."""
    key = await management.key()
    for _ in range(3):
        await rotate(management, key)
    path = f"/v1/keys/{key['id']}/retired-secrets?limit=2"
    page = await management.expect(200, "GET", path, token="auditor")
    rest = await management.expect(200, "GET", f"{path}&cursor={page['next_cursor']}", token="auditor")
    items = [*page["items"], *rest["items"]]
    assert (len(page["items"]), len(items), rest["next_cursor"]) == (2, 3, None)
    assert items[0]["prefix"] == key["prefix"]
    assert all(set(item) == {"id", "key_id", "prefix", "retired_at", "expires_at"} for item in items)
    assert (await management.call("GET", "/v1/keys/key_x/retired-secrets")).status == 404


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        pytest.param("2099-01-31T12:00:00Z", "2099-01-31T12:00:00Z", id="Z"),
        pytest.param("2099-01-31T12:00:00+05:30", "2099-01-31T06:30:00Z", id="offset"),
        pytest.param("2099-01-31T12:00:00-0800", "2099-01-31T20:00:00Z", id="offset without colon"),
        pytest.param("2099-01-31T12:00:00", "2099-01-31T12:00:00Z", id="naive is UTC"),
        pytest.param("2099-01-31 12:00", "2099-01-31T12:00:00Z", id="blank, no seconds"),
        pytest.param("2099-01-31t12:00:00.25z", "2099-01-31T12:00:00.250000Z", id="fraction, lower case"),
        pytest.param(FUTURE, "2096-10-02T07:06:40Z", id="epoch"),
        pytest.param(FUTURE + 0.5, "2096-10-02T07:06:40.500000Z", id="epoch with a fraction"),
        pytest.param(0, "1970-01-01T00:00:00Z", id="epoch zero"),
    ],
)
async def test_moments_are_read_and_told_in_utc(management: Management, sent: Any, answered: str) -> None:
    """`Z`, offsets and epoch numbers are honoured, a naive time is UTC; told in UTC. R120, R125."""
    key = await management.key()
    retired = (await rotate(management, key))["retired_secret"]["id"]
    reply = await management.expect(200, "PATCH", f"/v1/retired-secrets/{retired}", {"expires_at": sent})
    assert set(reply) == {"id", "key_id", "expires_at", "propagation"}
    assert (reply["id"], reply["key_id"], reply["expires_at"]) == (retired, key["id"], answered)
    assert reply["propagation"]["state"] == "confirmed"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="no body"),
        pytest.param(b"expires_at=1", id="not JSON"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="missing field"),
        pytest.param(b'{"expires_at": 1, "more": 2}', id="another field"),
        *(
            pytest.param(b'{"expires_at": %b}' % value, id=value.decode())
            for value in (
                b"null",
                b"true",
                b"false",
                b"[]",
                b"{}",
                b'""',
                b'"soon"',
                b'"1700000000"',
                b'"2099-01-31"',
                b'"2099-13-31T00:00:00Z"',
                b'"2099-01-31T25:00:00Z"',
                b'"2099-01-31T12:00:00+99:00"',
                b'"0001-01-01T00:00:00+01:00"',
                b"1e400",
                b"NaN",
                b"-Infinity",
                b"99999999999999999999",
                b"1700000000000000",
            )
        ),
    ],
)
async def test_a_bad_end_of_a_window_is_refused(management: Management, body: bytes) -> None:
    """400 with issues, and the window stays as it is. R121."""
    key = await management.key()
    rotated = await rotate(management, key)
    before = await window(management, key["secret"])
    reply = await management.call("PATCH", f"/v1/retired-secrets/{rotated['retired_secret']['id']}", raw=body)
    assert reply.status == 400
    assert reply.code in {"invalid_expires_at", "invalid_body"}
    assert reply.body["issues"][0]["message"]
    assert await window(management, key["secret"]) == before


async def test_a_window_is_ended_and_reopened(management: Management) -> None:
    """Now or the past ends it, the future extends or reopens it; each time nodes are told. R097, R098, R099."""
    key = await management.key()
    path = f"/v1/retired-secrets/{(await rotate(management, key))['retired_secret']['id']}"
    revisions = []
    for end in (datetime.now(UTC).timestamp(), 0, FUTURE, FUTURE - 1000, FUTURE):
        reply = await management.expect(200, "PATCH", path, {"expires_at": end})
        revisions.append(reply["propagation"]["revision"])
        assert await window(management, key["secret"]) == pytest.approx(end, abs=1e-5)
    assert revisions == sorted(set(revisions))
    assert revisions[0] > 0


async def test_ending_one_window_leaves_the_others(management: Management) -> None:
    """Each retired secret lives by its own window. R095, R096."""
    key = await management.key()
    first, second = await rotate(management, key), await rotate(management, key, grace_seconds=600)
    before = await window(management, first["secret"])
    await management.expect(200, "PATCH", f"/v1/retired-secrets/{first['retired_secret']['id']}", {"expires_at": 0})
    assert await window(management, key["secret"]) == 0
    assert await window(management, first["secret"]) == before
    current = await management.record(second["secret"])
    assert current is not None
    assert current.secret_state is SecretState.CURRENT


async def test_no_window_that_does_not_exist(management: Management) -> None:
    """404 for an unknown id; a current secret has no window. R122."""
    key = await management.key()
    current = await management.execute("SELECT secret_id FROM api_keys WHERE id = $1", key["id"])
    for secret_id in ("sec_unknown", current, key["id"]):
        reply = await management.call("PATCH", f"/v1/retired-secrets/{secret_id}", {"expires_at": 0})
        assert (reply.status, reply.code) == (404, "not_found")


async def test_secrets_whose_end_is_long_ago_are_deleted(management: Management) -> None:
    """And no others; what is admitted is the same before and after. Twice is once. R107."""
    key = await management.key()
    rotated = [await rotate(management, key) for _ in range(3)]
    old, recent, current = (reply["retired_secret"]["id"] for reply in rotated)
    for secret_id, days in ((old, 90), (recent, 89)):
        await management.execute(
            "UPDATE retired_secrets SET expires_at = now() - make_interval(days => $2) WHERE id = $1", secret_id, days
        )
    purge = Purge(management.postgres)
    assert await purge.purge() == 1
    assert await purge.purge() == 0
    page = await management.expect(200, "GET", f"/v1/keys/{key['id']}/retired-secrets")
    assert {secret["id"] for secret in page["items"]} == {recent, current}
    assert await management.record(key["secret"]) is None
    assert await window(management, rotated[1]["secret"]) is not None
    record = await management.record(rotated[2]["secret"])
    assert record is not None
    assert record.secret_state is SecretState.CURRENT
