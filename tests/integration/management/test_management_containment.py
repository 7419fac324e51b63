"""`POST /v1/keys/{id}/contain`: a leaked key is ended, and what it touched is told."""

import json
from typing import Any

from gateway.control.containment import MOST_TOLD
from tests.integration.management.test_management_keys import FIELDS
from tests.integration.management.world import ENVIRONMENT, Management


async def contained(management: Management, key: Any, body: Any = None, *, token: str = "operator") -> Any:
    return await management.expect(200, "POST", f"/v1/keys/{key['id']}/contain", body or {}, token=token)


async def test_a_key_is_ended_and_its_traces_are_told(management: Management) -> None:
    """Revoked with all its secrets; last use, retired secrets, events and nodes are in the answer. R221, R222, R314."""
    key = await management.key()
    rotated = await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {}, token="tenant_admin")
    await management.execute("UPDATE api_keys SET last_used_at = '2026-01-31T12:00:00Z'")
    await management.execute(
        "INSERT INTO nodes (id, environment, version, revision) VALUES ('n', $1, '1', 1)", ENVIRONMENT
    )
    told = await contained(management, key, {"reason": "seen in a paste"})
    await management.execute("DELETE FROM nodes")
    assert set(told) == {"key", "was_revoked", "touched", "propagation"}
    assert set(told["key"]) == FIELDS
    assert (told["key"]["status"], told["was_revoked"], told["propagation"]["state"]) == ("revoked", False, "confirmed")
    touched = told["touched"]
    assert touched["last_used_at"] == "2026-01-31T12:00:00Z"
    assert [secret["id"] for secret in touched["retired_secrets"]] == [rotated["retired_secret"]["id"]]
    assert touched["tokens"] is None
    assert [(event["action"], event["actor"]["name"]) for event in touched["audit"]] == [
        ("key.rotate", "ta"),
        ("key.create", "op"),
    ]
    assert [node["id"] for node in touched["nodes"]] == ["n"]
    for secret in (key["secret"], rotated["secret"]):
        assert secret[16:] not in json.dumps(told)
        record = await management.record(secret)
        assert record is not None
        assert record.is_revoked
    (event,) = (await management.expect(200, "GET", f"/v1/audit?action=key.contain&target=key:{key['id']}"))["items"]
    assert (event["after"]["revoked_reason"], event["outcome"]) == ("seen in a paste", "changed")


async def test_it_may_be_repeated(management: Management) -> None:
    """Also of a key that was revoked before: the same is told, and nothing more is done. R222."""
    key = await management.key()
    await management.expect(200, "POST", f"/v1/keys/{key['id']}/revoke", {"reason": "first"})
    again = await contained(management, key)
    assert (again["was_revoked"], again["key"]["status"], again["propagation"]["state"]) == (
        True,
        "revoked",
        "confirmed",
    )
    assert [event["action"] for event in again["touched"]["audit"]] == ["key.revoke", "key.create"]
    assert await management.execute("SELECT revoked_reason FROM api_keys") == "first"
    third = await contained(management, key)
    assert third["key"] == again["key"]
    assert (third["touched"]["audit"][0]["action"], third["touched"]["audit"][0]["outcome"]) == (
        "key.contain",
        "unchanged",
    )


async def test_another_tenants_key_does_not_exist(management: Management) -> None:
    """404 for a tenant's administrator, who is told of no nodes either. R272."""
    theirs, mine = await management.key(user="olga"), await management.key()
    reply = await management.call("POST", f"/v1/keys/{theirs['id']}/contain", {}, token="tenant_admin")
    assert (reply.status, reply.code) == (404, "not_found")
    assert (await management.expect(200, "GET", f"/v1/keys/{theirs['id']}"))["status"] == "active"
    assert (await contained(management, mine, token="tenant_admin"))["touched"]["nodes"] is None
    await management.expect(404, "POST", "/v1/keys/key_x/contain", {})
    await management.expect(400, "POST", f"/v1/keys/{mine['id']}/contain", {"grace": 1})


async def test_only_the_latest_is_told(management: Management) -> None:
    """A key of much history makes no endless answer."""
    key = await management.key()
    for number in range(MOST_TOLD + 3):
        await management.expect(200, "PATCH", f"/v1/keys/{key['id']}", {"name": f"n{number}"})
    events = (await contained(management, key))["touched"]["audit"]
    assert len(events) == MOST_TOLD
    assert events[0]["after"]["name"] == f"n{MOST_TOLD + 2}"
