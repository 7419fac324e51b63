"""A key, from its making to its end, as a person goes about it in a browser."""

import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.house import House
from tests.browser.looks import look_at

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def secret_on(page: Page) -> str:
    """The secret that the page shows."""
    return (await page.locator("#secret").inner_text()).strip()


async def create(page: Page, name: str, *scopes: str) -> str:
    """A new key; returns its secret."""
    await page.get_by_role("link", name=re.compile("Create (a|your first) key")).click()
    await page.get_by_label("Name").fill(name)
    for scope in scopes:
        await page.get_by_label(scope).check()
    await page.get_by_role("button", name="Create the key").click()
    await expect(page.get_by_role("heading", name=f"{name} is ready")).to_be_visible()
    return await secret_on(page)


async def test_a_key_from_its_making_to_its_end(house: House) -> None:
    """Sign in, create, copy, use, rotate, use both, finish, revoke, and 401 on every node. R360 R361 R362 R363 R364."""
    user = await house.user()
    page = await house.signed_in(user, permissions=["clipboard-read", "clipboard-write"])
    await expect(page.get_by_role("heading", name="You have no key yet")).to_be_visible()
    await look_at(page, "empty")

    secret = await create(page, "laptop", "orders:read")
    await look_at(page, "new-secret")
    await page.get_by_role("button", name="Copy", exact=True).click()
    await expect(page.locator("#secret-copied")).to_have_text("Copied.")
    assert await page.evaluate("navigator.clipboard.readText()") == secret
    for node in range(len(house.nodes)):
        assert await house.ask(secret, node) == (200, None)

    await page.get_by_role("link", name="I have stored it").click()
    await page.get_by_role("link", name="Rotate").click()
    await look_at(page, "rotate")
    await page.get_by_label("Type the name").fill("lap")
    await page.get_by_role("button", name="Rotate the key").click()
    await expect(page.get_by_role("alert")).to_contain_text("Nothing has been changed")
    await page.get_by_label("Type the name").fill("laptop")
    await page.get_by_role("button", name="Rotate the key").click()
    await expect(page.get_by_role("heading", name="laptop has a new secret")).to_be_visible()
    renewed = await secret_on(page)
    assert renewed != secret
    await look_at(page, "rotated")
    await expect(page.locator("#rotation-said")).to_contain_text("since the rotation")
    # The panel goes on by itself: what is used at the API is told here.
    assert await house.ask(secret, 1) == (200, None)
    await expect(page.locator("#rotation-said")).to_contain_text("still send the old secret")
    assert await house.ask(renewed, 2) == (200, None)
    await expect(page.locator("#rotation-said")).to_contain_text("finish now")
    assert await secret_on(page) == renewed  # and what is shown once stays for as long as the page does
    await page.get_by_role("button", name="Finish now").click()
    await expect(page.get_by_role("status")).to_contain_text(re.compile(r"Confirmed on 3 of 3 gateways in \d+ ms"))
    await look_at(page, "finished")
    for node in range(len(house.nodes)):
        assert await house.ask(secret, node) == (401, "key_rotated")
        assert await house.ask(renewed, node) == (200, None)

    await page.get_by_role("link", name="laptop").click()
    await look_at(page, "key")
    await page.get_by_role("link", name="Revoke").click()
    await expect(page.get_by_text("This cannot be undone.")).to_be_visible()
    await expect(page.get_by_text("tokens that were made from the key die with it")).to_be_visible()
    await look_at(page, "revoke")
    await page.get_by_label("Why").fill("sold")
    await page.get_by_role("button", name="Revoke for good").click()
    await expect(page.get_by_role("status")).to_contain_text(re.compile(r"Confirmed on 3 of 3 gateways in \d+ ms"))
    await look_at(page, "revoked")
    for node in range(len(house.nodes)):
        assert await house.ask(renewed, node) == (401, "key_revoked")
    await page.get_by_role("link", name="Your keys", exact=True).first.click()
    section = page.get_by_role("region", name="Revoked")
    await expect(section.get_by_role("link", name="laptop")).to_be_visible()
    await page.context.close()
