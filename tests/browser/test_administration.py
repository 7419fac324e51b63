"""What an operator does in a browser: finds a key, ends it, stops a tenant, changes a plan, and looks at the fleet."""

import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from gateway.control.admin_tokens import Role
from tests.browser.house import NODES, House
from tests.browser.looks import look_at
from tests.fixtures.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONFIRMED = re.compile(rf"Confirmed on {NODES} of {NODES} gateways in \d+ ms")


async def choose(page: Page, name: str) -> None:
    """Go on by the main navigation."""
    await page.get_by_role("navigation", name="Main").get_by_role("link", name=name, exact=True).click()


async def test_an_operator_signs_in_by_a_token_and_goes_with_it(house: House) -> None:
    """A good token begins a session, a bad one none; revoking the token ends what it has begun at once. R123 R274."""
    token_id, token = await house.admin_token(Role.OPERATOR)
    page = await (await house.context()).new_page()
    await page.goto(f"{house.url}/admin/plans")
    await page.get_by_role("link", name="Use an admin token").click()
    await look_at(page, "admin-sign-in")
    for wrong in ("osta_nonsense", token[:-1] + ("a" if token[-1] != "a" else "b"), "  "):
        await page.get_by_label("Admin token").fill(wrong)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text("no admin token that is good now")
        await expect(page.get_by_label("Admin token")).to_have_value("")
    await page.get_by_label("Admin token").fill(token)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", name="Plans")).to_be_visible()  # where they were going
    kept = await house.execute("SELECT row_to_json(s)::text FROM portal_sessions s WHERE subject = $1", token_id)
    assert "admin_token" in kept
    assert token not in kept
    await page.goto(house.url)  # the first page is that of administrators now
    await expect(page.get_by_role("heading", name="Fleet")).to_be_visible()
    await page.goto(f"{house.url}/keys")  # a token has no keys of its own
    await expect(page.get_by_role("heading", name="Fleet")).to_be_visible()
    for node in house.nodes:
        assert token not in node.log
    # On the public listener the same session is none, and nobody is asked for a token.
    await page.context.add_cookies([{**one, "url": house.public_url} for one in await cookies(page)])  # type: ignore[typeddict-item]
    reply = await page.request.get(f"{house.public_url}/admin/fleet", max_redirects=0)
    assert (reply.status, reply.headers["location"]) == (303, "/portal?next=/portal/admin/fleet")
    assert (await page.request.get(f"{house.public_url}/admin/sign-in")).status == 404
    csrf = await page.locator("input[name=csrf]").first.input_value()
    form: dict[str, Any] = {"csrf": csrf, "token": token}
    reply = await page.request.post(f"{house.public_url}/admin/sign-in", form=form, max_redirects=0)
    assert reply.status == 404
    await page.goto(f"{house.url}/admin/tenants")
    await house.execute("UPDATE admin_tokens SET revoked_at = now() WHERE id = $1", token_id)
    csrf = await page.locator("input[name=csrf]").first.input_value()
    reply = await page.request.post(f"{house.url}/admin/tenants", form={"csrf": csrf, "id": "planted", "name": "x"})
    assert reply.status == 401
    assert await house.execute("SELECT count(*) FROM tenants WHERE id = 'planted'") == 0
    await page.reload()
    await expect(page.get_by_role("heading", name="Your keys to the API")).to_be_visible()
    await page.context.close()


async def cookies(page: Page) -> list[dict[str, str]]:
    """What the browser holds of its session, for another host."""
    held = [one for one in await page.context.cookies() if one["name"] == "ostiary_session"]
    return [{"name": one["name"], "value": one["value"]} for one in held]


async def test_nobody_is_signed_in_by_another_sites_form(house: House) -> None:
    """A form of another site, or of another origin, begins no session, even with a good token. R365."""
    _, token = await house.admin_token(Role.OPERATOR)
    context = await house.context()
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "http://["},
    ):
        reply = await context.request.post(
            f"{house.url}/admin/sign-in", form={"token": token}, headers=headers, max_redirects=0
        )
        assert reply.status == 403
    assert not await context.cookies()
    await context.close()


async def test_a_key_is_found_by_its_secret_and_ended(house: House) -> None:
    """Pasted, and in no address and no log; then what was done with it, and its end, confirmed. R218 R221 R277 R363."""
    user = await house.user()
    key = await house.key(user, "leaked on a forum", scopes=["orders:read"])
    rotated = await house.api("POST", f"/v1/keys/{key['id']}/rotate", {})
    for secret in (key["secret"], rotated["secret"], rotated["secret"]):
        assert await house.ask(secret) == (200, None)

    async def is_told() -> bool:
        return bool(await house.execute("SELECT count(*) FROM usage WHERE key_id = $1", key["id"]))

    await until(is_told, what="its usage")
    page = await house.at_desk()
    visited: list[str] = []
    page.on("request", lambda request: visited.append(request.url))
    await choose(page, "Keys")
    await look_at(page, "admin-keys")
    for sought in (key["secret"], rotated["secret"], key["id"]):  # the old secret finds it, too
        await page.goto(f"{house.url}/admin/keys")
        await page.get_by_label("Key id, or a secret").fill(f" {sought} ")
        await page.get_by_role("button", name="Find the key").click()
        await expect(page.get_by_role("heading", name="leaked on a forum")).to_be_visible()
        assert page.url == f"{house.url}/admin/keys/{key['id']}"
        assert key["secret"] not in await page.content()
    await expect(page.get_by_text("in its window")).to_be_visible()
    await look_at(page, "admin-key")
    for sought in ("key_00000000000000000000000000", key["secret"][:-1] + "~", "nonsense"):
        await page.goto(f"{house.url}/admin/keys")
        await page.get_by_label("Key id, or a secret").fill(sought)
        await page.get_by_role("button", name="Find the key").click()
        await expect(page.get_by_role("alert")).to_have_text("There is no such key here.")
        await expect(page.get_by_label("Key id, or a secret")).to_have_value("")
        assert sought not in await page.content()
    await page.goto(f"{house.url}/admin/keys/{key['id']}")
    await page.get_by_role("link", name="Revoke").click()
    await look_at(page, "admin-revoke")
    await page.get_by_label("Why").fill("on a forum")
    await page.get_by_role("button", name="Revoke for good").click()
    await expect(page.get_by_role("status")).to_contain_text(CONFIRMED)
    await look_at(page, "admin-revoked")
    for node in range(NODES):
        for secret in (key["secret"], rotated["secret"]):
            assert await house.ask(secret, node) == (401, "key_revoked")
    await page.get_by_role("link", name="leaked on a forum").click()
    await page.get_by_role("link", name="All of it").click()
    await expect(page.get_by_text("Key revoked")).to_be_visible()
    await page.get_by_text(re.compile(r"\d values?")).first.click()
    await look_at(page, "admin-audit")
    for secret in (key["secret"], rotated["secret"]):
        assert not [url for url in visited if secret in url]
        assert not [node for node in house.nodes if secret in node.log]
    await page.context.close()


async def test_a_tenant_is_closed_for_new_keys(house: House) -> None:
    """Its users find a sentence in place of the form, and the form again once it is opened; their keys work. R225."""
    tenant = await house.tenant("Northwind")
    user = await house.user(tenant=tenant)
    key = await house.key(user, "laptop")
    page, own = await house.at_desk(), await house.signed_in(user)
    await own.goto(f"{house.url}/keys/new")
    await page.goto(f"{house.url}/admin/tenants/{tenant}")
    await page.get_by_label("For this tenant they are").select_option("not made")
    await look_at(page, "admin-tenant")
    await page.get_by_role("button", name="Set for this tenant").click()
    await expect(page.get_by_text("Northwind gets no new API keys")).to_be_visible()
    await own.get_by_label("Name").fill("one more")
    await own.get_by_role("button", name="Create the key").click()
    await expect(own.get_by_text("No new keys are made at present")).to_be_visible()
    await look_at(own, "issuance-closed")
    assert await house.execute("SELECT count(*) FROM api_keys WHERE user_id = $1", user) == 1
    assert await house.ask(key["secret"]) == (200, None)
    await page.get_by_role("link", name="Northwind").click()
    await expect(page.get_by_label("For this tenant they are")).to_have_value("closed")
    await page.get_by_label("For this tenant they are").select_option("as configured: made")
    await page.get_by_role("button", name="Set for this tenant").click()
    await own.goto(f"{house.url}/keys/new")
    await expect(own.get_by_label("Name")).to_be_visible()
    await page.context.close()
    await own.context.close()


async def test_a_tenant_is_made_suspended_and_activated(house: House) -> None:
    """Suspended: 403 on every node by the time that the page says so; activated: 200 again. R104 R221."""
    page = await house.at_desk()
    await choose(page, "Tenants")
    await page.get_by_label("Id").fill("no good id")
    await page.get_by_label("Name").fill("Northwind")
    await page.get_by_role("button", name="Create the tenant").click()
    await expect(page.locator("#id-wrong")).to_contain_text("Use a letter or a digit")
    await page.get_by_label("Id").fill("northwind")
    await page.get_by_role("button", name="Create the tenant").click()
    await expect(page.get_by_role("heading", name="Northwind")).to_be_visible()
    user = await house.user(tenant="northwind")
    key = await house.key(user, "laptop")
    await page.get_by_role("link", name="Suspend").click()
    await look_at(page, "admin-suspend")
    assert await house.ask(key["secret"]) == (200, None)
    await page.get_by_role("button", name="Suspend the tenant").click()
    await expect(page.get_by_role("status")).to_contain_text(CONFIRMED)
    for node in range(NODES):
        assert await house.ask(key["secret"], node) == (403, "tenant_suspended")
    await page.get_by_role("link", name="Northwind").click()
    await expect(page.get_by_text("every credential of this tenant is refused")).to_be_visible()
    await look_at(page, "admin-tenant-suspended")
    await page.get_by_role("button", name="Activate").click()
    await expect(page.get_by_role("status")).to_contain_text("Confirmed on")
    for node in range(NODES):
        assert await house.ask(key["secret"], node) == (200, None)
    await page.goto(f"{house.url}/admin/tenants")
    await look_at(page, "admin-tenants")
    await page.get_by_label("Id").fill("northwind")
    await page.get_by_label("Name").fill("Again")
    await page.get_by_role("button", name="Create the tenant").click()
    await expect(page.locator("#id-wrong")).to_contain_text("with this id already")
    await page.context.close()


async def test_a_user_is_found_and_gets_another_plan(house: House) -> None:
    """Found by how a name begins; what was filled in wrongly is said; the new plan holds on every node. R254 R264."""
    user = await house.user(display_name="Hypatia of Alexandria")
    key = await house.key(user, "astrolabe")
    assert await house.ask(key["secret"]) == (200, None)
    page = await house.at_desk()
    await choose(page, "Users")
    await page.get_by_label("Id or name begins with").fill("hypaTIA")
    await page.get_by_role("button", name="Find").click()
    await expect(page.locator("tbody tr")).to_have_count(1)
    await look_at(page, "admin-users")
    await page.get_by_role("link", name="Hypatia of Alexandria").click()
    await look_at(page, "admin-user")
    await page.get_by_role("link", name="Change the plan").click()
    await page.get_by_label("Plan").select_option("pro")
    await page.get_by_label("per minute").fill("a lot")
    await page.get_by_role("button", name="Save the plan").click()
    await expect(page.get_by_role("alert")).to_have_text("Write a whole number")
    await expect(page.get_by_label("Plan")).to_have_value("pro")
    await page.get_by_label("per minute").fill("77")
    await page.get_by_label("Valid until").fill("2099-12-31T23:30")
    await page.get_by_label("Features").fill("reports = false\nseats = 5")
    await look_at(page, "admin-entitlement")
    await page.get_by_role("button", name="Save the plan").click()
    await expect(page.get_by_role("status")).to_contain_text("Confirmed on")
    given = await house.api("GET", f"/v1/users/{user}/entitlement")
    assert (given["plan"], given["limits"], given["valid_until"]) == ("pro", {"per_minute": 77}, "2099-12-31T23:30:00Z")
    assert given["features"] == {"reports": False, "seats": 5}
    # What is shown is what is there: saved as it is, nothing changes.
    await page.goto(f"{house.url}/admin/users/{user}/entitlement")
    await page.get_by_role("button", name="Save the plan").click()
    await expect(page.get_by_role("status")).to_contain_text("Confirmed on")
    again = await house.api("GET", f"/v1/users/{user}/entitlement")
    assert {**again, "updated_at": None} == {**given, "updated_at": None}
    await page.goto(f"{house.url}/admin/users/{user}/entitlement")
    await page.get_by_label("Plan").select_option("reader")
    await page.get_by_role("button", name="Save the plan").click()
    await expect(page.get_by_role("status")).to_contain_text(CONFIRMED)
    for node in range(NODES):
        assert await house.ask(key["secret"], node) == (403, "api_access_required")
    await page.context.close()


async def test_the_fleet_is_seen_at_a_glance(house: House) -> None:
    """Each node with how far it is; one that hangs is told from the others, in words and in the picture."""
    user = await house.user()
    key = await house.key(user, "busy")
    for number in range(60):
        await house.ask(key["secret"], number % NODES)
    page = await house.at_desk()
    ids = await house.execute("SELECT array_agg(id) FROM nodes WHERE seen_at > now() - interval '3 seconds'")
    assert len(ids) == NODES
    await expect(page.locator(".pill.fresh")).to_have_count(NODES)
    await expect(page.locator("#fleet-said")).to_contain_text(f"{NODES} fresh")
    await expect(page.get_by_role("img", name=re.compile("knows every change"))).to_be_visible()
    await expect(page.get_by_role("img", name=re.compile("% within"))).to_be_visible()
    await expect(page.get_by_text(re.compile(r"memory \d+\.\d %")).first).to_be_visible()
    house.nodes[2].pause()
    try:
        # The page renews itself.
        await expect(page.locator(".pill.silent")).to_have_count(1, timeout=20_000)
        await expect(page.locator("#fleet-said")).to_contain_text("1 silent")
        await look_at(page, "admin-fleet")
    finally:
        house.nodes[2].resume()
    await expect(page.locator(".pill.fresh")).to_have_count(NODES, timeout=20_000)
    await page.context.close()


async def test_a_decision_is_explained_and_what_is_set_up_is_shown(house: House) -> None:
    """In steps and words, by a pasted secret or an id, which is not shown again; plans and signing keys. R218."""
    user = await house.user()
    key = await house.key(user, "curious")
    page = await house.at_desk()
    await choose(page, "Explain")
    await page.get_by_label("Path").fill("/orders/7?page=2")
    await page.get_by_label("Key id, or a secret").fill(key["secret"])
    await page.get_by_role("button", name="Explain").click()
    await expect(page.get_by_role("status")).to_contain_text("Forwarded")
    assert key["secret"] not in await page.content()
    await house.api("POST", f"/v1/keys/{key['id']}/revoke", {})
    await page.get_by_label("Key id, or a secret").fill(key["id"])
    await page.get_by_role("button", name="Explain").click()
    await expect(page.get_by_role("status")).to_contain_text("401 key_revoked")
    await page.get_by_text("What it went by").nth(1).click()
    await look_at(page, "admin-explain")
    await page.get_by_label("Key id, or a secret").fill("key_00000000000000000000000000")
    await page.get_by_role("button", name="Explain").click()
    await expect(page.get_by_role("alert")).to_have_text("There is no such key.")
    await choose(page, "Plans")
    await expect(page.get_by_role("cell", name="starter")).to_be_visible()
    await look_at(page, "admin-plans")
    await choose(page, "Signing keys")
    await expect(page.locator(".pill.active")).to_have_text("current")
    await look_at(page, "admin-signing-keys")
    assert not [node for node in house.nodes if key["secret"] in node.log]
    await page.context.close()


async def test_the_trail_is_searched_page_by_page(house: House) -> None:
    """By who, what, to what and when, the latest first; a mistake in a field is said beside it. R110."""
    tenant = await house.tenant()
    for number in range(60):
        await house.api("PATCH", f"/v1/tenants/{tenant}", {"name": f"Acme {number}"})
    page = await house.at_desk()
    await choose(page, "Audit")
    await page.get_by_label("To what").fill(f"tenant:{tenant}")
    await page.get_by_label("What", exact=True).fill("tenant.change")
    await page.get_by_role("button", name="Find").click()
    await expect(page.locator("tbody tr")).to_have_count(50)
    await page.locator("summary").first.click()
    await expect(page.get_by_text("Acme 58 → Acme 59")).to_be_visible()
    await page.get_by_role("link", name="Older").click()
    await expect(page.locator("tbody tr")).to_have_count(10)
    await expect(page.get_by_label("What", exact=True)).to_have_value("tenant.change")
    await page.get_by_label("Before").fill("2001-01-01T00:00Z")
    await page.get_by_role("button", name="Find").click()
    await expect(page.get_by_text("Nothing like this on record.")).to_be_visible()
    await page.get_by_label("Since").fill("yesterday")
    await page.get_by_role("button", name="Find").click()
    await expect(page.get_by_role("alert")).to_contain_text("ISO 8601")
    await page.context.close()
