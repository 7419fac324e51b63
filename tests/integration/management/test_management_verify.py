"""`POST /v1/keys/verify`: what a secret is worth, told to administrators alone, and used by nothing."""

import json
from typing import Any

import pytest

from gateway.auth.secrets import SecretFormat
from gateway.control.admin_tokens import AdminTokens, Role
from tests.integration.management.test_management_keys import FIELDS
from tests.integration.management.world import ENVIRONMENT, Management, give_tokens, management_over

UNKNOWN = {
    "valid": False,
    "code": "invalid_api_key",
    "key_id": None,
    "secret_state": None,
    "secret_expires_at": None,
    "key": None,
}


KEPT = "SELECT (SELECT json_agg(k)::text FROM api_keys k) || (SELECT id FROM audit_head)"


async def verdict(management: Management, secret: str, *, token: str = "operator") -> Any:
    return await management.expect(200, "POST", "/v1/keys/verify", {"secret": secret}, token=token)


async def test_a_good_secret(management: Management) -> None:
    """Valid, with the key object and no secret; neither the key nor the trail knows of it afterwards. R218, R277."""
    key = await management.key()
    before = await management.execute(KEPT)
    found = await verdict(management, key["secret"])
    assert set(found.pop("key")) == FIELDS
    assert found == {
        "valid": True,
        "code": None,
        "key_id": key["id"],
        "secret_state": "current",
        "secret_expires_at": None,
    }
    assert key["secret"] not in json.dumps(found)
    assert before == await management.execute(KEPT)


async def test_a_retired_secret_is_valid_until_its_window_ends(management: Management) -> None:
    """Valid with the end of its window; then `key_rotated`. R094, R277."""
    key = await management.key()
    rotated = await management.expect(200, "POST", f"/v1/keys/{key['id']}/rotate", {"grace_seconds": 3600})
    found = await verdict(management, key["secret"])
    window = rotated["retired_secret"]
    assert (found["valid"], found["secret_state"], found["secret_expires_at"]) == (
        True,
        "retired",
        window["expires_at"],
    )
    await management.expect(200, "PATCH", f"/v1/retired-secrets/{window['id']}", {"expires_at": 0})
    ended = await verdict(management, key["secret"])
    assert (ended["valid"], ended["code"], ended["key_id"]) == (False, "key_rotated", key["id"])


REASONS = {
    "key_revoked": "UPDATE api_keys SET revoked_at = now()",
    "key_expired": "UPDATE api_keys SET expires_at = now()",
    "tenant_suspended": "UPDATE tenants SET status = 'suspended'",
    "user_suspended": "UPDATE users SET status = 'suspended'",
    "api_access_required": "UPDATE plans SET features = '{\"api_access\": 1}'",
    "subscription_lapsed": "UPDATE entitlements SET valid_until = now()",
    "invalid_api_key": "UPDATE api_keys SET environment = 'prod'",
}


@pytest.mark.parametrize(("code", "statement"), REASONS.items(), ids=REASONS)
async def test_the_reason_is_that_of_the_data_plane(management: Management, code: str, statement: str) -> None:
    """A secret that is not admitted comes with the code that a caller would get, and with its key. R277."""
    key = await management.key()
    await management.execute(statement)
    found = await verdict(management, key["secret"])
    assert (found["valid"], found["code"], found["key_id"], found["key"]["id"]) == (False, code, key["id"], key["id"])


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param("", id="empty"),
        pytest.param("ost_test_short", id="short"),
        pytest.param(SecretFormat("ost", "prod").generate(), id="abroad"),
        pytest.param("näive" * 10, id="not ASCII"),
        pytest.param("x" * 10_000, id="long"),
    ],
)
async def test_a_malformed_secret_asks_no_store(management: Management, secret: str) -> None:
    """Told by its shape, while the table of keys is not even there. R006, R277."""
    await management.execute("ALTER TABLE api_keys RENAME TO elsewhere")
    assert await verdict(management, secret) == UNKNOWN


async def test_an_unknown_secret(management: Management) -> None:
    """Well-formed and of nobody."""
    assert await verdict(management, SecretFormat("ost", ENVIRONMENT).generate()) == UNKNOWN


async def test_another_tenants_secret_is_unknown(management: Management) -> None:
    """A tenant's administrator learns nothing of another tenant's key, and everything of its own. R272, R277."""
    theirs, mine = await management.key(user="olga"), await management.key()
    assert await verdict(management, theirs["secret"], token="tenant_admin") == UNKNOWN
    assert (await verdict(management, theirs["secret"]))["valid"]
    assert (await verdict(management, mine["secret"], token="tenant_admin"))["key_id"] == mine["id"]


@pytest.mark.parametrize("body", [{}, {"secret": 5}, {"secret": None}, {"secret": "x", "more": "ost_test_leak"}, []])
async def test_a_bad_body(management: Management, body: Any) -> None:
    """400, and nothing of what was sent comes back."""
    reply = await management.call("POST", "/v1/keys/verify", body)
    assert (reply.status, reply.code) == (400, "invalid_body")
    assert "ost_test_leak" not in reply.text


async def test_an_outage_is_no_verdict(management: Management) -> None:
    """503, never `valid: false`. R070."""
    key = await management.key()
    await management.execute("ALTER TABLE api_keys RENAME TO elsewhere")
    reply = await management.call("POST", "/v1/keys/verify", {"secret": key["secret"]})
    assert (reply.status, reply.code) == (503, "auth_unavailable")


async def test_guessing_is_slow(postgres_dsn: str) -> None:
    """After so many in a minute 429 with Retry-After, for that administrator alone. R277."""
    async with management_over(postgres_dsn, verify_per_minute=3) as world:
        await give_tokens(world)
        _, other = await AdminTokens(world.postgres).create(
            name="x", role=Role.OPERATOR, tenant_id=None, expires_at=None
        )
        for _ in range(3):
            assert await verdict(world, "x") == UNKNOWN
        reply = await world.call("POST", "/v1/keys/verify", {"secret": "x"})
        assert (reply.status, reply.code) == (429, "rate_limited")
        assert 1 <= int(reply.headers["Retry-After"]) <= 20
        assert await verdict(world, "x", token=other) == UNKNOWN
        assert 'operations_total{operation="verify",result="ok"} 4.0' in world.metrics.exposition().decode()
