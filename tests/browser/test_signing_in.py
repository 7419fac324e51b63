"""Signing in and out, in a real browser, by a certified provider."""

import hashlib
import re
from typing import Final
from urllib.parse import urljoin

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.browser.house import House
from tests.browser.looks import look_at

pytestmark = pytest.mark.asyncio(loop_scope="session")

COOKIE: Final = "ostiary_session"  # over https it would be __Host-ostiary_session: tests/unit/test_portal_parts.py


async def cookie(page: Page) -> str:
    """What the browser holds of its session."""
    found = [one for one in await page.context.cookies() if one["name"] == COOKIE]
    return found[0]["value"] if found else ""


async def test_who_is_signed_out_signs_in_and_goes_on_where_they_were_going(house: House) -> None:
    """A page that needs a sign-in leads to one, and afterwards is there. R360."""
    user = await house.user()
    context = await house.context()
    page = await context.new_page()
    await page.goto(f"{house.url}/activity")
    await expect(page.get_by_role("heading", name="Your keys to the API")).to_be_visible()
    await look_at(page, "signed-out")
    await house.sign_in(page, user)
    assert page.url == f"{house.url}/activity"
    await expect(page.get_by_role("heading", name="Where you are signed in")).to_be_visible()
    held = await context.cookies()
    session = next(one for one in held if one["name"] == COOKIE)
    assert (session["httpOnly"], session["sameSite"], session["path"]) == (True, "Lax", "/")
    assert [one["name"] for one in held if one["name"].startswith("ostiary_")] == [COOKIE]
    digest = hashlib.sha256(session["value"].encode()).digest()
    kept = await house.execute("SELECT row_to_json(s)::text FROM portal_sessions s WHERE digest = $1", digest)
    assert user in kept
    assert session["value"] not in kept
    await context.close()


async def test_on_the_public_listener(house: House) -> None:
    """Where a route leads to `.portal`, the same pages are there, and callers' addresses are told as they are."""
    user = await house.user()
    page = await house.signed_in(user, url=house.public_url)
    assert page.url == f"{house.public_url}/keys"
    await page.get_by_role("link", name="Create your first key").click()
    await page.get_by_label("Name").fill("from outside")
    await page.get_by_role("button", name="Create the key").click()
    await expect(page.get_by_role("heading", name="from outside is ready")).to_be_visible()
    assert await house.execute("SELECT address FROM audit_events WHERE actor_id = $1", user) == "127.0.0.1"
    # The browser sends its session to every path of the host; an API behind it does not get it.
    await page.context.add_cookies([{"name": "theirs", "value": "1", "url": house.public_url}])
    secret = await page.locator("#secret").inner_text()
    for path in ("/orders/1", "/orders/../orders/2"):
        url = house.nodes[1].proxy_url + path
        reply = await page.request.get(url, headers={"Authorization": f"Bearer {secret}"})
        told = await reply.text()
        assert (reply.status, "theirs=1" in told, "ostiary_" in told) == (200, True, False)
    await page.context.close()


async def test_signing_in_again_ends_the_session_before(house: House) -> None:
    """A session is rotated at sign-in: what the browser held before is worth nothing afterwards."""
    user = await house.user()
    page = await house.signed_in(user)
    first = await cookie(page)
    await page.goto(f"{house.url}/sign-in")
    await page.wait_for_url("**/portal/keys")
    assert await cookie(page) != first
    other = await house.context()
    await other.add_cookies([{"name": COOKIE, "value": first, "url": house.url}])
    reply = await other.request.get(f"{house.url}/keys", max_redirects=0)
    assert (reply.status, reply.headers["location"]) == (303, "/portal?next=/portal/keys")
    await other.close()
    await page.context.close()


async def test_signing_out_here_and_everywhere(house: House) -> None:
    """Signing out ends one session, signing out everywhere ends all of that user, and of nobody else."""
    user, neighbour = await house.user(), await house.user()
    pages = [await house.signed_in(user) for _ in range(3)]
    stranger = await house.signed_in(neighbour)
    held = await cookie(pages[0])
    await pages[0].get_by_role("button", name="Sign out").click()
    await expect(pages[0].get_by_role("status")).to_contain_text("You are signed out")
    assert await cookie(pages[0]) == ""
    await pages[0].context.add_cookies([{"name": COOKIE, "value": held, "url": house.url}])
    await pages[0].goto(f"{house.url}/keys")
    await expect(pages[0].get_by_role("link", name="Sign in")).to_be_visible()

    await pages[1].goto(f"{house.url}/activity")
    await expect(pages[1].get_by_text("Since")).to_have_count(2)
    await pages[1].get_by_role("button", name="Sign out everywhere").click()
    await expect(pages[1].get_by_role("status")).to_contain_text("on every device")
    await pages[2].reload()
    await expect(pages[2].get_by_role("link", name="Sign in")).to_be_visible()
    await stranger.reload()
    await expect(stranger.get_by_role("heading", name="Your keys")).to_be_visible()
    for page in (*pages, stranger):
        await page.context.close()


async def test_an_answer_that_nobody_has_asked_for(house: House) -> None:
    """A callback signs nobody in without the sign-in that this browser has begun, nor with another's state."""
    user = await house.user()
    context = await house.context()
    page = await context.new_page()
    await page.goto(f"{house.url}/callback?code=abc&state=def")
    await expect(page.get_by_role("heading", name="Signing in did not work")).to_be_visible()
    # A true answer, brought to a browser that has begun another sign-in: it is not for that one.
    answer = await answered(house, context, user)
    other = await house.context()
    await other.request.get(f"{house.url}/sign-in", max_redirects=0)
    reply = await other.request.get(answer)
    assert (reply.status, "Signing in did not work" in await reply.text()) == (401, True)
    # Nor does the browser that has begun it redeem the code twice.
    first = await context.request.get(answer, max_redirects=0)
    assert (first.status, first.headers["location"]) == (303, "/portal/keys")
    assert (await context.request.get(answer, max_redirects=0)).status == 401
    await other.close()
    await context.close()


async def answered(house: House, context: BrowserContext, user: str) -> str:
    """The address that the provider sends the browser back to, which has not gone there."""
    asked = await context.request.get(f"{house.url}/sign-in")
    form = re.search(r'<form[^>]* action="([^"]+)"', await asked.text())
    assert form is not None
    given: dict[str, str | float | bool] = {"prompt": "login", "login": user, "password": "any"}
    reply = await context.request.post(urljoin(asked.url, form[1]), form=given, max_redirects=0)
    while "/portal/callback?" not in (address := urljoin(reply.url, reply.headers["location"])):
        reply = await context.request.get(address, max_redirects=0)
    return address


async def test_a_session_ends_by_itself(house: House) -> None:
    """Nobody seen for too long, or too old: signed out. R360."""
    for column in ("seen_at", "ends_at"):
        user = await house.user()
        page = await house.signed_in(user)
        await house.execute(f"UPDATE portal_sessions SET {column} = now() - interval '2 h' WHERE subject = $1", user)
        await page.reload()
        await expect(page.get_by_role("link", name="Sign in")).to_be_visible()
        await page.context.close()
