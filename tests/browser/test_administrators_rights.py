"""Who sees and may do what on the pages for administrators, and what attackers try there."""

import re
from typing import Any, Final

import pytest
from playwright.async_api import Page, expect

from gateway.control.admin_tokens import Role
from tests.browser.house import House
from tests.browser.looks import look_at
from tests.browser.test_attacks import ATTACKS, check_harmless, csrf_on, post

pytestmark = pytest.mark.asyncio(loop_scope="session")

GLOBAL: Final = ("fleet", "signing-keys")
SHARED: Final = ("tenants", "users", "keys", "audit", "plans")


async def planted(house: House) -> dict[str, Any]:
    """A tenant with a user and a key, and what must not be found of it."""
    user = await house.user(display_name="Secretly Hers")
    tenant = await house.execute("SELECT tenant_id FROM users WHERE id = $1", user)
    key = await house.key(user, "hers alone")
    return {"user": user, "tenant": tenant, "key": key["id"], "secret": key["secret"]}


async def administrator(house: House, kind: str, tenant: str) -> Page:
    """Somebody with rights in one tenant: by a token, or by what the provider says of them."""
    if kind == "token":
        return await house.at_desk(Role.TENANT_ADMIN, tenant)
    page = await house.signed_in(await house.user(tenant=tenant, role=kind))
    await page.goto(f"{house.url}/admin")
    return page


@pytest.mark.parametrize("kind", ["token", "boss", "auditor"])
async def test_other_tenants_do_not_exist(house: House, kind: str) -> None:
    """Another tenant's ids in every address: 404, as for what never was; nothing of it is on any page. R272 R274."""
    theirs = await planted(house)
    tenant = await house.tenant("Our own")
    own = await house.user(tenant=tenant, display_name="Our Ada")
    own_key = await house.key(own, "ours")
    page = await administrator(house, kind, tenant)
    assert page.url == f"{house.url}/admin/tenants/{tenant}"
    csrf = await csrf_on(page)
    nowhere = {"tenant": "no-such", "user": "no-such", "key": "key_00000000000000000000000000"}
    for ids in (theirs, nowhere):
        for address in (
            f"tenants/{ids['tenant']}",
            f"users/{ids['user']}",
            f"keys/{ids['key']}",
            f"users?tenant={ids['tenant']}",
            f"keys?tenant={ids['tenant']}",
            f"keys?user={ids['user']}",
            f"audit?tenant={ids['tenant']}",
        ):
            reply = await page.request.get(f"{house.url}/admin/{address}")
            assert reply.status == 404, address
            assert not re.search("[Hh]ers", await reply.text()), address
        refused = 403 if kind == "auditor" else 404
        assert (await page.request.get(f"{house.url}/admin/keys/{ids['key']}/revoke")).status == refused
        assert await post(page, f"{house.url}/admin/keys/{ids['key']}/revoke", csrf) == refused
        assert await post(page, f"{house.url}/admin/keys", csrf, sought=ids["key"]) == 404
        for deed in ("suspend", "activate", "issuance"):
            assert await post(page, f"{house.url}/admin/tenants/{ids['tenant']}/{deed}", csrf) == 403
        assert await post(page, f"{house.url}/admin/users/{ids['user']}/entitlement", csrf, plan="pro") == 403
    # Neither does a secret of theirs find more than one that never was.
    answers = []
    for secret in (theirs["secret"], theirs["secret"][:-1] + "~"):
        reply = await page.request.post(f"{house.url}/admin/keys", form={"csrf": csrf, "sought": secret})
        answers.append((reply.status, len(await reply.text())))
        assert secret not in await reply.text()
    assert answers[0] == answers[1]
    assert answers[0][0] == (403 if kind == "auditor" else 404)
    for address in SHARED:
        text = await (await page.request.get(f"{house.url}/admin/{address}")).text()
        assert not [name for name in theirs.values() if name in text], address
    for address in (
        f"tenants/{tenant}",
        f"users/{own}",
        f"keys/{own_key['id']}",
        f"audit?target=user:{theirs['user']}",
    ):
        reply = await page.request.get(f"{house.url}/admin/{address}")
        assert reply.status == 200, address
        assert theirs["user"] not in (await reply.text()).replace(f'value="user:{theirs["user"]}"', ""), address
    assert await house.ask(theirs["secret"]) == (200, None)
    await page.context.close()


@pytest.mark.parametrize("kind", ["token", "boss", "auditor"])
async def test_what_a_tenants_administrators_may(house: House, kind: str) -> None:
    """They end keys of their own tenant, auditors none; what it has bought, the fleet and the rest is not theirs."""
    tenant = await house.tenant("Our own")
    user = await house.user(tenant=tenant)
    key = await house.key(user, "ours")
    page = await administrator(house, kind, tenant)
    names = await page.get_by_role("navigation", name="Main").get_by_role("link").all_inner_texts()
    assert names == ["Tenants", "Users", "Keys", "Audit", "Plans", *(["My own keys"] if kind != "token" else [])]
    csrf = await csrf_on(page)
    for address in (*GLOBAL, "explain", f"tenants/{tenant}/suspend", f"users/{user}/entitlement"):
        assert (await page.request.get(f"{house.url}/admin/{address}")).status == 403, address
    for address in ("tenants", f"tenants/{tenant}/suspend", f"users/{user}/entitlement", "explain"):
        assert await post(page, f"{house.url}/admin/{address}", csrf, id="x", name="x", plan="pro", path="/") == 403
    await look_at(page, f"admin-own-tenant-{kind}")
    await expect(page.get_by_role("link", name="Suspend")).to_have_count(0)
    await page.goto(f"{house.url}/admin/keys/{key['id']}")
    if kind == "auditor":
        await expect(page.get_by_role("link", name="Revoke")).to_have_count(0)
        assert await house.ask(key["secret"]) == (200, None)
    else:
        await page.get_by_role("link", name="Revoke").click()
        await page.get_by_role("button", name="Revoke for good").click()
        await expect(page.get_by_role("heading", name="Done")).to_be_visible()
        assert await house.ask(key["secret"]) == (401, "key_revoked")
    await page.context.close()


async def test_an_auditor_of_all_reads_and_changes_nothing(house: House) -> None:
    """Every page that shows is there, every form is refused; and a user without a role sees none. R123 R274."""
    theirs = await planted(house)
    page = await house.at_desk(Role.AUDITOR)
    await page.goto(f"{house.url}/admin/keys")
    csrf = await csrf_on(page)
    shown = [*SHARED, *GLOBAL, f"tenants/{theirs['tenant']}", f"users/{theirs['user']}", f"keys/{theirs['key']}"]
    for address in shown:
        reply = await page.request.get(f"{house.url}/admin/{address}")
        assert reply.status == 200, address
        assert not re.search("Revoke for good|Suspend|Change the plan|New tenant", await reply.text()), address
    assert await post(page, f"{house.url}/admin/keys", csrf, sought=theirs["key"]) == 303
    for address in (
        "tenants",
        f"tenants/{theirs['tenant']}/suspend",
        f"tenants/{theirs['tenant']}/issuance",
        f"users/{theirs['user']}/entitlement",
        f"keys/{theirs['key']}/revoke",
        "explain",
    ):
        assert await post(page, f"{house.url}/admin/{address}", csrf, id="x", name="x", plan="pro", path="/") == 403
    assert await post(page, f"{house.url}/admin/keys", csrf, sought=theirs["secret"]) == 403
    assert await house.ask(theirs["secret"]) == (200, None)
    await page.context.close()
    nobody = await house.signed_in(await house.user())
    for address in shown:
        assert (await nobody.request.get(f"{house.url}/admin/{address}")).status == 403, address
    await nobody.goto(f"{house.url}/admin")
    await expect(nobody.get_by_role("heading", name="Your role does not allow this")).to_be_visible()
    await expect(nobody.get_by_role("link", name="Administration", exact=True)).to_have_count(1)
    await nobody.context.close()


async def test_forms_of_others_change_nothing(house: House) -> None:
    """Without this session's own token, or from another site's page, every form of an operator is refused. R365."""
    theirs = await planted(house)
    page, other = await house.at_desk(), await house.at_desk()
    csrf, foreign = await csrf_on(page), await csrf_on(other)
    for address in (
        "tenants",
        "keys",
        "explain",
        f"tenants/{theirs['tenant']}/suspend",
        f"tenants/{theirs['tenant']}/activate",
        f"users/{theirs['user']}/entitlement",
        f"keys/{theirs['key']}/revoke",
        "sign-in",
    ):
        url = f"{house.url}/admin/{address}"
        for token in (None, "x", foreign):
            assert await post(page, url, token, plan="reader", id="planted-here", name="x") == 403, address
        assert await post(page, url, csrf, {"Sec-Fetch-Site": "cross-site"}, plan="reader") == 403, address
    assert await house.ask(theirs["secret"]) == (200, None)
    assert await house.execute("SELECT count(*) FROM tenants WHERE id = 'planted-here'") == 0
    for one in (page, other):
        await one.context.close()


async def test_what_others_write_is_never_code(house: House) -> None:
    """A script in every text that somebody has written is text on every page, and where it is said back. R365."""
    for attack, second in (ATTACKS, ATTACKS[::-1]):
        short, third, fourth = attack, attack, second
        tenant = await house.tenant(second)
        user = await house.user(tenant=tenant, display_name=attack)
        await house.api("PUT", f"/v1/users/{user}/entitlement", {"plan": "pro", "features": {"note": fourth}})
        key = await house.key(user, third)
        await house.api("POST", f"/v1/keys/{key['id']}/revoke", {"reason": fourth})
        page = await house.at_desk(name=short)
        for address, written in {
            f"tenants/{tenant}": second,
            f"tenants/{tenant}/suspend": second,
            f"users?tenant={tenant}": attack,
            f"users/{user}": fourth,
            f"users/{user}/entitlement": attack,
            f"keys?tenant={tenant}": third,
            f"keys/{key['id']}": fourth,
            f"audit?tenant={tenant}": second,
        }.items():
            await page.goto(f"{house.url}/admin/{address}")
            await expect(page.locator(".who .name")).to_have_text(short)
            assert written in (await page.locator("main").text_content() or ""), address
            await check_unplanted(page)
        for address in ("tenants", "users", "keys", "plans"):
            await page.goto(f"{house.url}/admin/{address}")
            await check_unplanted(page)
        await page.goto(f"{house.url}/admin/users")
        await page.get_by_label("Id or name begins with").fill(attack)
        await page.get_by_role("button", name="Find").click()
        await expect(page.get_by_role("link", name=attack)).to_be_visible()
        await check_unplanted(page)
        await page.goto(f"{house.url}/admin/audit")
        await page.get_by_label("What", exact=True).fill(attack)
        await page.get_by_role("button", name="Find").click()
        await expect(page.get_by_role("alert")).to_be_visible()
        await check_unplanted(page)
        await page.goto(f"{house.url}/admin/explain")
        await page.get_by_label("Path").fill(f"/orders/{attack}")
        await page.get_by_label("Host").fill(attack)
        await page.get_by_role("button", name="Explain").click()
        await expect(page.get_by_role("heading", name="Explain a decision")).to_be_visible()
        await check_unplanted(page)
        await page.goto(f"{house.url}/admin/tenants/{tenant}/suspend")
        await page.get_by_role("button", name="Suspend the tenant").click()
        await expect(page.get_by_role("heading", name="Done")).to_be_visible()
        await check_unplanted(page)
        await page.context.close()


async def check_unplanted(page: Page) -> None:
    """As `check_harmless`, but for the form that has a text area of its own."""
    if not page.url.endswith("/entitlement"):
        await check_harmless(page)
    planted = "document.querySelectorAll('img, script:not([src]), [onerror]').length"
    assert (await page.evaluate("typeof window.hit"), await page.evaluate(planted)) == ("undefined", 0), page.url


async def test_every_reply_says_what_browsers_must_not_do(house: House) -> None:
    """No caching, no framing, no script or style but our own, on each page for administrators. R343."""
    page = await house.at_desk()
    for address in (*SHARED, *GLOBAL, "explain", "sign-in", "nowhere"):
        reply = await page.goto(f"{house.url}/admin/{address}")
        assert reply is not None
        assert reply.headers["cache-control"] == "no-store", address
        assert "unsafe" not in reply.headers["content-security-policy"]
        inline = "[...document.querySelectorAll('*')].filter(element => element.matches('script:not([src]), style')"
        inline += " || [...element.attributes].some(one => /^(on|style$)/.test(one.name))).length"
        assert await page.evaluate(inline) == 0, address
    await page.context.close()
