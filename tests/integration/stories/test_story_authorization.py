"""Who may what, decided from the credential and the entitlement alone, and what cannot be told is said to be so."""

from typing import Final

import pytest

from tests.integration.stories.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

BROWSER: Final = {
    "Origin": "https://app.example.com",
    "Referer": "https://app.example.com/page",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "cors",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0",
}


async def test_looking_like_a_browser_proves_nothing(world: World) -> None:
    """Origin, Referer, Sec-Fetch and User-Agent neither admit anybody nor keep a good key out. R014."""
    for answer in await world.ask_all(None, headers=BROWSER):
        assert (answer.status, answer.code) == (401, "missing_api_key")
    key = await world.key()
    for agent in ("Googlebot/2.1", "curl/8.5.0", "python-requests/2.32", "sqlmap", ""):
        headers = {"User-Agent": agent, "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        for answer in await world.ask_all(key.secret, headers=headers):
            assert answer.status == 200


async def test_a_key_without_scopes(world: World) -> None:
    """It may what asks for none, and nothing else; given the scope it may that too, at the next request. R281 R255."""
    key = await world.key()
    await world.admitted(key)
    for answer in await world.refused("insufficient_scope", key.secret, path="/reports"):
        assert answer.body["missing_scopes"] == ["reports:read"]
    for scopes in (["reports:read:7"], ["orders:read"], ["admin:reports"], ["reports:write"]):
        await world.do("PATCH", f"/v1/keys/{key.id}", {"scopes": scopes})
        await world.refused("insufficient_scope", key.secret, path="/reports")
    for scopes in (["reports:read"], ["reports"], ["reports:all"], ["admin"]):
        await world.do("PATCH", f"/v1/keys/{key.id}", {"scopes": scopes})
        await world.admitted(key, path="/reports")


async def test_authorization_comes_before_existence(world: World) -> None:
    """Whoever lacks the scope is 403 for what is not there as well: `refused` sees to it that nobody is asked. R175."""
    key = await world.key()
    for path in ("/reports", "/reports/missing", "/reports/7/pages/9"):
        await world.refused("insufficient_scope", key.secret, path=path)


async def test_a_lapsed_subscription_is_not_a_matter_of_waiting(world: World) -> None:
    """403 without Retry-After: trying again does not help, renewing does. R261 R074."""
    key = await world.key()
    await world.do("PUT", f"/v1/users/{key.user}/entitlement", {"plan": "starter", "valid_until": 1})
    for answer in await world.refused("subscription_lapsed", key.secret):
        assert "Retry-After" not in answer.headers
    await world.do("DELETE", f"/v1/users/{key.user}/entitlement", status=204)
    for answer in await world.refused("api_access_required", key.secret):
        assert "Retry-After" not in answer.headers


async def test_what_cannot_be_read_is_neither_free_nor_lapsed(world: World) -> None:
    """An unreadable entitlement is 503 with a short Retry-After everywhere, and is not remembered. R073 R261 R328."""
    key, other = await world.key(), await world.key()
    await world.sql("ALTER TABLE entitlements DROP CONSTRAINT entitlements_features_check")
    try:
        await world.sql("UPDATE entitlements SET features = '[1]' WHERE user_id = $1", key.user)
        for answer in await world.refused("entitlement_unavailable", key.secret):
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
        await world.admitted(other)
    finally:
        await world.do("PUT", f"/v1/users/{key.user}/entitlement", {"plan": "starter"})
        await world.sql(
            "ALTER TABLE entitlements ADD CONSTRAINT entitlements_features_check"
            " CHECK (jsonb_typeof(features) = 'object')"
        )
    await world.admitted(key)


async def test_keys_make_no_users(world: World) -> None:
    """The users of a tenant are those that were put there, however many keys they have, of whatever kind. R282."""
    key = await world.key()
    for number in range(3):
        await world.key((key.user, key.tenant), kind="operator" if number else "user")
    assert await world.sql("SELECT count(*) FROM users WHERE tenant_id = $1", key.tenant) == 1
    assert (await world.api("GET", f"/v1/users/{key.id}")).code == "not_found"


async def test_admissions_are_told_apart_in_metrics(world: World) -> None:
    """By kind (key, operator) and tier (local, redis, postgres, retired); an outage is none of the refusals. R323."""
    key = await world.key()
    operator = await world.key((key.user, key.tenant), kind="operator")

    async def counted(**labels: str) -> float:
        return await world.metric(0, "ostiary_auth_total", **labels)

    async def grows(secret: str, **labels: str) -> None:
        before = await counted(**labels)
        await world.ask(0, secret)
        assert await counted(**labels) == before + 1, labels

    await grows(key.secret, kind="key", tier="postgres", result="admitted")
    await grows(key.secret, kind="key", tier="local", result="admitted")
    await grows(operator.secret, kind="operator", tier="postgres", result="admitted")
    await grows(operator.secret, kind="operator", tier="local", result="admitted")
    rotated = await world.rotate(key)
    await grows(key.secret, kind="key", tier="retired", result="admitted")
    await grows(rotated["secret"], kind="key", tier="postgres", result="admitted")
    await world.revoke(key)
    await grows(rotated["secret"], kind="key", tier="postgres", result="key_revoked")
