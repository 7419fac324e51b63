"""What attackers try with pages: others' ids, scripts in names, forms of other sites, and a step back."""

import hashlib
import re
from typing import Any, Final

import pytest
from playwright.async_api import Error, Page, expect

from tests.browser.house import House
from tests.browser.test_a_keys_life import create, secret_on

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCRIPT: Final = "<script>hit=1</script>"
ATTACKS: Final = (  # names have 64 characters
    f"\"'>{SCRIPT}<img src=x onerror=hit=1>",
    f"{{{{ 7*7 }}}}{{% raw %}}</title></textarea>{SCRIPT}",
)


async def csrf_on(page: Page) -> str:
    """What the forms of the page carry."""
    return await page.locator("input[name=csrf]").first.input_value()


async def post(page: Page, url: str, csrf: str | None, headers: dict[str, str] | None = None, **form: Any) -> int:
    """Send a form as the page's browser would; the status."""
    fields = form if csrf is None else {"csrf": csrf, **form}
    return (await page.request.post(url, form=fields, headers=headers or {}, max_redirects=0)).status


@pytest.mark.parametrize("is_same_tenant", [True, False], ids=["a neighbour", "another tenant"])
async def test_the_ids_of_others_lead_nowhere(house: House, is_same_tenant: bool) -> None:
    """Every address with a key of somebody else is 404, as that of one that never was; nothing changes. R272 R365."""
    owner = await house.user()
    tenant = await house.execute("SELECT tenant_id FROM users WHERE id = $1", owner)
    key = await house.key(owner, "hers alone")
    rotated = await house.api("POST", f"/v1/keys/{key['id']}/rotate", {})
    retired = rotated["retired_secret"]["id"]
    user = await house.user(tenant=tenant if is_same_tenant else None)
    own = await house.key(user, "mine")
    page = await house.signed_in(user)
    await page.goto(f"{house.url}/keys")
    csrf = await csrf_on(page)
    before = await house.execute("SELECT row_to_json(k)::text FROM api_keys k WHERE id = $1", key["id"])
    for key_id, secret_id in ((key["id"], retired), ("key_none", "sec_none"), ("%00", "%00"), ("..%2f", "'--")):
        for path in ("", "/rotate", "/revoke"):
            reply = await page.request.get(f"{house.url}/keys/{key_id}{path}")
            assert reply.status == 404, (key_id, path)
            assert "hers alone" not in await reply.text()
        for path in ("/rotate", "/revoke", f"/secrets/{secret_id}/finish"):
            url = f"{house.url}/keys/{key_id}{path}"
            assert await post(page, url, csrf, confirm="hers alone", replaces=rotated["prefix"]) == 404, (key_id, path)
        if key_id.isascii() and "%" not in key_id:
            assert (await page.request.get(f"{house.url}/usage?key={key_id}")).status == 404
            # Somebody else's secret, by way of one's own key.
            url = f"{house.url}/keys/{own['id']}/secrets/{secret_id}/finish"
            assert await post(page, url, csrf) == 404
    after = await house.execute("SELECT row_to_json(k)::text FROM api_keys k WHERE id = $1", key["id"])
    assert before == after
    for address in ("keys", "activity", "usage"):
        text = await (await page.request.get(f"{house.url}/{address}")).text()
        assert key["id"] not in text
        assert "hers alone" not in text
    assert await house.ask(key["secret"]) == (200, None)
    await page.context.close()


async def test_what_users_write_is_never_code(house: House) -> None:
    """A script in every text that a user, or somebody about them, has written is shown as text on every page. R365."""
    for attack in ATTACKS:
        user = await house.user(display_name=attack)
        page = await house.signed_in(user)
        secret = await create(page, attack)
        key_id = await house.execute("SELECT id FROM api_keys WHERE user_id = $1", user)
        await house.ask(secret)
        addresses = ["keys", "keys/new", "usage", f"usage?key={key_id}", "activity"]
        addresses += [f"keys/{key_id}{path}" for path in ("", "/rotate", "/revoke")]
        for address in addresses:
            await page.goto(f"{house.url}/{address}")
            await expect(page.locator(".who .name")).to_have_text(attack)
            await check_harmless(page)
        await page.goto(f"{house.url}/keys/{key_id}/revoke")
        await page.get_by_label("Why").fill(attack)
        await page.get_by_role("button", name="Revoke for good").click()
        await expect(page.get_by_role("heading", name="The key is revoked")).to_be_visible()
        await check_harmless(page)
        await page.goto(f"{house.url}/keys/{key_id}")
        await expect(page.get_by_text(f"“{attack}”")).to_be_visible()
        await check_harmless(page)
        for query in ("?next=javascript:hit=1", "?next=//evil.example", f"?state={SCRIPT}"):
            reply = await page.request.get(f"{house.url}/sign-in{query}", max_redirects=0)
            assert "evil" not in reply.headers.get("set-cookie", "")
        await page.context.close()


async def check_harmless(page: Page) -> None:
    """Nothing of an attack has become an element, and none has run."""
    planted = "document.querySelectorAll('img, textarea, script:not([src]), [onerror]').length"
    assert (await page.evaluate("typeof window.hit"), await page.evaluate(planted)) == ("undefined", 0), page.url


async def test_forms_of_others_change_nothing(house: House) -> None:
    """Without the token of this very session, and from another site's page, every form is refused. R365."""
    user, neighbour = await house.user(), await house.user()
    key = await house.key(user, "laptop")
    rotated = await house.api("POST", f"/v1/keys/{key['id']}/rotate", {})
    page, other, again = [await house.signed_in(who) for who in (user, neighbour, user)]
    csrf = await csrf_on(page)
    foreign = {"missing": None, "wrong": "x", "another's": await csrf_on(other), "older": await csrf_on(again)}
    own = f"{house.url}/keys/{key['id']}"
    forms: dict[str, dict[str, Any]] = {
        f"{house.url}/keys/new": {"name": "planted"},
        f"{own}/rotate": {"confirm": "laptop", "replaces": rotated["prefix"]},
        f"{own}/revoke": {},
        f"{own}/secrets/{rotated['retired_secret']['id']}/finish": {},
        f"{house.url}/sign-out": {},
        f"{house.url}/sign-out-everywhere": {},
    }
    for url, form in forms.items():
        for what, token in foreign.items():
            assert await post(page, url, token, **form) == 403, (url, what)
        assert await post(page, url, csrf, {"Sec-Fetch-Site": "cross-site"}, **form) == 403, url
        assert await post(page, url, csrf, {"Sec-Fetch-Site": "same-site"}, **form) == 403, url
        # A body of another kind, such as a page may send without asking, is no form.
        headers = {"Content-Type": "text/plain"}
        assert (await page.request.post(url, data=f"csrf={csrf}", headers=headers)).status == 415, url
    assert await house.execute("SELECT count(*) FROM api_keys WHERE user_id = $1", user) == 1
    assert await house.ask(key["secret"]) == (200, None)
    assert await house.ask(rotated["secret"]) == (200, None)
    await page.reload()
    await expect(page.get_by_role("link", name="laptop")).to_be_visible()
    for one in (page, other, again):
        await one.context.close()


async def test_a_step_back_shows_no_secret(house: House) -> None:
    """After the page with the secret is left, neither a step back nor anything stored shows it. R361 R324."""
    user = await house.user()
    page = await house.signed_in(user)
    first = await create(page, "first")
    await page.get_by_role("link", name="I have stored it").click()
    await expect(page.get_by_role("heading", name="first")).to_be_visible()
    assert first not in await page.content()
    # The browser has kept nothing to show, and says so: it would have to send the form again.
    with pytest.raises(Error, match="ERR_CACHE_MISS"):
        await page.go_back()
    await expect(page.locator("body")).not_to_contain_text(first)
    assert not [key for key in await keys_of(house, user) if key != "first"]
    await page.goto(f"{house.url}/keys")
    second = await create(page, "second")
    assert first not in await page.content()
    # Nor is it in a page that some browser keeps in memory for a step back.
    await page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")
    assert second not in await page.content()
    await page.goto(f"{house.url}/keys")
    second_id = await house.execute("SELECT id FROM api_keys WHERE user_id = $1 AND name = 'second'", user)
    for address in ("keys", "activity", f"keys/{second_id}"):
        await page.goto(f"{house.url}/{address}")
        text = await page.content()
        assert first not in text
        assert second not in text
    for secret in (first, second):
        stored = "SELECT count(*) FROM portal_sessions s WHERE s::text LIKE '%' || $1 || '%'"
        assert await house.execute(stored, secret[15:]) == 0
        assert await house.execute("SELECT count(*) FROM idempotent_replies") == 0
        for node in house.nodes:
            assert secret not in node.log
            assert hashlib.sha256(secret.encode()).hexdigest() not in node.log
    await page.context.close()


async def keys_of(house: House, user: str) -> list[str]:
    """The names of somebody's keys."""
    names = await house.execute("SELECT array_agg(name) FROM api_keys WHERE user_id = $1", user)
    return list(names)


async def test_a_form_that_is_sent_twice(house: House) -> None:
    """A reload of the page with the secret makes no second key and no second secret. R361."""
    user = await house.user()
    page = await house.signed_in(user)
    await create(page, "once")
    await page.reload()
    await expect(page.locator("#name-wrong")).to_contain_text("its secret is gone")
    assert await keys_of(house, user) == ["once"]
    await page.goto(f"{house.url}/keys")
    await page.get_by_role("link", name="once").click()
    await page.get_by_role("link", name="Rotate").click()
    await page.get_by_label("Type the name").fill("once")
    await page.get_by_role("button", name="Rotate the key").click()
    await expect(page.get_by_role("heading", name="once has a new secret")).to_be_visible()
    secret = await secret_on(page)
    await page.reload()
    await expect(page.get_by_role("heading", name="This key has been rotated already")).to_be_visible()
    assert await house.ask(secret) == (200, None)
    assert (
        await house.execute(
            "SELECT count(*) FROM retired_secrets r JOIN api_keys k ON k.id = r.key_id WHERE k.user_id = $1", user
        )
        == 1
    )
    await page.context.close()


async def test_every_reply_says_what_browsers_must_not_do(house: House) -> None:
    """No caching, no framing, no script or style but our own, whatever is answered. R343."""
    user = await house.user()
    page = await house.signed_in(user)
    signed_out = await house.context()
    addresses = ("", "/keys", "/keys/new", "/keys/key_none", "/usage", "/activity", "/nowhere", "/callback", "/sign-in")
    for context in (page.context, signed_out):
        for base in (house.url, house.public_url):
            for address in addresses:
                reply = await context.request.get(base + address, max_redirects=0)
                headers = reply.headers
                policy = headers["content-security-policy"]
                assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
                assert "unsafe" not in policy
                assert "frame-ancestors 'none'" in policy
                assert headers["cache-control"] == "no-store", address
                assert headers["referrer-policy"] == "same-origin"
                assert headers["x-content-type-options"] == "nosniff"
                assert "server" not in headers
                assert " style=" not in (text := await reply.text())
                assert not re.search(r"<script(?! src=)|<style|\son[a-z]+=", text), address
    await signed_out.close()
    await page.context.close()


async def test_without_a_script_everything_works(house: House) -> None:
    """Create, rotate, see how it stands, finish and revoke, in a browser that runs no script. R360."""
    user = await house.user()
    page = await house.signed_in(user, java_script_enabled=False)
    secret = await create(page, "plain")
    assert await house.ask(secret) == (200, None)
    await expect(page.get_by_role("button", name="Copy")).to_have_count(0)
    await page.get_by_role("link", name="I have stored it").click()
    await page.get_by_role("link", name="Rotate").click()
    await page.get_by_label("Type the name").fill("plain")
    await page.get_by_role("button", name="Rotate the key").click()
    await page.get_by_role("link", name="Look again").click()
    await page.get_by_role("button", name="Finish now").click()
    await expect(page.get_by_role("heading", name="The old secret is ended")).to_be_visible()
    await page.get_by_role("link", name="plain").click()
    await page.get_by_role("link", name="Revoke").click()
    await page.get_by_role("button", name="Revoke for good").click()
    await expect(page.get_by_role("heading", name="The key is revoked")).to_be_visible()
    await page.context.close()
