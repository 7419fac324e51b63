"""How pages look, and whether everybody can use them: screenshots, and axe-core's judgement of every page."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page

from tests.browser.install import MODULES

SCREENSHOTS: Final = Path(__file__).parents[2] / "build" / "screenshots"
AXE: Final = MODULES / "axe-core" / "axe.min.js"
RULES: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SCHEMES: Final[Sequence[Any]] = ("light", "dark")
PHONE: Final = {"width": 390, "height": 844}
DESKTOP: Final = {"width": 1280, "height": 800}


async def look_at(page: Page, name: str) -> None:
    """Hold the page against every rule, in light and dark, on a desktop and a phone, and take its pictures.

    The strict policy of the pages lets no script in but their own: axe-core comes in by the debugger's own door.
    """
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    session = await page.context.new_cdp_session(page)
    for scheme in SCHEMES:
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for kind, size in (("desktop", DESKTOP), ("phone", PHONE)):
            await page.set_viewport_size(size)  # type: ignore[arg-type]
            await page.screenshot(path=SCREENSHOTS / f"{name}-{scheme}-{kind}.png", full_page=True)
            width = await page.evaluate("document.documentElement.scrollWidth")
            assert width <= size["width"], f"{name} is {width} wide on a {kind}"
        await session.send("Runtime.evaluate", {"expression": AXE.read_text()})
        found = await session.send(
            "Runtime.evaluate",
            {
                "expression": f"axe.run({{runOnly: {RULES}}}).then(r => JSON.stringify(r.violations.map("
                "v => [v.id, v.help, v.nodes.map(n => n.html + ' ' + n.failureSummary)])))",
                "awaitPromise": True,
                "returnByValue": True,
            },
        )
        value = found["result"].get("value")
        assert value == "[]", f"{name} in {scheme}: {re.sub(r'<input[^>]*csrf[^>]*>', '', str(value or found))}"
    await session.detach()
    await page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
