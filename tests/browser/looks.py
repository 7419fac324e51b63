"""How pages look, and whether everybody can use them: screenshots, and axe-core's judgement of every page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page

from tests.browser.install import MODULES

SCREENSHOTS: Final = Path(__file__).parents[2] / "build" / "screenshots"
AXE: Final = MODULES / "axe-core" / "axe.min.js"
RULES: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SCHEMES: Final[Sequence[Any]] = ("light", "dark")
SIZES: Final[dict[str, Any]] = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
JUDGE: Final = (
    f"axe.run({{runOnly: {RULES}}}).then(found => JSON.stringify(found.violations.map("
    "rule => [rule.id, rule.help, rule.nodes.map(node => node.target + ' ' + node.failureSummary)])))"
)


async def look_at(page: Page, name: str) -> None:
    """Hold the page against every rule in light and dark, look whether it fits, and take its pictures.

    The strict policy of the pages lets no script in but their own: axe-core comes in by the debugger's own door.
    """
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    session = await page.context.new_cdp_session(page)
    await session.send("Runtime.evaluate", {"expression": AXE.read_text()})
    for scheme, (kind, size) in zip(SCHEMES, SIZES.items(), strict=True):
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        await page.set_viewport_size(size)
        await page.screenshot(path=SCREENSHOTS / f"{name}-{kind}.png", full_page=True)
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= size["width"], f"{name} is {width} wide on a {kind}"
        asked = {"expression": JUDGE, "awaitPromise": True, "returnByValue": True}
        found = (await session.send("Runtime.evaluate", asked))["result"].get("value")
        assert found == "[]", f"{name} in {scheme}: {found}"
    await session.detach()
    await page.set_viewport_size(SIZES["desktop"])
