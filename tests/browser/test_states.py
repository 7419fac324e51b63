"""What a page says when things are not as one would wish: not entitled, at the limit, gone, or away."""

import re
import time
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest
from playwright.async_api import Page, expect

from gateway.stores.postgres.migrate import migrate
from tests.browser.house import House, configuration
from tests.browser.looks import look_at
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.stores import OwnPostgres
from tests.fixtures.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_who_is_no_user_here_is_told_what_to_do(house: House) -> None:
    """Signing in makes no users: the page says whom to ask, and no session begins. R360."""
    page = await house.signed_in("nobody-at-all")
    await expect(page.get_by_role("heading", name="You are not a user here yet")).to_be_visible()
    await expect(page.get_by_text("Ask the administrator")).to_be_visible()
    assert await house.execute("SELECT count(*) FROM portal_sessions WHERE subject = 'nobody-at-all'") == 0
    await look_at(page, "unknown-user")
    await page.context.close()


@pytest.mark.parametrize("plan", [None, "reader"], ids=["no plan", "a plan without API access"])
async def test_without_api_access_it_is_said_before_anything_is_filled_in(house: House, plan: str | None) -> None:
    """The list and the form both say why no key can be made, and whom to ask; sending one all the same is 403. R366."""
    user = await house.user(plan=plan)
    page = await house.signed_in(user)
    for address in ("keys", "keys/new"):
        await page.goto(f"{house.url}/{address}")
        await expect(page.get_by_text("Your plan does not include API access")).to_be_visible()
        await expect(page.get_by_role("link", name="Create")).to_have_count(0)
        await expect(page.get_by_label("Name")).to_have_count(0)
        await look_at(page, f"not-entitled-{address.replace('/', '-')}")
    csrf = await page.locator("input[name=csrf]").first.input_value()
    reply = await page.request.post(f"{house.url}/keys/new", form={"csrf": csrf, "name": "x"})
    assert reply.status == 403
    assert "does not include API access" in await reply.text()
    await page.context.close()


async def test_at_the_limit_of_keys(house: House) -> None:
    """Five keys are the limit: said on the list and in the form's place; a form from before gets 409. R366."""
    user = await house.user()
    page = await house.signed_in(user)
    await page.goto(f"{house.url}/keys/new")
    for number in range(5):
        await house.key(user, f"key {number}", scopes=["orders:read"])
    await page.get_by_label("Name").fill("one more")
    await page.get_by_role("button", name="Create the key").click()
    await expect(page.get_by_text("You have 5 of 5 active keys")).to_be_visible()
    await look_at(page, "limit-reached")
    await page.goto(f"{house.url}/keys")
    await expect(page.get_by_role("link", name="Create")).to_have_count(0)
    await expect(page.locator("tbody tr")).to_have_count(5)
    await page.context.close()


async def test_a_name_that_is_in_use_or_none(house: House) -> None:
    """What is wrong with a form is said beside the field, and what was filled in is still there."""
    user = await house.user()
    await house.key(user, "taken")
    page = await house.signed_in(user)
    await page.goto(f"{house.url}/keys/new")
    for name, message in (("taken", "has this name"), ("   ", "that are not all blank")):
        await page.get_by_label("Name").fill(name)
        await page.get_by_label("orders:write").check()
        await page.get_by_role("button", name="Create the key").click()
        await expect(page.locator("#name-wrong")).to_contain_text(message)
        await expect(page.get_by_label("Name")).to_have_value(name)
        await expect(page.get_by_label("orders:write")).to_be_checked()
    await look_at(page, "form-mistakes")
    await page.context.close()


async def test_who_is_suspended_can_still_sign_out(house: House) -> None:
    """A session outlives a suspension as a page that says so, and no more."""
    user = await house.user()
    page = await house.signed_in(user)
    await house.execute("UPDATE users SET status = 'suspended' WHERE id = $1", user)
    await page.reload()
    await expect(page.get_by_role("heading", name="You are suspended")).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("status")).to_contain_text("You are signed out")
    await page.context.close()


async def test_usage_and_activity_are_told(house: House) -> None:
    """By day and by outcome, as drawn and as a table; and what was done, with whose hand. R360 R362."""
    user = await house.user()
    key = await house.key(user, "busy", scopes=["orders:read"])
    rotating = await house.key(user, "nightly reports", scopes=["orders:read", "orders:write"])
    rotated = await house.api("POST", f"/v1/keys/{rotating['id']}/rotate", {})
    for secret in (rotating["secret"], rotated["secret"]):
        assert (await house.ask(secret))[0] == 200
    await house.key(user, "workshop", expires_at=time.time() + 86_400 * 20)
    ended = await house.key(user, "old laptop", scopes=["orders:read"])
    await house.api("POST", f"/v1/keys/{ended['id']}/revoke", {"reason": "sold"})
    for _ in range(3):
        assert (await house.ask(key["secret"]))[0] == 200
    for back in range(1, 14):
        await house.execute(
            "INSERT INTO usage SELECT date_trunc('minute', now() - make_interval(days => $3)), $1, tenant_id, $2,"
            " 'orders', o.outcome, o.code, o.n, 1000 * o.n, 9000 * o.n FROM users,"
            " (VALUES ('forwarded', '2xx', 40 + 9 * $3 % 50), ('refused', 'rate_limited', $3 % 4),"
            " ('upstream_error', 'upstream_timeout', $3 % 3)) AS o(outcome, code, n)"
            " WHERE id = $2 AND o.n > 0",
            key["id"],
            user,
            back,
        )
    page = await house.signed_in(user)
    await page.goto(f"{house.url}/keys")
    await expect(page.get_by_role("img", name=re.compile(r"busy: [0-9]+ requests in 14 days"))).to_be_visible()
    await look_at(page, "keys")
    await page.goto(f"{house.url}/usage?days=30")
    await expect(page.get_by_role("cell", name="rate_limited")).to_be_visible()
    await look_at(page, "usage")
    await page.get_by_text("The same as a table").click()
    await look_at(page, "usage-table")
    await page.goto(f"{house.url}/keys/{rotating['id']}")
    await expect(page.locator("#rotation-said")).to_contain_text("secret")
    await expect(page.get_by_text("Requests, 30 days")).to_be_visible()
    await look_at(page, "rotation")
    await page.goto(f"{house.url}/activity")
    await expect(page.get_by_text("Key created · busy")).to_be_visible()
    await expect(page.get_by_role("cell", name="An administrator").first).to_be_visible()
    await look_at(page, "activity")
    await page.context.close()


async def test_an_outage_signs_nobody_out(house: House, tmp_path: Path) -> None:
    """Postgres away: a page that says so, with 503; when it is back, one is still signed in. R360."""
    postgres = OwnPostgres(tmp_path / "postgres")
    await postgres.start()
    await migrate(postgres.dsn)
    node = GatewayProcess(tmp_path / "lonely", {})
    url = house.nodes[0].admin_url
    node.configure(configuration(postgres.dsn, house.redis_url, house.upstream, house.provider, url))
    page = await house.signed_in(await house.user())
    held = await session_cookies(page)
    await copy(house.dsn, postgres.dsn, ("tenants", "users", "portal_sessions"))
    await node.start()
    try:
        keys = f"{node.admin_url}/portal/keys"
        await page.goto(keys)
        await expect(page.get_by_role("heading", name="Your keys")).to_be_visible()
        await postgres.stop()
        reply = await page.goto(keys)
        assert reply is not None
        assert (reply.status, reply.headers["retry-after"]) == (503, "2")
        await expect(page.get_by_role("heading", name="We cannot look that up right now")).to_be_visible()
        await look_at(page, "outage")
        assert await session_cookies(page) == held
        await postgres.start()

        async def is_back() -> bool:
            return (await page.request.get(keys, max_redirects=0)).status == 200

        await until(is_back, what="the node to find its database again")
        await page.reload()
        await expect(page.get_by_role("heading", name="Your keys")).to_be_visible()
    finally:
        await node.stop()
        await postgres.stop()
        await page.context.close()


async def test_a_revocation_that_cannot_be_confirmed_yet(house: House, tmp_path: Path) -> None:
    """A node that cannot reach the others says so, and that it is stored; asking on ends in a confirmation. R363."""
    user = await house.user()
    key = await house.key(user, "laptop")
    page = await house.signed_in(user)
    node = GatewayProcess(tmp_path / "cut-off", {})
    nowhere = "redis://127.0.0.1:1/0"
    node.configure(configuration(house.dsn, nowhere, house.upstream, house.provider, house.nodes[0].admin_url))
    await node.start()
    try:
        await page.goto(f"{node.admin_url}/portal/keys/{key['id']}/revoke")
        house.nodes[2].pause()  # it may live on what Redis tells it, and nobody can tell
        await page.get_by_role("button", name="Revoke for good").click()
        await expect(page.get_by_role("heading", name="Stored, and not yet confirmed everywhere")).to_be_visible()
        await look_at(page, "pending")
        assert await house.execute("SELECT revoked_at IS NOT NULL FROM api_keys WHERE id = $1", key["id"])
        house.nodes[2].resume()
        await page.goto(f"{house.url}/keys/{key['id']}")
        csrf = await page.locator("input[name=csrf]").first.input_value()

        async def is_confirmed() -> bool:
            reply = await page.request.post(f"{house.url}/keys/{key['id']}/revoke", form={"csrf": csrf})
            return reply.status in (200, 409)  # 409: a relay was quicker

        await until(is_confirmed, what="the confirmation")
        for number in range(len(house.nodes)):
            assert await house.ask(key["secret"], number) == (401, "key_revoked")
    finally:
        house.nodes[2].resume()
        await node.stop()
        await page.context.close()


async def session_cookies(page: Page) -> list[str]:
    """What the browser holds of its session."""
    return [one.get("value", "") for one in await page.context.cookies() if one.get("name") == "ostiary_session"]


async def copy(source: str, target: str, tables: Sequence[str]) -> None:
    """Copy tables from one database to another."""
    reader, writer = await asyncpg.connect(source), await asyncpg.connect(target)
    try:
        for table in tables:
            rows = await reader.fetchval(f"SELECT json_agg(t)::text FROM {table} t")
            await writer.execute(f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, $1)", rows)
    finally:
        await reader.close()
        await writer.close()
