"""Signing in and out, in a real browser, by a certified provider."""

import pytest

from tests.browser.house import House

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_smoke(house: House) -> None:
    user = await house.user()
    page = await house.signed_in(user)
    assert page.url == f"{house.url}/keys", (page.url, await page.content())
    await page.screenshot(path="/tmp/p1/a.png")
    await page.context.close()
